//! The reasons why bytes are not a usable certificate.
//!
//! PURE.

use super::BerError;

/// The reason why bytes are not a usable certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not X.509.
    #[error("it is not an X.509 certificate: {0}")]
    NotX509(BerError),
    /// A field that a rule reads is broken.
    #[error("its {field} cannot be read: {reason}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// The problem.
        reason: BerError,
    },
    /// An extension that a rule reads occurs twice.
    #[error("it has more than one {0} extension")]
    Twice(&'static str),
    /// Bytes other than padding follow it.
    #[error("{0} other bytes follow it")]
    Trailing(usize),
    /// The key is not RSA.
    #[error("its key is not RSA")]
    NotRsa,
    /// There is no PEM block of a certificate.
    #[error("no PEM certificate found")]
    NoPem,
    /// There are several where one is needed.
    #[error("{0} certificates found where one is needed")]
    Several(usize),
}
