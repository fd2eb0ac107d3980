//! Reads the end and the issuer of a TLS certificate, for any kind of key.
//!
//! PURE. The agent's library reads only certificates with RSA keys, and a TLS certificate usually has another kind.

use x509_cert::der::Decode as _;

/// Returns the end of a certificate's validity, in seconds of Unix time.
#[must_use]
pub(crate) fn not_after(der: &[u8]) -> Option<u64> {
    let parsed = x509_cert::Certificate::from_der(der).ok()?;
    Some(parsed.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
}

/// Returns the issuer's name (RFC 4514).
#[must_use]
pub(crate) fn issuer(der: &[u8]) -> Option<String> {
    let parsed = x509_cert::Certificate::from_der(der).ok()?;
    Some(parsed.tbs_certificate().issuer().to_string())
}
