//! What logs a user in, and how an attempt with it counts for the fuse.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Pin;
use super::error::PinError;
use super::source::{self, FileMark, Opened, Prepared, Source};
use crate::deadline::Deadline;
use crate::fuse::AttemptBy;

/// How the user is authenticated.
#[derive(Debug)]
pub enum How {
    /// With a PIN that is sent.
    Pin(Pin),
    /// At the token itself.
    Pinpad,
}

/// A PIN at hand, or the way to the token's own keypad.
#[derive(Debug)]
pub struct Credential {
    how: How,
    source: Source,
    mark: Option<FileMark>,
    attended: bool,
    accepted: AtomicBool,
}

impl Credential {
    /// Reads a PIN from its source, or asks the person at the terminal for it; their time does not count.
    ///
    /// # Errors
    /// Why there is no PIN.
    pub fn read(prepared: Prepared, token: &str, deadline: &mut Deadline) -> Result<Self, PinError> {
        let attended = prepared.source.is_attended();
        let source = prepared.source.clone();
        let (how, mark) = match prepared.open(deadline)? {
            Opened::Pin(pin, mark) => (How::Pin(pin), mark),
            Opened::Pinpad => (How::Pinpad, None),
            Opened::Ask => (How::Pin(deadline.stopped(|| source::ask(token))?), None),
        };
        Ok(Self { how, source, mark, attended, accepted: AtomicBool::new(false) })
    }

    /// The PIN or the keypad.
    #[must_use]
    pub fn how(&self) -> &How {
        &self.how
    }

    /// Where it came from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether it came from a file on a disk, so that a change of it would be noticed.
    #[must_use]
    pub fn is_from_disk(&self) -> bool {
        self.mark.is_some()
    }

    /// Notes that the token took it: whoever gave it is no longer there for the next attempt.
    pub fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    /// Whether the token took it at least once.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How an attempt with it counts.
    #[must_use]
    pub fn attempt_by(&self) -> AttemptBy {
        match &self.mark {
            _ if self.attended && !self.is_accepted() => AttemptBy::Person,
            Some(mark) => AttemptBy::File(mark.clone()),
            None => AttemptBy::Unattended,
        }
    }
}

/// Whether a source can hold something else the second time: a keypad always, a credential of systemd's never, since it
/// is a copy that was made when the service was started.
#[must_use]
pub fn can_be_read_again(source: &Source) -> bool {
    matches!(source, Source::File(_) | Source::Pinpad)
}
