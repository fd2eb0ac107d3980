//! The objects of a token: keys, their attributes, and certificates.
//!
//! PURE.

use serde::{Deserialize, Serialize};

use super::MechanismId;
use crate::text::{hex, printable_bytes};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KeyClass {
    /// `CKO_PRIVATE_KEY`.
    Private,
    /// `CKO_PUBLIC_KEY`.
    Public,
}

/// An RSA key object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyObject {
    /// The worker's number for the object. It is not a handle of the module.
    pub handle: u64,
    /// Private or public.
    pub class: KeyClass,
    /// `CKA_LABEL`.
    #[serde(with = "bytes")]
    pub label: Vec<u8>,
    /// `CKA_ID`.
    #[serde(with = "bytes")]
    pub id: Vec<u8>,
    /// `CKA_MODULUS`, big-endian without leading zeros; empty if not reported.
    #[serde(with = "bytes")]
    pub modulus: Vec<u8>,
    /// `CKA_SIGN`.
    pub sign: Option<bool>,
    /// `CKA_ALWAYS_AUTHENTICATE`.
    pub always_authenticate: Option<bool>,
    /// `CKA_SENSITIVE`.
    pub sensitive: Option<bool>,
    /// `CKA_EXTRACTABLE`.
    pub extractable: Option<bool>,
    /// `CKA_ALWAYS_SENSITIVE`.
    pub always_sensitive: Option<bool>,
    /// `CKA_NEVER_EXTRACTABLE`.
    pub never_extractable: Option<bool>,
    /// `CKA_LOCAL`: generated in the token.
    pub local: Option<bool>,
}

impl KeyObject {
    /// The key in words, by its label and ID.
    pub(crate) fn name(&self) -> String {
        object_name(&self.label, &self.id)
    }

    /// A key of which the module reports no attribute.
    pub(crate) fn unreported(handle: u64, class: KeyClass) -> Self {
        Self {
            handle,
            class,
            label: Vec::new(),
            id: Vec::new(),
            modulus: Vec::new(),
            sign: None,
            always_authenticate: None,
            sensitive: None,
            extractable: None,
            always_sensitive: None,
            never_extractable: None,
            local: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CertificateObject {
    /// `CKA_LABEL`.
    #[serde(with = "bytes")]
    pub label: Vec<u8>,
    /// `CKA_ID`.
    #[serde(with = "bytes")]
    pub id: Vec<u8>,
    /// `CKA_VALUE` from the token: DER, perhaps with padding.
    #[serde(with = "bytes")]
    pub value: Vec<u8>,
}

/// Further attributes of a private key, only for evidence (PKCS#11 3.0 sections 4.9 and 4.14).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyDetail {
    /// `CKA_DECRYPT`.
    pub decrypt: Option<bool>,
    /// `CKA_SIGN_RECOVER`.
    pub sign_recover: Option<bool>,
    /// `CKA_UNWRAP`.
    pub unwrap: Option<bool>,
    /// `CKA_DERIVE`.
    pub derive: Option<bool>,
    /// `CKA_PRIVATE`: not visible before a login.
    pub private: Option<bool>,
    /// `CKA_MODIFIABLE`.
    pub modifiable: Option<bool>,
    /// `CKA_WRAP_WITH_TRUSTED`.
    pub wrap_with_trusted: Option<bool>,
    /// `CKA_KEY_GEN_MECHANISM`.
    pub key_generation_mechanism: Option<MechanismId>,
    /// `CKA_ALLOWED_MECHANISMS`; empty if the token has no restriction.
    pub allowed_mechanisms: Option<Vec<MechanismId>>,
}

/// Evidence about a key, and the certificates in its token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub detail: KeyDetail,
    /// All X.509 certificates of the token.
    pub certificates: Vec<CertificateObject>,
}

/// The objects that a session sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenObjects {
    /// RSA keys, private and public.
    pub keys: Vec<KeyObject>,
    /// X.509 certificates.
    pub certificates: Vec<CertificateObject>,
}

/// An object in words, by its label and ID.
pub(crate) fn object_name(label: &[u8], id: &[u8]) -> String {
    format!("'{}' (ID {})", printable_bytes(label), if id.is_empty() { "none".into() } else { hex(id) })
}

pub(crate) mod bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_base64_and_read_back() {
        let certificate = CertificateObject { label: vec![0xff, 0], id: vec![], value: vec![1, 2, 3] };
        let json = serde_json::to_string(&certificate).unwrap();
        assert_eq!(json, r#"{"label":"/wA=","id":"","value":"AQID"}"#);
        assert_eq!(serde_json::from_str::<CertificateObject>(&json).unwrap(), certificate);
        assert!(serde_json::from_str::<CertificateObject>(&json.replace("AQID", "AQ!D")).is_err());
    }
}
