//! The message: the only bytes that a token signs.
//!
//! PURE. There is one way to make a [`Message`], and it takes no bytes from a caller.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The length of a message in bytes, both versions.
pub(crate) const LEN: usize = 100;

/// The version of the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// 100 random bytes: replayable until the certificate expires.
    V1,
    /// 8 bytes of time and 92 random bytes: valid for one request, now.
    #[default]
    V2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// A new message that may be signed. It cannot be cloned or made from given bytes.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: [u8; LEN],
}

impl Message {
    /// Makes a message: for v2 the time (big-endian seconds of Unix time) and 92 random bytes, for v1 100 random bytes.
    ///
    /// # Errors
    /// The error of the random source.
    pub(crate) fn new<E>(
        version: Version,
        now: u64,
        random: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut bytes = [0; LEN];
        match version {
            Version::V1 => random(&mut bytes)?,
            Version::V2 => {
                let (time, rest) = bytes.split_at_mut(8);
                time.copy_from_slice(&now.to_be_bytes());
                random(rest)?;
            }
        }
        Ok(Self { bytes })
    }

    /// The bytes to sign.
    #[must_use]
    pub(crate) fn as_bytes(&self) -> &[u8; LEN] {
        &self.bytes
    }
}

/// The time in a v2 message, in seconds of Unix time; `None` if the message is too short.
#[must_use]
pub(crate) fn time_of(message: &[u8]) -> Option<u64> {
    message.first_chunk::<8>().map(|time| u64::from_be_bytes(*time))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;

    fn fill(value: u8) -> impl FnOnce(&mut [u8]) -> Result<(), ()> {
        move |bytes: &mut [u8]| {
            bytes.fill(value);
            Ok(())
        }
    }

    #[test]
    fn v2_begins_as_in_the_documentation() {
        let message = Message::new(Version::V2, 1_750_736_826, fill(0x5e)).unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(message.as_bytes());
        assert!(text.starts_with("AAAAAGhaH7pe"), "{text}");
        assert_eq!(time_of(message.as_bytes()), Some(1_750_736_826));
    }

    #[test]
    fn v1_is_random_throughout() {
        let message = Message::new(Version::V1, 1_750_736_826, fill(7)).unwrap();
        assert_eq!(message.as_bytes(), &[7; 100]);
    }

    #[test]
    fn without_random_bytes_there_is_no_message() {
        assert!(Message::new(Version::V2, 0, |_| Err("no entropy")).is_err());
    }

    #[test]
    fn versions_have_their_names_and_a_short_message_has_no_time() {
        assert_eq!((Version::V1.to_string(), Version::V2.to_string()), ("v1".into(), "v2".into()));
        assert_eq!(time_of(&[0; 7]), None);
    }

    proptest! {
        #[test]
        fn the_time_is_read_back(now: u64, byte: u8) {
            let message = Message::new(Version::V2, now, fill(byte)).unwrap();
            prop_assert_eq!(time_of(message.as_bytes()), Some(now));
            prop_assert_eq!(message.as_bytes().len(), LEN);
        }
    }
}
