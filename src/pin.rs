//! PINs: their sources, and a type that keeps them secret.
//!
//! Runs in the parent.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

use crate::os::memory;

mod attempt_by;
pub(crate) mod credential;
pub(crate) mod error;
mod prompt;
mod read;
pub(crate) mod source;
pub(crate) mod text;

pub(crate) use attempt_by::{AttemptBy, AttemptEnd};
pub(crate) use credential::{Credential, PinEntry};
pub(crate) use error::PinError;
pub(crate) use prompt::is_in_background;
pub(crate) use prompt::leave_signals;
pub(crate) use source::PinSource;

/// A PIN. Its buffer is locked in memory and wiped when dropped, and nothing prints it.
pub(crate) struct Pin(SecretString);

impl Pin {
    /// The PIN's bytes, for the only code that sends them to a worker.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Pin {
    fn from(pin: String) -> Self {
        let pin = Self(pin.into());
        memory::lock(pin.expose().as_bytes());
        pin
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(..)")
    }
}
