//! The token's certificates: the readable ones, and the reasons for the others.
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

/// A certificate object without a usable RSA certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: Vec<u8>,
    /// `None` if the object has no value.
    error: Option<CertificateError>,
}

impl Unreadable {
    /// Whether the certificate is broken. A certificate with another key type is not broken. An object without a value
    /// (it may contain a URL instead) has no certificate.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !matches!(self.error, None | Some(CertificateError::NotRsa))
    }

    /// The reason.
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

/// The certificates with RSA keys among the objects, and the others.
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
