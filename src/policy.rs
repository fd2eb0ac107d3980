//! The key-custody and certificate policy: facts in, decision out.
//!
//! PURE. The decision names every broken rule, not only the first. A value that the token does not report is not proven.

use crate::cba::Version;
use crate::certificate::Certificate;
use crate::facts::{KeyObject, Mechanism, Token};

mod decision;
mod permit;
mod rule;

pub use decision::{Decision, PolicyRefusal, decide_payload};
pub(crate) use decision::{
    decide, decide_before_login, decide_certificate, decide_token, decide_version, decide_without_login, left_out,
};
pub(crate) use permit::{Permit, permit};
pub(crate) use rule::{Breach, Rule};

/// The smallest RSA key whose signatures the parent can check.
pub const MIN_RSA_BITS: usize = 2048;
/// The largest one.
pub const MAX_RSA_BITS: usize = 8192;

/// A required property of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// `CKA_SENSITIVE` is true.
    Sensitive,
    /// `CKA_EXTRACTABLE` is false.
    NonExtractable,
    /// `CKA_ALWAYS_SENSITIVE` is true.
    AlwaysSensitive,
    /// `CKA_NEVER_EXTRACTABLE` is true.
    NeverExtractable,
    /// `CKA_LOCAL` is true: generated in the token.
    Local,
    /// `CKF_HW_SLOT` is set.
    HardwareToken,
}

impl Requirement {
    /// All of them, with their names in a configuration.
    pub(crate) const NAMES: [(&'static str, Self); 6] = [
        ("sensitive", Self::Sensitive),
        ("non-extractable", Self::NonExtractable),
        ("always-sensitive", Self::AlwaysSensitive),
        ("never-extractable", Self::NeverExtractable),
        ("local", Self::Local),
        ("hardware-token", Self::HardwareToken),
    ];

    /// Its name in a configuration.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, requirement)| *requirement == self).map_or("", |(name, _)| name)
    }

    /// The PKCS#11 attribute or flag that shows it.
    #[must_use]
    pub(crate) fn attribute(self) -> &'static str {
        match self {
            Self::Sensitive => "CKA_SENSITIVE",
            Self::NonExtractable => "CKA_EXTRACTABLE",
            Self::AlwaysSensitive => "CKA_ALWAYS_SENSITIVE",
            Self::NeverExtractable => "CKA_NEVER_EXTRACTABLE",
            Self::Local => "CKA_LOCAL",
            Self::HardwareToken => "CKF_HW_SLOT",
        }
    }

    /// Whether the facts prove it; `None` if the token does not report it.
    #[must_use]
    pub(crate) fn holds(self, key: &KeyObject, token: Option<&Token>) -> Option<bool> {
        match self {
            Self::Sensitive => key.sensitive,
            Self::NonExtractable => key.extractable.map(|extractable| !extractable),
            Self::AlwaysSensitive => key.always_sensitive,
            Self::NeverExtractable => key.never_extractable,
            Self::Local => key.local,
            Self::HardwareToken => is_hardware(token),
        }
    }
}

/// Whether a token is a hardware device; `None` if it does not report it. Some programs set the hardware flag.
fn is_hardware(token: Option<&Token>) -> Option<bool> {
    match token {
        Some(token) if token.software_name().is_some() => Some(false),
        token => token.and_then(|token| token.hardware),
    }
}

/// The allowed source of the certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CertificateSource {
    /// Only the token.
    #[default]
    Token,
    /// The token, or the file of `identity.certificate_file`.
    TokenOrFile,
}

/// The rules. [`Policy::default`] applies without configuration.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The versions that may be signed. Unset: v2, and v1 if the caller asked for it with the command's flag.
    pub(crate) payload_versions: Option<Vec<Version>>,
    /// The minimum size of the RSA key.
    pub(crate) min_rsa_bits: usize,
    /// The only allowed mechanism, if set.
    pub(crate) mechanism: Option<Mechanism>,
    /// The required properties of the key.
    pub(crate) require: Vec<Requirement>,
    /// The certificate must have one of these extended key usages.
    pub(crate) extended_key_usage: Vec<String>,
    /// Whether a certificate outside its validity is refused, or only gets a warning.
    pub(crate) enforce_validity: bool,
    pub(crate) certificate_source: CertificateSource,
    /// The serial numbers of allowed tokens. Unset: any.
    pub(crate) token_serials: Option<Vec<String>>,
    /// SHA-256 fingerprints of allowed certificates. Unset: any.
    pub certificate_sha256: Option<Vec<Vec<u8>>>,
}

impl Policy {
    /// The default requirements: the key cannot leave the token in clear text.
    pub(crate) const DEFAULT_REQUIRE: [Requirement; 2] = [Requirement::Sensitive, Requirement::NonExtractable];

    /// What the configured rules accept and the defaults refuse, each with its key. A weaker `require` is judged with the
    /// key; see [`left_out`].
    #[must_use]
    pub(crate) fn weaker_than_default(&self) -> Vec<String> {
        let default = Self::default();
        let allows_v1 = self.payload_versions.as_ref().is_some_and(|versions| versions.contains(&Version::V1));
        let is_other = |usage: &&String| !default.extended_key_usage.contains(usage);
        let usages: Vec<&str> = self.extended_key_usage.iter().filter(is_other).map(String::as_str).collect();
        let takes_file = self.certificate_source == CertificateSource::TokenOrFile;
        let weaker = [
            allows_v1.then(|| "payload_versions accepts v1, which can be replayed".to_owned()),
            (!usages.is_empty()).then(|| format!("extended_key_usage accepts {}", usages.join(", "))),
            (!self.enforce_validity).then(|| "certificate_validity accepts an expired certificate".to_owned()),
            takes_file.then(|| "certificate_source accepts a certificate from a file".to_owned()),
        ];
        weaker.into_iter().flatten().collect()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            payload_versions: None,
            min_rsa_bits: MIN_RSA_BITS,
            mechanism: None,
            require: Self::DEFAULT_REQUIRE.to_vec(),
            extended_key_usage: vec!["clientAuth".into(), "emailProtection".into()],
            enforce_validity: true,
            certificate_source: CertificateSource::Token,
            token_serials: None,
            certificate_sha256: None,
        }
    }
}

/// A caller's choice about a payload; a caller has no other choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadChoice {
    /// The payload's version.
    pub version: Version,
    /// Whether the command's flag set the version. v1 needs this unless the policy allows v1.
    pub by_flag: bool,
}

/// The facts about a signature before any login.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PreLoginFacts<'a> {
    /// The token; `None` if its information could not be read.
    pub token: Option<&'a Token>,
    /// Whether the certificate is from a file and not from the token.
    pub certificate_from_file: bool,
    pub choice: PayloadChoice,
    pub mechanism: Mechanism,
}

/// The facts about a signature after the login.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SigningFacts<'a> {
    pub before_login: PreLoginFacts<'a>,
    /// The private key.
    pub key: &'a KeyObject,
    /// Other private key objects of the same key.
    pub copies: &'a [KeyObject],
    /// The certificate that goes into the header.
    pub certificate: &'a Certificate,
    /// Seconds of Unix time.
    pub now: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_that_is_weaker_than_its_default_is_named() {
        assert_eq!(Policy::default().weaker_than_default(), [""; 0]);
        let strict = Policy {
            payload_versions: Some(vec![Version::V2]),
            extended_key_usage: vec!["clientAuth".into()],
            ..Policy::default()
        };
        assert_eq!(strict.weaker_than_default(), [""; 0]);
        let weak = Policy {
            payload_versions: Some(vec![Version::V2, Version::V1]),
            extended_key_usage: vec!["clientAuth".into(), "serverAuth".into(), "codeSigning".into()],
            enforce_validity: false,
            certificate_source: CertificateSource::TokenOrFile,
            ..Policy::default()
        };
        let named = weak.weaker_than_default();
        assert_eq!(named.len(), 4);
        for (words, part) in named.iter().zip(["v1", "accepts serverAuth, codeSigning", "expired", "from a file"]) {
            assert!(words.contains(part), "{words}");
        }
    }
}
