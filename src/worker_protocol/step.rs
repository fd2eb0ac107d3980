//! The steps of a worker: what the parent waits for, what an error calls it, and how long its reply may be.
//!
//! PURE.

use std::fmt;

use super::{LIMIT, WorkerRequest};

/// The longest reply, in bytes, of a step that reads neither objects nor slots.
const SHORT: usize = 64 << 10;

/// What the parent waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The worker says which program it is.
    Start,
    /// The worker confines itself and loads the module.
    LoadModule,
    /// The worker connects to pcscd.
    AskPcscd,
    /// The module opens a session.
    OpenSession,
    /// The module reads the state of the token and its PIN.
    ReadToken,
    /// The module logs in.
    LogIn,
    /// The module reads keys and certificates.
    ReadObjects,
    /// The module reads the attributes of one key.
    ReadKey,
    /// The module signs, after a login of its own where the key needs one.
    Sign,
    /// The worker logs out and ends.
    Close,
}

impl Step {
    /// The step that a request asks for.
    #[must_use]
    pub(crate) fn of(request: &WorkerRequest) -> Self {
        match request {
            WorkerRequest::Open { .. } => Self::LoadModule,
            WorkerRequest::AskPcscd { .. } => Self::AskPcscd,
            WorkerRequest::Session { .. } => Self::OpenSession,
            WorkerRequest::Slot | WorkerRequest::Probe => Self::ReadToken,
            WorkerRequest::Login(_) => Self::LogIn,
            WorkerRequest::Objects => Self::ReadObjects,
            WorkerRequest::Describe { .. } => Self::ReadKey,
            WorkerRequest::Sign { .. } => Self::Sign,
            WorkerRequest::Close { .. } => Self::Close,
        }
    }

    /// Whether a person at the token may have to act.
    #[must_use]
    pub(crate) fn waits_for_person(self) -> bool {
        matches!(self, Self::LogIn | Self::Sign)
    }

    /// The longest reply in bytes. A longer one is refused before it is read.
    #[must_use]
    pub(crate) fn reply_limit(self) -> usize {
        match self {
            Self::LoadModule | Self::ReadObjects | Self::ReadKey => LIMIT,
            Self::Start
            | Self::AskPcscd
            | Self::OpenSession
            | Self::ReadToken
            | Self::LogIn
            | Self::Sign
            | Self::Close => SHORT,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::LoadModule => "loading the module",
            Self::AskPcscd => "asking pcscd",
            Self::OpenSession => "opening a session",
            Self::ReadToken => "reading the token's state",
            Self::LogIn => "login",
            Self::ReadObjects => "reading keys and certificates",
            Self::ReadKey => "reading the key",
            Self::Sign => "signing",
            Self::Close => "end",
        })
    }
}
