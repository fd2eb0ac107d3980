//! The key-custody and certificate policy: facts in, decision out.
//!
//! PURE. Every rule that is broken is named, not only the first. What a token does not report is not proven.

use crate::cba::Version;
use crate::certificate::Certificate;
use crate::facts::{Key, Mechanism, Token};

mod decision;
mod rule;

pub use decision::{
    Decision, Refused, decide, decide_certificate, decide_order, decide_payload, decide_token, decide_version, left_out,
};
pub use rule::{Breach, Rule};

/// The smallest RSA key that the front can check signatures of.
pub const MIN_RSA_BITS: usize = 2048;
/// The largest of them.
pub const MAX_RSA_BITS: usize = 8192;

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

    /// Its name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, requirement)| *requirement == self).map_or("", |(name, _)| name)
    }

    /// The attribute or flag of PKCS#11 that shows it.
    #[must_use]
    pub fn attribute(self) -> &'static str {
        match self {
            Self::Sensitive => "CKA_SENSITIVE",
            Self::NonExtractable => "CKA_EXTRACTABLE",
            Self::AlwaysSensitive => "CKA_ALWAYS_SENSITIVE",
            Self::NeverExtractable => "CKA_NEVER_EXTRACTABLE",
            Self::Local => "CKA_LOCAL",
            Self::HardwareToken => "CKF_HW_SLOT",
        }
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
            // Some programs set the flag of hardware.
            Self::HardwareToken => match token {
                Some(token) if token.software_name().is_some() => Some(false),
                token => token.and_then(|token| token.hardware),
            },
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

impl Policy {
    /// What the key must be shown to be where nothing is configured: it cannot leave the token in clear.
    pub const DEFAULT_REQUIRE: [Requirement; 2] = [Requirement::Sensitive, Requirement::NonExtractable];
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
    /// Other private key objects of the same key.
    pub copies: &'a [Key],
    /// The certificate that goes into the header.
    pub certificate: &'a Certificate,
    /// Seconds of Unix time.
    pub now: u64,
}
