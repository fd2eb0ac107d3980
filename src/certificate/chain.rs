//! Whether a certificate chains to trusted roots (RFC 5280 section 6).
//!
//! PURE. Revocation is deliberately absent: it needs the network, and the service checks it.

use der::Decode as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use super::{Certificate, CertificateError, pem_certificates};
use crate::printable::printable;

/// The certificates of a `--roots` file: self-issued ones are trusted, others may stand between.
#[derive(Debug)]
pub struct Roots {
    anchors: Vec<Vec<u8>>,
    intermediates: Vec<CertificateDer<'static>>,
}

/// Why a file of roots cannot be used, or a certificate does not chain to it.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The file is no PEM of certificates.
    #[error("the roots cannot be read")]
    Roots(#[source] CertificateError),
    /// Nothing in it is a root.
    #[error("none of the certificates is self-issued, so none is a root")]
    NoRoot,
    /// No chain.
    #[error("the certificate does not chain to the roots: {0:?}")]
    NoChain(webpki::Error),
}

struct AnyUsage;

/// The policy judges usages by itself, and either of two will do.
impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

impl Roots {
    /// Reads PEM.
    ///
    /// # Errors
    /// When it holds no certificate, or no root.
    pub fn from_pem(text: &[u8]) -> Result<Self, ChainError> {
        let mut roots = Self { anchors: Vec::new(), intermediates: Vec::new() };
        for der in pem_certificates(text).map_err(ChainError::Roots)? {
            let parsed = x509_cert::Certificate::from_der(&der).map_err(CertificateError::Parse);
            let parsed = parsed.map_err(ChainError::Roots)?;
            let tbs = parsed.tbs_certificate();
            if tbs.subject() == tbs.issuer() {
                roots.anchors.push(der);
            } else {
                roots.intermediates.push(der.into());
            }
        }
        if roots.anchors.is_empty() { Err(ChainError::NoRoot) } else { Ok(roots) }
    }

    /// Checks that a leaf chains to the roots at a time in seconds of Unix time; `between` may stand between them, as DER.
    ///
    /// # Errors
    /// [`ChainError::NoChain`] when it does not.
    pub fn check(&self, leaf: &Certificate, between: &[&[u8]], now: u64) -> Result<(), ChainError> {
        if self.anchors.iter().any(|anchor| anchor == leaf.der()) {
            return Ok(());
        }
        let mut intermediates = self.intermediates.clone();
        intermediates.extend(between.iter().map(|der| CertificateDer::from(der.to_vec())));
        let anchors: Vec<&[u8]> = self.anchors.iter().map(Vec::as_slice).collect();
        depth(leaf, &anchors, &intermediates, now).map(|_| ()).map_err(ChainError::NoChain)
    }
}

/// A certificate that stands above another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Its subject, fit for a terminal.
    pub subject: String,
    /// End of validity, seconds of Unix time.
    pub not_after: u64,
    /// Its SHA-256 fingerprint.
    pub sha256: [u8; 32],
}

/// Those of `others` (DER) that stand above a leaf by their signatures, the nearest first. Whether any of them is to be
/// trusted is another question.
#[must_use]
pub fn above(leaf: &Certificate, others: &[&[u8]], now: u64) -> Vec<Authority> {
    // A leaf that has ended still has the issuer that it had.
    let time = now.min(leaf.not_after).max(leaf.not_before);
    let all: Vec<CertificateDer<'static>> = others.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let mut found: Vec<(usize, Authority)> = others
        .iter()
        .filter(|der| **der != leaf.der())
        .filter_map(|der| Some((depth(leaf, &[der], &all, time).ok()?, authority(der)?)))
        .collect();
    found.sort_by_key(|(depth, _)| *depth);
    found.dedup_by(|(_, a), (_, b)| a.sha256 == b.sha256);
    found.into_iter().map(|(_, authority)| authority).collect()
}

/// A certificate's DER without the padding that some tokens put behind it; `None` where it is none.
#[must_use]
pub fn unpadded(bytes: &[u8]) -> Option<&[u8]> {
    let (_, rest) = x509_cert::Certificate::from_der_partial(bytes).ok()?;
    Some(&bytes[..bytes.len() - rest.len()])
}

fn authority(der: &[u8]) -> Option<Authority> {
    let parsed = x509_cert::Certificate::from_der(der).ok()?;
    let tbs = parsed.tbs_certificate();
    Some(Authority {
        subject: printable(&tbs.subject().to_string()),
        not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
        sha256: Sha256::digest(der).into(),
    })
}

/// How many certificates stand between a leaf and an anchor.
fn depth(
    leaf: &Certificate,
    anchors: &[&[u8]],
    between: &[CertificateDer<'_>],
    now: u64,
) -> Result<usize, webpki::Error> {
    let anchors: Vec<CertificateDer<'_>> = anchors.iter().map(|der| (*der).into()).collect();
    // One odd root in a bundle is no reason to distrust the others.
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
    use super::super::tests::{LEAF_PEM, leaf};
    use super::*;

    const CA_PEM: &[u8] = include_bytes!("../../tests/data/ca.pem");
    const OTHER_CA_PEM: &[u8] = include_bytes!("../../tests/data/other-ca.pem");

    #[test]
    fn a_leaf_chains_to_its_own_ca_alone_and_only_while_valid() {
        let leaf = leaf();
        let now = leaf.not_before + 60;
        assert!(Roots::from_pem(CA_PEM).unwrap().check(&leaf, &[], now).is_ok());
        assert!(Roots::from_pem(OTHER_CA_PEM).unwrap().check(&leaf, &[], now).is_err());
        assert!(Roots::from_pem(CA_PEM).unwrap().check(&leaf, &[], leaf.not_after + 1).is_err());
    }

    #[test]
    fn what_stands_above_a_leaf_is_found_by_its_signature() {
        let leaf = leaf();
        let der = |pem| pem_certificates(pem).unwrap().remove(0);
        let (ca, other) = (der(CA_PEM), der(OTHER_CA_PEM));
        let found = above(&leaf, &[leaf.der(), &other, &ca, &ca, b"\x30\x00"], leaf.not_after + 9);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].sha256, <[u8; 32]>::from(Sha256::digest(&ca)));
    }

    #[test]
    fn a_leaf_is_no_root() {
        assert!(matches!(Roots::from_pem(LEAF_PEM), Err(ChainError::NoRoot)));
    }
}
