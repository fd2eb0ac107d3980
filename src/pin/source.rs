//! Sources of a PIN: their names, and how they are read.
//!
//! Runs in the parent. A source that cannot be read is an error before any login: never an empty or partial PIN. No
//! error repeats the text of a source, since people put PINs there.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, RawFd};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub(crate) use super::attempt_by::FileMark;
use super::error::PinError;
pub(crate) use super::error::SOURCES;
use super::read::{checked, read_all, read_file, read_line};
use super::{Pin, prompt};
use crate::deadline::Deadline;
use crate::os::environment::LOADER;
use crate::os::{descriptors, input_file, standard_streams};

pub(crate) const DEFAULT_CREDENTIAL: &str = "cba-agent-pin";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PinSource {
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
    /// The PIN pad of the token or reader.
    Pinpad,
}

impl PinSource {
    /// Parses the text of `--pin-source`.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
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

    /// The default source: systemd's credential if it exists, else a prompt if there is a terminal.
    ///
    /// # Errors
    /// [`PinError::NoSource`].
    pub(crate) fn fallback() -> Result<Self, PinError> {
        if credential_path(DEFAULT_CREDENTIAL).is_some_and(|path| path.exists()) {
            return Ok(Self::Credential(DEFAULT_CREDENTIAL.into()));
        }
        match prompt::terminal() {
            Ok(_) => Ok(Self::Prompt),
            Err(PinError::Background) => Err(PinError::Background),
            Err(_) => Err(PinError::NoSource),
        }
    }

    /// Whether a person answers, who may then spend the last try of a token. A PIN pad does not prove a person: without
    /// a terminal, there may be a program behind it.
    #[must_use]
    pub(crate) fn is_attended(&self) -> bool {
        match self {
            Self::Prompt => true,
            Self::Pinpad => prompt::terminal().is_ok(),
            _ => false,
        }
    }

    /// Takes over descriptors and standard input before the process opens a file or starts a child.
    #[must_use]
    pub(crate) fn prepare(self) -> PreparedSource {
        let descriptor = if let Self::Fd(number) = self { Some(descriptors::take(number)) } else { None };
        PreparedSource { source: self, descriptor }
    }
}

/// A source before it is read; see [`PinSource::prepare`].
#[derive(Debug)]
pub(crate) struct PreparedSource {
    pub source: PinSource,
    descriptor: Option<io::Result<File>>,
}

impl PreparedSource {
    /// Reads the PIN, once, or checks that a person can be asked for it.
    pub(crate) fn open(self, deadline: &Deadline) -> Result<ReadPin, PinError> {
        let plain = |pin| ReadPin::Pin(pin, None);
        match &self.source {
            PinSource::Prompt => prompt::terminal().map(|_| ReadPin::Ask),
            PinSource::Pinpad => Ok(ReadPin::Pinpad),
            PinSource::File(path) => read_file(path, deadline).map(|(pin, origin)| ReadPin::Pin(pin, origin)),
            PinSource::Credential(name) => {
                let path = credential_path(name).ok_or(PinError::NoCredential(None))?;
                let file = input_file::open_regular(&path).map_err(|error| PinError::NoCredential(Some(error)))?;
                let read = read_all(file).map_err(|error| PinError::NoCredential(Some(error)))?;
                checked(read, "the credential", None).map(plain)
            }
            PinSource::Env(name) => {
                use std::os::unix::ffi::OsStringExt as _;
                let value = Zeroizing::new(std::env::var_os(name).ok_or(PinError::NoVariable)?.into_vec());
                let is_quoted = |quote| value.len() > 1 && value.starts_with(&[quote]) && value.ends_with(&[quote]);
                if is_quoted(b'"') || is_quoted(b'\'') {
                    return Err(PinError::Quoted);
                }
                checked(value, "the environment", None).map(plain)
            }
            PinSource::Fd(_) => {
                let what = "the file descriptor";
                let file = self.descriptor.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
                let file = file.map_err(|error| PinError::Stream(what, error))?;
                if file.is_terminal() {
                    return Err(PinError::Terminal(what));
                }
                checked(read_line(file, what, deadline)?, what, None).map(plain)
            }
            PinSource::Stdin => {
                let what = "standard input";
                if standard_streams::was_closed(0) {
                    return Err(PinError::Stream(what, io::Error::other("it is closed")));
                }
                // Unbuffered: the rest of the input belongs to other readers.
                let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|error| PinError::Stream(what, error))?;
                let file = File::from(stdin);
                if file.is_terminal() {
                    return Err(PinError::Terminal(what));
                }
                checked(read_line(file, what, deadline)?, what, None).map(plain)
            }
        }
    }
}

/// A usable source.
#[derive(Debug)]
pub(crate) enum ReadPin {
    /// The PIN; from a persistent file, with that file's mark.
    Pin(Pin, Option<FileMark>),
    /// A person will be asked as soon as the token is known.
    Ask,
    /// The token asks for the PIN itself.
    Pinpad,
}

/// Asks the person at the terminal, without echo.
///
/// # Errors
/// When there is no terminal, or the answer is not a PIN.
pub(crate) fn ask(token: &str) -> Result<Pin, PinError> {
    let answer = prompt::ask(&format!("PIN of {token}: "))?;
    checked(answer, "the prompt", None)
}

fn credential_path(name: &str) -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_parsed_strictly() {
        assert_eq!(PinSource::parse("file:/etc/pin"), Some(PinSource::File("/etc/pin".into())));
        assert_eq!(PinSource::parse("env:PIN"), Some(PinSource::Env("PIN".into())));
        assert_eq!(PinSource::parse("fd:3"), Some(PinSource::Fd(3)));
        assert_eq!(PinSource::parse("credential:cba-agent-pin"), Some(PinSource::Credential("cba-agent-pin".into())));
        assert_eq!(PinSource::parse("prompt"), Some(PinSource::Prompt));
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
            assert_eq!(PinSource::parse(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_prints_a_pin() {
        assert_eq!(format!("{:?}", ReadPin::Pin(Pin::from("SECRET".to_owned()), None)), "Pin(Pin(..), None)");
    }
}
