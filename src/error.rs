//! Errors for people and programs: one message, hints that name a command that helps, one exit code.
//!
//! PURE. Each room has a separate error enum, and [`Explain`] converts it. The exit codes are only in this file.

use std::error::Error as StdError;
use std::fmt;

use crate::text::{printable, printable_json, shortened};

/// The kind of an error: a stable name for programs (`kind` in the JSON form), which determines the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any other cause: a defect of this program, or a host that cannot start a process.
    Unexpected,
    /// The command line.
    Usage,
    /// A configuration file or variable.
    Config,
    /// No such module, slot, token, key or certificate.
    NotFound,
    /// Several of them where one is needed.
    Ambiguous,
    /// The key or token lacks a necessary property, with any PIN.
    Unsuitable,
    /// There is no source of a PIN.
    PinMissing,
    /// The source of the PIN cannot be used. No login was tried.
    PinSource,
    /// The token refused the PIN.
    PinIncorrect,
    /// The token is locked against further PINs.
    PinLocked,
    /// The token does not accept a PIN of this length or form. No try was spent.
    PinLength,
    /// The PIN must be changed or set first.
    PinExpired,
    /// The token reports that one try is left.
    PinFinalTry,
    /// Earlier refusals forbid an unattended attempt.
    PinFuse,
    /// The state directory, with the fuse, cannot be used.
    StateDir,
    /// Another user or role is logged in.
    PinState,
    /// The custody or certificate policy refuses.
    Policy,
    /// The token or its module failed.
    TokenFailed,
    /// The token was removed.
    TokenRemoved,
    /// The token did not answer in time.
    TokenTimeout,
    /// Another process holds the token.
    TokenBusy,
    /// The token has no session left.
    TokenSessions,
    /// The signature of the token does not verify.
    SignatureInvalid,
    /// The checked document is invalid, or expires too soon.
    Invalid,
    /// The audit log cannot be written, so nothing is signed.
    AuditUnavailable,
    /// The agent refuses this user.
    NotAllowed,
    /// The agent cannot be reached, or the process on its socket is not an agent.
    AgentUnreachable,
    /// The agent has too many requests.
    AgentBusy,
}

impl Kind {
    /// The stable name, as in the JSON form.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unexpected => "unexpected",
            Self::Usage => "usage",
            Self::Config => "config",
            Self::NotFound => "not_found",
            Self::Ambiguous => "ambiguous",
            Self::Unsuitable => "unsuitable",
            Self::PinMissing => "pin_missing",
            Self::PinSource => "pin_source",
            Self::PinIncorrect => "pin_incorrect",
            Self::PinLocked => "pin_locked",
            Self::PinLength => "pin_length",
            Self::PinExpired => "pin_expired",
            Self::PinFinalTry => "pin_final_try",
            Self::PinFuse => "pin_fuse",
            Self::StateDir => "state_dir",
            Self::PinState => "pin_state",
            Self::Policy => "policy",
            Self::TokenFailed => "token_failed",
            Self::TokenRemoved => "token_removed",
            Self::TokenTimeout => "token_timeout",
            Self::TokenBusy => "token_busy",
            Self::TokenSessions => "token_sessions",
            Self::SignatureInvalid => "signature_invalid",
            Self::Invalid => "invalid",
            Self::AuditUnavailable => "audit_unavailable",
            Self::NotAllowed => "not_allowed",
            Self::AgentUnreachable => "agent_unreachable",
            Self::AgentBusy => "agent_busy",
        }
    }

    /// The class of the error.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Unexpected | Self::AuditUnavailable => Class::Unexpected,
            Self::Usage | Self::Config => Class::Usage,
            Self::NotFound | Self::Ambiguous | Self::Unsuitable => Class::Selection,
            Self::PinMissing
            | Self::PinSource
            | Self::PinIncorrect
            | Self::PinLocked
            | Self::PinLength
            | Self::PinExpired
            | Self::PinFinalTry
            | Self::PinFuse
            | Self::StateDir
            | Self::PinState => Class::Pin,
            Self::Policy | Self::NotAllowed => Class::Refused,
            Self::TokenFailed | Self::TokenRemoved | Self::TokenTimeout | Self::TokenBusy | Self::TokenSessions => {
                Class::Token
            }
            Self::SignatureInvalid => Class::BadSignature,
            Self::Invalid => Class::Invalid,
            Self::AgentUnreachable | Self::AgentBusy => Class::Agent,
        }
    }

    /// The exit code of a process that ends with this error.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        self.class() as u8
    }

    /// A default hint for errors without a more specific one.
    #[must_use]
    pub(crate) fn usual_hint(self) -> &'static str {
        match self {
            Self::Usage => "`cba-agent help COMMAND` describes each option",
            Self::Config => {
                "check the file: its path, that this user may read it, and its form (docs/configuration.md shows a complete one)"
            }
            Self::Invalid => "meet the named rule, or make a new request with `cba-agent sign`",
            Self::NotFound | Self::Ambiguous | Self::Unsuitable => "`cba-agent list` shows what is there",
            Self::NotAllowed => "the agent's allow_users, allow_groups and socket_group say whom it serves",
            Self::AgentUnreachable | Self::AgentBusy => "`cba-agent health --socket PATH` shows the state of the agent",
            Self::Policy => "`cba-agent doctor` shows each key of [policy] that is set, and where",
            _ => "run it again with -v to see each step and the module's own messages",
        }
    }

    /// Whether a program may retry without a person's help.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self.class(), Class::Token | Class::Agent)
    }
}

/// What an error means for the next step. Its number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// A defect, a host that cannot start a process, or an audit log that cannot be written.
    Unexpected = 1,
    /// The command line or the configuration.
    Usage = 2,
    /// Module, token, key or certificate: none, or several.
    Selection = 3,
    /// The PIN. Nothing may repeat the attempt unattended.
    Pin = 4,
    /// The policy, or the agent's rules of access.
    Refused = 5,
    /// The token or its module. A retry may help.
    Token = 6,
    /// A result that does not verify: an alarm.
    BadSignature = 7,
    /// A check that failed.
    Invalid = 8,
    /// The agent is away or busy. A retry may help.
    Agent = 9,
}

/// The meaning of each exit code, in one sentence.
pub const EXIT_CODES: [(u8, &str); 10] = [
    (0, "Done."),
    (1, "An unexpected failure, or the audit log cannot be written."),
    (2, "The command line or the configuration is wrong."),
    (3, "Module, token, key or certificate was not found, or there are several."),
    (
        4,
        "PIN: missing, wrong, locked, expired, stopped by the fuse, or no state directory. Never retry this unattended.",
    ),
    (5, "Refused by the policy, or the agent does not serve this user."),
    (6, "The token failed or timed out. A retry may help."),
    (7, "The signature does not verify. Treat this as an alarm."),
    (8, "The checked document is invalid, a check failed, or the certificate expires too soon."),
    (9, "The agent cannot be reached, or is busy. A retry may help."),
];

/// Converts an error of a room into an [`Error`].
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
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self { kind: error.kind(), message, hints: error.hints() }
    }
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
