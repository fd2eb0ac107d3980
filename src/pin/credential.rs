//! What logs a user in, and how an attempt with it counts for the fuse.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Pin;
use super::fuse::Attempt;
use super::source::{self, FileMark, Opened, PinError, Prepared, Source};
use crate::deadline::Deadline;

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
        let (how, mark) = match prepared.open(deadline)? {
            Opened::Pin(pin, mark) => (How::Pin(pin), mark),
            Opened::Pinpad => (How::Pinpad, None),
            Opened::Ask => (How::Pin(deadline.stopped(|| source::ask(token))?), None),
        };
        Ok(Self { how, mark, attended, accepted: AtomicBool::new(false) })
    }

    /// The PIN or the keypad.
    #[must_use]
    pub fn how(&self) -> &How {
        &self.how
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
    pub fn attempt(&self) -> Attempt {
        match &self.mark {
            _ if self.attended && !self.is_accepted() => Attempt::Attended,
            Some(mark) => Attempt::File(mark.clone()),
            None => Attempt::Unattended,
        }
    }
}

/// Whether a source can hold something else the second time: a keypad always, a credential of systemd's never, since it
/// is a copy that was made when the service was started.
#[must_use]
pub fn can_be_read_again(source: &Source) -> bool {
    matches!(source, Source::File(_) | Source::Pinpad)
}
