//! Selects the identity: a private RSA key that may sign, and a certificate with the same public key.
//!
//! PURE. An equal `CKA_ID` is not enough (YubiKey attestation certificates have the same ID); the modulus decides. Of several valid
//! certificates for one key, the first pinned one is used, else the older one.

use crate::certificate::Certificate;
use crate::facts::{Key, KeyClass, Objects};
use crate::selector::{ObjectType, Uri};

mod error;
mod naming;
mod neighbours;
mod renewal;
mod token_certificates;

pub use error::IdentityError;
pub use token_certificates::{Stored, Unreadable, certificates};

use naming::{selectors, singles};
use renewal::one_of;

/// The selection of an identity. All given members must match.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `CKA_LABEL` of the key.
    pub key_label: Option<String>,
    /// `CKA_ID` of the key.
    pub key_id: Option<Vec<u8>>,
    /// SHA-256 fingerprints of certificates, in order of preference; empty: any.
    pub certificate_sha256: Vec<Vec<u8>>,
    /// The object part of a URI.
    pub uri: Option<Uri>,
}

/// The selected identity.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The private key.
    pub key: Key,
    /// Its certificate.
    pub certificate: Certificate,
    /// Whether the certificate is from a file.
    pub from_file: bool,
    /// Other valid certificates for the same key, with the reason for this one.
    pub notice: Option<String>,
    /// Certificates of the token that could not be used.
    pub unreadable: Vec<Unreadable>,
    /// Other private key objects of the same key.
    pub copies: Vec<Key>,
    /// Keys and certificates under the key's ID that belong to another key, by kind and name.
    pub same_id: Vec<String>,
}

/// Selects the only identity. With `file`, its certificate must match.
///
/// # Errors
/// When none or several match, each named as a selector to paste.
pub fn choose(
    objects: &Objects,
    wanted: &Wanted,
    file: Option<Certificate>,
    now: u64,
) -> Result<Identity, IdentityError> {
    let from_file = file.is_some();
    let (stored, unreadable) = match file {
        Some(certificate) => (vec![Stored { certificate, id: Vec::new(), label: Vec::new() }], Vec::new()),
        None => certificates(objects),
    };
    let (stored, attestations) = leaves(stored);
    let privates = private_keys(objects);
    if privates.is_empty() {
        return Err(IdentityError::NoKey);
    }
    let paired = pair(&privates, objects, (&stored, from_file), wanted, now);
    let identity = paired_with(paired, unreadable)?;
    let copies = neighbours::copies(objects, &identity);
    let same_id = neighbours::same_id(objects, stored.iter().chain(&attestations), &identity);
    Ok(Identity { copies, same_id, ..identity })
}

/// Selects only the certificate, as far as possible without a login. Private keys may be invisible, so each certificate counts, except one
/// whose ID belongs to a visible key with another modulus.
///
/// # Errors
/// As [`choose`].
pub fn choose_certificate(
    objects: &Objects,
    wanted: &Wanted,
    file: Option<Certificate>,
    now: u64,
) -> Result<Identity, IdentityError> {
    if file.is_some() || objects.keys.iter().any(|key| key.class == KeyClass::Private) {
        return choose(&with_public_as_private(objects, file.is_some()), wanted, file, now);
    }
    let public = |stored: &Stored| {
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
    let mut keys: Vec<Key> = Vec::new();
    for key in stored.iter().filter(|stored| !stored.certificate.is_ca).filter_map(public) {
        if keys.iter().all(|known| known.modulus != key.modulus) {
            keys.push(key);
        }
    }
    let paired = pair(&keys, objects, (&stored, false), wanted, now);
    paired_with(paired, unreadable)
}

/// Adds the certificates that could not be used to the result or to the error.
fn paired_with(
    paired: Result<Identity, IdentityError>,
    unreadable: Vec<Unreadable>,
) -> Result<Identity, IdentityError> {
    match paired {
        Ok(identity) => Ok(Identity { unreadable, ..identity }),
        Err(error) => Err(error.with(unreadable)),
    }
}

/// For a certificate from a file, a visible public key proves the match as well as a private key.
fn with_public_as_private(objects: &Objects, file: bool) -> Objects {
    let mut objects = objects.clone();
    if file && objects.keys.iter().all(|key| key.class == KeyClass::Public) {
        objects.keys.iter_mut().for_each(|key| key.class = KeyClass::Private);
    }
    objects
}

/// Certificates that can log in, and attestations, which cannot.
fn leaves(stored: Vec<Stored>) -> (Vec<Stored>, Vec<Stored>) {
    stored.into_iter().partition(|stored| !stored.certificate.is_attestation)
}

fn stand_in(stored: &Stored) -> Key {
    Key {
        handle: u64::MAX,
        class: KeyClass::Public,
        label: stored.label.clone(),
        id: stored.id.clone(),
        modulus: stored.certificate.modulus.clone(),
        sign: None,
        always_authenticate: None,
        sensitive: None,
        extractable: None,
        always_sensitive: None,
        never_extractable: None,
        local: None,
    }
}

fn pair(
    privates: &[Key],
    objects: &Objects,
    (stored, from_file): (&[Stored], bool),
    wanted: &Wanted,
    now: u64,
) -> Result<Identity, IdentityError> {
    let pairs: Vec<(&Key, Vec<&Stored>)> = privates.iter().map(|key| (key, partners(key, objects, stored))).collect();
    if pairs.iter().all(|(_, partners)| partners.is_empty()) {
        return Err(IdentityError::NoPair(singles(privates, stored, from_file)));
    }
    let mut matching: Vec<(&Key, Vec<&Stored>)> = pairs
        .iter()
        .map(|(key, partners)| {
            let fits = |stored: &&Stored| wanted.fits(key, stored, objects);
            (*key, partners.iter().copied().filter(fits).collect::<Vec<_>>())
        })
        .filter(|(_, partners)| !partners.is_empty())
        .collect();
    // A CA certificate cannot log in; it counts only if there is no other (a YubiKey shows its attestation key).
    let is_leaf = |(_, partners): &(&Key, Vec<&Stored>)| partners.iter().any(|stored| !stored.certificate.is_ca);
    if matching.iter().any(is_leaf) {
        matching.retain(is_leaf);
    }
    match matching.as_slice() {
        [(key, partners)] => {
            let (stored, notice) = one_of(partners, &wanted.certificate_sha256, now)?;
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

/// Private RSA keys that may sign. `CKA_SIGN` counts as true if the token does not report it.
fn private_keys(objects: &Objects) -> Vec<Key> {
    let usable = |key: &&Key| key.class == KeyClass::Private && key.sign != Some(false);
    objects.keys.iter().filter(usable).cloned().collect()
}

/// The modulus of a private key: its own, else that of the only public key with the same ID.
fn modulus_of<'a>(key: &'a Key, objects: &'a Objects) -> Option<&'a [u8]> {
    if !key.modulus.is_empty() {
        return Some(&key.modulus);
    }
    if key.id.is_empty() {
        return None;
    }
    let same = |other: &&Key| other.class == KeyClass::Public && other.id == key.id && !other.modulus.is_empty();
    let mut publics = objects.keys.iter().filter(same);
    let first = publics.next()?;
    publics.all(|other| other.modulus == first.modulus).then_some(&first.modulus)
}

fn partners<'a>(key: &Key, objects: &Objects, stored: &'a [Stored]) -> Vec<&'a Stored> {
    let modulus = modulus_of(key, objects);
    stored.iter().filter(|stored| modulus == Some(&stored.certificate.modulus)).collect()
}

impl Wanted {
    fn fits(&self, key: &Key, stored: &Stored, objects: &Objects) -> bool {
        let fingerprint = stored.certificate.sha256();
        let pinned =
            self.certificate_sha256.is_empty() || self.certificate_sha256.iter().any(|pin| pin[..] == fingerprint);
        let label_fits = self.key_label.as_deref().is_none_or(|label| label.as_bytes() == key.label);
        let id_fits = self.key_id.as_deref().is_none_or(|id| id == key.id);
        pinned && label_fits && id_fits && self.uri.as_ref().is_none_or(|uri| uri_fits(uri, key, stored, objects))
    }
}

/// Whether one object of the URI's type (or of any type) has both the URI's ID and label.
fn uri_fits(uri: &Uri, key: &Key, stored: &Stored, objects: &Objects) -> bool {
    let object = |id: &[u8], label: &[u8]| {
        uri.id.as_deref().is_none_or(|wanted| wanted == id)
            && uri.object.as_deref().is_none_or(|wanted| wanted == label)
    };
    let certificate = || object(&stored.id, &stored.label);
    let public = || {
        let same = |other: &&Key| other.class == KeyClass::Public && other.modulus == stored.certificate.modulus;
        objects.keys.iter().filter(same).any(|other| object(&other.id, &other.label))
    };
    match uri.object_type {
        Some(ObjectType::Private) => object(&key.id, &key.label),
        Some(ObjectType::Cert) => certificate(),
        Some(ObjectType::Public) => public(),
        None => object(&key.id, &key.label) || certificate(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::leaf;
    use crate::error::{Explain as _, Kind};
    use crate::facts;

    fn key(handle: u64, modulus: &[u8], id: u8) -> Key {
        let stored = Stored { certificate: leaf(), id: vec![id], label: b"cba".to_vec() };
        Key { handle, class: KeyClass::Private, modulus: modulus.to_vec(), ..stand_in(&stored) }
    }

    fn certificate(id: u8) -> facts::CertificateObject {
        facts::CertificateObject { label: b"cert".to_vec(), id: vec![id], value: leaf().der().to_vec() }
    }

    fn objects(keys: Vec<Key>, certificates: Vec<facts::CertificateObject>) -> Objects {
        Objects { keys, certificates }
    }

    fn now() -> u64 {
        leaf().not_before + 1
    }

    #[test]
    fn the_modulus_decides_and_a_shared_id_proves_nothing() {
        let objects = objects(vec![key(1, &[7; 256], 1), key(2, &leaf().modulus, 2)], vec![certificate(1)]);
        let identity = choose(&objects, &Wanted::default(), None, now()).unwrap();
        assert_eq!(identity.key.handle, 2);
    }

    #[test]
    fn a_private_key_without_modulus_is_known_by_its_public_key() {
        let mut public = key(3, &leaf().modulus, 1);
        public.class = KeyClass::Public;
        let with_public = objects(vec![key(1, &[], 1), public.clone()], vec![certificate(9)]);
        assert_eq!(choose(&with_public, &Wanted::default(), None, now()).unwrap().key.handle, 1);
        public.id = vec![2];
        let without = objects(vec![key(1, &[], 1), public], vec![certificate(1)]);
        let error = choose(&without, &Wanted::default(), None, now()).unwrap_err();
        assert!(matches!(error, IdentityError::NoPair(_)));
        assert!(error.to_string().contains("has no private key") && error.to_string().contains("has no certificate"));
    }

    #[test]
    fn a_key_that_may_not_sign_is_not_an_identity() {
        let mut no_sign = key(1, &leaf().modulus, 1);
        no_sign.sign = Some(false);
        assert!(matches!(
            choose(&objects(vec![no_sign], vec![certificate(1)]), &Wanted::default(), None, now()),
            Err(IdentityError::NoKey)
        ));
    }

    #[test]
    fn two_identities_are_refused_with_selectors() {
        let both = objects(vec![key(1, &leaf().modulus, 1), key(2, &leaf().modulus, 2)], vec![certificate(1)]);
        let error = choose(&both, &Wanted::default(), None, now()).unwrap_err();
        assert_eq!(error.kind(), Kind::Ambiguous);
        let by_id = Wanted { key_id: Some(vec![2]), ..Wanted::default() };
        assert_eq!(choose(&both, &by_id, None, now()).unwrap().key.handle, 2);
        let uri = Uri::parse("pkcs11:id=%02;type=private").unwrap();
        let by_uri = Wanted { uri: Some(uri), ..Wanted::default() };
        assert_eq!(choose(&both, &by_uri, None, now()).unwrap().key.handle, 2);
    }

    #[test]
    fn the_same_certificate_stored_twice_is_one() {
        let twice = objects(vec![key(1, &leaf().modulus, 1)], vec![certificate(1), certificate(2)]);
        assert!(choose(&twice, &Wanted::default(), None, now()).unwrap().notice.is_none());
    }

    #[test]
    fn a_pin_that_fits_nothing_is_refused() {
        let one = objects(vec![key(1, &leaf().modulus, 1)], vec![certificate(1)]);
        let wanted = Wanted { certificate_sha256: vec![vec![0; 32]], ..Wanted::default() };
        let error = choose(&one, &wanted, None, now()).unwrap_err();
        assert!(error.hints()[0].contains("--certificate-sha256"), "{:?}", error.hints());
    }

    fn public(modulus: &[u8], id: u8) -> Key {
        Key { class: KeyClass::Public, ..key(9, modulus, id) }
    }

    fn certificate_alone(
        objects: &Objects,
        file: Option<crate::certificate::Certificate>,
    ) -> Result<Identity, IdentityError> {
        choose_certificate(objects, &Wanted::default(), file, now())
    }

    /// The corpus has a certificate of a CA, with another key.
    fn authority(id: u8) -> facts::CertificateObject {
        let value = include_bytes!("../tests/data/certificates/flag-ca.der").to_vec();
        facts::CertificateObject { label: b"ca".to_vec(), id: vec![id], value }
    }

    #[test]
    fn without_a_login_a_certificate_stands_for_itself() {
        let identity = certificate_alone(&objects(Vec::new(), vec![certificate(1)]), None).unwrap();
        assert_eq!((identity.key.handle, identity.key.id, identity.key.label), (u64::MAX, vec![1], b"cert".to_vec()));
        assert_eq!(identity.certificate, leaf());
        let visible = objects(vec![public(&leaf().modulus, 5)], vec![certificate(1)]);
        assert_eq!(certificate_alone(&visible, None).unwrap().key.id, [5]);
        let nothing = certificate_alone(&objects(vec![public(&leaf().modulus, 1)], Vec::new()), None);
        assert!(matches!(nothing, Err(IdentityError::NoCertificate)));
    }

    #[test]
    fn a_certificate_whose_id_belongs_to_another_visible_key_does_not_stand_for_itself() {
        for (keys, fits) in [
            (vec![public(&[7; 256], 1)], false),
            (vec![public(&[7; 256], 2)], true),
            (vec![public(&[], 1)], true),
            (vec![public(&[7; 256], 1), public(&leaf().modulus, 3)], true),
        ] {
            let chosen = certificate_alone(&objects(keys.clone(), vec![certificate(1)]), None);
            assert_eq!(chosen.is_ok(), fits, "{keys:?}");
        }
        let mut nameless = certificate(1);
        nameless.id.clear();
        let key = Key { id: Vec::new(), ..public(&[7; 256], 1) };
        assert!(certificate_alone(&objects(vec![key], vec![nameless]), None).is_ok(), "no ID is no shared ID");
    }

    #[test]
    fn a_ca_counts_only_where_nothing_else_is_there() {
        let both = objects(Vec::new(), vec![authority(2), certificate(1)]);
        assert_eq!(certificate_alone(&both, None).unwrap().certificate, leaf());
        assert!(certificate_alone(&objects(Vec::new(), vec![authority(2)]), None).is_err());
        // Two certificates of one key are one identity.
        let twice = objects(Vec::new(), vec![certificate(1), certificate(2)]);
        assert_eq!(certificate_alone(&twice, None).unwrap().key.id, [1]);
        let ca = certificates(&objects(Vec::new(), vec![authority(2)])).0.remove(0).certificate;
        let keys = vec![key(1, &leaf().modulus, 1), key(2, &ca.modulus, 2)];
        let with_keys = objects(keys.clone(), vec![authority(2), certificate(1)]);
        assert_eq!(choose(&with_keys, &Wanted::default(), None, now()).unwrap().key.handle, 1);
        let only_ca = objects(keys, vec![authority(2)]);
        assert_eq!(choose(&only_ca, &Wanted::default(), None, now()).unwrap().key.handle, 2);
    }

    #[test]
    fn a_certificate_from_a_file_is_proven_by_a_private_or_a_public_key() {
        let by_public = objects(vec![public(&leaf().modulus, 1)], Vec::new());
        let identity = certificate_alone(&by_public, Some(leaf())).unwrap();
        assert!(identity.from_file && identity.key.class == KeyClass::Private);
        assert!(matches!(certificate_alone(&by_public, None), Err(IdentityError::NoCertificate)));
        let other = objects(vec![public(&[7; 256], 1)], Vec::new());
        assert!(matches!(certificate_alone(&other, Some(leaf())), Err(IdentityError::NoPair(_))));
        // A visible private key is not outvoted by a public one.
        let mixed = objects(vec![key(1, &[7; 256], 1), public(&leaf().modulus, 2)], Vec::new());
        assert!(certificate_alone(&mixed, Some(leaf())).is_err());
        assert!(matches!(certificate_alone(&Objects::default(), Some(leaf())), Err(IdentityError::NoKey)));
        let private = objects(vec![key(1, &leaf().modulus, 1)], vec![certificate(1)]);
        assert_eq!(certificate_alone(&private, None).unwrap().key.handle, 1);
    }

    #[test]
    fn a_private_key_without_an_id_is_not_known_by_a_public_key_without_one() {
        let nameless = |key: Key| Key { id: Vec::new(), ..key };
        let keys = vec![nameless(key(1, &[], 1)), nameless(public(&leaf().modulus, 1))];
        let error = choose(&objects(keys, vec![certificate(1)]), &Wanted::default(), None, now());
        assert!(matches!(error, Err(IdentityError::NoPair(_))));
        // Two public keys of one ID say nothing.
        let keys = vec![key(1, &[], 1), public(&leaf().modulus, 1), public(&[7; 256], 1)];
        assert!(choose(&objects(keys, vec![certificate(1)]), &Wanted::default(), None, now()).is_err());
        let keys = vec![key(1, &[], 1), public(&leaf().modulus, 1), public(&leaf().modulus, 1)];
        assert!(choose(&objects(keys, vec![certificate(1)]), &Wanted::default(), None, now()).is_ok());
    }

    #[test]
    fn each_member_of_the_selection_must_fit() {
        let mut labelled = key(1, &leaf().modulus, 1);
        labelled.label = b"key".to_vec();
        let all = objects(vec![labelled, public(&leaf().modulus, 3)], vec![certificate(2)]);
        let chosen = |wanted: Wanted| choose(&all, &wanted, None, now()).is_ok();
        let by_uri = |uri: &str| chosen(Wanted { uri: Some(Uri::parse(uri).unwrap()), ..Wanted::default() });
        for (label, id, pin, wanted) in [
            (Some("key"), Some(1), None, true),
            (Some("cert"), Some(1), None, false),
            (Some("key"), Some(2), None, false),
            (Some("key"), Some(1), Some(leaf().sha256().to_vec()), true),
            (Some("key"), Some(1), Some(vec![0; 32]), false),
            (Some("cert"), None, Some(leaf().sha256().to_vec()), false),
        ] {
            let key_id = id.map(|id| vec![id]);
            let wish = Wanted {
                key_label: label.map(str::to_owned),
                key_id,
                certificate_sha256: pin.into_iter().collect(),
                uri: None,
            };
            assert_eq!(chosen(wish), wanted, "{label:?} {id:?}");
        }
        for (uri, wanted) in [
            ("pkcs11:object=key;id=%01;type=private", true),
            ("pkcs11:object=key;id=%02;type=private", false),
            ("pkcs11:object=cert;id=%02;type=cert", true),
            ("pkcs11:object=key;id=%02;type=cert", false),
            ("pkcs11:object=cba;id=%03;type=public", true),
            ("pkcs11:object=cba;id=%01;type=public", false),
            ("pkcs11:object=key", true),
            ("pkcs11:object=cert", true),
            ("pkcs11:object=key;id=%02", false),
            ("pkcs11:id=%09", false),
        ] {
            assert_eq!(by_uri(uri), wanted, "{uri}");
        }
        // A public key of another modulus is not the identity's.
        let other = objects(vec![key(1, &leaf().modulus, 1), public(&[7; 256], 3)], vec![certificate(2)]);
        let wanted = Wanted { uri: Some(Uri::parse("pkcs11:id=%03;type=public").unwrap()), ..Wanted::default() };
        assert!(choose(&other, &wanted, None, now()).is_err());
    }

    #[test]
    fn copies_and_objects_of_other_keys_stand_beside_the_identity() {
        let modulus = leaf().modulus;
        let mut other_label = key(3, &[7; 256], 1);
        other_label.label = b"other".to_vec();
        let keys = vec![key(1, &modulus, 1), key(2, &modulus, 5), other_label, public(&[8; 256], 1), public(&[], 1)];
        let all = objects(keys, vec![certificate(1), authority(1)]);
        let wanted = Wanted { key_id: Some(vec![1]), ..Wanted::default() };
        let identity = choose(&all, &wanted, None, now()).unwrap();
        assert_eq!(identity.key.handle, 1);
        assert_eq!(identity.copies.iter().map(|copy| copy.handle).collect::<Vec<_>>(), [2]);
        let beside = ["private key 'other' (ID 01)", "public key 'cba' (ID 01)", "certificate 'ca' (ID 01)"];
        let same_modulus = certificates(&all).0[1].certificate.modulus == modulus;
        assert_eq!(identity.same_id, beside[..if same_modulus { 2 } else { 3 }]);
        let nameless =
            objects(vec![Key { id: Vec::new(), ..key(1, &modulus, 1) }, public(&[8; 256], 1)], vec![certificate(1)]);
        assert_eq!(choose(&nameless, &Wanted::default(), None, now()).unwrap().same_id, [""; 0]);
    }
}
