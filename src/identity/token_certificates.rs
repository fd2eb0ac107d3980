//! The token's certificates: the readable ones, and the reasons for the others.
//!
//! PURE.

use std::fmt;

use crate::certificate::{Certificate, CertificateError};
use crate::facts::{TokenObjects, object_name};
use crate::text::printable;

/// A certificate in the token and its object's attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenCertificate {
    pub certificate: Certificate,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: Vec<u8>,
}

/// A certificate object without a usable RSA certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableCertificate {
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: Vec<u8>,
    /// `None` if the object has no value.
    error: Option<CertificateError>,
}

impl UnreadableCertificate {
    /// Whether the certificate is broken. A certificate with another key type is not broken. An object without a value
    /// (it may contain a URL instead) has no certificate.
    #[must_use]
    pub(crate) fn is_broken(&self) -> bool {
        !matches!(self.error, None | Some(CertificateError::NotRsa))
    }

    #[must_use]
    pub(crate) fn reason(&self) -> String {
        match &self.error {
            None => "it has no value (CKA_VALUE is empty)".into(),
            Some(error) => printable(&error.to_string()),
        }
    }
}

/// Label, ID and reason.
impl fmt::Display for UnreadableCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} cannot be used: {}", object_name(&self.label, &self.id), self.reason())
    }
}

/// The certificates with RSA keys among the objects, and the others.
#[must_use]
pub(crate) fn certificates(objects: &TokenObjects) -> (Vec<TokenCertificate>, Vec<UnreadableCertificate>) {
    let (mut stored, mut unreadable) = (Vec::new(), Vec::new());
    for found in &objects.certificates {
        let (id, label) = (found.id.clone(), found.label.clone());
        match Certificate::from_der(&found.value) {
            Ok(certificate) => stored.push(TokenCertificate { certificate, id, label }),
            Err(error) => {
                unreadable.push(UnreadableCertificate { id, label, error: (!found.value.is_empty()).then_some(error) })
            }
        }
    }
    (stored, unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::leaf;

    #[test]
    fn certificates_are_read_or_named_with_their_reason() {
        let ec = include_bytes!("../../tests/data/certificates/key-ec.der");
        let values: [&[u8]; 4] = [leaf().der(), b"text", ec, b""].map(|value| value.to_vec().leak() as &[u8]);
        let found = values.map(|value| crate::facts::CertificateObject {
            label: b"x".to_vec(),
            id: vec![1],
            value: value.to_vec(),
        });
        let (stored, unreadable) =
            certificates(&TokenObjects { certificates: found.to_vec(), ..TokenObjects::default() });
        assert_eq!(stored, [TokenCertificate { certificate: leaf(), id: vec![1], label: b"x".to_vec() }]);
        let words: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        for (words, reason) in
            words.iter().zip(["it is not an X.509 certificate", "its key is not RSA", "it has no value"])
        {
            assert!(words.starts_with(&format!("certificate 'x' (ID 01) cannot be used: {reason}")), "{words}");
        }
        assert_eq!(unreadable.iter().map(UnreadableCertificate::is_broken).collect::<Vec<_>>(), [true, false, false]);
    }
}
