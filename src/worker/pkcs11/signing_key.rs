//! A private key that signs messages. Runs in the worker.

use cryptoki_sys::{CK_OBJECT_HANDLE, CKM_RSA_PKCS, CKM_SHA512_RSA_PKCS};
use sha2::{Digest as _, Sha512};

use super::session::Pkcs11Session;
use crate::cba::Message;
use crate::facts::Mechanism;
use crate::fault::Fault;

/// The DER of a `DigestInfo` for SHA-512 up to the digest (RFC 8017 section 9.2, note 1).
const SHA512_DIGEST_INFO: [u8; 19] =
    [0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40];

/// A private key in a session.
pub(crate) struct SigningKey<'a> {
    session: &'a Pkcs11Session<'a>,
    handle: CK_OBJECT_HANDLE,
    mechanism: Mechanism,
}

impl<'a> SigningKey<'a> {
    /// Finds the key that has this number in [`Pkcs11Session::objects`].
    ///
    /// # Errors
    /// When there is no such number.
    pub(crate) fn find(session: &'a Pkcs11Session<'a>, number: u64, mechanism: Mechanism) -> Result<Self, Fault> {
        Ok(Self { session, handle: session.found(number, "C_SignInit")?, mechanism })
    }

    /// Calls `C_SignInit`, then the context-specific login if given, and only then makes and signs the message.
    ///
    /// # Errors
    /// The error of the first failed call, or the reason why there is no message.
    pub(crate) fn sign(
        &self,
        context_login: Option<impl FnOnce(&Pkcs11Session<'_>) -> Result<(), Fault>>,
        message: impl FnOnce() -> Result<Message, Fault>,
    ) -> Result<(Message, Vec<u8>), Fault> {
        let mechanism = match self.mechanism {
            Mechanism::Sha512RsaPkcs => CKM_SHA512_RSA_PKCS,
            Mechanism::RsaPkcs => CKM_RSA_PKCS,
        };
        let functions = self.session.functions;
        functions.sign_init(self.session.handle, mechanism, self.handle)?;
        if let Some(log_in) = context_login {
            log_in(self.session)?;
        }
        let message = message()?;
        let signature = functions.sign(self.session.handle, &self.data(&message))?;
        Ok((message, signature))
    }

    /// Returns the data that the token signs: the message, or the `DigestInfo` of its digest if the token does not hash.
    fn data(&self, message: &Message) -> Vec<u8> {
        match self.mechanism {
            Mechanism::Sha512RsaPkcs => message.as_bytes().to_vec(),
            Mechanism::RsaPkcs => [&SHA512_DIGEST_INFO[..], &Sha512::digest(message.as_bytes())].concat(),
        }
    }
}
