//! Each rule held against the facts, and what comes of it.
//!
//! PURE.

use std::fmt;

use super::{CertificateSource, MAX_RSA_BITS, Order, Policy, Requirement, Subject};
use crate::cba::Version;
use crate::certificate::{Certificate, utc};
use crate::error::{Explain, Kind};
use crate::facts::Token;
use crate::printable::{hex, printable};

/// The rules, each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `token_serials`.
    TokenSerials,
    /// `require`, one of its words.
    Require(Requirement),
    /// `mechanism`.
    Mechanism,
    /// `payload_versions`.
    PayloadVersions,
    /// `certificate_source`.
    CertificateSource,
    /// `certificate_sha256`.
    CertificateSha256,
    /// `certificate_validity`.
    CertificateValidity,
    /// `min_rsa_bits`.
    MinRsaBits,
    /// The key usage allows signatures. Always asked.
    KeyUsage,
    /// `extended_key_usage`.
    ExtendedKeyUsage,
    /// The certificate is no CA's. Always asked.
    NoCa,
    /// There is an e-mail address. A warning.
    Email,
    /// Somebody else issued it. A warning.
    Issuer,
}

/// What one rule has against a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The rule.
    pub rule: Rule,
    /// What is wrong, in a sentence.
    pub reason: String,
}

/// The policy's answer.
#[must_use = "a decision that nobody looks at is no policy"]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Rules that are broken; empty means allowed.
    pub refusals: Vec<Objection>,
    /// What is allowed and yet worth a word.
    pub warnings: Vec<Objection>,
}

/// The policy said no.
#[derive(Debug, thiserror::Error)]
#[error("refused by policy: {}", .0.join("; "))]
pub struct Refused(pub Vec<String>);

impl Explain for Refused {
    fn kind(&self) -> Kind {
        Kind::Policy
    }

    fn hints(&self) -> Vec<String> {
        vec!["SECURITY.md explains each rule; the [policy] table of the configuration sets them".into()]
    }
}

impl Decision {
    /// The warnings, where it is allowed.
    ///
    /// # Errors
    /// All reasons, where it is refused.
    pub fn allowed(self) -> Result<Vec<String>, Refused> {
        let reasons = |objections: Vec<Objection>| objections.into_iter().map(|objection| objection.reason).collect();
        if self.refusals.is_empty() { Ok(reasons(self.warnings)) } else { Err(Refused(reasons(self.refusals))) }
    }

    fn refuse_if(&mut self, rule: Rule, broken: bool, reason: impl fmt::Display) {
        if broken {
            self.refusals.push(Objection { rule, reason: reason.to_string() });
        }
    }

    fn warn_if(&mut self, rule: Rule, odd: bool, reason: impl fmt::Display) {
        if odd {
            self.warnings.push(Objection { rule, reason: reason.to_string() });
        }
    }
}

/// Holds the facts against the policy.
pub fn decide(policy: &Policy, subject: &Subject<'_>) -> Decision {
    let mut decision = decide_order(policy, &subject.order);
    for requirement in &policy.require {
        let (rule, name) = (Rule::Require(*requirement), requirement.name());
        let holds = requirement.holds(subject.key, subject.order.token);
        decision.refuse_if(rule, holds == Some(false), format_args!("the key is not {name}"));
        let unknown = format!("the token does not report whether the key is {name}");
        decision.refuse_if(rule, holds.is_none(), unknown);
    }
    if let Some(pins) = &policy.certificate_sha256 {
        let fingerprint = subject.certificate.sha256();
        let pinned = pins.iter().any(|pin| pin[..] == fingerprint);
        let reason = format!("certificate {} is not allowed", hex(&fingerprint));
        decision.refuse_if(Rule::CertificateSha256, !pinned, reason);
    }
    judge_certificate(policy, subject.certificate, subject.now, &mut decision);
    decision
}

/// Holds what is known before a login against the policy.
pub fn decide_order(policy: &Policy, order: &Order<'_>) -> Decision {
    let mut decision = decide_token(policy, order.token);
    let version_is_allowed = match &policy.payload_versions {
        Some(versions) => versions.contains(&order.version),
        None => order.version == Version::V2 || order.version_by_flag,
    };
    let version = format!("payload version {} is not allowed", order.version);
    decision.refuse_if(Rule::PayloadVersions, !version_is_allowed, version);
    let is_other = policy.mechanism.is_some_and(|wanted| wanted != order.mechanism);
    decision.refuse_if(Rule::Mechanism, is_other, format_args!("the token would sign by {}", order.mechanism.name()));
    let from_file = order.certificate_from_file && policy.certificate_source == CertificateSource::Token;
    let file = "the certificate is from a file (certificate_source = \"token\")";
    decision.refuse_if(Rule::CertificateSource, from_file, file);
    decision
}

/// Holds a token alone against the policy: whether a PIN may be sent to it at all.
pub fn decide_token(policy: &Policy, token: Option<&Token>) -> Decision {
    let mut decision = Decision::default();
    if let Some(serials) = &policy.token_serials {
        let serial = token.map(|token| token.serial.as_str());
        let pinned = serial.is_some_and(|serial| serials.iter().any(|pinned| pinned == serial));
        let reason = format!("token serial '{}' is not allowed", printable(serial.unwrap_or("?")));
        decision.refuse_if(Rule::TokenSerials, !pinned, reason);
    }
    decision
}

/// Holds a certificate alone against the policy's certificate rules, as `verify` does.
pub fn decide_certificate(policy: &Policy, certificate: &Certificate, now: u64) -> Decision {
    let mut decision = Decision::default();
    judge_certificate(policy, certificate, now, &mut decision);
    decision
}

fn judge_certificate(policy: &Policy, certificate: &Certificate, now: u64, decision: &mut Decision) {
    let validity = if now < certificate.not_before {
        Some(format!("the certificate is not valid before {}", utc(certificate.not_before)))
    } else if now > certificate.not_after {
        Some(format!("the certificate ended on {}", utc(certificate.not_after)))
    } else {
        None
    };
    if let Some(reason) = validity {
        decision.refuse_if(Rule::CertificateValidity, policy.enforce_validity, &reason);
        decision.warn_if(Rule::CertificateValidity, !policy.enforce_validity, &reason);
    }
    let (bits, least) = (certificate.bits(), policy.min_rsa_bits);
    let size = Rule::MinRsaBits;
    decision.refuse_if(size, bits < least, format_args!("the RSA key has {bits} bits, fewer than {least}"));
    let most = format!("the RSA key has {bits} bits, more than {MAX_RSA_BITS}");
    decision.refuse_if(size, bits > MAX_RSA_BITS, most);
    let cannot_sign = certificate.key_usage.is_some_and(|usage| !usage.digital_signature());
    decision.refuse_if(Rule::KeyUsage, cannot_sign, "the certificate's key usage lacks digitalSignature");
    decision.refuse_if(Rule::NoCa, certificate.is_ca, "the certificate is a CA's, not a client's");
    judge_extended_key_usage(policy, certificate, decision);
    let no_email = "the certificate holds no e-mail address, by which Anaplan finds the integration user";
    decision.warn_if(Rule::Email, certificate.emails.is_empty(), no_email);
    let self_signed = "the certificate is self-signed, which Anaplan does not accept";
    decision.warn_if(Rule::Issuer, certificate.is_self_issued(), self_signed);
}

fn judge_extended_key_usage(policy: &Policy, certificate: &Certificate, decision: &mut Decision) {
    let Some(usages) = certificate.extended_key_usage_names() else {
        let absent = "the certificate has no extended key usage; Anaplan asks for a client certificate";
        return decision.warn_if(Rule::ExtendedKeyUsage, true, absent);
    };
    let wanted = &policy.extended_key_usage;
    let other = format!("the certificate is for {}, not for {}", usages.join(", "), wanted.join(" or "));
    decision.refuse_if(Rule::ExtendedKeyUsage, !usages.iter().any(|usage| wanted.contains(usage)), other);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::leaf;
    use crate::facts::{Key, KeyClass, Mechanism};

    fn key() -> Key {
        Key {
            handle: 1,
            class: KeyClass::Private,
            label: vec![],
            id: vec![],
            modulus: vec![],
            sign: Some(true),
            always_authenticate: None,
            sensitive: Some(true),
            extractable: Some(false),
            always_sensitive: None,
            never_extractable: None,
            local: Some(false),
        }
    }

    /// Everything that is decided about, for a test to change one part of.
    struct Case {
        key: Key,
        token: Option<Token>,
        from_file: bool,
        version: Version,
        by_flag: bool,
        now: u64,
    }

    fn decide_with(policy: &Policy, change: impl FnOnce(&mut Case)) -> Decision {
        let certificate = leaf();
        let token = Some(Token { serial: "12".into(), ..Token::default() });
        let now = certificate.not_before + 1;
        let mut case = Case { key: key(), token, from_file: false, version: Version::V2, by_flag: false, now };
        change(&mut case);
        let order = Order {
            token: case.token.as_ref(),
            certificate_from_file: case.from_file,
            version: case.version,
            version_by_flag: case.by_flag,
            mechanism: Mechanism::Sha512RsaPkcs,
        };
        let subject = Subject { order, key: &case.key, certificate: &certificate, now: case.now };
        decide(policy, &subject)
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
            decide_with(policy, |case| (case.version, case.by_flag) = (Version::V1, by_flag)).refusals.len()
        };
        let only = |versions| Policy { payload_versions: Some(versions), ..Policy::default() };
        assert_eq!(v1(&Policy::default(), false), 1);
        assert_eq!(v1(&Policy::default(), true), 0);
        assert_eq!(v1(&only(vec![Version::V2]), true), 1);
        assert_eq!(v1(&only(vec![Version::V1]), false), 0);
        assert_eq!(refusals(only(vec![Version::V1])), 1, "v2 where only v1 is allowed");
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
            assert_eq!(decision.refusals[0].rule, Rule::Require(requirement));
            assert_eq!(decision.refusals[0].reason, format!("the key is not {name}"));
            (key.sensitive, key.extractable, key.local) = (None, None, None);
            (key.always_sensitive, key.never_extractable) = (None, None);
            let decision = decide_with(&policy, |case| (case.key, case.token) = (key, None));
            assert_eq!(decision.refusals.len(), 1, "{name}");
            assert!(decision.refusals[0].reason.contains("does not report"));
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
}
