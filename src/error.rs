//! Errors for people and programs: one message, hints that name a command that helps, one exit code.
//!
//! PURE. Each layer has a separate error enum, and [`Explain`] converts it.

use std::error::Error as StdError;
use std::fmt;

use crate::text::{printable, printable_json, shortened};

mod kind;

pub use kind::{Class, EXIT_CODES, Kind};

/// Converts an error of a layer into an [`Error`].
pub trait Explain: StdError {
    /// The stable name of the cause.
    fn kind(&self) -> Kind;
    /// Commands and settings that help, most likely first.
    fn hints(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An error for a person or a program.
#[derive(Debug)]
pub struct Error {
    /// The stable name of the cause.
    pub kind: Kind,
    /// The chain of causes in one line, outermost first, without a full stop.
    pub message: String,
    /// Commands and settings that help, most likely first.
    pub hints: Vec<String>,
}

/// The result of functions whose error may end the process.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without hints.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new() }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Puts an outer context before the message.
    #[must_use]
    pub fn context(mut self, outer: impl fmt::Display) -> Self {
        self.message = format!("{outer}: {}", self.message);
        self
    }

    /// The form for programs: one JSON object in one line.
    #[must_use]
    pub(crate) fn to_json(&self) -> String {
        #[derive(serde::Serialize)]
        struct ErrorJson<'a> {
            level: &'static str,
            code: u8,
            kind: &'static str,
            message: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            hint: &'a str,
            retryable: bool,
        }
        let (code, kind, retryable) = (self.kind.exit_code(), self.kind.name(), self.kind.retryable());
        let (message, hint) = (shortened(&self.message), self.hints.join("; "));
        let json = ErrorJson { level: "ERROR", code, kind, message: &message, hint: &shortened(&hint), retryable };
        // invariant: strings and numbers always serialise
        printable_json(&serde_json::to_string(&json).unwrap_or_default())
    }
}

/// The form for people: an `error:` line, then one `hint:` line for each hint.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Text from a module, token or file must not break its line.
        write!(f, "error: {}", printable(&shortened(&self.message)))?;
        self.hints.iter().try_for_each(|hint| write!(f, "\nhint: {}", printable(&shortened(hint))))
    }
}

impl<E: Explain> From<E> for Error {
    fn from(error: E) -> Self {
        Self { kind: error.kind(), message: with_causes(&error), hints: error.hints() }
    }
}

/// An error with its causes in one line, outermost first.
pub fn with_causes(error: &dyn StdError) -> String {
    std::iter::successors(Some(error), |&cause| cause.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_errors_are_never_retryable() {
        for kind in [Kind::PinIncorrect, Kind::PinLocked, Kind::PinFuse, Kind::PinMissing, Kind::StateDir] {
            assert_eq!((kind.class(), kind.exit_code()), (Class::Pin, 4));
            assert!(!kind.retryable());
        }
    }

    #[test]
    fn the_json_form_is_one_line_with_code_kind_and_retryable() {
        let error = Error::new(Kind::PinIncorrect, "login\nrefused").hint("look");
        let json = error.to_json();
        assert!(!json.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["code"], 4);
        assert_eq!(value["kind"], "pin_incorrect");
        assert_eq!(value["retryable"], false);
        assert_eq!(value["hint"], "look");
    }

    #[test]
    fn each_kind_has_its_usual_hint() {
        for (kind, words) in [
            (Kind::Usage, "help COMMAND"),
            (Kind::Config, "check the file"),
            (Kind::Invalid, "meet the named rule"),
            (Kind::NotFound, "cba-agent list"),
            (Kind::Ambiguous, "cba-agent list"),
            (Kind::Unsuitable, "cba-agent list"),
            (Kind::NotAllowed, "allow_users"),
            (Kind::AgentUnreachable, "health --socket"),
            (Kind::AgentBusy, "health --socket"),
            (Kind::Policy, "doctor"),
            (Kind::TokenFailed, "-v"),
        ] {
            assert!(kind.usual_hint().contains(words), "{kind:?}: {}", kind.usual_hint());
        }
        for (kind, again) in [(Kind::TokenFailed, true), (Kind::AgentBusy, true), (Kind::Policy, false)] {
            assert_eq!(kind.retryable(), again, "{kind:?}");
        }
    }
}
