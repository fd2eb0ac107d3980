//! Sources of a PIN: how one is named, and how it is read.
//!
//! A source that cannot be read is an error before any login is tried: never an empty PIN, never a half one. No error
//! repeats what was given as a source, since people put PINs there.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, RawFd};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use super::read::FileMark;
use super::read::{checked, read_all, read_file, read_line};
use super::text::Unfit;
use super::{PIN_LIMIT, Pin, prompt};
use crate::deadline::Deadline;
use crate::error::{Explain, Kind};
use crate::printable::printable;
use crate::printable::shell::{quoted, unexpanded};
use crate::process::environment::LOADER;
use crate::process::{descriptors, standard_streams};

/// The credential that is taken where nothing else is configured.
pub const DEFAULT_CREDENTIAL: &str = "cba-agent-pin";

/// Where a PIN comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, symbolic links followed.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// An inherited file descriptor.
    Fd(RawFd),
    /// One line of standard input.
    Stdin,
    /// A file in systemd's credentials directory.
    Credential(String),
    /// The person at the terminal.
    Prompt,
    /// The token's own keypad or reader.
    Pinpad,
}

/// Why there is no PIN. No message holds any part of one.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Nothing is configured, and nobody can be asked.
    #[error("no PIN source is configured and there is no terminal to ask at")]
    NoSource,
    /// No such file.
    #[error("the PIN file {} does not exist", shown(.0))]
    NoFile(PathBuf),
    /// A file that is there and cannot be read.
    #[error("cannot read the PIN file {0}")]
    File(String, #[source] io::Error),
    /// A file that every user can read or change.
    #[error("the PIN file {0} is open to every user of this host")]
    WorldAccessible(String),
    /// A variable that is not set.
    #[error("the variable of the PIN source is not set")]
    NoVariable,
    /// Not running under systemd with that credential.
    #[error("there is no credential of that name")]
    NoCredential(#[source] Option<io::Error>),
    /// A descriptor or standard input that cannot be read.
    #[error("cannot read the PIN from {0}")]
    Stream(&'static str, #[source] io::Error),
    /// Nothing came in time.
    #[error("no PIN came from {0} in time")]
    TimedOut(&'static str),
    /// A terminal would show what is typed.
    #[error("standard input is a terminal, which would show the PIN")]
    Visible,
    /// No terminal for a prompt, or no answer.
    #[error("no PIN was had at the terminal")]
    Prompt(#[source] io::Error),
    /// Another job has the terminal: a prompt would stop the process for ever.
    #[error("nobody can be asked for the PIN, since this process is in the background of its terminal")]
    Background,
    /// Nothing in it.
    #[error("the PIN from {0} is empty")]
    Empty(&'static str),
    /// Longer than any PIN.
    #[error("the PIN from {0} is longer than {PIN_LIMIT} bytes")]
    TooLong(&'static str),
    /// Quotation marks around it, which a shell would have taken away.
    #[error("the PIN from the environment begins and ends with a quotation mark")]
    Quoted,
    /// Bytes that no keyboard types.
    #[error("the PIN from {from} {}", describe(*.why))]
    Unfit {
        /// What it was read from.
        from: &'static str,
        /// The file, where it is one.
        path: Option<String>,
        /// What is wrong with it.
        why: Unfit,
    },
}

/// What a PIN was read from, for errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) name: &'static str,
    /// The path of a file, fit for a terminal.
    pub(super) path: Option<&'a str>,
}

impl Origin<'_> {
    pub(super) fn of(name: &'static str) -> Self {
        Self { name, path: None }
    }
}

fn describe(why: Unfit) -> String {
    match why {
        Unfit::ByteOrderMark => "begins with a byte order mark (EF BB BF)".into(),
        Unfit::Wide(encoding) => format!("is {encoding} text, and a PIN is UTF-8"),
        Unfit::Nul => "holds a control character: a zero byte (NUL)".into(),
        Unfit::CarriageReturn => "holds a control character: the carriage return of a Windows line end".into(),
        Unfit::Lines => "holds a line break: it has more than one line".into(),
        Unfit::Control => "holds a control character".into(),
        Unfit::Invisible => "holds an invisible character that no keyboard types".into(),
        Unfit::NotUtf8 => "is not UTF-8; it may be Latin-1 (ISO 8859-1) or Windows-1252".into(),
        Unfit::Reserved => "is VERIFY_NONE or VERIFY_BIO, which ykcs11 takes for a command instead of a PIN".into(),
    }
}

/// What to do about bytes that cannot be a PIN. Commands keep the mode of the file, and show the PIN nowhere.
fn unfit_hint(from: &str, path: Option<&str>, why: Unfit) -> String {
    const BEFORE: &str = "no login was tried; ";
    if why == Unfit::Reserved {
        return format!(
            "{BEFORE}give the token's real PIN; where the token verifies by itself, use --pin-source pinpad"
        );
    }
    let Some(path) = path else {
        return match (from, why) {
            ("the prompt", Unfit::NotUtf8) => format!("{BEFORE}set the terminal to UTF-8, and type it again"),
            ("the prompt", _) => format!("{BEFORE}type it again without control keys"),
            (_, Unfit::NotUtf8) => format!("{BEFORE}`iconv -f ISO-8859-1 -t UTF-8` converts it"),
            _ => format!("{BEFORE}{from} must hold the PIN alone, as UTF-8 text of one line without a byte order mark"),
        };
    };
    let path = quoted(path);
    let filter = match why {
        Unfit::ByteOrderMark => format!(r"LC_ALL=C sed '1s/^\xef\xbb\xbf//' {path} | tr -d '\r'"),
        Unfit::Wide(encoding) => format!(r"iconv -f {encoding} -t UTF-8 {path} | tr -d '\r'"),
        Unfit::CarriageReturn => format!(r"tr -d '\r' < {path}"),
        Unfit::Nul => format!(r"tr -d '\0' < {path}"),
        Unfit::NotUtf8 => format!("iconv -f ISO-8859-1 -t UTF-8 {path}"),
        Unfit::Lines | Unfit::Control | Unfit::Invisible | Unfit::Reserved => {
            return format!(
                "{BEFORE}the file must hold the PIN alone, with at most one newline at its end: \
                 `systemd-ask-password PIN: > {path}` writes it anew without showing it"
            );
        }
    };
    format!("{BEFORE}fix the file: `pin=$({filter}) && printf '%s' \"$pin\" > {path}; unset pin`")
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
            Self::WorldAccessible(path) => format!("chmod o-rwx {}", quoted(path)),
            Self::Unfit { from, path, why } => unfit_hint(from, path.as_deref(), *why),
            Self::NoFile(path) if unexpanded(&path.to_string_lossy()).is_some() => {
                let sign = unexpanded(&path.to_string_lossy()).unwrap_or_default();
                format!("nothing expands {sign} in file:PATH; write the whole path, such as file:/etc/cba-agent/pin")
            }
            Self::NoFile(path) if path.is_relative() => {
                "no login was tried; write the whole path, such as file:/etc/cba-agent/pin".to_owned()
            }
            Self::NoFile(_) | Self::File(..) => {
                "no login was tried; check the path and that this user may read it".to_owned()
            }
            Self::NoVariable => "no login was tried; set it for this process, or name another source".to_owned(),
            Self::Empty(_) => "no login was tried; put the PIN there".to_owned(),
            Self::Quoted => {
                "no login was tried; docker --env-file keeps quotation marks: write the value without. If they are \
                 part of the PIN, use file:PATH"
                    .to_owned()
            }
            Self::Visible => "use --pin-source prompt".to_owned(),
            Self::NoCredential(_) => "set it with LoadCredential= in the unit; see systemd.exec(5)".to_owned(),
            Self::Prompt(error) if error.kind() == io::ErrorKind::UnexpectedEof => "no login was tried".to_owned(),
            Self::Prompt(_) => format!("without a terminal, use another source: {SOURCES}"),
            _ => "no login was tried".to_owned(),
        };
        vec![hint]
    }
}

/// A path as far as it may be shown. A word without a slash may be the PIN itself, put in the wrong place.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains('/') { printable(&text) } else { "(its name is not shown, since it may be a PIN)".to_owned() }
}

/// How each source is written, for hints.
pub const SOURCES: &str =
    "--pin-source takes file:PATH, env:VAR, fd:N, stdin, credential:NAME (systemd), prompt, or pinpad";

impl Source {
    /// Parses the text of `--pin-source`; `None` for anything that is no source.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let name_is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match (kind, rest) {
            ("stdin", "") if kind == text => Some(Self::Stdin),
            ("prompt", "") if kind == text => Some(Self::Prompt),
            ("pinpad", "") if kind == text => Some(Self::Pinpad),
            ("file", path) if !path.is_empty() => Some(Self::File(path.into())),
            ("env", name) if !name.is_empty() && !name.contains(['=', '\0']) && !LOADER.contains(&name) => {
                Some(Self::Env(name.into()))
            }
            ("fd", number) => number.parse().ok().filter(|fd| *fd >= 0).map(Self::Fd),
            ("credential", name) if !name.is_empty() && name != "." && name != ".." => {
                name.chars().all(name_is_plain).then(|| Self::Credential(name.into()))
            }
            _ => None,
        }
    }

    /// The source where none is configured: systemd's credential if it is there, else a prompt if there is a terminal.
    ///
    /// # Errors
    /// [`PinError::NoSource`].
    pub fn fallback() -> Result<Self, PinError> {
        if credential_path(DEFAULT_CREDENTIAL).is_some_and(|path| path.exists()) {
            return Ok(Self::Credential(DEFAULT_CREDENTIAL.into()));
        }
        match prompt::terminal() {
            Ok(_) => Ok(Self::Prompt),
            Err(PinError::Background) => Err(PinError::Background),
            Err(_) => Err(PinError::NoSource),
        }
    }

    /// Whether a person answers, so that the last try of a token may be theirs to spend. A keypad answers for nobody:
    /// without a terminal, there may be a program behind it.
    #[must_use]
    pub fn is_attended(&self) -> bool {
        match self {
            Self::Prompt => true,
            Self::Pinpad => prompt::terminal().is_ok(),
            _ => false,
        }
    }

    /// Takes over what must be taken over before anything else in the process opens a file or starts a child.
    #[must_use]
    pub fn prepare(self) -> Prepared {
        let descriptor = if let Self::Fd(number) = self { Some(descriptors::take(number)) } else { None };
        Prepared { source: self, descriptor }
    }
}

/// A source before it is read; see [`Source::prepare`].
#[derive(Debug)]
pub struct Prepared {
    /// The source.
    pub source: Source,
    descriptor: Option<io::Result<File>>,
}

impl Prepared {
    /// Reads the PIN, once, or checks that somebody can be asked for it.
    ///
    /// # Errors
    /// Why there will be no PIN.
    pub fn open(self, deadline: &Deadline) -> Result<Opened, PinError> {
        let plain = |pin| Opened::Pin(pin, None);
        match &self.source {
            Source::Prompt => prompt::terminal().map(|_| Opened::Ask),
            Source::Pinpad => Ok(Opened::Pinpad),
            Source::File(path) => read_file(path, deadline).map(|(pin, origin)| Opened::Pin(pin, origin)),
            Source::Credential(name) => {
                let path = credential_path(name).ok_or(PinError::NoCredential(None))?;
                let file = File::open(path).map_err(|error| PinError::NoCredential(Some(error)))?;
                let read = read_all(file).map_err(|error| PinError::NoCredential(Some(error)))?;
                checked(read, Origin::of("the credential")).map(plain)
            }
            Source::Env(name) => {
                use std::os::unix::ffi::OsStringExt as _;
                let value = Zeroizing::new(std::env::var_os(name).ok_or(PinError::NoVariable)?.into_vec());
                let is_quoted = |quote| value.len() > 1 && value.starts_with(&[quote]) && value.ends_with(&[quote]);
                if is_quoted(b'"') || is_quoted(b'\'') {
                    return Err(PinError::Quoted);
                }
                checked(value, Origin::of("the environment")).map(plain)
            }
            Source::Fd(_) => {
                let what = "the file descriptor";
                let file = self.descriptor.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
                let file = file.map_err(|error| PinError::Stream(what, error))?;
                checked(read_line(file, what, deadline)?, Origin::of(what)).map(plain)
            }
            Source::Stdin => {
                let what = "standard input";
                if standard_streams::was_closed(0) {
                    return Err(PinError::Stream(what, io::Error::other("it is closed")));
                }
                // Unbuffered: what follows the line belongs to whoever shares the input.
                let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|error| PinError::Stream(what, error))?;
                let file = File::from(stdin);
                if file.is_terminal() {
                    return Err(PinError::Visible);
                }
                checked(read_line(file, what, deadline)?, Origin::of(what)).map(plain)
            }
        }
    }
}

/// A source that can be used.
#[derive(Debug)]
pub enum Opened {
    /// The PIN is here; where it is from a persistent file, that file's mark.
    Pin(Pin, Option<FileMark>),
    /// A person will be asked, once it is clear for what.
    Ask,
    /// The token asks by itself.
    Pinpad,
}

/// Asks the person at the terminal, without echo.
///
/// # Errors
/// When there is no terminal, or the answer is no PIN.
pub fn ask(token: &str) -> Result<Pin, PinError> {
    let answer = prompt::ask(&format!("PIN of {token}: "))?;
    checked(answer, Origin::of("the prompt"))
}

fn credential_path(name: &str) -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_parsed_strictly() {
        assert_eq!(Source::parse("file:/etc/pin"), Some(Source::File("/etc/pin".into())));
        assert_eq!(Source::parse("env:PIN"), Some(Source::Env("PIN".into())));
        assert_eq!(Source::parse("fd:3"), Some(Source::Fd(3)));
        assert_eq!(Source::parse("credential:cba-agent-pin"), Some(Source::Credential("cba-agent-pin".into())));
        assert_eq!(Source::parse("prompt"), Some(Source::Prompt));
        for text in [
            "",
            "123456",
            "file:",
            "env:",
            "env:LD_LIBRARY_PATH",
            "fd:",
            "fd:-1",
            "fd:x",
            "credential:../x",
            "stdin:",
            "prompt:x",
            "FILE:x",
        ] {
            assert_eq!(Source::parse(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_prints_a_pin() {
        assert_eq!(format!("{:?}", Opened::Pin(Pin::from("SECRET".to_owned()), None)), "Pin(Pin(..), None)");
    }
}
