//! The table of the policy's rules: the name and TOML key of each, how it can be broken, and its hint.
//!
//! PURE. `sign`, `serve`, `verify`, `doctor` and `custody` all use these texts. No other file words a rule.

use crate::cba::Version;
use crate::certificate::utc;
use crate::facts::Mechanism;
use crate::text::{hex, printable};

use super::{MAX_RSA_BITS, Requirement};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    TokenSerials,
    /// `require`, one of its words.
    Require(Requirement),
    Mechanism,
    PayloadVersions,
    CertificateSource,
    CertificateSha256,
    CertificateValidity,
    MinRsaBits,
    /// The key usage allows signatures. This rule always applies.
    KeyUsage,
    ExtendedKeyUsage,
    /// The certificate is not a CA's. This rule always applies.
    NoCa,
    /// The certificate contains an e-mail address. This rule warns.
    Email,
    /// The certificate is not self-signed. This rule warns.
    Issuer,
    /// The certificate follows RFC 5280. This rule warns.
    Form,
}

impl Rule {
    /// All rules, in the order of the custody report.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let requirements = Requirement::NAMES.map(|(_, requirement)| Self::Require(requirement));
        [Self::TokenSerials].into_iter().chain(requirements).chain([
            Self::Mechanism,
            Self::PayloadVersions,
            Self::CertificateSource,
            Self::CertificateSha256,
            Self::CertificateValidity,
            Self::MinRsaBits,
            Self::KeyUsage,
            Self::ExtendedKeyUsage,
            Self::NoCa,
            Self::Email,
            Self::Issuer,
            Self::Form,
        ])
    }

    /// The name in reports: the key of `[policy]`, if there is one; a word of `require` follows a dot.
    #[must_use]
    pub(crate) fn name(self) -> String {
        match self {
            Self::Require(requirement) => format!("require.{}", requirement.name()),
            Self::KeyUsage => "key_usage".into(),
            Self::NoCa => "no_ca".into(),
            Self::Email => "email".into(),
            Self::Issuer => "issuer".into(),
            Self::Form => "certificate_form".into(),
            configured => configured.key().unwrap_or_default().into(),
        }
    }

    /// The meaning of the rule, in one sentence.
    #[must_use]
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::TokenSerials => "The token's serial number must be in the list; another token gets no PIN.",
            Self::Require(Requirement::Sensitive) => "The private key must not be readable in clear text.",
            Self::Require(Requirement::NonExtractable) => "The private key must not be exportable from the token.",
            Self::Require(Requirement::AlwaysSensitive) => {
                "The private key must never have been readable in clear text."
            }
            Self::Require(Requirement::NeverExtractable) => "The private key must never have been exportable.",
            Self::Require(Requirement::Local) => "The private key must have been generated in the token.",
            Self::Require(Requirement::HardwareToken) => "The token must be a hardware device.",
            Self::Mechanism => "The token must sign with the named mechanism.",
            Self::PayloadVersions => "The login payload must have one of these versions; v1 can be replayed.",
            Self::CertificateSource => "The certificate must come from an allowed source.",
            Self::CertificateSha256 => "The certificate's fingerprint must be in the list.",
            Self::CertificateValidity => "The certificate must be valid now.",
            Self::MinRsaBits => "The RSA key must be long enough.",
            Self::KeyUsage => "The certificate must allow digital signatures.",
            Self::ExtendedKeyUsage => "The certificate must have been issued for one of these purposes.",
            Self::NoCa => "The certificate must be a client's, not a certification authority's.",
            Self::Email => "The certificate should name the e-mail address of the integration user.",
            Self::Issuer => "The certificate should not be self-signed.",
            Self::Form => "The certificate should follow RFC 5280.",
        }
    }

    /// The key of `[policy]` that sets the rule; `None` if the rule always applies.
    #[must_use]
    pub(crate) fn key(self) -> Option<&'static str> {
        match self {
            Self::TokenSerials => Some("token_serials"),
            Self::Require(_) => Some("require"),
            Self::Mechanism => Some("mechanism"),
            Self::PayloadVersions => Some("payload_versions"),
            Self::CertificateSource => Some("certificate_source"),
            Self::CertificateSha256 => Some("certificate_sha256"),
            Self::CertificateValidity => Some("certificate_validity"),
            Self::MinRsaBits => Some("min_rsa_bits"),
            Self::ExtendedKeyUsage => Some("extended_key_usage"),
            Self::KeyUsage | Self::NoCa | Self::Email | Self::Issuer | Self::Form => None,
        }
    }
}

/// The way in which a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// The serial number is not in the list. `None`: the token does not report one.
    Serial(Option<String>),
    /// The token reports the opposite of the requirement.
    Requirement(Requirement),
    /// The token does not report the required property.
    NotReported(Requirement),
    /// The configured list leaves out a default requirement that the key does not prove.
    LeftOut {
        /// The default requirement.
        requirement: Requirement,
        /// Whether the token reports the opposite, or nothing.
        is_reported: bool,
    },
    /// Another object of the same key, by its name, breaks the rule in this way.
    Copy(String, Box<Self>),
    /// The token would use this other mechanism.
    Mechanism(Mechanism),
    /// The list lacks this version. The listed versions follow.
    Version(Version, Vec<Version>),
    /// v1 was selected without the command's flag.
    V1WithoutFlag,
    /// The certificate is from a file.
    FromFile,
    /// The list lacks this fingerprint.
    NotPinned([u8; 32]),
    /// The certificate is not valid before this time.
    NotYetValid(u64),
    /// The certificate expired at this time.
    Expired(u64),
    /// The key is smaller than the minimum.
    TooSmall {
        /// Its size in bits.
        bits: usize,
        /// The minimum.
        least: usize,
    },
    /// The key is larger than this program can check.
    TooLarge(usize),
    /// The key usage does not allow signatures.
    KeyUsage,
    /// The certificate has these extended key usages, and none of the allowed ones.
    ExtendedKeyUsage { has: Vec<String>, allowed: Vec<String> },
    /// There is no extended key usage.
    NoExtendedKeyUsage,
    /// It is a CA's certificate.
    Ca,
    /// There is no e-mail address.
    NoEmail,
    /// Subject and issuer are the same.
    SelfSigned,
    /// These parts do not follow RFC 5280.
    Form(Vec<String>),
}

impl Breach {
    #[must_use]
    pub(crate) fn rule(&self) -> Rule {
        match self {
            Self::Serial(_) => Rule::TokenSerials,
            Self::Requirement(requirement) | Self::NotReported(requirement) | Self::LeftOut { requirement, .. } => {
                Rule::Require(*requirement)
            }
            Self::Copy(_, breach) => breach.rule(),
            Self::Mechanism(_) => Rule::Mechanism,
            Self::Version(..) | Self::V1WithoutFlag => Rule::PayloadVersions,
            Self::FromFile => Rule::CertificateSource,
            Self::NotPinned(_) => Rule::CertificateSha256,
            Self::NotYetValid(_) | Self::Expired(_) => Rule::CertificateValidity,
            Self::TooSmall { .. } | Self::TooLarge(_) => Rule::MinRsaBits,
            Self::KeyUsage => Rule::KeyUsage,
            Self::ExtendedKeyUsage { .. } | Self::NoExtendedKeyUsage => Rule::ExtendedKeyUsage,
            Self::Ca => Rule::NoCa,
            Self::NoEmail => Rule::Email,
            Self::SelfSigned => Rule::Issuer,
            Self::Form(_) => Rule::Form,
        }
    }

    /// The problem, in one sentence.
    #[must_use]
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Serial(None) => "the token does not report its serial number".into(),
            Self::Serial(Some(serial)) => format!("token serial '{}' is not allowed", printable(serial)),
            Self::Requirement(requirement) => requirement_reason(*requirement).into(),
            Self::NotReported(requirement) => {
                let (name, attribute) = (requirement.name(), requirement.attribute());
                format!("the token does not report whether the key is {name} ({attribute})")
            }
            Self::LeftOut { requirement, is_reported } => {
                let found =
                    if *is_reported { Self::Requirement(*requirement) } else { Self::NotReported(*requirement) };
                format!("{}, and the list `require` leaves out \"{}\"", found.reason(), requirement.name())
            }
            Self::Copy(name, breach) => {
                format!("the token holds the key a second time, as the object {name}: {}", breach.reason())
            }
            Self::Mechanism(mechanism) => format!("the token would sign with {}", mechanism.name()),
            Self::Version(version, _) => format!("payload version {version} is not allowed"),
            Self::V1WithoutFlag => {
                "payload version v1 is not allowed by the configuration alone, since a v1 payload can be replayed"
                    .into()
            }
            Self::FromFile => "the certificate is from a file (certificate_source = \"token\")".into(),
            Self::NotPinned(fingerprint) => format!("certificate {} is not allowed", hex(fingerprint)),
            Self::NotYetValid(start) => format!("the certificate is not valid before {}", utc(*start)),
            Self::Expired(end) => format!("the certificate expired on {}", utc(*end)),
            Self::TooSmall { bits, least } => format!("the RSA key has {bits} bits, fewer than {least}"),
            Self::TooLarge(bits) => format!("the RSA key has {bits} bits, more than {MAX_RSA_BITS}"),
            Self::KeyUsage => "the certificate's key usage lacks digitalSignature".into(),
            Self::ExtendedKeyUsage { has, allowed } if has.is_empty() => {
                format!("the certificate's extended key usage is empty, and must hold {}", allowed.join(" or "))
            }
            Self::ExtendedKeyUsage { has, allowed } => {
                format!("the certificate is for {}, not for {}", has.join(", "), allowed.join(" or "))
            }
            Self::NoExtendedKeyUsage => {
                "the certificate has no extended key usage; Anaplan requires a client certificate".into()
            }
            Self::Ca => "the certificate is a CA's, not a client's".into(),
            Self::NoEmail => {
                "the certificate holds no e-mail address, by which Anaplan finds the integration user".into()
            }
            Self::SelfSigned => "the certificate is self-signed, which Anaplan does not accept".into(),
            Self::Form(deviations) => format!("the certificate does not follow RFC 5280: {}", deviations.join("; ")),
        }
    }

    /// The hint, without the rule's key.
    #[must_use]
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Serial(_) => "use an allowed token, or add this token's serial number to the list".into(),
            Self::Requirement(Requirement::HardwareToken) | Self::NotReported(Requirement::HardwareToken) => {
                "use a hardware token that sets CKF_HW_SLOT".into()
            }
            Self::Requirement(_) => {
                "generate a new key in the token, and order a certificate for it (docs/enrolment.md)".into()
            }
            Self::NotReported(_) => {
                "use a module or token that reports this attribute; a value that is not reported is not proven".into()
            }
            Self::LeftOut { requirement, .. } => {
                format!("add \"{}\" to the list, and use a key that was generated in the token", requirement.name())
            }
            Self::Copy(name, _) => format!("delete the object {name} from the token, or generate a new key"),
            Self::Mechanism(_) => "use a token that offers the required mechanism".into(),
            Self::Version(_, allowed) => match allowed.first() {
                Some(version) => format!("use --payload-version {version}"),
                None => "allow a version".into(),
            },
            Self::V1WithoutFlag => {
                "use v2 (payload_version = \"v2\" in [sign]); only the option --payload-version v1 or the policy allows v1"
                    .into()
            }
            Self::FromFile => {
                "write the certificate into the token, or set certificate_source = \"token-or-file\"".into()
            }
            Self::NotPinned(_) => {
                "if this is the right certificate (a renewal, for example), add its fingerprint to the list".into()
            }
            Self::NotYetValid(_) => "check this host's clock: `date -u`".into(),
            Self::Expired(_) => "order a new certificate for this key, and register it in Anaplan".into(),
            Self::TooSmall { least, .. } => {
                format!("generate an RSA key of {least} bits or more in the token, and order a certificate for it")
            }
            Self::TooLarge(_) => format!("use an RSA key of at most {MAX_RSA_BITS} bits"),
            Self::KeyUsage => "order a certificate with keyUsage digitalSignature".into(),
            Self::ExtendedKeyUsage { allowed, .. } => {
                format!("order a certificate with extendedKeyUsage {}", allowed.join(" or "))
            }
            Self::NoExtendedKeyUsage => "order a certificate with extendedKeyUsage clientAuth or emailProtection".into(),
            Self::Ca => "use the client certificate, not its CA's; it has basicConstraints CA:FALSE".into(),
            Self::NoEmail => {
                "order a certificate with the integration user's address in the subject alternative name".into()
            }
            Self::SelfSigned => "order it from a certification authority that Anaplan accepts".into(),
            Self::Form(_) => {
                "tell the certification authority; other software, such as Anaplan's, may refuse this certificate".into()
            }
        }
    }

    /// The hint, with the key of `[policy]`.
    #[must_use]
    pub(crate) fn hint(&self) -> String {
        let remedy = self.remedy();
        match (self.rule(), self.rule().key()) {
            (Rule::Require(requirement), Some(key)) => {
                format!("{remedy}; the rule is \"{}\" in {key} of [policy]", requirement.name())
            }
            (_, Some(key)) => format!("{remedy}; the rule is {key} in [policy]"),
            (_, None) => format!("{remedy}; this rule always applies"),
        }
    }
}

fn requirement_reason(requirement: Requirement) -> &'static str {
    match requirement {
        Requirement::Sensitive => "the key can be read from the token in clear text (CKA_SENSITIVE is false)",
        Requirement::NonExtractable => "the key can be exported from the token (CKA_EXTRACTABLE is true)",
        Requirement::AlwaysSensitive => "the key was not always sensitive (CKA_ALWAYS_SENSITIVE is false)",
        Requirement::NeverExtractable => "the key could be exported before (CKA_NEVER_EXTRACTABLE is false)",
        Requirement::Local => "the key was not generated in the token (CKA_LOCAL is false)",
        Requirement::HardwareToken => {
            "the token is not a hardware token (CKF_HW_SLOT is not set, or the token is a program)"
        }
    }
}

#[cfg(test)]
mod tests;
