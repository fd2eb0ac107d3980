//! Unit tests of the rules and of their breaches.
//!
//! PURE.

#![cfg(test)]

use super::*;
use crate::config::keys::KEYS;
use crate::policy::Policy;

/// One breach of each kind.
fn breaches() -> Vec<Breach> {
    let requirements = Requirement::NAMES.map(|(_, requirement)| requirement);
    let mut all: Vec<Breach> = requirements.map(Breach::Requirement).into();
    all.extend(requirements.map(Breach::NotReported));
    all.push(Breach::Copy("'a' (ID 02)".into(), Box::new(Breach::Requirement(Requirement::NonExtractable))));
    all.extend(Policy::DEFAULT_REQUIRE.map(|requirement| Breach::LeftOut { requirement, is_reported: true }));
    all.extend([
        Breach::Serial(None),
        Breach::Serial(Some("12".into())),
        Breach::Mechanism(Mechanism::RsaPkcs),
        Breach::Version(Version::V1, vec![Version::V2]),
        Breach::V1WithoutFlag,
        Breach::FromFile,
        Breach::NotPinned([0; 32]),
        Breach::NotYetValid(1),
        Breach::Expired(1),
        Breach::TooSmall { bits: 1024, least: 2048 },
        Breach::TooLarge(16384),
        Breach::KeyUsage,
        Breach::ExtendedKeyUsage { has: vec!["serverAuth".into()], allowed: vec!["clientAuth".into()] },
        Breach::NoExtendedKeyUsage,
        Breach::Ca,
        Breach::NoEmail,
        Breach::SelfSigned,
        Breach::Form(vec!["its serial number is 0".into()]),
    ]);
    all
}

#[test]
fn every_rule_has_a_breach_with_its_own_reason_and_remedy() {
    let breaches = breaches();
    for rule in Rule::all() {
        assert!(breaches.iter().any(|breach| breach.rule() == rule), "{rule:?}");
    }
    let reasons: std::collections::BTreeSet<String> = breaches.iter().map(Breach::reason).collect();
    assert_eq!(reasons.len(), breaches.len());
    assert!(breaches.iter().all(|breach| !breach.remedy().is_empty()));
}

#[test]
fn every_key_that_a_hint_names_is_one_of_the_configuration() {
    for breach in breaches() {
        if let Some(key) = breach.rule().key() {
            assert!(KEYS.iter().any(|known| known.path == format!("policy.{key}")), "{key}");
            assert!(breach.hint().contains(key), "{}", breach.hint());
        }
    }
}

#[test]
fn every_rule_has_a_name_and_a_sentence_of_its_own() {
    let names: std::collections::BTreeSet<String> = Rule::all().map(Rule::name).collect();
    let sentences: std::collections::BTreeSet<&str> = Rule::all().map(Rule::sentence).collect();
    assert_eq!((names.len(), sentences.len()), (Rule::all().count(), Rule::all().count()));
    for rule in Rule::all() {
        let (name, key) = (rule.name(), rule.key());
        let by_key = name.split('.').next() == key;
        assert!(by_key || (key.is_none() && name.len() > 4), "{name} {key:?}");
        assert!(rule.sentence().starts_with("The ") && rule.sentence().ends_with('.'), "{}", rule.sentence());
    }
    assert_eq!(Rule::all().filter(|rule| rule.key().is_none()).count(), 5);
    assert_eq!(Rule::Require(Requirement::Local).name(), "require.local");
    let remedies: std::collections::BTreeSet<String> = breaches().iter().map(Breach::remedy).collect();
    assert!(remedies.len() > 20 && remedies.iter().all(|remedy| remedy.contains(' ')), "{remedies:?}");
}

#[test]
fn an_empty_extended_key_usage_is_told_from_another_one() {
    let reason = |has: &[&str]| {
        let has = has.iter().map(|usage| (*usage).to_owned()).collect();
        Breach::ExtendedKeyUsage { has, allowed: vec!["clientAuth".into()] }.reason()
    };
    assert_eq!(reason(&[]), "the certificate's extended key usage is empty, and must hold clientAuth");
    assert_eq!(reason(&["serverAuth"]), "the certificate is for serverAuth, not for clientAuth");
}
