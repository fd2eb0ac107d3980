//! Selects the certificate that is meant in a file: the one that is not a CA's.
//!
//! PURE. Certificate files often contain the chain, in either order.

use super::{Certificate, CertificateError};

/// The selected certificate.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: Certificate,
    /// Its position in the file, from 1.
    pub(crate) number: usize,
}

/// The reason why no single certificate is selected.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// A certificate that cannot be used, and no other one fits.
    #[error("{}{reason}", place(*.number, *.total))]
    Broken {
        /// Its position in the file, from 1.
        number: usize,
        /// The number of certificates in the file.
        total: usize,
        /// The problem.
        reason: CertificateError,
    },
    /// Several certificates that are not a CA's.
    #[error("it holds {0} certificates that are not a CA's; one is needed")]
    Several(usize),
    /// No certificate.
    #[error("it holds no certificate")]
    NoCertificate,
}

fn place(number: usize, total: usize) -> String {
    if total == 1 {
        "its certificate cannot be used: ".into()
    } else {
        format!("its certificate {number} of {total} cannot be used: ")
    }
}

/// Selects it among a file's certificates.
///
/// # Errors
/// When there is none, or more than one.
pub fn find(certificates: &[Vec<u8>]) -> Result<Leaf, LeafError> {
    let total = certificates.len();
    let (mut leaves, mut authorities, mut broken) = (Vec::new(), Vec::new(), None);
    for (at, der) in certificates.iter().enumerate() {
        let number = at + 1;
        match Certificate::from_der(der) {
            Ok(certificate) if certificate.is_ca => authorities.push(Leaf { certificate, number }),
            Ok(certificate) => leaves.push(Leaf { certificate, number }),
            Err(reason) => broken = broken.or(Some(LeafError::Broken { number, total, reason })),
        }
    }
    let several = leaves.len();
    leaves.dedup_by(|a, b| a.certificate == b.certificate);
    match (leaves.pop(), leaves.is_empty(), broken) {
        (Some(leaf), true, _) => Ok(leaf),
        (Some(_), false, _) => Err(LeafError::Several(several)),
        (None, _, Some(broken)) => Err(broken),
        (None, _, None) => authorities.into_iter().next().ok_or(LeafError::NoCertificate),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pem_certificates;
    use super::super::tests::leaf;
    use super::*;

    #[test]
    fn the_leaf_is_found_wherever_it_stands() {
        let ca = pem_certificates(include_bytes!("../../tests/data/ca.pem")).unwrap().remove(0);
        let own = leaf().der().to_vec();
        for (file, wanted) in [
            (vec![own.clone()], 1),
            (vec![own.clone(), ca.clone()], 1),
            (vec![ca.clone(), own.clone()], 2),
            (vec![b"\x30\x00".to_vec(), own.clone()], 2),
            (vec![own.clone(), own.clone()], 1),
        ] {
            let found = find(&file).unwrap();
            assert_eq!((found.number, found.certificate), (wanted, leaf()));
        }
        assert!(find(std::slice::from_ref(&ca)).unwrap().certificate.is_ca);
        let broken = find(&[ca, b"\x30\x00".to_vec()]).unwrap_err().to_string();
        assert!(broken.starts_with("its certificate 2 of 2 cannot be used: "), "{broken}");
    }
}
