//! Notices and logs on standard error: text for people, JSON for programs, priorities for the journal.
//!
//! Standard output is never touched. A default run says only what somebody should act on; `-v` says what was done.

use std::fmt;
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::error::Error;
use crate::printable::printable;

/// The form of notices and errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `warning: ...`, for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// Text with the priority in front, as in sd-daemon(3).
    Journald,
}

/// `[log]`.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The form.
    pub format: Format,
    /// The least severe level that is written.
    pub level: Level,
}

/// The names of the forms.
pub const FORMATS: [(&str, Format); 3] =
    [("text", Format::Text), ("json", Format::Json), ("journald", Format::Journald)];

/// The names of the levels.
pub const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

/// The level where none is configured.
pub const DEFAULT_LEVEL: Level = Level::INFO;

/// Starts writing. A second call in one process changes nothing.
pub fn start(settings: Settings, verbosity: u8) {
    let level = match verbosity {
        0 => settings.level,
        1 => settings.level.max(Level::DEBUG),
        _ => Level::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .event_format(Line(settings.format))
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Writes the error that ends the process, whatever the level. Nobody is left to tell if that fails.
pub fn report(error: &Error, format: Format) {
    let text = match format {
        Format::Text => error.to_string().lines().map(|line| format!("{line}\n")).collect(),
        Format::Json => format!("{}\n", error.to_json()),
        Format::Journald => error.to_string().lines().map(|line| format!("<3>{line}\n")).collect(),
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
}

struct Line(Format);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        let level = *event.metadata().level();
        let (priority, word) = match level {
            Level::ERROR => (3, "error"),
            Level::WARN => (4, "warning"),
            Level::INFO => (6, "note"),
            Level::DEBUG => (7, "debug"),
            Level::TRACE => (7, "trace"),
        };
        // Whatever a module, token or file brought into the text stays in its line.
        let text = printable(&message.0);
        match self.0 {
            Format::Text => writeln!(writer, "{word}: {text}"),
            Format::Journald => writeln!(writer, "<{priority}>{text}"),
            Format::Json => {
                writeln!(writer, "{}", serde_json::json!({ "level": level.as_str(), "message": message.0 }))
            }
        }
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
