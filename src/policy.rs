//! The key-custody and certificate policy: facts in, decision out.
//!
//! PURE. Every rule that is broken is named, not only the first. What a token does not report is not proven.

use std::fmt;

use crate::cba::Version;
use crate::certificate::{Certificate, utc};
use crate::error::{Explain, Kind};
use crate::facts::{Key, Mechanism, Token};
use crate::printable::{hex, printable};

/// The sizes of RSA keys that the front can check signatures of.
pub const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

/// What the key must be shown to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `CKA_SENSITIVE` is true.
    Sensitive,
    /// `CKA_EXTRACTABLE` is false.
    NonExtractable,
    /// `CKA_ALWAYS_SENSITIVE` is true.
    AlwaysSensitive,
    /// `CKA_NEVER_EXTRACTABLE` is true.
    NeverExtractable,
    /// `CKA_LOCAL` is true: made in the token.
    Local,
    /// `CKF_HW_SLOT` is set.
    HardwareToken,
}

impl Requirement {
    /// All of them, with the names that a configuration uses.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("sensitive", Self::Sensitive),
        ("non-extractable", Self::NonExtractable),
        ("always-sensitive", Self::AlwaysSensitive),
        ("never-extractable", Self::NeverExtractable),
        ("local", Self::Local),
        ("hardware-token", Self::HardwareToken),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, requirement)| *requirement == self).map_or("", |(name, _)| name)
    }

    /// Whether the facts prove it; `None` where the token does not report it.
    #[must_use]
    pub fn holds(self, key: &Key, token: Option<&Token>) -> Option<bool> {
        match self {
            Self::Sensitive => key.sensitive,
            Self::NonExtractable => key.extractable.map(|extractable| !extractable),
            Self::AlwaysSensitive => key.always_sensitive,
            Self::NeverExtractable => key.never_extractable,
            Self::Local => key.local,
            Self::HardwareToken => token.and_then(|token| token.hardware),
        }
    }
}

/// Where the certificate may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateSource {
    /// The token alone.
    #[default]
    Token,
    /// The token, or the file of `identity.certificate_file`.
    TokenOrFile,
}

/// The rules. [`Policy::default`] is what applies where nothing is configured.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The versions that may be signed; unset: v2, and v1 where the caller asked for it by the command's own flag.
    pub payload_versions: Option<Vec<Version>>,
    /// The least size of the RSA key.
    pub min_rsa_bits: usize,
    /// The one mechanism that may be used, where set.
    pub mechanism: Option<Mechanism>,
    /// What the key must be shown to be.
    pub require: Vec<Requirement>,
    /// Extended key usages of which the certificate must have one.
    pub extended_key_usage: Vec<String>,
    /// Whether a certificate outside its validity is refused (or only warned about).
    pub enforce_validity: bool,
    /// Where the certificate may come from.
    pub certificate_source: CertificateSource,
    /// The serial numbers of tokens that may be used; unset: any.
    pub token_serials: Option<Vec<String>>,
    /// SHA-256 fingerprints of certificates that may be used; unset: any.
    pub certificate_sha256: Option<Vec<Vec<u8>>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            payload_versions: None,
            min_rsa_bits: MIN_RSA_BITS,
            mechanism: None,
            require: vec![Requirement::Sensitive, Requirement::NonExtractable],
            extended_key_usage: vec!["clientAuth".into(), "emailProtection".into()],
            enforce_validity: true,
            certificate_source: CertificateSource::Token,
            token_serials: None,
            certificate_sha256: None,
        }
    }
}

/// All that a caller can choose of what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The payload's version.
    pub version: Version,
    /// Whether the version was chosen by the command's own flag, which is what v1 needs where no policy names it.
    pub by_flag: bool,
}

/// What is known of a signature before any login.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The token; `None` where its information could not be read.
    pub token: Option<&'a Token>,
    /// Whether the certificate is from a file and not from the token.
    pub certificate_from_file: bool,
    /// The payload's version.
    pub version: Version,
    /// Whether the version was chosen by the command's own flag.
    pub version_by_flag: bool,
    /// How the token will sign.
    pub mechanism: Mechanism,
}

/// What is about to be signed, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What was known before the login.
    pub order: Order<'a>,
    /// The private key.
    pub key: &'a Key,
    /// The certificate that goes into the header.
    pub certificate: &'a Certificate,
    /// Seconds of Unix time.
    pub now: u64,
}

/// The policy's answer.
#[must_use = "a decision that nobody looks at is no policy"]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Rules that are broken; empty means allowed.
    pub refusals: Vec<String>,
    /// What is allowed and yet worth a word.
    pub warnings: Vec<String>,
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
        if self.refusals.is_empty() { Ok(self.warnings) } else { Err(Refused(self.refusals)) }
    }

    fn refuse_if(&mut self, broken: bool, reason: impl fmt::Display) {
        if broken {
            self.refusals.push(reason.to_string());
        }
    }

    fn warn_if(&mut self, odd: bool, reason: impl fmt::Display) {
        if odd {
            self.warnings.push(reason.to_string());
        }
    }
}

/// Holds the facts against the policy.
pub fn decide(policy: &Policy, subject: &Subject<'_>) -> Decision {
    let mut decision = decide_order(policy, &subject.order);
    for requirement in &policy.require {
        let name = requirement.name();
        match requirement.holds(subject.key, subject.order.token) {
            Some(true) => {}
            Some(false) => decision.refusals.push(format!("the key is not {name}")),
            None => decision.refusals.push(format!("the token does not report whether the key is {name}")),
        }
    }
    if let Some(pins) = &policy.certificate_sha256 {
        let fingerprint = subject.certificate.sha256();
        let pinned = pins.iter().any(|pin| pin[..] == fingerprint);
        decision.refuse_if(!pinned, format_args!("certificate {} is not allowed", hex(&fingerprint)));
    }
    judge_certificate(policy, subject.certificate, subject.now, &mut decision);
    decision
}

/// Holds what is known before a login against the policy.
pub fn decide_order(policy: &Policy, order: &Order<'_>) -> Decision {
    let mut decision = Decision::default();
    let version_is_allowed = match &policy.payload_versions {
        Some(versions) => versions.contains(&order.version),
        None => order.version == Version::V2 || order.version_by_flag,
    };
    decision.refuse_if(!version_is_allowed, format_args!("payload version {} is not allowed", order.version));
    decision.refuse_if(
        policy.mechanism.is_some_and(|wanted| wanted != order.mechanism),
        format_args!("the token would sign by {}", order.mechanism.name()),
    );
    if let Some(serials) = &policy.token_serials {
        let serial = order.token.map(|token| token.serial.as_str());
        let pinned = serial.is_some_and(|serial| serials.iter().any(|pinned| pinned == serial));
        decision.refuse_if(!pinned, format_args!("token serial '{}' is not allowed", printable(serial.unwrap_or("?"))));
    }
    let from_file = order.certificate_from_file && policy.certificate_source == CertificateSource::Token;
    decision.refuse_if(from_file, "the certificate is from a file (certificate_source = \"token\")");
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
    decision.refuse_if(policy.enforce_validity && validity.is_some(), validity.as_deref().unwrap_or_default());
    decision.warn_if(!policy.enforce_validity && validity.is_some(), validity.as_deref().unwrap_or_default());
    let bits = certificate.bits();
    decision.refuse_if(
        bits < policy.min_rsa_bits,
        format_args!("the RSA key has {bits} bits, fewer than {}", policy.min_rsa_bits),
    );
    decision.refuse_if(bits > MAX_RSA_BITS, format_args!("the RSA key has {bits} bits, more than {MAX_RSA_BITS}"));
    decision
        .refuse_if(certificate.digital_signature == Some(false), "the certificate's key usage lacks digitalSignature");
    decision.refuse_if(certificate.is_ca, "the certificate is a CA's, not a client's");
    match certificate.usage_names() {
        Some(usages) => decision.refuse_if(
            !usages.iter().any(|usage| policy.extended_key_usage.contains(usage)),
            format_args!(
                "the certificate is for {}, not for {}",
                usages.join(", "),
                policy.extended_key_usage.join(" or ")
            ),
        ),
        None => {
            decision.warn_if(true, "the certificate has no extended key usage; Anaplan asks for a client certificate")
        }
    }
    decision.warn_if(
        certificate.emails.is_empty(),
        "the certificate holds no e-mail address, by which Anaplan finds the integration user",
    );
    decision.warn_if(certificate.is_self_issued(), "the certificate is self-signed, which Anaplan does not accept");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::leaf;
    use crate::facts::KeyClass;

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
            assert_eq!(decision.refusals, [format!("the key is not {name}")]);
            (key.sensitive, key.extractable, key.local) = (None, None, None);
            (key.always_sensitive, key.never_extractable) = (None, None);
            let decision = decide_with(&policy, |case| (case.key, case.token) = (key, None));
            assert_eq!(decision.refusals.len(), 1, "{name}");
            assert!(decision.refusals[0].contains("does not report"));
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
