//! The kinds of errors, their classes, and the exit codes, which are only in this file.
//!
//! PURE.

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
