//! The credential for a login, and how the fuse counts an attempt with it.
//!
//! Runs in the parent.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Pin;
use super::attempt_by::{AttemptBy, FileMark};
use super::error::PinError;
use super::source::{self, PinSource, PreparedSource, ReadPin};
use crate::deadline::Deadline;

/// The method of the login.
#[derive(Debug)]
pub(crate) enum PinEntry {
    /// With a PIN that is sent.
    Pin(Pin),
    /// On the token itself.
    Pinpad,
}

/// A PIN, or the use of the token's PIN pad.
#[derive(Debug)]
pub(crate) struct Credential {
    entry: PinEntry,
    source: PinSource,
    mark: Option<FileMark>,
    attended: bool,
    sent: AtomicBool,
    accepted: AtomicBool,
    refused: AtomicBool,
}

impl Credential {
    /// Reads a PIN from its source, or asks the person at the terminal. The time of a person does not count.
    pub(crate) fn read(prepared: PreparedSource, token: &str, deadline: &mut Deadline) -> Result<Self, PinError> {
        let attended = prepared.source.is_attended();
        let source = prepared.source.clone();
        let (entry, mark) = match prepared.open(deadline)? {
            ReadPin::Pin(pin, mark) => (PinEntry::Pin(pin), mark),
            ReadPin::Pinpad => (PinEntry::Pinpad, None),
            ReadPin::Ask => (PinEntry::Pin(deadline.stopped(|| source::ask(token))?), None),
        };
        let [sent, accepted, refused] = [false; 3].map(AtomicBool::new);
        Ok(Self { entry, source, mark, attended, sent, accepted, refused })
    }

    /// The PIN or the PIN pad.
    #[must_use]
    pub(crate) fn entry(&self) -> &PinEntry {
        &self.entry
    }

    #[must_use]
    pub(crate) fn source(&self) -> &PinSource {
        &self.source
    }

    /// Whether it came from a file on a disk, so that a change is noticed.
    #[must_use]
    pub(crate) fn is_from_disk(&self) -> bool {
        self.mark.is_some()
    }

    /// Records that it is sent now. The person who typed it is present for this attempt only, whatever its end. At a PIN
    /// pad, each attempt needs a person.
    pub(crate) fn begin_attempt(&self) {
        if matches!(self.entry, PinEntry::Pin(_)) {
            self.sent.store(true, Ordering::Relaxed);
        }
    }

    /// Records that the token accepted it.
    pub(crate) fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    /// Whether the token accepted it at least once.
    #[must_use]
    pub(crate) fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Records that the token refused it. No worker sends it again.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether the token refused it.
    #[must_use]
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// How the fuse counts an attempt with it.
    #[must_use]
    pub(crate) fn attempt_by(&self) -> AttemptBy {
        match &self.mark {
            _ if self.attended && !self.sent.load(Ordering::Relaxed) => AttemptBy::Person,
            Some(mark) => AttemptBy::File(mark.clone()),
            None => AttemptBy::Unattended,
        }
    }
}

/// Whether a source can have different content the second time. A PIN pad always; a systemd credential never, since it
/// is a copy from the start of the service.
#[must_use]
pub(crate) fn can_be_read_again(source: &PinSource) -> bool {
    matches!(source, PinSource::File(_) | PinSource::Pinpad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(entry: PinEntry) -> Credential {
        let [sent, accepted, refused] = [false; 3].map(AtomicBool::new);
        Credential { entry, source: PinSource::Prompt, mark: None, attended: true, sent, accepted, refused }
    }

    #[test]
    fn a_typed_pin_counts_as_a_persons_for_one_attempt_only() {
        let credential = typed(PinEntry::Pin(Pin::from("000000".to_owned())));
        assert_eq!(credential.attempt_by(), AttemptBy::Person);
        credential.begin_attempt();
        assert_eq!(credential.attempt_by(), AttemptBy::Unattended);
    }

    #[test]
    fn each_attempt_at_a_pin_pad_needs_a_person() {
        let credential = typed(PinEntry::Pinpad);
        credential.begin_attempt();
        assert_eq!(credential.attempt_by(), AttemptBy::Person);
    }
}
