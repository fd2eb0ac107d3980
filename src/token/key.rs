//! A private key that signs messages.

use cryptoki::mechanism::Mechanism as CkMechanism;
use cryptoki::object::ObjectHandle;
use sha2::{Digest as _, Sha512};

use super::fault;
use super::session::{LoginOutcome, Session, UserPin};
use crate::cba::Message;
use crate::facts::Mechanism;
use crate::fault::Fault;

/// The DER of a `DigestInfo` for SHA-512 up to the digest (RFC 8017 section 9.2, note 1).
const SHA512_DIGEST_INFO: [u8; 19] =
    [0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40];

/// A private key in a session.
pub struct Key<'a> {
    session: &'a Session<'a>,
    handle: ObjectHandle,
    mechanism: Mechanism,
}

impl<'a> Key<'a> {
    pub(super) fn new(session: &'a Session<'a>, handle: ObjectHandle, mechanism: Mechanism) -> Self {
        Self { session, handle, mechanism }
    }

    /// `C_SignInit`.
    ///
    /// # Errors
    /// What it answered.
    pub fn begin(&self) -> Result<(), Fault> {
        let mechanism = match self.mechanism {
            Mechanism::Sha512RsaPkcs => CkMechanism::Sha512RsaPkcs,
            Mechanism::RsaPkcs => CkMechanism::RsaPkcs,
        };
        self.session.handle.sign_init(&mechanism, self.handle).map_err(fault("C_SignInit"))
    }

    /// The context-specific login, between [`Key::begin`] and [`Key::sign`].
    ///
    /// # Errors
    /// What `C_Login` answered.
    pub fn authenticate(&self, pin: &UserPin) -> Result<LoginOutcome, Fault> {
        self.session.context_login(pin)
    }

    /// `C_Sign` over a message, the only thing that is ever signed.
    ///
    /// # Errors
    /// What it answered.
    pub fn sign(&self, message: &Message) -> Result<Vec<u8>, Fault> {
        let session = self.session.handle.handle();
        let signature = match self.mechanism {
            Mechanism::Sha512RsaPkcs => self.session.raw.sign(session, message.as_bytes()),
            Mechanism::RsaPkcs => {
                let digest_info = [&SHA512_DIGEST_INFO[..], &Sha512::digest(message.as_bytes())].concat();
                self.session.raw.sign(session, &digest_info)
            }
        };
        signature.map_err(fault("C_Sign"))
    }
}
