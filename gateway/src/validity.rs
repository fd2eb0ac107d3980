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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::leaf_der;

    #[test]
    fn end_and_issuer_are_read_from_certificates_with_any_kind_of_key() {
        let elliptic = include_bytes!("../../tests/data/certificates/key-ec.der");
        for (der, end, name) in
            [(&leaf_der()[..], 4_905_734_676, "CN=cba-agent test ca"), (elliptic, 4_701_974_400, "CN=Corpus CA")]
        {
            assert_eq!((not_after(der), issuer(der).as_deref()), (Some(end), Some(name)));
            assert_eq!((not_after(&der[1..]), issuer(&der[1..])), (None, None));
        }
    }
}
