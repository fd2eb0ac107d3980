//! Unit tests of the choice of an identity.
//!
//! PURE.

use super::*;
use crate::certificate::tests::leaf;
use crate::error::{Explain as _, Kind};
use crate::facts;
use crate::selector::Uri;

fn key(handle: u64, modulus: &[u8], id: u8) -> KeyObject {
    let stored = TokenCertificate { certificate: leaf(), id: vec![id], label: b"cba".to_vec() };
    KeyObject { handle, class: KeyClass::Private, modulus: modulus.to_vec(), ..stand_in(&stored) }
}

fn certificate(id: u8) -> facts::CertificateObject {
    facts::CertificateObject { label: b"cert".to_vec(), id: vec![id], value: leaf().der().to_vec() }
}

fn objects(keys: Vec<KeyObject>, certificates: Vec<facts::CertificateObject>) -> TokenObjects {
    TokenObjects { keys, certificates }
}

fn now() -> u64 {
    leaf().not_before + 1
}

#[test]
fn the_modulus_decides_and_a_shared_id_proves_nothing() {
    let objects = objects(vec![key(1, &[7; 256], 1), key(2, &leaf().modulus, 2)], vec![certificate(1)]);
    let identity = choose(&objects, &IdentitySelector::default(), None, now()).unwrap();
    assert_eq!(identity.key.handle, 2);
}

#[test]
fn a_private_key_without_modulus_is_known_by_its_public_key() {
    let mut public = key(3, &leaf().modulus, 1);
    public.class = KeyClass::Public;
    let with_public = objects(vec![key(1, &[], 1), public.clone()], vec![certificate(9)]);
    assert_eq!(choose(&with_public, &IdentitySelector::default(), None, now()).unwrap().key.handle, 1);
    public.id = vec![2];
    let without = objects(vec![key(1, &[], 1), public], vec![certificate(1)]);
    let error = choose(&without, &IdentitySelector::default(), None, now()).unwrap_err();
    assert!(matches!(error, IdentityError::NoPair { .. }));
    assert!(error.to_string().contains("has no private key") && error.to_string().contains("has no certificate"));
}

#[test]
fn a_key_that_may_not_sign_is_not_an_identity() {
    let mut no_sign = key(1, &leaf().modulus, 1);
    no_sign.sign = Some(false);
    assert!(matches!(
        choose(&objects(vec![no_sign], vec![certificate(1)]), &IdentitySelector::default(), None, now()),
        Err(IdentityError::NoKey)
    ));
}

#[test]
fn two_identities_are_refused_with_selectors() {
    let both = objects(vec![key(1, &leaf().modulus, 1), key(2, &leaf().modulus, 2)], vec![certificate(1)]);
    let error = choose(&both, &IdentitySelector::default(), None, now()).unwrap_err();
    assert_eq!(error.kind(), Kind::Ambiguous);
    let by_id = IdentitySelector { key_id: Some(vec![2]), ..IdentitySelector::default() };
    assert_eq!(choose(&both, &by_id, None, now()).unwrap().key.handle, 2);
    let uri = Uri::parse("pkcs11:id=%02;type=private").unwrap();
    let by_uri = IdentitySelector { uri: Some(uri), ..IdentitySelector::default() };
    assert_eq!(choose(&both, &by_uri, None, now()).unwrap().key.handle, 2);
}

#[test]
fn the_same_certificate_stored_twice_is_one() {
    let twice = objects(vec![key(1, &leaf().modulus, 1)], vec![certificate(1), certificate(2)]);
    assert!(choose(&twice, &IdentitySelector::default(), None, now()).unwrap().notice.is_none());
}

#[test]
fn a_pin_that_fits_nothing_is_refused() {
    let one = objects(vec![key(1, &leaf().modulus, 1)], vec![certificate(1)]);
    let selector = IdentitySelector { certificate_sha256: vec![vec![0; 32]], ..IdentitySelector::default() };
    let error = choose(&one, &selector, None, now()).unwrap_err();
    assert!(error.hints()[0].contains("--certificate-sha256"), "{:?}", error.hints());
}

fn public(modulus: &[u8], id: u8) -> KeyObject {
    KeyObject { class: KeyClass::Public, ..key(9, modulus, id) }
}

fn certificate_alone(
    objects: &TokenObjects,
    file: Option<crate::certificate::Certificate>,
) -> Result<Identity, IdentityError> {
    choose_certificate(objects, &IdentitySelector::default(), file, now())
}

/// The corpus has a certificate of a CA, with another key.
fn authority(id: u8) -> facts::CertificateObject {
    let value = include_bytes!("../../tests/data/certificates/flag-ca.der").to_vec();
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
    let key = KeyObject { id: Vec::new(), ..public(&[7; 256], 1) };
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
    assert_eq!(choose(&with_keys, &IdentitySelector::default(), None, now()).unwrap().key.handle, 1);
    let only_ca = objects(keys, vec![authority(2)]);
    assert_eq!(choose(&only_ca, &IdentitySelector::default(), None, now()).unwrap().key.handle, 2);
}

#[test]
fn a_certificate_from_a_file_is_proven_by_a_private_or_a_public_key() {
    let by_public = objects(vec![public(&leaf().modulus, 1)], Vec::new());
    let identity = certificate_alone(&by_public, Some(leaf())).unwrap();
    assert!(identity.from_file && identity.key.class == KeyClass::Private);
    assert!(matches!(certificate_alone(&by_public, None), Err(IdentityError::NoCertificate)));
    let other = objects(vec![public(&[7; 256], 1)], Vec::new());
    assert!(matches!(certificate_alone(&other, Some(leaf())), Err(IdentityError::NoPair { .. })));
    // A visible private key is not outvoted by a public one.
    let mixed = objects(vec![key(1, &[7; 256], 1), public(&leaf().modulus, 2)], Vec::new());
    assert!(certificate_alone(&mixed, Some(leaf())).is_err());
    assert!(matches!(certificate_alone(&TokenObjects::default(), Some(leaf())), Err(IdentityError::NoKey)));
    let private = objects(vec![key(1, &leaf().modulus, 1)], vec![certificate(1)]);
    assert_eq!(certificate_alone(&private, None).unwrap().key.handle, 1);
}

#[test]
fn a_private_key_without_an_id_is_not_known_by_a_public_key_without_one() {
    let nameless = |key: KeyObject| KeyObject { id: Vec::new(), ..key };
    let keys = vec![nameless(key(1, &[], 1)), nameless(public(&leaf().modulus, 1))];
    let error = choose(&objects(keys, vec![certificate(1)]), &IdentitySelector::default(), None, now());
    assert!(matches!(error, Err(IdentityError::NoPair { .. })));
    // Two public keys of one ID say nothing.
    let keys = vec![key(1, &[], 1), public(&leaf().modulus, 1), public(&[7; 256], 1)];
    assert!(choose(&objects(keys, vec![certificate(1)]), &IdentitySelector::default(), None, now()).is_err());
    let keys = vec![key(1, &[], 1), public(&leaf().modulus, 1), public(&leaf().modulus, 1)];
    assert!(choose(&objects(keys, vec![certificate(1)]), &IdentitySelector::default(), None, now()).is_ok());
}

#[test]
fn each_member_of_the_selection_must_fit() {
    let mut labelled = key(1, &leaf().modulus, 1);
    labelled.label = b"key".to_vec();
    let all = objects(vec![labelled, public(&leaf().modulus, 3)], vec![certificate(2)]);
    let chosen = |selector: IdentitySelector| choose(&all, &selector, None, now()).is_ok();
    let by_uri =
        |uri: &str| chosen(IdentitySelector { uri: Some(Uri::parse(uri).unwrap()), ..IdentitySelector::default() });
    for (label, id, pin, selector) in [
        (Some("key"), Some(1), None, true),
        (Some("cert"), Some(1), None, false),
        (Some("key"), Some(2), None, false),
        (Some("key"), Some(1), Some(leaf().sha256().to_vec()), true),
        (Some("key"), Some(1), Some(vec![0; 32]), false),
        (Some("cert"), None, Some(leaf().sha256().to_vec()), false),
    ] {
        let key_id = id.map(|id| vec![id]);
        let wish = IdentitySelector {
            key_label: label.map(str::to_owned),
            key_id,
            certificate_sha256: pin.into_iter().collect(),
            uri: None,
        };
        assert_eq!(chosen(wish), selector, "{label:?} {id:?}");
    }
    for (uri, selector) in [
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
        assert_eq!(by_uri(uri), selector, "{uri}");
    }
    // A public key of another modulus is not the identity's.
    let other = objects(vec![key(1, &leaf().modulus, 1), public(&[7; 256], 3)], vec![certificate(2)]);
    let selector =
        IdentitySelector { uri: Some(Uri::parse("pkcs11:id=%03;type=public").unwrap()), ..IdentitySelector::default() };
    assert!(choose(&other, &selector, None, now()).is_err());
}

#[test]
fn copies_and_objects_of_other_keys_stand_beside_the_identity() {
    let modulus = leaf().modulus;
    let mut other_label = key(3, &[7; 256], 1);
    other_label.label = b"other".to_vec();
    let keys = vec![key(1, &modulus, 1), key(2, &modulus, 5), other_label, public(&[8; 256], 1), public(&[], 1)];
    let all = objects(keys, vec![certificate(1), authority(1)]);
    let selector = IdentitySelector { key_id: Some(vec![1]), ..IdentitySelector::default() };
    let identity = choose(&all, &selector, None, now()).unwrap();
    assert_eq!(identity.key.handle, 1);
    assert_eq!(identity.copies.iter().map(|copy| copy.handle).collect::<Vec<_>>(), [2]);
    let beside = ["private key 'other' (ID 01)", "public key 'cba' (ID 01)", "certificate 'ca' (ID 01)"];
    let same_modulus = certificates(&all).0[1].certificate.modulus == modulus;
    assert_eq!(identity.same_id, beside[..if same_modulus { 2 } else { 3 }]);
    let nameless =
        objects(vec![KeyObject { id: Vec::new(), ..key(1, &modulus, 1) }, public(&[8; 256], 1)], vec![certificate(1)]);
    assert_eq!(choose(&nameless, &IdentitySelector::default(), None, now()).unwrap().same_id, [""; 0]);
}

#[test]
fn a_broken_certificate_beside_a_good_one_is_reported_with_the_identity_or_the_error() {
    let broken = facts::CertificateObject { label: b"old".to_vec(), id: vec![8], value: vec![0x30, 3, 1] };
    let good = objects(vec![key(1, &leaf().modulus, 1)], vec![certificate(1), broken.clone()]);
    let identity = choose(&good, &IdentitySelector::default(), None, now()).unwrap();
    assert_eq!(identity.unreadable.iter().map(|one| one.label.as_slice()).collect::<Vec<_>>(), [b"old"]);
    let bad = objects(vec![key(1, &[7; 256], 1)], vec![certificate(1), broken]);
    let error = choose(&bad, &IdentitySelector::default(), None, now()).unwrap_err();
    assert!(error.to_string().contains("'old'"), "{error}");
}

#[test]
fn an_error_names_the_first_of_many_certificates() {
    let error = |count| {
        let parts = (1..=count).map(|number| format!("part {number}")).collect();
        IdentityError::NoPair { parts, key_id: "01".into(), from_file: false }.to_string()
    };
    assert!(error(6).ends_with("part 5; part 6"), "{}", error(6));
    assert!(error(150).ends_with("part 6; and 144 more"), "{}", error(150));
}
