//! One attempt with a PIN: what must hold before it, a login at the PIN pad, and how the attempt ended.
//!
//! Runs in the parent.

use std::time::Duration;

use super::SlotSession;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::PinRefusal;
use crate::fault::{Fault, PinVerdict};
use crate::pin::source;
use crate::pin::{AttemptBy, AttemptEnd, Credential, PinEntry};
use crate::worker_handle::WorkerError;
use crate::worker_protocol::{LoginMethod, WorkerReply, WorkerRequest};

/// The reason why a request with a PIN failed.
#[derive(Debug)]
pub(crate) enum SignError {
    /// The worker's error. Its return value is judged later.
    Worker(WorkerError),
    /// An error that ends the command.
    Other(Error),
}

impl From<SignError> for Error {
    fn from(failure: SignError) -> Self {
        match failure {
            SignError::Worker(error) => error.into(),
            SignError::Other(error) => error,
        }
    }
}

pub(super) fn login_method(entry: &PinEntry) -> LoginMethod {
    match entry {
        PinEntry::Pin(_) => LoginMethod::Pin,
        PinEntry::Pinpad => LoginMethod::Pinpad,
    }
}

pub(super) fn check_before(slot_session: &SlotSession, credential: &Credential) -> Result<()> {
    check_flags(slot_session, credential.attempt_by() == AttemptBy::Person)?;
    check_keypad(slot_session, matches!(credential.entry(), PinEntry::Pinpad))
}

/// Refuses the login if the token's flags forbid it.
pub(super) fn check_flags(slot_session: &SlotSession, attended: bool) -> Result<()> {
    let refusal = slot_session.slot.token.as_ref().and_then(|token| token.pin.refusal(attended));
    refusal.map_or(Ok(()), |PinRefusal { kind, cause, remedy }| {
        Err(Error::new(kind, format!("{}: {cause}", slot_session.name())).hint(remedy))
    })
}

pub(super) fn check_keypad(slot_session: &SlotSession, is_meant: bool) -> Result<()> {
    if is_meant && slot_session.slot.token.as_ref().is_some_and(|token| !token.pinpad) {
        let message = format!("{} has no PIN pad", slot_session.name());
        return Err(Error::new(Kind::PinSource, message).hint(source::SOURCES));
    }
    Ok(())
}

/// The minimum time limit for a person at the token's PIN pad.
pub(crate) const KEYPAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Logs in at the token's PIN pad. This counts as a prompt: the deadline excludes the person's time, up to a limit.
pub(super) fn at_the_keypad(
    slot_session: &mut SlotSession,
    request: &WorkerRequest,
) -> std::result::Result<WorkerReply, WorkerError> {
    let deadline = Deadline::after(KEYPAD_TIMEOUT.max(slot_session.deadline.timeout()));
    let handle = &mut slot_session.module.handle;
    slot_session.deadline.stopped(|| handle.call(request, None, &deadline))
}

/// `checked`: the module passed the PIN to the token, and did not answer from its memory.
pub(super) fn accepted_if(checked: bool) -> AttemptEnd {
    if checked { AttemptEnd::Accepted } else { AttemptEnd::NotTried }
}

/// The end of the attempt after a fault. `None`: unknown, since the token may have checked the PIN.
pub(super) fn end_of(fault: &Fault) -> Option<AttemptEnd> {
    if !fault.is_login() {
        // Another call failed before the login.
        return Some(AttemptEnd::NotTried);
    }
    match fault.pin_verdict() {
        PinVerdict::Refused => Some(AttemptEnd::Refused),
        PinVerdict::NotTried => Some(AttemptEnd::NotTried),
        PinVerdict::Unknown => None,
    }
}
