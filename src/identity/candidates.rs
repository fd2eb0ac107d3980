//! The candidates for an identity: keys that may sign, their certificates, and which of them a selection means.
//!
//! PURE. An equal `CKA_ID` is not enough: the modulus decides.

use super::TokenCertificate;
use crate::facts::{KeyClass, KeyObject, TokenObjects};
use crate::selector::{ObjectType, Uri};

/// The selection of an identity. All given members must match.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdentitySelector {
    /// `CKA_LABEL` of the key.
    pub key_label: Option<String>,
    /// `CKA_ID` of the key.
    pub key_id: Option<Vec<u8>>,
    /// SHA-256 fingerprints of certificates, in order of preference; empty: any.
    pub certificate_sha256: Vec<Vec<u8>>,
    /// The object part of a URI.
    pub uri: Option<Uri>,
}

/// Private RSA keys that may sign. `CKA_SIGN` counts as true if the token does not report it.
pub(super) fn private_keys(objects: &TokenObjects) -> Vec<KeyObject> {
    let usable = |key: &&KeyObject| key.class == KeyClass::Private && key.sign != Some(false);
    objects.keys.iter().filter(usable).cloned().collect()
}

/// The modulus of a private key: its own, else that of the only public key with the same ID.
pub(super) fn modulus_of<'a>(key: &'a KeyObject, objects: &'a TokenObjects) -> Option<&'a [u8]> {
    if !key.modulus.is_empty() {
        return Some(&key.modulus);
    }
    if key.id.is_empty() {
        return None;
    }
    let same = |other: &&KeyObject| other.class == KeyClass::Public && other.id == key.id && !other.modulus.is_empty();
    let mut publics = objects.keys.iter().filter(same);
    let first = publics.next()?;
    publics.all(|other| other.modulus == first.modulus).then_some(&first.modulus)
}

pub(super) fn partners<'a>(
    key: &KeyObject,
    objects: &TokenObjects,
    stored: &'a [TokenCertificate],
) -> Vec<&'a TokenCertificate> {
    let modulus = modulus_of(key, objects);
    stored.iter().filter(|stored| modulus == Some(&stored.certificate.modulus)).collect()
}

impl IdentitySelector {
    pub(super) fn fits(&self, key: &KeyObject, stored: &TokenCertificate, objects: &TokenObjects) -> bool {
        let fingerprint = stored.certificate.sha256();
        let pinned =
            self.certificate_sha256.is_empty() || self.certificate_sha256.iter().any(|pin| pin[..] == fingerprint);
        let label_fits = self.key_label.as_deref().is_none_or(|label| label.as_bytes() == key.label);
        let id_fits = self.key_id.as_deref().is_none_or(|id| id == key.id);
        pinned && label_fits && id_fits && self.uri.as_ref().is_none_or(|uri| uri_fits(uri, key, stored, objects))
    }
}

/// Whether one object of the URI's type (or of any type) has both the URI's ID and label.
fn uri_fits(uri: &Uri, key: &KeyObject, stored: &TokenCertificate, objects: &TokenObjects) -> bool {
    let object = |id: &[u8], label: &[u8]| {
        uri.id.as_deref().is_none_or(|selector| selector == id)
            && uri.object.as_deref().is_none_or(|selector| selector == label)
    };
    let certificate = || object(&stored.id, &stored.label);
    let public = || {
        let same = |other: &&KeyObject| other.class == KeyClass::Public && other.modulus == stored.certificate.modulus;
        objects.keys.iter().filter(same).any(|other| object(&other.id, &other.label))
    };
    match uri.object_type {
        Some(ObjectType::Private) => object(&key.id, &key.label),
        Some(ObjectType::Cert) => certificate(),
        Some(ObjectType::Public) => public(),
        None => object(&key.id, &key.label) || certificate(),
    }
}
