//! The extensions that a rule or a report reads (RFC 5280 section 4.2).
//!
//! PURE. Key usage, extended key usage and basic constraints decide, so each must be complete and occur once. Alternative names are read as
//! far as possible. All other extensions are ignored.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{
    ID_CE_BASIC_CONSTRAINTS, ID_CE_CRL_DISTRIBUTION_POINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE,
    ID_CE_SUBJECT_ALT_NAME, ID_PE_AUTHORITY_INFO_ACCESS,
};
use der::asn1::{BitStringRef, IntRef};
use der::flagset::FlagSet;
use der::{Decode as _, Reader as _, SliceReader};
use x509_cert::ext::pkix::KeyUsage;

use super::ber::{BerError, in_der};
use super::fields::{Fields, in_field};
use super::names::AlternativeNames;
use super::usages::extended_key_usage;
use super::{CertificateError, attestation};

#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) alternative_names: AlternativeNames,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) extended_key_usage: Option<Vec<String>>,
    pub(super) is_ca: bool,
    pub(super) is_attestation: bool,
    pub(super) says_where_it_is_revoked: bool,
    pub(super) deviations: Vec<String>,
}

impl Extensions {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, CertificateError> {
        let mut read = Self {
            key_usage: one(fields, ID_CE_KEY_USAGE, "key usage", key_usage)?,
            extended_key_usage: one(fields, ID_CE_EXT_KEY_USAGE, "extended key usage", extended_key_usage)?,
            is_attestation: fields.extensions.iter().any(|extension| attestation::is_attestation(extension.oid)),
            ..Self::default()
        };
        read.is_ca = one(fields, ID_CE_BASIC_CONSTRAINTS, "basic constraints", is_ca)?.unwrap_or(false);
        let revocation = [ID_CE_CRL_DISTRIBUTION_POINTS, ID_PE_AUTHORITY_INFO_ACCESS];
        read.says_where_it_is_revoked = revocation.iter().any(|oid| fields.values(oid.as_bytes()).next().is_some());
        for value in fields.values(ID_CE_SUBJECT_ALT_NAME.as_bytes()) {
            // `deviations` already names an extension whose value is not an octet string.
            value.into_iter().for_each(|value| read.alternative_names.add(value));
        }
        match read.alternative_names.unreadable {
            0 => {}
            1 => read.deviations.push("an entry of its subject alternative name cannot be read".to_owned()),
            many => read.deviations.push(format!("{many} entries of its subject alternative name cannot be read")),
        }
        Ok(read)
    }
}

/// The value of an extension that decides: complete, and at most once.
fn one<T>(
    fields: &Fields<'_>,
    oid: ObjectIdentifier,
    name: &'static str,
    read: impl Fn(&[u8]) -> Result<T, BerError>,
) -> Result<Option<T>, CertificateError> {
    let mut values = fields.values(oid.as_bytes());
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(CertificateError::Twice(name));
    }
    value.and_then(read).map(Some).map_err(in_field(name))
}

/// Whether `BasicConstraints` make it a CA. The library's own type accepts path lengths below 256 only.
fn is_ca(value: &[u8]) -> Result<bool, BerError> {
    let der = in_der(value)?;
    let mut reader = SliceReader::new(&der)?;
    Ok(reader.sequence(|parts| {
        let is_ca = Option::<bool>::decode(parts)?;
        Option::<IntRef<'_>>::decode(parts)?;
        Ok::<_, der::Error>(is_ca.unwrap_or(false))
    })?)
}

/// The key usages that RFC 5280 names. The library's own type accepts 16 bits at most.
fn key_usage(value: &[u8]) -> Result<KeyUsage, BerError> {
    let der = in_der(value)?;
    let bits = BitStringRef::from_der(&der)?;
    let known = bits.bits().take(16).enumerate().fold(0, |known, (at, is_set)| known | u16::from(is_set) << at);
    Ok(KeyUsage(FlagSet::new_truncated(known)))
}

#[cfg(test)]
mod tests {
    use super::super::usages::key_usage_names;
    use super::*;

    #[test]
    fn key_usages_are_read_with_odd_padding_and_without_any_bit() {
        for (value, names) in [
            (&[3, 2, 7, 0x80][..], &["digitalSignature"][..]),
            (&[3, 2, 0, 0x80], &["digitalSignature"]),
            (&[3, 2, 7, 0xff], &["digitalSignature"]),
            (&[3, 2, 5, 0xa0], &["digitalSignature", "keyEncipherment"]),
            (&[3, 3, 7, 0x00, 0x80], &["decipherOnly"]),
            (&[3, 4, 0, 0x80, 0, 0xff], &["digitalSignature"]),
            (&[3, 1, 0], &[]),
        ] {
            assert_eq!(key_usage_names(key_usage(value).unwrap()), names, "{value:?}");
        }
        for value in [&[3, 0][..], &[3, 2, 8, 0x80], &[3, 1, 7], &[4, 1, 0x80], &[3, 2, 7, 0x80, 0], &[0x23, 2, 3, 0]] {
            assert!(key_usage(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn every_flag_but_zero_makes_a_ca() {
        for (value, wanted) in [
            (&[0x30, 0][..], false),
            (&[0x30, 3, 1, 1, 0], false),
            (&[0x30, 3, 1, 1, 1], true),
            (&[0x30, 6, 1, 1, 0xff, 2, 1, 0], true),
            (&[0x30, 3, 2, 1, 0], false),
        ] {
            assert_eq!(is_ca(value), Ok(wanted), "{value:?}");
        }
        for value in [&[0x30, 2, 1, 0][..], &[0x30, 4, 1, 2, 0, 0], &[0x30, 3, 4, 1, 0], &[0x31, 0], &[]] {
            assert!(is_ca(value).is_err(), "{value:?}");
        }
    }
}
