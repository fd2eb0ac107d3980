//! Unit tests of the policy's decision.
//!
//! PURE.

#![cfg(test)]

use super::*;
use crate::certificate::tests::leaf;
use crate::facts::{KeyClass, Mechanism};

fn key() -> KeyObject {
    KeyObject {
        sign: Some(true),
        sensitive: Some(true),
        extractable: Some(false),
        local: Some(false),
        ..KeyObject::unreported(1, KeyClass::Private)
    }
}

/// All facts of a decision, so that a test can change one part.
struct Case {
    key: KeyObject,
    copies: Vec<KeyObject>,
    token: Option<Token>,
    from_file: bool,
    choice: PayloadChoice,
    now: u64,
}

fn decide_with(policy: &Policy, change: impl FnOnce(&mut Case)) -> Decision {
    let certificate = leaf();
    let token = Some(Token { serial: "12".into(), ..Token::default() });
    let now = certificate.not_before + 1;
    let choice = PayloadChoice { version: Version::V2, by_flag: false };
    let mut case = Case { key: key(), copies: Vec::new(), token, from_file: false, choice, now };
    change(&mut case);
    let before_login = PreLoginFacts {
        token: case.token.as_ref(),
        certificate_from_file: case.from_file,
        choice: case.choice,
        mechanism: Mechanism::Sha512RsaPkcs,
    };
    let facts =
        SigningFacts { before_login, key: &case.key, copies: &case.copies, certificate: &certificate, now: case.now };
    // The permission has the facts and warnings of the decision.
    match super::super::permit(policy, &facts) {
        Ok(permit) => {
            assert_eq!(permit.warnings(), decide(policy, &facts).allowed().unwrap());
            assert_eq!(
                (permit.key(), permit.given(), permit.mechanism()),
                (case.key.handle, case.now, Mechanism::Sha512RsaPkcs)
            );
            assert_eq!(permit.choice(), case.choice);
        }
        Err(_) => assert_ne!(decide(policy, &facts).refusals, []),
    }
    decide(policy, &facts)
}

fn refusals(policy: Policy) -> usize {
    decide_with(&policy, |_| ()).refusals.len()
}

#[test]
fn the_default_allows_a_good_key_and_certificate_without_a_word() {
    assert_eq!(decide_with(&Policy::default(), |_| ()), Decision::default());
}

#[test]
fn v1_needs_the_flag_or_the_policy() {
    let v1 = |policy: &Policy, by_flag| {
        decide_with(policy, |case| case.choice = PayloadChoice { version: Version::V1, by_flag }).refusals.len()
    };
    let only = |versions| Policy { payload_versions: Some(versions), ..Policy::default() };
    assert_eq!(v1(&Policy::default(), false), 1);
    assert_eq!(v1(&Policy::default(), true), 0);
    assert_eq!(v1(&only(vec![Version::V2]), true), 1);
    assert_eq!(v1(&only(vec![Version::V1]), false), 0);
    assert_eq!(refusals(only(vec![Version::V1])), 1, "v2 where only v1 is allowed");
}

#[test]
fn what_is_known_before_a_login_is_refused_before_a_login() {
    let token = Token { serial: "12".into(), hardware: Some(false), ..Token::default() };
    let certificate = leaf();
    let facts = PreLoginFacts {
        token: Some(&token),
        certificate_from_file: false,
        choice: PayloadChoice { version: Version::V2, by_flag: false },
        mechanism: Mechanism::Sha512RsaPkcs,
    };
    let refused = |policy: Policy| decide_without_login(&policy, &facts, Some(&certificate)).refusals;
    assert_eq!(refused(Policy::default()), []);
    let serials = Policy { token_serials: Some(vec!["13".into()]), ..Policy::default() };
    assert_eq!(refused(serials), [Breach::Serial(Some("12".into()))]);
    let hardware = Policy { require: vec![Requirement::HardwareToken, Requirement::Local], ..Policy::default() };
    assert_eq!(refused(hardware), [Breach::Requirement(Requirement::HardwareToken)]);
    let pins = Policy { certificate_sha256: Some(vec![vec![7; 32]]), ..Policy::default() };
    assert_eq!(refused(pins), [Breach::NotPinned(certificate.sha256())]);
}

#[test]
fn every_requirement_refuses_both_false_and_not_reported() {
    for (name, requirement) in Requirement::NAMES {
        let policy = Policy { require: vec![requirement], ..Policy::default() };
        let mut key = key();
        (key.sensitive, key.extractable, key.local) = (Some(false), Some(true), Some(false));
        (key.always_sensitive, key.never_extractable) = (Some(false), Some(false));
        let token = Token { hardware: Some(false), ..Token::default() };
        let decision = decide_with(&policy, |case| (case.key, case.token) = (key.clone(), Some(token)));
        assert_eq!(decision.refusals.len(), 1, "{name}");
        assert_eq!(decision.refusals, [Breach::Requirement(requirement)]);
        (key.sensitive, key.extractable, key.local) = (None, None, None);
        (key.always_sensitive, key.never_extractable) = (None, None);
        let decision = decide_with(&policy, |case| (case.key, case.token) = (key, None));
        assert_eq!(decision.refusals, [Breach::NotReported(requirement)], "{name}");
    }
}

#[test]
fn the_requirements_apply_to_a_copy_of_the_key() {
    let exportable = KeyObject { extractable: Some(true), label: b"copy".to_vec(), id: vec![2], ..key() };
    let decision = decide_with(&Policy::default(), |case| case.copies = vec![key(), exportable.clone()]);
    let reasons: Vec<String> = decision.refusals.iter().map(Breach::reason).collect();
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].contains("'copy' (ID 02)") && reasons[0].contains("can be exported"), "{reasons:?}");
    let silent = KeyObject { sensitive: None, ..key() };
    assert_eq!(decide_with(&Policy::default(), |case| case.copies = vec![silent]).refusals.len(), 1);
    let lax = Policy { require: vec![Requirement::Sensitive], ..Policy::default() };
    let decision = decide_with(&lax, |case| case.copies = vec![exportable]);
    assert_eq!((decision.refusals.len(), decision.warnings.len()), (0, 1));
}

#[test]
fn a_list_that_leaves_a_default_out_warns_where_the_key_needs_it() {
    let policy = Policy { require: vec![Requirement::Local], ..Policy::default() };
    let local = KeyObject { local: Some(true), ..key() };
    assert_eq!(decide_with(&policy, |case| case.key = local.clone()), Decision::default());
    for (change, words) in [
        (KeyObject { extractable: Some(true), ..local.clone() }, "can be exported"),
        (KeyObject { extractable: None, ..local.clone() }, "does not report whether the key is non-extractable"),
        (KeyObject { sensitive: Some(false), ..local }, "in clear text"),
    ] {
        let decision = decide_with(&policy, |case| case.key = change);
        assert_eq!((decision.refusals.len(), decision.warnings.len()), (0, 1));
        let reason = decision.warnings[0].reason();
        assert!(reason.contains(words) && reason.contains("the list `require` leaves out"), "{reason}");
    }
}

#[test]
fn all_broken_rules_are_named_at_once() {
    let policy = Policy {
        min_rsa_bits: 3072,
        mechanism: Some(Mechanism::RsaPkcs),
        require: vec![Requirement::Local],
        token_serials: Some(vec!["13".into()]),
        certificate_sha256: Some(vec![vec![0; 32]]),
        extended_key_usage: vec!["codeSigning".into()],
        ..Policy::default()
    };
    assert_eq!(refusals(policy), 6);
}

#[test]
fn certificates_outside_their_validity_are_refused_on_either_side() {
    let leaf = leaf();
    for now in [leaf.not_before - 1, leaf.not_after + 1] {
        assert_eq!(decide_with(&Policy::default(), |case| case.now = now).refusals.len(), 1);
        let lax = Policy { enforce_validity: false, ..Policy::default() };
        let decision = decide_with(&lax, |case| case.now = now);
        assert_eq!((decision.refusals.len(), decision.warnings.len()), (0, 1));
    }
}

#[test]
fn a_certificate_from_a_file_needs_its_setting() {
    let from_file = |policy: &Policy| decide_with(policy, |case| case.from_file = true).refusals.len();
    assert_eq!(from_file(&Policy::default()), 1);
    let open = Policy { certificate_source: CertificateSource::TokenOrFile, ..Policy::default() };
    assert_eq!(from_file(&open), 0);
}

#[test]
fn a_program_that_says_it_is_hardware_is_no_hardware_token() {
    let policy = Policy { require: vec![Requirement::HardwareToken], ..Policy::default() };
    for (manufacturer, hardware, refused) in
        [("Yubico", Some(true), 0), ("SoftHSM project", Some(true), 1), ("Yubico", Some(false), 1), ("Yubico", None, 1)]
    {
        let token = Token { manufacturer: manufacturer.into(), hardware, ..Token::default() };
        let decision = decide_with(&policy, |case| case.token = Some(token));
        assert_eq!(decision.refusals.len(), refused, "{manufacturer} {hardware:?}");
    }
}

#[test]
fn requirements_have_the_names_of_pkcs11() {
    let attributes = Requirement::NAMES.map(|(_, requirement)| requirement.attribute());
    let names = ["SENSITIVE", "EXTRACTABLE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL", "HW_SLOT"];
    for (attribute, name) in attributes.into_iter().zip(names) {
        assert_eq!(attribute.split_once('_').unwrap().1, name);
    }
}

#[test]
fn a_decision_gives_its_warnings_or_all_its_refusals_with_each_hint_once() {
    let warns = Decision { refusals: Vec::new(), warnings: vec![Breach::NoEmail, Breach::SelfSigned] };
    assert_eq!(warns.allowed().unwrap(), [Breach::NoEmail.reason(), Breach::SelfSigned.reason()]);
    let breaches = vec![Breach::Expired(1), Breach::Expired(2), Breach::Ca];
    let refused = Decision { refusals: breaches.clone(), warnings: vec![Breach::NoEmail] }.allowed().unwrap_err();
    assert_eq!((refused.kind(), &refused.0), (Kind::Policy, &breaches));
    assert_eq!(refused.hints(), [Breach::Expired(1).hint(), Breach::Ca.hint()]);
}

#[test]
fn each_part_is_judged_alone() {
    let (v1, v2) = (
        PayloadChoice { version: Version::V1, by_flag: false },
        PayloadChoice { version: Version::V2, by_flag: false },
    );
    let policy = Policy { certificate_sha256: Some(vec![vec![0; 32]]), ..Policy::default() };
    let leaf = leaf();
    assert_eq!(decide_version(&policy, v1).refusals, [Breach::V1WithoutFlag]);
    assert_eq!(decide_version(&policy, v2), Decision::default());
    let both = [Breach::V1WithoutFlag, Breach::NotPinned(leaf.sha256())];
    assert_eq!(decide_payload(&policy, v1, &leaf, leaf.not_before).refusals, both);
    // `verify` does not know which certificate is pinned.
    assert_eq!(decide_certificate(&policy, &leaf, leaf.not_before), Decision::default());
    assert_eq!(decide_certificate(&policy, &leaf, leaf.not_before - 1).refusals.len(), 1);
}

#[test]
fn a_certificate_is_judged_at_the_limits_of_its_rules() {
    let judged = |policy: &Policy, change: fn(&mut Certificate), now: fn(&Certificate) -> u64| {
        let mut certificate = leaf();
        change(&mut certificate);
        let Decision { refusals, warnings } = decide_certificate(policy, &certificate, now(&certificate));
        (refusals.len(), warnings.len())
    };
    let policy = Policy::default();
    let lax = Policy { enforce_validity: false, ..Policy::default() };
    let start: fn(&Certificate) -> u64 = |certificate| certificate.not_before;
    for (now, wanted) in [
        (start, 0),
        (|certificate| certificate.not_before - 1, 1),
        (|certificate| certificate.not_after, 0),
        (|certificate| certificate.not_after + 1, 1),
    ] as [(fn(&Certificate) -> u64, usize); 4]
    {
        assert_eq!(judged(&policy, |_| (), now), (wanted, 0));
        assert_eq!(judged(&lax, |_| (), now), (0, wanted));
    }
    for (change, wanted) in [
        (|one| one.modulus = vec![0xff; 1024], (0, 0)),
        (|one| one.modulus = vec![0xff; 1025], (1, 0)),
        (|one| one.modulus = [&[0x7f][..], &[0xff; 255]].concat(), (1, 0)),
        (|one| one.is_ca = true, (1, 0)),
        (|one| one.key_usage = None, (0, 0)),
        (|one| one.extended_key_usage = None, (0, 1)),
        (|one| one.extended_key_usage = Some(Vec::new()), (1, 0)),
        (|one| one.emails.clear(), (0, 1)),
        (|one| one.issuer.clone_from(&one.subject), (0, 1)),
        (|one| one.deviations.push("odd".into()), (0, 1)),
    ] as [(fn(&mut Certificate), (usize, usize)); 10]
    {
        assert_eq!(judged(&policy, change, start), wanted);
    }
}
