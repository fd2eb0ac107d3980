//! The fields of an X.509 certificate (RFC 5280 section 4.1) that this program reads.
//!
//! PURE. A field that a rule reads must be complete. Other fields may be unusual: they are ignored, and named among the deviations. The
//! certificate's bytes are never re-encoded.

use std::collections::HashSet;

use const_oid::db::rfc5912::{ID_RSASSA_PSS, RSA_ENCRYPTION};
use der::asn1::AnyRef;
use der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::CertificateError;
use super::ber::{
    self, BIT_STRING, BOOLEAN, BerError, BerReader, Element, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE,
};
use super::names::{Name, oid_text};
use super::time::Time;
use crate::text::hex;

/// The fields of a certificate, as its own bytes.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// The certificate from its first byte to its last.
    pub(super) whole: &'a [u8],
    /// The serial number in hexadecimal, with a minus sign where it is negative.
    pub(super) serial: String,
    pub(super) issuer: Name,
    pub(super) subject: Name,
    pub(super) not_before: Time,
    pub(super) not_after: Time,
    /// The `SubjectPublicKeyInfo`.
    key: Element<'a>,
    pub(super) extensions: Vec<Extension<'a>>,
    /// Violations of RFC 5280 that did not prevent parsing.
    pub(super) deviations: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Extension<'a> {
    /// The object identifier, in DER without tag and length.
    pub(super) oid: &'a [u8],
    /// The content of the octet string, or the error if it is not one.
    pub(super) value: Result<&'a [u8], BerError>,
}

impl<'a> Fields<'a> {
    /// Reads the certificate at the beginning of `bytes`.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, CertificateError> {
        let whole = whole(bytes)?;
        let mut outer = whole.reader();
        let mut body = outer.expect(SEQUENCE).map_err(CertificateError::NotX509)?.reader();
        let mut deviations = Vec::new();
        if whole.to_der() != whole.whole {
            deviations.push("it is not encoded in DER".to_owned());
        }
        version(&mut body, &mut deviations).map_err(in_field("version"))?;
        let serial = body.expect(INTEGER).and_then(|serial| serial_text(serial, &mut deviations));
        let serial = serial.map_err(in_field("serial number"))?;
        body.expect(SEQUENCE).map_err(in_field("signature algorithm"))?;
        let issuer = body.next().and_then(Name::read).map_err(in_field("issuer"))?;
        let mut validity = body.expect(SEQUENCE).map_err(in_field("validity"))?.reader();
        let not_before = validity.next().and_then(Time::read).map_err(in_field("notBefore"))?;
        let not_after = validity.next().and_then(Time::read).map_err(in_field("notAfter"))?;
        validity.finish().map_err(in_field("validity"))?;
        if !(not_before.is_plain && not_after.is_plain) {
            deviations.push("a time of its validity is not in the form of RFC 5280".to_owned());
        }
        let subject = body.next().and_then(Name::read).map_err(in_field("subject"))?;
        let key = body.expect(SEQUENCE).map_err(in_field("public key"))?;
        for unique_id in [1, 2] {
            let (plain, built) = (ber::context(unique_id), ber::constructed(unique_id));
            let skipped = body.optional(plain).and_then(|_| body.optional(built));
            skipped.map_err(in_field("unique identifier"))?;
        }
        let extensions = extensions(&mut body, &mut deviations).map_err(in_field("list of extensions"))?;
        body.finish().map_err(CertificateError::NotX509)?;
        let whole = whole.whole;
        Ok(Self { whole, serial, issuer, subject, not_before, not_after, key, extensions, deviations })
    }

    /// Modulus and exponent of the key, big-endian without leading zeros. Unusual forms are added to the deviations.
    pub(super) fn rsa_key(&mut self) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
        rsa_key(self.key, &mut self.deviations)
    }

    /// The values of all extensions of one kind.
    pub(super) fn values(&self, oid: &[u8]) -> impl Iterator<Item = Result<&'a [u8], BerError>> {
        self.extensions.iter().filter(move |extension| extension.oid == oid).map(|extension| extension.value)
    }
}

/// The certificate at the beginning of `bytes`: three parts in a sequence, the last one is the signature.
pub(super) fn whole(bytes: &[u8]) -> Result<Element<'_>, CertificateError> {
    let check = || {
        let whole = Element::first(bytes)?.of(SEQUENCE)?;
        let mut parts = whole.reader();
        parts.expect(SEQUENCE)?;
        parts.expect(SEQUENCE)?;
        parts.expect(BIT_STRING)?;
        parts.finish()?;
        Ok(whole)
    };
    check().map_err(CertificateError::NotX509)
}

pub(super) fn in_field(field: &'static str) -> impl Fn(BerError) -> CertificateError {
    move |reason| CertificateError::Field { field, reason }
}

fn version(body: &mut BerReader<'_>, deviations: &mut Vec<String>) -> Result<(), BerError> {
    let Some(explicit) = body.optional(ber::constructed(0))? else {
        deviations.push("it is an X.509 certificate of version 1".to_owned());
        return Ok(());
    };
    match ber::unsigned(Element::first(explicit.content)?.of(INTEGER)?.content)?.0 {
        [2] => {}
        [] => deviations.push("it is an X.509 certificate of version 1".to_owned()),
        [1] => deviations.push("it is an X.509 certificate of version 2".to_owned()),
        _ => deviations.push("its version of X.509 is unknown".to_owned()),
    }
    Ok(())
}

/// The number in OpenSSL's form, with small letters.
fn serial_text(serial: Element<'_>, deviations: &mut Vec<String>) -> Result<String, BerError> {
    let (digits, is_negative) = ber::unsigned(serial.content)?;
    if is_negative {
        deviations.push("its serial number is negative".to_owned());
        // Two's complement.
        let mut magnitude: Vec<u8> = serial.content.iter().map(|byte| !byte).collect();
        for byte in magnitude.iter_mut().rev() {
            let carries;
            (*byte, carries) = byte.overflowing_add(1);
            if !carries {
                break;
            }
        }
        let zeros = magnitude.iter().take_while(|byte| **byte == 0).count();
        return Ok(format!("-{}", hex(&magnitude[zeros..])));
    }
    if digits.is_empty() {
        deviations.push("its serial number is 0".to_owned());
        return Ok("00".into());
    }
    if serial.content.len() > 20 {
        deviations.push(format!("its serial number has {} bytes, more than 20", serial.content.len()));
    }
    Ok(hex(digits))
}

/// Modulus and exponent of `RSAPublicKey` (RFC 8017 appendix A.1.1) in a `SubjectPublicKeyInfo`.
fn rsa_key(key: Element<'_>, deviations: &mut Vec<String>) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
    let der = key.to_der();
    let key = SubjectPublicKeyInfoRef::from_der(&der).map_err(|error| in_field("public key")(error.into()))?;
    match key.algorithm.oid {
        RSA_ENCRYPTION => {}
        ID_RSASSA_PSS => deviations
            .push("its key is only for RSASSA-PSS, and Anaplan's logins are signed by RSASSA-PKCS1-v1_5".to_owned()),
        _ => return Err(CertificateError::NotRsa),
    }
    let mut read = || {
        let bits = key.subject_public_key.as_bytes();
        let der = ber::in_der(bits.ok_or(BerError::Value("it does not end at a whole byte"))?)?;
        // The numbers are read as bytes: the library refuses leading zeros, which some tokens write.
        let mut reader = SliceReader::new(&der)?;
        let (modulus, exponent) =
            reader.sequence(|numbers| Ok::<_, der::Error>((number(numbers)?, number(numbers)?)))?;
        let (modulus, is_negative) = ber::unsigned(modulus)?;
        if is_negative {
            deviations.push("its modulus is written as a negative number".to_owned());
        }
        Ok((modulus.to_vec(), ber::unsigned(exponent)?.0.to_vec()))
    };
    read().map_err(in_field("RSA key"))
}

/// The bytes of an `INTEGER`.
fn number<'a>(reader: &mut SliceReader<'a>) -> der::Result<&'a [u8]> {
    let number = AnyRef::decode(reader)?;
    number.tag().assert_eq(Tag::Integer)?;
    Ok(number.value())
}

fn extensions<'a>(body: &mut BerReader<'a>, deviations: &mut Vec<String>) -> Result<Vec<Extension<'a>>, BerError> {
    let Some(explicit) = body.optional(ber::constructed(3))? else { return Ok(Vec::new()) };
    let mut outer = explicit.reader();
    let mut all = outer.expect(SEQUENCE)?.reader();
    outer.finish()?;
    let mut found: Vec<Extension<'a>> = Vec::new();
    let (mut has_odd_booleans, mut seen, mut repeated) = (false, HashSet::new(), HashSet::new());
    while !all.is_finished() {
        let mut parts = all.expect(SEQUENCE)?.reader();
        let oid = parts.expect(OBJECT_IDENTIFIER)?.content;
        let critical = parts.optional(BOOLEAN)?.map(|flag| flag.content);
        has_odd_booleans |= critical.is_some_and(|flag| flag != [0xff]);
        let value = parts.next()?;
        parts.finish()?;
        let is_critical = critical.is_some_and(|flag| flag.iter().any(|byte| *byte != 0));
        let extension = Extension { oid, value: value.of(OCTET_STRING).map(|value| value.content) };
        if extension.value.is_err() {
            deviations.push(format!("its extension {} has no octet string", shown(oid)));
        }
        if is_critical && !is_standard(oid) {
            deviations.push(format!("its extension {} is critical and unknown here", shown(oid)));
        }
        if !seen.insert(oid) && repeated.insert(oid) {
            deviations.push(format!("its extension {} occurs twice", shown(oid)));
        }
        found.push(extension);
    }
    if has_odd_booleans {
        deviations.push("a flag of its extensions is not encoded in DER".to_owned());
    }
    Ok(found)
}

fn shown(oid: &[u8]) -> String {
    oid_text(oid).unwrap_or_else(|| hex(oid))
}

/// Whether an extension belongs to X.509 or PKIX, so that chain checkers know it.
fn is_standard(oid: &[u8]) -> bool {
    const CERTIFICATE_EXTENSIONS: &[u8] = &[0x55, 0x1d];
    const PKIX_EXTENSIONS: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01];
    oid.starts_with(CERTIFICATE_EXTENSIONS) || oid.starts_with(PKIX_EXTENSIONS)
}
