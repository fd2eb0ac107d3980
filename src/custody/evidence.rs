//! The facts about a key, its token and its module.
//!
//! PURE.

use crate::certificate::Certificate;
use crate::facts::{Confinement, KeyDetail, KeyObject, Library, Mechanism, Token};

/// The facts about a key, its token and its module.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    /// The module's canonical path.
    pub module: String,
    /// The SHA-256 of its file, if it can be read.
    pub module_sha256: Option<String>,
    /// The reason why other users could change it, if they could.
    pub module_open: Option<String>,
    /// The module's information about itself.
    pub library: Library,
    /// The sandbox of the worker.
    pub confinement: Option<Confinement>,
    /// The token, if it reports anything.
    pub token: Option<Token>,
    /// The content of the token; `None` if the policy forbids to send it a PIN.
    pub key: Option<KeyEvidence>,
}

/// A key, its certificate, and other objects of the token.
#[derive(Clone, Debug)]
pub(crate) struct KeyEvidence {
    /// The private key.
    pub key: KeyObject,
    /// Further attributes of the key.
    pub detail: KeyDetail,
    /// Other private key objects of the same key.
    pub copies: Vec<KeyCopy>,
    pub certificate: Certificate,
    /// Whether the certificate is from a file and not from the token.
    pub from_file: bool,
    pub mechanism: Mechanism,
    /// All certificates of the token, DER without padding.
    pub others: Vec<Vec<u8>>,
    /// Keys and certificates under the key's ID that belong to another key, by kind and name.
    pub same_id: Vec<String>,
    /// Certificates of the token that cannot be read, each with its reason.
    pub unreadable: Vec<String>,
}

/// Another private key object of the same key.
#[derive(Clone, Debug)]
pub(crate) struct KeyCopy {
    pub key: KeyObject,
    /// Further attributes of the object.
    pub detail: KeyDetail,
}

impl KeyEvidence {
    pub(super) fn others(&self) -> Vec<&[u8]> {
        self.others.iter().map(Vec::as_slice).collect()
    }
}
