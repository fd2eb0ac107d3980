//! Other objects in the token beside the selected key: objects of the same key, and objects of other keys with its ID.
//!
//! PURE. An exportable copy makes the key exportable, even if the selected object says that it is not.

use super::TokenCertificate;
use super::candidates::modulus_of;
use crate::certificate::Certificate;
use crate::facts::{KeyClass, KeyObject, TokenObjects, object_name};

/// Other private key objects of the same key, by the modulus.
pub(super) fn copies(objects: &TokenObjects, selected: &KeyObject, certificate: &Certificate) -> Vec<KeyObject> {
    let modulus = Some(certificate.modulus.as_slice());
    let is_copy = |key: &&KeyObject| {
        key.class == KeyClass::Private && key.handle != selected.handle && modulus_of(key, objects) == modulus
    };
    objects.keys.iter().filter(is_copy).cloned().collect()
}

/// Public keys and certificates with the key's ID that belong to another key.
pub(super) fn same_id<'a>(
    objects: &TokenObjects,
    stored: impl Iterator<Item = &'a TokenCertificate>,
    selected: &KeyObject,
    certificate: &Certificate,
) -> Vec<String> {
    let (id, modulus) = (&selected.id, &certificate.modulus);
    if id.is_empty() {
        return Vec::new();
    }
    let is_other = |other: &KeyObject| {
        other.handle != selected.handle && other.id == *id && !other.modulus.is_empty() && other.modulus != *modulus
    };
    let keys = objects.keys.iter().filter(|other| is_other(other)).map(|other| {
        let kind = if other.class == KeyClass::Private { "private" } else { "public" };
        format!("{kind} key {}", other.name())
    });
    let others = stored.filter(|other| other.id == *id && other.certificate.modulus != *modulus);
    let certificates = others.map(|other| {
        let kind = if other.certificate.is_attestation { "attestation" } else { "certificate" };
        format!("{kind} {}", object_name(&other.label, &other.id))
    });
    keys.chain(certificates).collect()
}
