//! PINs: their sources, and a type that keeps them secret.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

use crate::os::memory;

pub mod credential;
pub mod error;
mod prompt;
mod read;
pub mod source;
pub mod text;

pub use credential::{Credential, How};
pub use error::PinError;
pub(crate) use prompt::is_in_background;
pub use prompt::leave_signals;
pub use source::Source;

/// The longest PIN in bytes; much longer than any token accepts.
pub const PIN_LIMIT: usize = 1024;

/// A PIN. Its buffer is locked in memory and wiped when dropped. It cannot be printed.
pub struct Pin(SecretString);

impl Pin {
    /// The PIN's bytes, for the only code that sends them to a worker.
    #[must_use]
    pub fn expose(&self) -> &str {
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
