//! The extensions that a rule or a report reads (RFC 5280 section 4.2).
//!
//! PURE. Key usage, extended key usage and basic constraints decide, so each must be complete and occur once. Alternative names are read as
//! far as possible. All other extensions are ignored.

use super::ber::{BOOLEAN, BerError, INTEGER, Reader, SEQUENCE};
use super::fields::{Fields, bits, in_field};
use super::names::{AlternativeNames, oids};
use super::{CertificateError, attestation};

const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const CRL_DISTRIBUTION_POINTS: &[u8] = &[0x55, 0x1d, 31];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const AUTHORITY_INFORMATION: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01];

/// The content of the extensions.
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
            key_usage: one(fields, KEY_USAGE, "key usage", KeyUsage::read)?,
            extended_key_usage: one(fields, EXTENDED_KEY_USAGE, "extended key usage", oids)?,
            is_attestation: fields.extensions.iter().any(|one| attestation::is_attestation(one.oid)),
            ..Self::default()
        };
        read.is_ca = one(fields, BASIC_CONSTRAINTS, "basic constraints", is_ca)?.unwrap_or(false);
        let revocation = [CRL_DISTRIBUTION_POINTS, AUTHORITY_INFORMATION];
        read.says_where_it_is_revoked = fields.extensions.iter().any(|one| revocation.contains(&one.oid));
        for value in fields.values(ALTERNATIVE_NAME) {
            // The deviations already name it if it is not an octet string.
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
    oid: &[u8],
    name: &'static str,
    read: impl Fn(&[u8]) -> Result<T, BerError>,
) -> Result<Option<T>, CertificateError> {
    let mut values = fields.values(oid);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(CertificateError::Twice(name));
    }
    value.and_then(read).map(Some).map_err(in_field(name))
}

/// `SEQUENCE { cA BOOLEAN DEFAULT FALSE, pathLenConstraint INTEGER OPTIONAL }`. Every value except 0 is true, as in
/// BER.
fn is_ca(value: &[u8]) -> Result<bool, BerError> {
    let mut outer = Reader::new(value);
    let mut parts = outer.expect(SEQUENCE)?.reader();
    outer.finish()?;
    let is_ca = match parts.optional(BOOLEAN)?.map(|flag| flag.content) {
        None => false,
        Some([flag]) => *flag != 0,
        Some(_) => return Err(BerError::Value("a flag is not one byte")),
    };
    parts.optional(INTEGER)?;
    parts.finish()?;
    Ok(is_ca)
}

/// The key usages, as bits in the order of RFC 5280 section 4.2.1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsage(u16);

const NAMES: [&str; 9] = [
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
];

impl KeyUsage {
    fn read(value: &[u8]) -> Result<Self, BerError> {
        let mut outer = Reader::new(value);
        let (unused, bytes) = bits(outer.next()?)?;
        outer.finish()?;
        let mut bytes = bytes.to_vec();
        // Bits that a bit string declares unused have no meaning.
        bytes.last_mut().into_iter().for_each(|last| *last &= 0xff << unused);
        bytes.resize(2, 0);
        Ok(Self(u16::from_be_bytes([bytes[0], bytes[1]])))
    }

    /// Whether signatures of data are allowed.
    #[must_use]
    pub fn digital_signature(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// The standard's names.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let is_set = |(bit, _): &(usize, &'static str)| self.0 << bit & 0x8000 != 0;
        NAMES.into_iter().enumerate().filter(is_set).map(|(_, name)| name).collect()
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(KeyUsage::read(value).unwrap().names(), names, "{value:?}");
        }
        for value in [&[3, 0][..], &[3, 2, 8, 0x80], &[3, 1, 7], &[4, 1, 0x80], &[3, 2, 7, 0x80, 0], &[0x23, 2, 3, 0]] {
            assert!(KeyUsage::read(value).is_err(), "{value:?}");
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
