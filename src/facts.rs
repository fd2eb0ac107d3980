//! The facts that a worker read from module and token, as plain values.
//!
//! PURE. Policy, selection and output use them. Nothing here can access a token. A value that the token does not report is `None`, which is
//! neither true nor false.

use serde::{Deserialize, Serialize};

mod confinement;
mod mechanism_id;
mod objects;
mod pin_state;
mod token;
mod token_id;

pub(crate) use confinement::{Confinement, Gap, NoLandlock};
pub(crate) use mechanism_id::MechanismId;
pub(crate) use objects::{
    CertificateObject, Description, KeyClass, KeyDetail, KeyObject, TokenObjects, bytes, object_name,
};
pub(crate) use pin_state::{PinRefusal, PinState};
pub(crate) use token::{Slot, Token};
pub(crate) use token_id::{TokenId, is_distinctive, stand_in};

/// `C_GetInfo` (PKCS#11 3.0 section 5.4.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Library {
    /// The Cryptoki version of the module, such as `2.40`.
    pub cryptoki: String,
    pub manufacturer: String,
    pub description: String,
    /// The module's own version, such as `2.6`.
    pub version: String,
}

/// The two ways to an RSASSA-PKCS1-v1_5 signature with SHA-512.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mechanism {
    /// `CKM_SHA512_RSA_PKCS`: the token hashes.
    Sha512RsaPkcs,
    /// `CKM_RSA_PKCS` over the DER `DigestInfo` of the SHA-512 digest (RFC 8017 section 9.2).
    RsaPkcs,
}

impl Mechanism {
    /// The standard's name.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha512RsaPkcs => "CKM_SHA512_RSA_PKCS",
            Self::RsaPkcs => "CKM_RSA_PKCS",
        }
    }
}

/// The signature mechanisms of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mechanisms {
    /// Signature mechanisms from the mechanism list, preferred one first; empty if the list could not be read.
    pub usable: Vec<Mechanism>,
    /// Whether the module could list its mechanisms.
    pub known: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_are_programs_are_known_by_maker_and_model() {
        for (manufacturer, model, name) in [
            ("SoftHSM project", "SoftHSM v2", Some("SoftHSM")),
            ("Kryoptic Project", "v1", Some("kryoptic")),
            ("Mozilla Foundation", "NSS 3", Some("NSS")),
            ("Mozilla Foundation", "x", None),
            ("IBM", "Soft", Some("openCryptoki's soft token")),
            ("IBM", "EP11", None),
            ("GNOME Keyring", "1.0", Some("GNOME Keyring")),
            ("x", "SoftHSM v2", Some("SoftHSM")),
            ("Utimaco", "Simulator", Some("a simulator")),
            ("Yubico (www.yubico.com)", "YubiKey YK5", None),
            ("", "", None),
        ] {
            let token = Token { manufacturer: manufacturer.into(), model: model.into(), ..Token::default() };
            assert_eq!(token.software_name(), name, "{manufacturer} {model}");
        }
    }

    #[test]
    fn mechanisms_have_the_names_of_the_standard() {
        assert_eq!(Mechanism::Sha512RsaPkcs.name(), "CKM_SHA512_RSA_PKCS");
        assert_eq!(Mechanism::RsaPkcs.name(), "CKM_RSA_PKCS");
    }
}
