//! The errors of the PIN sources, and their hints. No message contains any part of a PIN.
//!
//! Runs in the parent.

use std::io;
use std::path::{Path, PathBuf};

use super::text::PinTextError;
use crate::error::{Explain, Kind};
use crate::files::unreadable_hint;
use crate::text::printable;
use crate::text::shell::{quoted, unexpanded};
use crate::worker_protocol::PIN_LIMIT;

/// The forms of `--pin-source`, for hints.
pub(crate) const SOURCES: &str =
    "--pin-source takes file:PATH, env:VAR, fd:N, stdin, credential:NAME (systemd), prompt, or pinpad";

/// Tells the user that the token has as many tries left as before.
const NO_LOGIN: &str = "no login was tried";

/// The reason why there is no PIN. No message contains any part of a PIN.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    #[error("no PIN source is configured and there is no terminal for a prompt")]
    NoSource,
    #[error("the PIN file {} does not exist", shown(.0))]
    NoFile(PathBuf),
    #[error("cannot read the PIN file {0}")]
    File(String, #[source] io::Error),
    #[error("the PIN file {0} is open to every user of this host")]
    WorldAccessible(String),
    #[error("the variable of the PIN source is not set")]
    NoVariable,
    #[error("there is no credential of that name")]
    NoCredential(#[source] Option<io::Error>),
    /// A descriptor or standard input that cannot be read.
    #[error("cannot read the PIN from {0}")]
    Stream(&'static str, #[source] io::Error),
    #[error("no PIN arrived from {0} in time")]
    TimedOut(&'static str),
    /// The same for a named pipe.
    #[error("no PIN arrived from the file {0} in time")]
    FileTimedOut(String),
    #[error("{0} is a terminal, which would show the PIN")]
    Terminal(&'static str),
    /// A device, such as `/dev/null`: it contains no PIN, and the system sets its mode.
    #[error("the PIN file {0} is a device")]
    Device(String),
    /// There is no terminal for a prompt, or no answer.
    #[error("no PIN was entered at the terminal")]
    Prompt(#[source] io::Error),
    /// Another job has the terminal: a prompt would stop the process for ever.
    #[error("cannot ask for the PIN: this process is in the background of its terminal")]
    Background,
    #[error("the PIN from {0} is empty")]
    Empty(&'static str),
    /// Longer than any PIN.
    #[error("the PIN from {0} is longer than {PIN_LIMIT} bytes")]
    TooLong(&'static str),
    /// Quotation marks around the PIN, which a shell would have removed.
    #[error("the PIN from the environment begins and ends with a quotation mark")]
    Quoted,
    /// Bytes that no keyboard types.
    #[error("the PIN from {from} {}", problem_of(*.why))]
    BadText {
        from: &'static str,
        /// The file, if it is one.
        path: Option<String>,
        why: PinTextError,
    },
}

fn problem_of(why: PinTextError) -> String {
    match why {
        PinTextError::ByteOrderMark => "begins with a byte order mark (EF BB BF)".into(),
        PinTextError::Wide(encoding) => format!("is {encoding} text, and a PIN is UTF-8"),
        PinTextError::Nul => "holds a control character: a zero byte (NUL)".into(),
        PinTextError::CarriageReturn => "holds a control character: the carriage return of a Windows line end".into(),
        PinTextError::Lines => "holds a line break: it has more than one line".into(),
        PinTextError::Control => "holds a control character".into(),
        PinTextError::Invisible => "holds an invisible character that no keyboard types".into(),
        PinTextError::OuterSpace => {
            "begins or ends with white space from copied text, such as a no-break space (U+00A0)".into()
        }
        PinTextError::NotUtf8(_) => "is not UTF-8; it may be Latin-1 (ISO 8859-1) or Windows-1252".into(),
        PinTextError::Reserved => {
            "is VERIFY_NONE or VERIFY_BIO, which ykcs11 treats as a command instead of a PIN".into()
        }
    }
}

/// The hint for bytes that cannot be a PIN. Its commands keep the mode of the file, and do not show the PIN.
fn bad_text_hint(from: &str, path: Option<&str>, why: PinTextError) -> String {
    if why == PinTextError::Reserved {
        return format!(
            "{NO_LOGIN}; give the token's real PIN; where the token verifies by itself, use --pin-source pinpad"
        );
    }
    let Some(path) = path else {
        return match (from, why) {
            ("the prompt", PinTextError::NotUtf8(_)) => {
                format!("{NO_LOGIN}; set the terminal to UTF-8, and type it again")
            }
            ("the prompt", _) => format!("{NO_LOGIN}; type it again without control keys"),
            (_, PinTextError::NotUtf8(encoding)) => format!("{NO_LOGIN}; `iconv -f {encoding} -t UTF-8` converts it"),
            _ => format!(
                "{NO_LOGIN}; {from} must hold the PIN alone, as UTF-8 text of one line without a byte order mark"
            ),
        };
    };
    let path = quoted(path);
    let filter = match why {
        PinTextError::ByteOrderMark => format!(r"LC_ALL=C sed '1s/^\xef\xbb\xbf//' {path} | tr -d '\r'"),
        PinTextError::Wide(encoding) => format!(r"iconv -f {encoding} -t UTF-8 {path} | tr -d '\r'"),
        PinTextError::CarriageReturn => format!(r"tr -d '\r' < {path}"),
        PinTextError::Nul => format!(r"tr -d '\0' < {path}"),
        PinTextError::NotUtf8(encoding) => format!("iconv -f {encoding} -t UTF-8 {path}"),
        PinTextError::Lines
        | PinTextError::Control
        | PinTextError::Invisible
        | PinTextError::OuterSpace
        | PinTextError::Reserved => {
            return format!(
                "{NO_LOGIN}; the file must hold the PIN alone, with at most one newline at its end: \
                 `systemd-ask-password PIN: > {path}` writes it again without showing it"
            );
        }
    };
    format!("{NO_LOGIN}; fix the file: `pin=$({filter}) && printf '%s' \"$pin\" > {path}; unset pin`")
}

impl Explain for PinError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoSource | Self::Background => Kind::PinMissing,
            _ => Kind::PinSource,
        }
    }

    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::NoSource => SOURCES.to_owned(),
            Self::Background => format!("run it in the foreground, or name another source: {SOURCES}"),
            Self::Device(_) => format!("{NO_LOGIN}; name the file that holds the PIN, or use --pin-source prompt"),
            Self::WorldAccessible(path) => format!("chmod o-rwx {}", quoted(path)),
            Self::BadText { from, path, why } => bad_text_hint(from, path.as_deref(), *why),
            Self::NoFile(path) if unexpanded(&path.to_string_lossy()).is_some() => {
                let symbol = unexpanded(&path.to_string_lossy()).unwrap_or_default();
                format!("file:PATH does not expand {symbol}; write the full path, such as file:/etc/cba-agent/pin")
            }
            Self::NoFile(path) if outer_character(path).is_some() => {
                let what = outer_character(path).unwrap_or_default();
                format!("{NO_LOGIN}; the path begins or ends with {what}: write file:PATH without it")
            }
            Self::NoFile(path) if path.is_relative() => {
                format!("{NO_LOGIN}; write the full path, such as file:/etc/cba-agent/pin")
            }
            Self::NoFile(_) => format!("{NO_LOGIN}; check the path and that this user may read it"),
            Self::File(path, _) => format!("{NO_LOGIN}; {}", unreadable_hint(Path::new(path))),
            Self::NoVariable => format!("{NO_LOGIN}; set it for this process, or name another source"),
            Self::Stream(..) => format!("{NO_LOGIN}; open it for this process, or name another source: {SOURCES}"),
            Self::TimedOut(from) => timed_out_hint(from),
            Self::FileTimedOut(_) => timed_out_hint("the file"),
            Self::Empty(_) => format!("{NO_LOGIN}; write the PIN there"),
            Self::TooLong(from) => format!("{NO_LOGIN}; check that {from} contains only the PIN"),
            Self::Quoted => format!(
                "{NO_LOGIN}; docker --env-file keeps quotation marks: write the value without them. If they are part of \
                 the PIN, use file:PATH"
            ),
            Self::Terminal(_) => "use --pin-source prompt".to_owned(),
            Self::NoCredential(_) => "set it with LoadCredential= in the unit; see systemd.exec(5)".to_owned(),
            Self::Prompt(error) if error.kind() == io::ErrorKind::UnexpectedEof => NO_LOGIN.to_owned(),
            Self::Prompt(_) => format!("without a terminal, use another source: {SOURCES}"),
        };
        vec![hint]
    }
}

fn timed_out_hint(from: &str) -> String {
    format!("{NO_LOGIN}; write the PIN and a newline to {from}, or allow more time with --timeout")
}

/// A character that a shell or a person put around a path by mistake.
fn outer_character(path: &Path) -> Option<&'static str> {
    let text = path.to_string_lossy();
    let is_around = |wanted: &[char]| text.starts_with(wanted) || text.ends_with(wanted);
    if is_around(&['"', '\'']) {
        Some("a quotation mark")
    } else if text.trim() != text {
        Some("a space")
    } else {
        None
    }
}

/// A path, if it may be shown. A word without a slash may be a misplaced PIN.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains('/') { printable(&text) } else { "(its name is not shown, since it may be a PIN)".to_owned() }
}
