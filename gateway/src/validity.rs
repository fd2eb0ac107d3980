//! When a TLS certificate ends, with any kind of key, and who issued it.
//!
//! PURE. The agent's library reads certificates with RSA keys alone; a TLS certificate usually has another.

use x509_cert::der::Decode as _;

/// The end of a certificate's validity, in seconds of Unix time.
#[must_use]
pub fn not_after(der: &[u8]) -> Option<u64> {
    let parsed = x509_cert::Certificate::from_der(der).ok()?;
    Some(parsed.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
}

/// The issuer's name (RFC 4514).
#[must_use]
pub fn issuer(der: &[u8]) -> Option<String> {
    let parsed = x509_cert::Certificate::from_der(der).ok()?;
    Some(parsed.tbs_certificate().issuer().to_string())
}
