//! Whether a certificate chains to trusted roots (RFC 5280 section 6).
//!
//! PURE. Revocation is deliberately absent: it needs the network, and the service checks it.

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use super::{Certificate, CertificateError, pem_certificates};

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
        use der::Decode as _;
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

    /// Checks that a leaf chains to the roots at a time in seconds of Unix time.
    ///
    /// # Errors
    /// [`ChainError::NoChain`] when it does not.
    pub fn check(&self, leaf: &Certificate, now: u64) -> Result<(), ChainError> {
        if self.anchors.iter().any(|anchor| anchor == leaf.der()) {
            return Ok(());
        }
        let anchors: Vec<CertificateDer<'_>> = self.anchors.iter().map(|der| der.as_slice().into()).collect();
        // One odd root in a bundle is no reason to distrust the others.
        let anchors: Vec<TrustAnchor<'_>> =
            anchors.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
        let der: CertificateDer<'_> = leaf.der().into();
        let leaf = EndEntityCert::try_from(&der).map_err(ChainError::NoChain)?;
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &self.intermediates, time, AnyUsage, None, None)
            .map(|_| ())
            .map_err(ChainError::NoChain)
    }
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
        assert!(Roots::from_pem(CA_PEM).unwrap().check(&leaf, now).is_ok());
        assert!(Roots::from_pem(OTHER_CA_PEM).unwrap().check(&leaf, now).is_err());
        assert!(Roots::from_pem(CA_PEM).unwrap().check(&leaf, leaf.not_after + 1).is_err());
    }

    #[test]
    fn a_leaf_is_no_root() {
        assert!(matches!(Roots::from_pem(LEAF_PEM), Err(ChainError::NoRoot)));
    }
}
