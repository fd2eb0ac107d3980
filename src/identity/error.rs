//! The reasons why there is no identity, and hints.
//!
//! PURE.

use super::UnreadableCertificate;
use crate::error::{Explain, Kind};

/// The reason why there is no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("the token shows no private RSA key")]
    NoKey,
    #[error("the token shows no certificate")]
    NoCertificate,
    #[error("no key with its certificate matches the selection")]
    NoMatch {
        /// The existing ones, each as a selector.
        candidates: Vec<String>,
    },
    #[error("no private key has a certificate: {}", first(.parts))]
    NoPair {
        /// Keys and certificates without a partner, in words.
        parts: Vec<String>,
        /// The ID of the only key, in hexadecimal; a placeholder for several.
        key_id: String,
        /// Whether the certificate is from a file.
        from_file: bool,
    },
    /// More than one.
    #[error("{} identities match", .0.len())]
    Ambiguous(Vec<String>),
    #[error("the token shows no certificate with an RSA key: {}", first(.0))]
    NoRsaCertificate(Vec<String>),
    /// No certificate fits, and some cannot be read: one of them may be the right one.
    #[error("{}", first(.0))]
    Broken(Vec<String>),
    /// Several certificates of the key are valid at the same time, and nothing distinguishes them.
    #[error("two certificates for one key begin at the same time")]
    SameAge(Vec<String>),
}

/// The first of many: a token can hold a hundred certificates, and an error is one line.
fn first(parts: &[String]) -> String {
    const SHOWN: usize = 6;
    match parts.len().checked_sub(SHOWN) {
        None | Some(0) => parts.join("; "),
        Some(more) => format!("{}; and {more} more", parts[..SHOWN].join("; ")),
    }
}

impl IdentityError {
    /// Adds the certificates that could not be used.
    pub(super) fn with(self, unreadable: Vec<UnreadableCertificate>) -> Self {
        if unreadable.is_empty() {
            return self;
        }
        let is_broken = unreadable.iter().any(UnreadableCertificate::is_broken);
        let names = unreadable.iter().map(ToString::to_string);
        match self {
            Self::NoPair { parts, .. } if is_broken => Self::Broken(names.chain(parts).collect()),
            Self::NoPair { parts, key_id, from_file } => {
                Self::NoPair { parts: parts.into_iter().chain(names).collect(), key_id, from_file }
            }
            Self::NoCertificate | Self::NoMatch { .. } if is_broken => Self::Broken(names.collect()),
            Self::NoCertificate => Self::NoRsaCertificate(names.collect()),
            other => other,
        }
    }
}

impl Explain for IdentityError {
    fn kind(&self) -> Kind {
        match self {
            Self::Broken(_) => Kind::Unsuitable,
            Self::Ambiguous(_) | Self::SameAge(_) => Kind::Ambiguous,
            _ => Kind::NotFound,
        }
    }

    fn hints(&self) -> Vec<String> {
        let each = |word: &str, candidates: &[String]| candidates.iter().map(|c| format!("{word} {c}")).collect();
        match self {
            Self::NoCertificate => vec!["some tokens show certificates only after a login: --login".into()],
            Self::NoRsaCertificate(_) => vec![
                "order a certificate for an RSA key; `cba-agent list --login` shows all keys and certificates".into(),
            ],
            Self::Broken(_) => vec![
                "ask the CA to issue the certificate again, and replace the broken one in the token; \
                 `cba-agent list` shows each certificate with its URI"
                    .into(),
            ],
            Self::NoKey => vec![
                "`cba-agent list --login` shows all keys and certificates; an empty token needs both first (docs/enrolment.md)".into(),
            ],
            Self::NoPair { from_file: true, .. } => {
                vec!["the certificate in identity.certificate_file belongs to another key: name the file of this key's".into()]
            }
            Self::NoPair { key_id, .. } => vec![format!(
                "write the certificate that belongs to the key into the token: `pkcs11-tool --login --type cert --id {key_id} \
                 --write-object cert.der`; for a token that stores none: identity.certificate_file"
            )],
            Self::NoMatch { candidates } => each("there is", candidates),
            Self::Ambiguous(candidates) | Self::SameAge(candidates) => each("choose with", candidates),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{CertificateObject, TokenObjects};
    use crate::identity::certificates;

    fn unreadable(value: &[u8]) -> Vec<UnreadableCertificate> {
        let found = CertificateObject { label: b"x".to_vec(), id: vec![1], value: value.to_vec() };
        certificates(&TokenObjects { certificates: vec![found], ..TokenObjects::default() }).1
    }

    fn no_pair(parts: Vec<String>) -> IdentityError {
        IdentityError::NoPair { parts, key_id: "0a".into(), from_file: false }
    }

    #[test]
    fn a_broken_certificate_may_be_the_one_that_is_meant() {
        let other = || vec!["other".to_owned()];
        let no_match = || IdentityError::NoMatch { candidates: other() };
        for (error, broken, whole) in [
            (IdentityError::NoCertificate, "Broken", "NoRsaCertificate"),
            (no_match(), "Broken", "NoMatch"),
            (no_pair(other()), "Broken", "NoPair"),
            (IdentityError::NoKey, "NoKey", "NoKey"),
        ] {
            let name = |error: &IdentityError| format!("{error:?}").split([' ', '(', '{']).next().unwrap().to_owned();
            let again = |error: &IdentityError| match error {
                IdentityError::NoCertificate => IdentityError::NoCertificate,
                IdentityError::NoMatch { .. } => no_match(),
                IdentityError::NoPair { .. } => no_pair(other()),
                _ => IdentityError::NoKey,
            };
            assert_eq!(name(&again(&error).with(unreadable(b"text"))), broken);
            assert_eq!(name(&again(&error).with(unreadable(b""))), whole);
            assert_eq!(name(&again(&error).with(Vec::new())), name(&error));
        }
        let broken = no_pair(other()).with(unreadable(b"text"));
        assert_eq!(broken.kind(), Kind::Unsuitable);
        assert!(broken.to_string().starts_with("certificate 'x' (ID 01)") && broken.to_string().ends_with("; other"));
        let pair = no_pair(other()).with(unreadable(b""));
        assert!(pair.to_string().contains("other; certificate 'x' (ID 01)"), "{pair}");
    }

    #[test]
    fn each_error_has_its_kind_and_its_hint() {
        let all = || vec!["C".to_owned()];
        for (error, kind, hint) in [
            (IdentityError::NoKey, Kind::NotFound, "list --login"),
            (IdentityError::NoCertificate, Kind::NotFound, "--login"),
            (IdentityError::NoRsaCertificate(all()), Kind::NotFound, "order a certificate for an RSA key"),
            (IdentityError::Broken(all()), Kind::Unsuitable, "issue the certificate again"),
            (no_pair(all()), Kind::NotFound, "--id 0a --write-object"),
            (
                IdentityError::NoPair { parts: all(), key_id: "0a".into(), from_file: true },
                Kind::NotFound,
                "belongs to another key",
            ),
            (IdentityError::NoMatch { candidates: all() }, Kind::NotFound, "there is C"),
            (IdentityError::Ambiguous(all()), Kind::Ambiguous, "choose with C"),
            (IdentityError::SameAge(all()), Kind::Ambiguous, "choose with C"),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.hints()[0].contains(hint), "{error}: {:?}", error.hints());
        }
    }
}
