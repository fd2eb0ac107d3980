//! The token's certificates: those that can be read, and why the others cannot.
//!
//! PURE.

use std::fmt;

use super::naming::name;
use crate::certificate::{Certificate, CertificateError};
use crate::facts::Objects;
use crate::text::printable;

/// A certificate in the token and its object's attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The parsed certificate.
    pub certificate: Certificate,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: Vec<u8>,
}

/// A certificate object that holds no certificate with an RSA key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: Vec<u8>,
    /// `None` where the object holds no value at all.
    error: Option<CertificateError>,
}

impl Unreadable {
    /// Whether the certificate is broken. One with another kind of key is whole, and an object without a value (it may name
    /// a URL instead) holds no certificate.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !matches!(self.error, None | Some(CertificateError::NotRsa))
    }

    /// Why it cannot be used.
    #[must_use]
    pub fn reason(&self) -> String {
        match &self.error {
            None => "it has no value (CKA_VALUE is empty)".into(),
            Some(error) => printable(&error.to_string()),
        }
    }
}

/// Label, ID and reason.
impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} cannot be used: {}", name(&self.label, &self.id), self.reason())
    }
}

/// The certificates with RSA keys among the objects, and the other ones.
#[must_use]
pub fn certificates(objects: &Objects) -> (Vec<Stored>, Vec<Unreadable>) {
    let (mut stored, mut unreadable) = (Vec::new(), Vec::new());
    for found in &objects.certificates {
        let (id, label) = (found.id.clone(), found.label.clone());
        match Certificate::from_der(&found.value) {
            Ok(certificate) => stored.push(Stored { certificate, id, label }),
            Err(error) => unreadable.push(Unreadable { id, label, error: (!found.value.is_empty()).then_some(error) }),
        }
    }
    (stored, unreadable)
}
