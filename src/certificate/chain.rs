//! Checks whether a certificate chains to trusted roots (RFC 5280 section 6).
//!
//! PURE. Revocation is deliberately absent: it needs the network, and the service checks it.

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use super::fields::Fields;
use super::file_format::{self, FormatError};
use super::{Certificate, CertificateError, time};

/// The certificates of a `--roots` file: self-issued ones are trusted, others may be intermediates.
#[derive(Debug)]
pub(crate) struct Roots {
    anchors: Vec<Vec<u8>>,
    intermediates: Vec<CertificateDer<'static>>,
}

/// The reason why a file of roots cannot be used, or a certificate does not chain to it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    #[error("the file is {0}")]
    NoCertificates(FormatError),
    #[error("certificate {number} of the file cannot be used: {reason}")]
    Broken {
        /// Its number, from 1.
        number: usize,
        reason: CertificateError,
    },
    #[error("none of the certificates is self-issued, so none is a root")]
    NoRoot,
    #[error("the certificate does not chain to the roots: {0:?}")]
    NoChain(webpki::Error),
}

/// The number of issuers of a leaf whose signatures are tried; a chain has only a few.
const CONSIDERED: usize = 32;

impl ChainError {
    /// The hints for a problem with the file of roots at this path.
    #[must_use]
    pub(crate) fn remedy(&self, path: &str) -> Option<String> {
        let path_in_shell = file_format::quoted(path);
        match self {
            Self::NoCertificates(what) => Some(what.remedy(path)),
            Self::Broken { .. } => Some("get this certificate again from its CA, or take it out of the file".into()),
            Self::NoRoot => Some(format!(
                "add the root, whose issuer is itself; `openssl crl2pkcs7 -nocrl -certfile {path_in_shell} | openssl pkcs7 \
                 -print_certs -noout` shows what is there"
            )),
            Self::NoChain(_) => None,
        }
    }
}

struct AnyUsage;

/// The policy checks usages itself, and accepts either of two.
impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

impl Roots {
    /// Reads a certificate file in any form. Also returns whether it contains a private key.
    ///
    /// # Errors
    /// When it contains no certificate, or no root.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, bool), ChainError> {
        let mut roots = Self { anchors: Vec::new(), intermediates: Vec::new() };
        let file = file_format::read(bytes).map_err(ChainError::NoCertificates)?;
        for (at, der) in file.certificates.into_iter().enumerate() {
            let fields = Fields::read(&der).map_err(|reason| ChainError::Broken { number: at + 1, reason })?;
            if fields.subject == fields.issuer {
                roots.anchors.push(der);
            } else {
                roots.intermediates.push(der.into());
            }
        }
        if roots.anchors.is_empty() { Err(ChainError::NoRoot) } else { Ok((roots, file.has_private_key)) }
    }

    /// Checks that a leaf chains to the roots at a time in seconds of Unix time. `between` are intermediates as DER.
    ///
    /// # Errors
    /// [`ChainError::NoChain`] if it does not.
    pub(crate) fn check(&self, leaf: &Certificate, between: &[&[u8]], now: u64) -> Result<(), ChainError> {
        if self.anchors.iter().any(|anchor| anchor == leaf.der()) {
            return Ok(());
        }
        let mut intermediates = self.intermediates.clone();
        intermediates.extend(between.iter().map(|der| CertificateDer::from(der.to_vec())));
        let anchors: Vec<&[u8]> = self.anchors.iter().map(Vec::as_slice).collect();
        depth(leaf, &anchors, &intermediates, now).map(|_| ()).map_err(ChainError::NoChain)
    }
}

/// An issuer of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Its subject, escaped for a terminal.
    pub subject: String,
    /// End of validity as RFC 3339 in UTC.
    pub valid_until: String,
    /// Its SHA-256 fingerprint.
    pub sha256: [u8; 32],
}

/// The certificates of `others` (DER) that issued a leaf, by their signatures, nearest first. This does not make them
/// trusted.
#[must_use]
pub(crate) fn above(leaf: &Certificate, others: &[&[u8]], now: u64) -> Vec<Authority> {
    // An expired leaf still has its issuer.
    let time = now.min(leaf.not_after).max(leaf.not_before);
    let others = candidates(leaf, others);
    let all: Vec<CertificateDer<'_>> = others.iter().map(|der| CertificateDer::from(*der)).collect();
    let mut found: Vec<(usize, Authority)> =
        others.iter().filter_map(|der| Some((depth(leaf, &[der], &all, time).ok()?, authority(der)?))).collect();
    found.sort_by_key(|(depth, _)| *depth);
    found.into_iter().map(|(_, authority)| authority).collect()
}

/// The possible issuers of a leaf by their names, so that no other signatures are tried.
fn candidates<'a>(leaf: &Certificate, others: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let Ok(first) = Fields::read(leaf.der()) else { return Vec::new() };
    let others = others.iter().filter(|der| **der != leaf.der());
    let all: Vec<_> = others.filter_map(|der| Some((*der, Fields::read(der).ok()?))).collect();
    let mut names = vec![first.issuer.text];
    let mut found: Vec<&[u8]> = Vec::new();
    let mut next = 0;
    while let Some(name) = names.get(next).cloned() {
        for (der, fields) in &all {
            if fields.subject.text == name && found.len() < CONSIDERED && !found.contains(der) {
                found.push(*der);
                if !names.contains(&fields.issuer.text) {
                    names.push(fields.issuer.text.clone());
                }
            }
        }
        next += 1;
    }
    found
}

fn authority(der: &[u8]) -> Option<Authority> {
    let fields = Fields::read(der).ok()?;
    Some(Authority {
        subject: fields.subject.text,
        valid_until: time::text(fields.not_after.seconds),
        sha256: Sha256::digest(der).into(),
    })
}

/// The number of certificates between a leaf and an anchor.
fn depth(
    leaf: &Certificate,
    anchors: &[&[u8]],
    between: &[CertificateDer<'_>],
    now: u64,
) -> Result<usize, webpki::Error> {
    let anchors: Vec<CertificateDer<'_>> = anchors.iter().map(|der| (*der).into()).collect();
    // One unusual root in a bundle must not make the others unusable.
    let anchors: Vec<TrustAnchor<'_>> =
        anchors.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
    let der: CertificateDer<'_> = leaf.der().into();
    let leaf = EndEntityCert::try_from(&der)?;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
    let path = leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, between, time, AnyUsage, None, None)?;
    Ok(path.intermediate_certificates().count())
}

#[cfg(test)]
mod tests {
    use super::super::pem_certificates;
    use super::super::tests::{LEAF_PEM, leaf};
    use super::*;

    const CA_PEM: &[u8] = include_bytes!("../../tests/data/ca.pem");
    const OTHER_CA_PEM: &[u8] = include_bytes!("../../tests/data/other-ca.pem");

    fn roots(pem: &[u8]) -> Roots {
        Roots::read(pem).unwrap().0
    }

    #[test]
    fn a_leaf_chains_to_its_own_ca_alone_and_only_while_valid() {
        let leaf = leaf();
        let now = leaf.not_before + 60;
        assert!(roots(CA_PEM).check(&leaf, &[], now).is_ok());
        assert!(roots(OTHER_CA_PEM).check(&leaf, &[], now).is_err());
        assert!(roots(CA_PEM).check(&leaf, &[], leaf.not_after + 1).is_err());
    }

    #[test]
    fn issuers_of_a_leaf_are_found_by_their_signature() {
        let leaf = leaf();
        let der = |pem| pem_certificates(pem).unwrap().remove(0);
        let (ca, other) = (der(CA_PEM), der(OTHER_CA_PEM));
        let found = above(&leaf, &[leaf.der(), &other, &ca, &ca, b"\x30\x00"], leaf.not_after + 9);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].sha256, <[u8; 32]>::from(Sha256::digest(&ca)));
    }

    #[test]
    fn a_leaf_is_not_a_root() {
        assert!(matches!(Roots::read(LEAF_PEM), Err(ChainError::NoRoot)));
    }

    #[test]
    fn each_error_of_a_file_of_roots_has_a_remedy() {
        let remedy = |error: ChainError| error.remedy("a file.pem");
        let no_certificates = Roots::read(b"text").unwrap_err();
        assert!(remedy(no_certificates).is_some_and(|words| words.len() > 9));
        let words = remedy(ChainError::NoRoot).unwrap();
        assert!(words.contains("add the root") && words.contains("'a file.pem'"), "{words}");
        let broken = ChainError::Broken { number: 2, reason: CertificateError::NotRsa };
        assert!(remedy(broken).unwrap().contains("again from its CA"));
        assert_eq!(remedy(ChainError::NoChain(webpki::Error::UnknownIssuer)), None);
    }

    #[test]
    fn a_broken_certificate_of_a_file_is_named_by_its_number() {
        let pem = |der: &[u8]| {
            use base64::Engine as _;
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        let broken = pem(include_bytes!("../../tests/data/certificates/subject-not-a-name.der"));
        let file = [CA_PEM, OTHER_CA_PEM, broken.as_bytes()].concat();
        assert!(matches!(Roots::read(&file), Err(ChainError::Broken { number: 3, .. })));
        let two = [LEAF_PEM, CA_PEM].concat();
        assert!(roots(&two).check(&leaf(), &[], leaf().not_before).is_ok());
    }

    #[test]
    fn candidates_are_found_by_their_names_up_to_a_limit() {
        let leaf = leaf();
        let der = |pem| pem_certificates(pem).unwrap().remove(0);
        let (ca, other) = (der(CA_PEM), der(OTHER_CA_PEM));
        assert_eq!(candidates(&leaf, &[&other, &ca, leaf.der(), &ca]), [ca.as_slice()]);
        assert!(candidates(&leaf, &[&other]).is_empty());
        // Bytes behind a certificate make each a different one.
        let many: Vec<Vec<u8>> = (0..40).map(|number| [&ca[..], &[number]].concat()).collect();
        let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        assert_eq!(candidates(&leaf, &many), many[..CONSIDERED]);
        assert!(above(&leaf, &[leaf.der(), &other], leaf.not_before).is_empty());
        assert_eq!(above(&leaf, &[&ca], 0)[0].valid_until, authority(&ca).unwrap().valid_until);
    }
}
