//! The frames between parent and worker.
//!
//! PURE. A frame is a byte for its kind, a 32-bit big-endian length, and a body of this length, at most [`LIMIT`]. The
//! body of a message is JSON. A PIN is not part of any message. Its raw bytes follow the request in a frame of another
//! kind, so that no serialiser copies it. A frame of the wrong kind is an error.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cba::Version;
use crate::facts::{Description, Library, Mechanism, Mechanisms, Slot, TokenObjects, bytes};
use crate::fault::Fault;

pub(crate) mod bounds;
pub(crate) mod step;

/// The longest PIN in bytes; much longer than any token accepts.
pub(crate) const PIN_LIMIT: usize = 1024;

/// The longest frame in bytes: enough for hundreds of certificates.
pub(crate) const LIMIT: usize = 4 << 20;

/// The length of a frame's header, in bytes.
pub(crate) const HEADER: usize = 5;

/// The kind of a frame's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// The JSON of a [`WorkerRequest`] or a [`WorkerReply`].
    Message = b'M',
    /// The bytes of a PIN.
    Pin = b'P',
}

/// The worker's first message. A parent of another build sends it no PIN.
pub(crate) const BUILD: &str = concat!("cba-agent ", env!("CARGO_PKG_VERSION"), " wire 9");

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LoginMethod {
    /// With the PIN in the following frame.
    Pin,
    /// On the token itself.
    Pinpad,
}

/// A variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Variable {
    #[serde(with = "bytes")]
    pub name: Vec<u8>,
    #[serde(with = "bytes")]
    pub value: Vec<u8>,
}

impl From<(OsString, OsString)> for Variable {
    fn from((name, value): (OsString, OsString)) -> Self {
        Self { name: name.into_vec(), value: value.into_vec() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxReport {
    /// The name of the active profile.
    pub profile: String,
    /// The version of Landlock's interface that confines files; `None` if the kernel has none.
    pub landlock_abi: Option<u32>,
    /// Whether system calls are filtered.
    pub system_calls: bool,
}

/// A request of the parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkerRequest {
    /// Load this module and list its slots. Reply: [`WorkerReply::Confined`], then [`WorkerReply::Opened`].
    Open {
        /// The module's absolute path.
        module: PathBuf,
        /// The name of the sandbox profile. `None`: no sandbox.
        profile: Option<String>,
        /// The module's environment, for a worker that was started without one.
        environment: Option<Vec<Variable>>,
    },
    /// Load only libpcsclite, and connect to pcscd. Reply: [`WorkerReply::PcscdAnswered`]; then the worker ends.
    AskPcscd {
        /// The path where the library looks for the daemon.
        socket: PathBuf,
    },
    /// Open a session. Reply: [`WorkerReply::Session`].
    Session {
        /// The `CK_SLOT_ID`.
        slot_id: u64,
    },
    /// Read the session's slot and token information again. Reply: [`WorkerReply::Slot`].
    Slot,
    /// Like `Slot`, but only if the session, its login and the token still exist. Reply: [`WorkerReply::Slot`].
    Probe,
    /// Log in, once. Reply: [`WorkerReply::LoginBegins`], then [`WorkerReply::LoggedIn`].
    Login(LoginMethod),
    /// List keys and certificates. Reply: [`WorkerReply::Objects`].
    Objects,
    /// Read the evidence about a key. Reply: [`WorkerReply::Described`].
    Describe {
        /// The key's number in [`WorkerReply::Objects`].
        key: u64,
    },
    /// Make a message and sign it. Reply: [`WorkerReply::LoginBegins`] and [`WorkerReply::ContextAccepted`] with a context login, then
    /// [`WorkerReply::Signed`].
    Sign {
        /// The key's number in [`WorkerReply::Objects`].
        key: u64,
        mechanism: Mechanism,
        version: Version,
        /// The context-specific login, if the key needs one.
        context: Option<LoginMethod>,
    },
    /// Log out, finalise, end. Reply: [`WorkerReply::Closed`].
    Close {
        /// Whether to exit at once, without the exit handlers of the module's libraries.
        skip_exit_handlers: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkerReply {
    /// The first frame, without a request.
    Hello {
        /// The worker's build, which must equal the parent's.
        build: String,
    },
    /// The sandbox for the module, `None` without one. Sent before the module's first line runs: later frames may be the
    /// module's.
    Confined(Option<SandboxReport>),
    /// The module is loaded.
    Opened {
        /// The module's information about itself.
        library: Library,
        /// Its slots with tokens.
        slots: Vec<Slot>,
    },
    /// The result of libpcsclite.
    PcscdAnswered {
        /// 0, or a code of winscard.h.
        code: u32,
    },
    Session(Mechanisms),
    /// The slot's present state.
    Slot(Slot),
    /// The module's login is called now. A worker that ends without this message has spent no try.
    LoginBegins,
    /// The login is done.
    LoggedIn {
        /// Whether the token checked the PIN.
        checked: bool,
    },
    Objects(TokenObjects),
    /// The evidence.
    Described(Description),
    /// The context login is done; the signature follows.
    ContextAccepted {
        /// Whether the token checked the PIN.
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
    Failed(Fault),
}

/// The reason why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// A PIN instead of a message, a message instead of a PIN, or neither.
    #[error("the frame has the wrong kind")]
    Kind,
    /// Longer than [`LIMIT`].
    #[error("a message of {0} bytes is longer than the limit")]
    TooLong(usize),
    #[error("the frame cannot be parsed")]
    Json(#[from] serde_json::Error),
}

/// Encodes a message as a frame.
///
/// # Errors
/// When the frame would be longer than [`LIMIT`].
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let header = header(FrameKind::Message, frame.len() - HEADER)?;
    frame[..HEADER].copy_from_slice(&header);
    Ok(frame)
}

/// Encodes the header of a frame with this kind and length.
///
/// # Errors
/// When the body is longer than [`LIMIT`].
pub(crate) fn header(kind: FrameKind, length: usize) -> Result<[u8; HEADER], FrameError> {
    let number = u32::try_from(length).ok().filter(|_| length <= LIMIT).ok_or(FrameError::TooLong(length))?;
    let [a, b, c, d] = number.to_be_bytes();
    Ok([kind as u8, a, b, c, d])
}

/// Reads the length of the body from a header.
///
/// # Errors
/// When the length is over `limit`, or the frame is of another kind.
pub(crate) fn length(header: [u8; HEADER], kind: FrameKind, limit: usize) -> Result<usize, FrameError> {
    let [found, a, b, c, d] = header;
    if found != kind as u8 {
        return Err(FrameError::Kind);
    }
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > limit { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

/// Decodes a message from the body of a frame.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
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
        assert!(matches!(length(header, FrameKind::Pin, LIMIT), Err(FrameError::Kind)));
        decode(&frame[HEADER..]).unwrap()
    }

    #[test]
    fn a_frame_over_the_limit_is_neither_written_nor_read() {
        let long = WorkerReply::Hello { build: "x".repeat(LIMIT) };
        assert!(matches!(encode(&long), Err(FrameError::TooLong(_))));
        assert!(header(FrameKind::Message, LIMIT).is_ok() && header(FrameKind::Message, LIMIT + 1).is_err());
        let announced = |bytes| length(bytes, FrameKind::Message, LIMIT);
        assert!(matches!(announced([b'M', 0, 0x40, 0, 0]), Ok(LIMIT)));
        assert!(matches!(announced([b'M', 0, 0x40, 0, 1]), Err(FrameError::TooLong(_))));
        assert!(matches!(announced([b'M', 0xff, 0xff, 0xff, 0xff]), Err(FrameError::TooLong(_))));
        assert!(matches!(announced([0; HEADER]), Err(FrameError::Kind)));
    }

    #[test]
    fn no_message_has_a_field_for_a_pin_or_for_bytes_to_sign() {
        let sign = WorkerRequest::Sign {
            key: 1,
            mechanism: Mechanism::Sha512RsaPkcs,
            version: Version::V2,
            context: Some(LoginMethod::Pin),
        };
        let text = serde_json::to_string(&sign).unwrap();
        assert_eq!(text, r#"{"Sign":{"key":1,"mechanism":"Sha512RsaPkcs","version":"V2","context":"Pin"}}"#);
        assert_eq!(serde_json::to_string(&WorkerRequest::Login(LoginMethod::Pin)).unwrap(), r#"{"Login":"Pin"}"#);
    }

    #[test]
    fn a_frame_may_be_as_long_as_its_limit() {
        assert_eq!(length([b'M', 0, 0, 0, 5], FrameKind::Message, 5).unwrap(), 5);
        assert!(matches!(length([b'M', 0, 0, 0, 6], FrameKind::Message, 5), Err(FrameError::TooLong(6))));
    }

    proptest! {
        #[test]
        fn written_frames_are_read_back(slot_id: u64, message: String, label: Vec<u8>) {
            let request = WorkerRequest::Session { slot_id };
            prop_assert_eq!(read_back(&request), request.clone());
            let objects = TokenObjects {
                certificates: vec![crate::facts::CertificateObject { label, id: vec![], value: vec![1] }],
                ..TokenObjects::default()
            };
            prop_assert_eq!(read_back(&WorkerReply::Objects(objects.clone())), WorkerReply::Objects(objects));
            let signed = WorkerReply::Signed { message, signature: String::new() };
            prop_assert_eq!(read_back(&signed), signed.clone());
        }

        #[test]
        fn nothing_makes_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode::<WorkerReply>(&bytes);
            let _ = decode::<WorkerRequest>(&bytes);
        }
    }
}
