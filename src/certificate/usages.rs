//! The names of key usages and extended key usages.
//!
//! PURE.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280;
use x509_cert::ext::pkix::KeyUsage;

use super::ber::BerError;
use super::names::oids;

/// The standard's names of key usages.
pub(super) fn key_usage_names(usage: KeyUsage) -> Vec<&'static str> {
    let all = [
        ("digitalSignature", usage.digital_signature()),
        ("nonRepudiation", usage.non_repudiation()),
        ("keyEncipherment", usage.key_encipherment()),
        ("dataEncipherment", usage.data_encipherment()),
        ("keyAgreement", usage.key_agreement()),
        ("keyCertSign", usage.key_cert_sign()),
        ("cRLSign", usage.crl_sign()),
        ("encipherOnly", usage.encipher_only()),
        ("decipherOnly", usage.decipher_only()),
    ];
    all.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
}

/// Extended key usages with a name (RFC 5280 section 4.2.1.12).
pub(crate) const USAGES: [(&str, ObjectIdentifier); 4] = [
    ("clientAuth", rfc5280::ID_KP_CLIENT_AUTH),
    ("emailProtection", rfc5280::ID_KP_EMAIL_PROTECTION),
    ("serverAuth", rfc5280::ID_KP_SERVER_AUTH),
    ("codeSigning", rfc5280::ID_KP_CODE_SIGNING),
];

/// The values of the extension (RFC 5280 section 4.2.1.12): the names in [`USAGES`], others as dotted numbers.
pub(super) fn extended_key_usage(value: &[u8]) -> Result<Vec<String>, BerError> {
    Ok(oids(value)?.into_iter().map(|oid| usage_name(&oid).unwrap_or(oid)).collect())
}

/// The name of an extended key usage, given by name or number, as in [`super::Certificate::extended_key_usage`]; `None` for
/// other text.
#[must_use]
pub(crate) fn usage_name(text: &str) -> Option<String> {
    let oid = || ObjectIdentifier::new(text).ok();
    let known = USAGES.iter().find(|(name, known)| *name == text || oid().is_some_and(|oid| oid == *known));
    known.map(|(name, _)| (*name).to_owned()).or_else(|| oid().map(|oid| oid.to_string()))
}
