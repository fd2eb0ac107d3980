//! The frames between front and worker.
//!
//! PURE. A frame is a byte for its kind, a 32-bit big-endian length, and a body of this length, at most [`LIMIT`]. The body of a
//! message is JSON. A PIN is not part of any message: it follows its request in a frame of its own kind, raw, so that no
//! serialiser copies it. A frame of the wrong kind is an error.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cba::Version;
use crate::facts::{Description, Library, Mechanism, Objects, Session, Slot, bytes};
use crate::fault::Fault;

pub mod bounds;
pub mod step;

/// The longest PIN in bytes; much longer than any token accepts.
pub const PIN_LIMIT: usize = 1024;

/// The longest frame in bytes: room for hundreds of certificates.
pub const LIMIT: usize = 4 << 20;

/// The length of what precedes the body of a frame.
pub const HEADER: usize = 5;

/// What the body of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The JSON of a [`Request`] or a [`Reply`].
    Message = b'M',
    /// The bytes of a PIN.
    Pin = b'P',
}

/// What the worker says first; a front of another build gives it no PIN.
pub const BUILD: &str = concat!("cba-agent ", env!("CARGO_PKG_VERSION"), " wire 8");

/// How the user is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authentication {
    /// With the PIN in the frame that follows.
    Pin,
    /// At the token itself.
    Pinpad,
}

/// A variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    #[serde(with = "bytes")]
    pub name: Vec<u8>,
    /// Its value.
    #[serde(with = "bytes")]
    pub value: Vec<u8>,
}

impl From<(OsString, OsString)> for Variable {
    fn from((name, value): (OsString, OsString)) -> Self {
        Self { name: name.into_vec(), value: value.into_vec() }
    }
}

/// How the worker confined itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxReport {
    /// The name of the profile in force.
    pub profile: String,
    /// By which of Landlock's interfaces files are confined; `None` where the kernel has none.
    pub landlock_abi: Option<u32>,
    /// Whether system calls are filtered.
    pub system_calls: bool,
}

/// What the front asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Load this module and say what slots it has. Answer: [`Reply::Confined`], then
    /// [`Reply::Opened`].
    Open {
        /// The module's absolute path.
        module: PathBuf,
        /// The sandbox profile to load it in, by its name; without one there is no sandbox.
        profile: Option<String>,
        /// The module's environment, for a worker that was started without one.
        environment: Option<Vec<Variable>>,
    },
    /// Load libpcsclite alone, and connect to pcscd. Answer: [`Reply::PcscdAnswered`], and the end.
    AskPcscd {
        /// Where the library is to look for the daemon.
        socket: PathBuf,
    },
    /// Open a session. Answer: [`Reply::Session`].
    Session {
        /// The `CK_SLOT_ID`.
        slot_id: u64,
    },
    /// Read the session's slot and token information again. Answer: [`Reply::Slot`].
    Slot,
    /// The same, where the session still stands, with its login, and the token is there. Answer: [`Reply::Slot`].
    Probe,
    /// Log in, once. Answer: [`Reply::LoginBegins`], then [`Reply::LoggedIn`].
    Login(Authentication),
    /// Say what keys and certificates there are. Answer: [`Reply::Objects`].
    Objects,
    /// Read what is evidence of a key and no more. Answer: [`Reply::Described`].
    Describe {
        /// The key's number in [`Reply::Objects`].
        key: u64,
    },
    /// Make a message and sign it. Answer: [`Reply::LoginBegins`] and [`Reply::ContextAccepted`] where a context login
    /// was asked for, then [`Reply::Signed`].
    Sign {
        /// The key's number in [`Reply::Objects`].
        key: u64,
        /// How to sign.
        mechanism: Mechanism,
        /// What to sign.
        version: Version,
        /// The context-specific login, where the key needs one.
        context: Option<Authentication>,
    },
    /// Log out, finalise, end. Answer: [`Reply::Closed`].
    Close {
        /// Whether it ends there and then, whatever the module's libraries would still do.
        at_once: bool,
    },
}

/// What the worker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The first frame, unasked.
    Hello {
        /// The worker's build, to be the same as the front's.
        build: String,
    },
    /// The sandbox that the module will be loaded in, `None` without one. Sent before the module's first line runs: what
    /// comes later, the module may have written.
    Confined(Option<SandboxReport>),
    /// The module is loaded.
    Opened {
        /// What it says of itself.
        library: Library,
        /// Its slots that hold tokens.
        slots: Vec<Slot>,
    },
    /// What libpcsclite came to.
    PcscdAnswered {
        /// 0, or a code of winscard.h.
        code: u32,
    },
    /// The session is open.
    Session(Session),
    /// The slot as it is now.
    Slot(Slot),
    /// The module is told to log in now; a worker that ends without this has spent no try.
    LoginBegins,
    /// The login is done.
    LoggedIn {
        /// Whether the token looked at the PIN.
        checked: bool,
    },
    /// The objects.
    Objects(Objects),
    /// The evidence.
    Described(Description),
    /// The context login is done; the signature follows.
    ContextAccepted {
        /// Whether the token looked at the PIN.
        checked: bool,
    },
    /// A message and its signature.
    Signed {
        /// The message, base64.
        message: String,
        /// The signature, base64.
        signature: String,
    },
    /// The worker ends now.
    Closed,
    /// It could not be done.
    Failed(Fault),
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A PIN instead of a message, a message instead of a PIN, or neither.
    #[error("a frame is of the wrong kind")]
    Kind,
    /// Longer than [`LIMIT`].
    #[error("a message of {0} bytes is longer than is read")]
    TooLong(usize),
    /// Not the JSON of a message.
    #[error("a frame does not parse")]
    Json(#[from] serde_json::Error),
}

/// The frame of a message.
///
/// # Errors
/// When it would be longer than [`LIMIT`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let header = header(FrameKind::Message, frame.len() - HEADER)?;
    frame[..HEADER].copy_from_slice(&header);
    Ok(frame)
}

/// What precedes a body of this kind and length.
///
/// # Errors
/// When it is longer than [`LIMIT`].
pub fn header(kind: FrameKind, length: usize) -> Result<[u8; HEADER], WireError> {
    let number = u32::try_from(length).ok().filter(|_| length <= LIMIT).ok_or(WireError::TooLong(length))?;
    let [a, b, c, d] = number.to_be_bytes();
    Ok([kind as u8, a, b, c, d])
}

/// The length of the body that a header announces.
///
/// # Errors
/// When it is over `limit`, or the frame is of another kind.
pub fn length(header: [u8; HEADER], kind: FrameKind, limit: usize) -> Result<usize, WireError> {
    let [found, a, b, c, d] = header;
    if found != kind as u8 {
        return Err(WireError::Kind);
    }
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > limit { Err(WireError::TooLong(length)) } else { Ok(length) }
}

/// The message of a frame's bytes after the length.
///
/// # Errors
/// When they are no message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_back<T: Serialize + DeserializeOwned>(message: &T) -> T {
        let frame = encode(message).unwrap();
        let header = *frame.first_chunk::<HEADER>().unwrap();
        assert_eq!(length(header, FrameKind::Message, LIMIT).unwrap(), frame.len() - HEADER);
        assert!(matches!(length(header, FrameKind::Pin, LIMIT), Err(WireError::Kind)));
        decode(&frame[HEADER..]).unwrap()
    }

    #[test]
    fn a_frame_over_the_limit_is_neither_written_nor_read() {
        let long = Reply::Hello { build: "x".repeat(LIMIT) };
        assert!(matches!(encode(&long), Err(WireError::TooLong(_))));
        assert!(header(FrameKind::Message, LIMIT).is_ok() && header(FrameKind::Message, LIMIT + 1).is_err());
        let announced = |bytes| length(bytes, FrameKind::Message, LIMIT);
        assert!(matches!(announced([b'M', 0, 0x40, 0, 0]), Ok(LIMIT)));
        assert!(matches!(announced([b'M', 0, 0x40, 0, 1]), Err(WireError::TooLong(_))));
        assert!(matches!(announced([b'M', 0xff, 0xff, 0xff, 0xff]), Err(WireError::TooLong(_))));
        assert!(matches!(announced([0; HEADER]), Err(WireError::Kind)));
    }

    #[test]
    fn no_message_has_a_field_for_a_pin_or_for_bytes_to_sign() {
        let sign = Request::Sign {
            key: 1,
            mechanism: Mechanism::Sha512RsaPkcs,
            version: Version::V2,
            context: Some(Authentication::Pin),
        };
        let text = serde_json::to_string(&sign).unwrap();
        assert_eq!(text, r#"{"Sign":{"key":1,"mechanism":"Sha512RsaPkcs","version":"V2","context":"Pin"}}"#);
        assert_eq!(serde_json::to_string(&Request::Login(Authentication::Pin)).unwrap(), r#"{"Login":"Pin"}"#);
    }

    #[test]
    fn a_frame_may_be_as_long_as_its_limit() {
        assert_eq!(length([b'M', 0, 0, 0, 5], FrameKind::Message, 5).unwrap(), 5);
        assert!(matches!(length([b'M', 0, 0, 0, 6], FrameKind::Message, 5), Err(WireError::TooLong(6))));
    }

    proptest! {
        #[test]
        fn written_frames_are_read_back(slot_id: u64, message: String, label: Vec<u8>) {
            let request = Request::Session { slot_id };
            prop_assert_eq!(read_back(&request), request.clone());
            let objects = Objects {
                certificates: vec![crate::facts::CertificateObject { label, id: vec![], value: vec![1] }],
                ..Objects::default()
            };
            prop_assert_eq!(read_back(&Reply::Objects(objects.clone())), Reply::Objects(objects));
            let signed = Reply::Signed { message, signature: String::new() };
            prop_assert_eq!(read_back(&signed), signed.clone());
        }

        #[test]
        fn nothing_makes_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode::<Reply>(&bytes);
            let _ = decode::<Request>(&bytes);
        }
    }
}
