//! Notices, logs and errors on stderr: text for people, JSON for programs, priorities for the journal.
//!
//! Runs in both processes. By default it writes only messages that need an action; `-v` logs each step. A stderr that is
//! full, closed or slow neither ends nor delays the program: see `writer`. This module never writes to stdout.

use std::collections::BTreeSet;
use std::io;
use std::panic::PanicHookInfo;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use crate::error::Error;

mod line;
mod writer;

pub use line::LogFormat;
use line::{Lines, line};
use writer::{Notice, Writer, write_until};

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The form.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: Level,
}

/// The names of the forms.
pub const FORMATS: [(&str, LogFormat); 3] =
    [("text", LogFormat::Text), ("json", LogFormat::Json), ("journald", LogFormat::Journald)];

/// The names of the levels.
pub const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

/// The default level.
pub const DEFAULT_LEVEL: Level = Level::INFO;

/// The time limit for stderr at the end of the process.
const EXIT_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The time limit for stderr before other output.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// The number of texts that [`warn_once`] remembers.
const REMEMBERED: usize = 64;

static WRITER: Writer = Writer::new(|lost| lost_lines(LogFormat::Text, lost));

/// Logs a warning once in this process. An agent finds the same warning again with each start of a worker.
pub(crate) fn warn_once(warning: &str) {
    static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    // Texts come from tokens as well, so their number has a limit.
    if logged.len() >= REMEMBERED {
        logged.clear();
    }
    if logged.insert(warning.to_owned()) {
        tracing::warn!("{warning}");
    }
}

/// Starts the log. A second call in one process changes nothing.
pub fn start(settings: LogSettings, verbosity: u8) {
    let level = match verbosity {
        0 => settings.level,
        1 => settings.level.max(Level::DEBUG),
        _ => Level::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| Queue)
        // The library would write its internal errors directly to stderr.
        .log_internal_errors(false)
        .event_format(Lines(settings.format))
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        use_format(settings.format);
    }
}

/// Sets the form of messages that are not events.
fn use_format(format: LogFormat) {
    let notice: Notice = match format {
        LogFormat::Text => |lost| lost_lines(LogFormat::Text, lost),
        LogFormat::Json => |lost| lost_lines(LogFormat::Json, lost),
        LogFormat::Journald => |lost| lost_lines(LogFormat::Journald, lost),
    };
    WRITER.report_lost_lines_by(notice);
}

fn lost_lines(format: LogFormat, lost: u64) -> String {
    line(format, Level::WARN, &format!("{lost} lines of the log were lost: stderr was full, or was read too slowly"))
}

/// Writes the error that ends the process, at every level.
pub fn report(error: &Error, format: LogFormat) {
    use_format(format);
    WRITER.push(text(error, format), true);
}

/// Writes the error that ends a worker. It starts no thread, since the sandbox is already active.
pub(crate) fn report_in_worker(error: &Error) {
    let text = text(error, LogFormat::Text);
    write_until(Instant::now() + FLUSH_TIMEOUT, rustix::stdio::stderr(), text.as_bytes());
}

fn text(error: &Error, format: LogFormat) -> String {
    match format {
        LogFormat::Text => format!("{error}\n"),
        LogFormat::Json => format!("{}\n", error.to_json()),
        LogFormat::Journald => error.to_string().lines().map(|line| format!("<3>{line}\n")).collect(),
    }
}

/// Writes text that is not a log line, such as a progress display.
pub(crate) fn show(text: &str) {
    WRITER.push(text.to_owned(), false);
}

/// Waits briefly until the log is written, before a prompt or a result.
pub(crate) fn flush() {
    WRITER.flush(FLUSH_TIMEOUT);
}

/// Waits until the log is written, before the process ends. Gives up after two seconds.
pub fn end() {
    WRITER.flush(EXIT_FLUSH_TIMEOUT);
}

/// Reports panics like errors: Rust's own report would wait for stderr.
pub fn take_over_panics(format: LogFormat) {
    std::panic::set_hook(Box::new(move |panic| {
        WRITER.push(line(format, Level::ERROR, &describe(panic)), true);
        WRITER.flush(EXIT_FLUSH_TIMEOUT);
    }));
}

/// The same in a worker, without a thread.
pub(crate) fn take_over_panics_in_worker() {
    std::panic::set_hook(Box::new(|panic| {
        let text = line(LogFormat::Text, Level::ERROR, &describe(panic));
        write_until(Instant::now() + FLUSH_TIMEOUT, rustix::stdio::stderr(), text.as_bytes());
    }));
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("this is a defect of cba-agent{place}: {}", message.unwrap_or("no message"))
}

/// Accepts whole lines and never fails.
struct Queue;

impl io::Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WRITER.push(String::from_utf8_lossy(bytes).into_owned(), false);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use super::*;

    /// Set for the process that panics.
    const PANICS: &str = "CBA_AGENT_TEST_PANICS";

    #[test]
    fn a_panic_is_reported_and_waits_for_no_reader_of_stderr() {
        if std::env::var_os(PANICS).is_some() {
            take_over_panics(LogFormat::Json);
            let _ = std::panic::catch_unwind(|| panic!("a\nb"));
            take_over_panics_in_worker();
            let _ = std::panic::catch_unwind(|| panic!("in a worker"));
            let _ = std::panic::take_hook();
            return;
        }
        let panics = |stderr: Stdio| {
            let name = "log::tests::a_panic_is_reported_and_waits_for_no_reader_of_stderr";
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", name, "--nocapture"]).env(PANICS, "").stderr(stderr).output().unwrap()
        };
        let output = panics(Stdio::piped());
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{message}");
        let [json, worker] = message.lines().collect::<Vec<_>>()[..] else { panic!("{message}") };
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["level"], "ERROR");
        assert!(json["message"].as_str().unwrap().ends_with(": a\nb"), "{json}");
        assert!(worker.starts_with("error: this is a defect of cba-agent at src/log.rs"), "{worker}");
        assert!(panics(File::options().write(true).open("/dev/full").unwrap().into()).status.success());
        let (_reading, writing): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
        let size = rustix::pipe::fcntl_getpipe_size(&writing).unwrap();
        assert_eq!(rustix::io::write(&writing, &vec![b'x'; size]).unwrap(), size);
        assert!(panics(writing.into()).status.success());
    }
}
