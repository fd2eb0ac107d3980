//! The format of a log line: text for people, JSON for programs, a priority prefix for the journal.
//!
//! Runs in both processes.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::text::{printable, printable_json, shortened};

/// The form of notices and errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `warning: ...`, for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// Text with a priority prefix, as in sd-daemon(3).
    Journald,
}

/// One line with its newline.
pub(super) fn line(format: LogFormat, level: Level, message: &str) -> String {
    let message = shortened(message);
    let (priority, word) = match level {
        Level::ERROR => (3, "error"),
        Level::WARN => (4, "warning"),
        Level::INFO => (6, "note"),
        Level::DEBUG => (7, "debug"),
        Level::TRACE => (7, "trace"),
    };
    match format {
        // A module, token or file may have put control characters into the text.
        LogFormat::Text => format!("{word}: {}\n", printable(&message)),
        LogFormat::Journald => format!("<{priority}>{}\n", printable(&message)),
        LogFormat::Json => {
            let document = serde_json::json!({ "level": level.as_str(), "message": message });
            format!("{}\n", printable_json(&document.to_string()))
        }
    }
}

/// Converts events of `tracing` into lines.
pub(super) struct Lines(pub(super) LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = MessageText::default();
        event.record(&mut message);
        writer.write_str(&line(self.0, *event.metadata().level(), &message.0))
    }
}

#[derive(Default)]
struct MessageText(String);

impl Visit for MessageText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::MESSAGE;

    #[test]
    fn a_message_without_end_is_shortened_and_stays_one_line() {
        let message = format!("a\n{}", "ü".repeat(1 << 20));
        for format in [LogFormat::Text, LogFormat::Json, LogFormat::Journald] {
            let line = line(format, Level::WARN, &message);
            assert!(line.len() < 2 * MESSAGE, "{}", line.len());
            assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
            assert!(line.contains("more bytes)"));
        }
    }
}
