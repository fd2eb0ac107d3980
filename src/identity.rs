//! Selects the identity: a private RSA key that may sign, and a certificate with the same public key.
//!
//! PURE. An equal `CKA_ID` is not enough (YubiKey attestation certificates have the same ID); the modulus decides. Of several valid
//! certificates for one key, the first pinned one is used, else the older one.

use crate::certificate::Certificate;
use crate::facts::{KeyClass, KeyObject, TokenObjects};
use crate::text::hex;

mod candidates;
mod error;
mod naming;
mod neighbours;
mod renewal;
mod token_certificates;

pub(crate) use candidates::IdentitySelector;
pub(crate) use error::IdentityError;
pub(crate) use token_certificates::{TokenCertificate, UnreadableCertificate, certificates};

use candidates::{partners, private_keys};
use naming::{selectors, singles};
use renewal::one_of;

/// The selected identity.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The private key.
    pub key: KeyObject,
    pub certificate: Certificate,
    /// Whether the certificate is from a file.
    pub from_file: bool,
    /// Other valid certificates for the same key, with the reason for this one.
    pub notice: Option<String>,
    /// Certificates of the token that could not be used.
    pub unreadable: Vec<UnreadableCertificate>,
    /// Other private key objects of the same key.
    pub copies: Vec<KeyObject>,
    /// Keys and certificates under the key's ID that belong to another key, by kind and name.
    pub same_id: Vec<String>,
}

/// Selects the only identity. With `file`, its certificate must match.
///
/// # Errors
/// When none or several match, each named as a selector to paste.
pub(crate) fn choose(
    objects: &TokenObjects,
    selector: &IdentitySelector,
    file: Option<Certificate>,
    now: u64,
) -> Result<Identity, IdentityError> {
    let from_file = file.is_some();
    let (stored, unreadable) = match file {
        Some(certificate) => (vec![TokenCertificate { certificate, id: Vec::new(), label: Vec::new() }], Vec::new()),
        None => certificates(objects),
    };
    let (stored, attestations) = leaves(stored);
    let privates = private_keys(objects);
    if privates.is_empty() {
        return Err(IdentityError::NoKey);
    }
    let paired = pair(&privates, objects, (&stored, from_file), selector, now);
    let identity = paired_with(paired, unreadable)?;
    let copies = neighbours::copies(objects, &identity.key, &identity.certificate);
    let same_id =
        neighbours::same_id(objects, stored.iter().chain(&attestations), &identity.key, &identity.certificate);
    Ok(Identity { copies, same_id, ..identity })
}

/// Selects only the certificate, as far as possible without a login. Private keys may be invisible, so each certificate counts, except one
/// whose ID belongs to a visible key with another modulus.
pub(crate) fn choose_certificate(
    objects: &TokenObjects,
    selector: &IdentitySelector,
    file: Option<Certificate>,
    now: u64,
) -> Result<Identity, IdentityError> {
    if file.is_some() || objects.keys.iter().any(|key| key.class == KeyClass::Private) {
        return choose(&with_public_as_private(objects, file.is_some()), selector, file, now);
    }
    let public = |stored: &TokenCertificate| {
        let keys = objects.keys.iter().filter(|key| !key.modulus.is_empty());
        keys.clone().find(|key| key.modulus == stored.certificate.modulus).cloned().or_else(|| {
            let taken = keys.clone().any(|key| key.id == stored.id && !stored.id.is_empty());
            (!taken).then(|| stand_in(stored))
        })
    };
    let (stored, unreadable) = certificates(objects);
    let (stored, _) = leaves(stored);
    if stored.is_empty() {
        return Err(IdentityError::NoCertificate.with(unreadable));
    }
    let mut keys: Vec<KeyObject> = Vec::new();
    for key in stored.iter().filter(|stored| !stored.certificate.is_ca).filter_map(public) {
        if keys.iter().all(|known| known.modulus != key.modulus) {
            keys.push(key);
        }
    }
    let paired = pair(&keys, objects, (&stored, false), selector, now);
    paired_with(paired, unreadable)
}

/// Adds the certificates that could not be used to the result or to the error.
fn paired_with(
    paired: Result<Identity, IdentityError>,
    unreadable: Vec<UnreadableCertificate>,
) -> Result<Identity, IdentityError> {
    match paired {
        Ok(identity) => Ok(Identity { unreadable, ..identity }),
        Err(error) => Err(error.with(unreadable)),
    }
}

/// For a certificate from a file, a visible public key proves the match as well as a private key.
fn with_public_as_private(objects: &TokenObjects, file: bool) -> TokenObjects {
    let mut objects = objects.clone();
    if file && objects.keys.iter().all(|key| key.class == KeyClass::Public) {
        objects.keys.iter_mut().for_each(|key| key.class = KeyClass::Private);
    }
    objects
}

/// Certificates that can log in, and attestations, which cannot.
fn leaves(stored: Vec<TokenCertificate>) -> (Vec<TokenCertificate>, Vec<TokenCertificate>) {
    stored.into_iter().partition(|stored| !stored.certificate.is_attestation)
}

fn stand_in(stored: &TokenCertificate) -> KeyObject {
    KeyObject {
        label: stored.label.clone(),
        id: stored.id.clone(),
        modulus: stored.certificate.modulus.clone(),
        ..KeyObject::unreported(u64::MAX, KeyClass::Public)
    }
}

fn pair(
    privates: &[KeyObject],
    objects: &TokenObjects,
    (stored, from_file): (&[TokenCertificate], bool),
    selector: &IdentitySelector,
    now: u64,
) -> Result<Identity, IdentityError> {
    let pairs: Vec<(&KeyObject, Vec<&TokenCertificate>)> =
        privates.iter().map(|key| (key, partners(key, objects, stored))).collect();
    if pairs.iter().all(|(_, partners)| partners.is_empty()) {
        let key_id = match privates {
            [key] if !key.id.is_empty() => hex(&key.id),
            _ => "ID".into(),
        };
        return Err(IdentityError::NoPair { parts: singles(privates, stored, from_file), key_id, from_file });
    }
    let mut matching: Vec<(&KeyObject, Vec<&TokenCertificate>)> = pairs
        .iter()
        .map(|(key, partners)| {
            let fits = |stored: &&TokenCertificate| selector.fits(key, stored, objects);
            (*key, partners.iter().copied().filter(fits).collect::<Vec<_>>())
        })
        .filter(|(_, partners)| !partners.is_empty())
        .collect();
    // A CA certificate cannot log in; it counts only if there is no other (a YubiKey shows its attestation key).
    let is_leaf =
        |(_, partners): &(&KeyObject, Vec<&TokenCertificate>)| partners.iter().any(|stored| !stored.certificate.is_ca);
    if matching.iter().any(is_leaf) {
        matching.retain(is_leaf);
    }
    match matching.as_slice() {
        [(key, partners)] => {
            let (stored, notice) = one_of(partners, &selector.certificate_sha256, now)?;
            Ok(Identity {
                key: (*key).clone(),
                certificate: stored.certificate.clone(),
                from_file,
                notice,
                unreadable: Vec::new(),
                copies: Vec::new(),
                same_id: Vec::new(),
            })
        }
        [] => Err(IdentityError::NoMatch { candidates: selectors(&pairs) }),
        several => Err(IdentityError::Ambiguous(selectors(several))),
    }
}

#[cfg(test)]
mod tests;
