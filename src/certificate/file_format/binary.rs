//! Binary files: certificates in DER, PKCS#7, and other formats with known first bytes.
//!
//! PURE.

use super::contents::{CertificateFile, FileForm};
use super::error::{FormatError, Packing, in_words};
use super::private_key::mentions_private_key;
use crate::certificate::ber::{
    self, BerReader, Element, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, SET, UTC_TIME,
};
use crate::certificate::{CertificateError, fields, unpadded};

/// Reads a certificate, or certificates in PKCS#7.
pub(super) fn read(bytes: &[u8]) -> Result<CertificateFile, FormatError> {
    let file_of = |form, certificates| Ok(CertificateFile { form, certificates, ..CertificateFile::default() });
    if let Some(other) = request_or_list(bytes) {
        return Err(other);
    }
    match unpadded(bytes) {
        Ok(certificate) => return file_of(FileForm::Der, vec![certificate.to_vec()]),
        Err(CertificateError::NotX509(_)) => {}
        // A private key may follow, which is reported separately.
        Err(error @ CertificateError::Trailing(_)) => {
            let certificate = fields::whole(bytes).map_err(in_words)?.whole;
            let rest = &bytes[certificate.len()..];
            let has_private_key = mentions_private_key(&String::from_utf8_lossy(rest))
                || other_binary(rest) == Some(FormatError::PrivateKey);
            let file = CertificateFile { form: FileForm::Der, has_private_key, ..CertificateFile::default() };
            return if has_private_key {
                Ok(CertificateFile { certificates: vec![certificate.to_vec()], ..file })
            } else {
                Err(in_words(error))
            };
        }
        Err(error) => return Err(in_words(error)),
    }
    match pkcs7(bytes) {
        Some(found) if found.is_empty() => return Err(FormatError::NoneInPkcs7),
        Some(found) => return file_of(FileForm::Pkcs7Der, found),
        None => {}
    }
    Err(by_first_bytes(bytes).or_else(|| other_binary(bytes)).unwrap_or(FormatError::Unknown))
}

/// Formats with characteristic first bytes.
pub(super) fn by_first_bytes(bytes: &[u8]) -> Option<FormatError> {
    match bytes {
        [0xfe, 0xed, 0xfe, 0xed, ..] => Some(FormatError::JavaKeystore("JKS")),
        [0xce, 0xce, 0xce, 0xce, ..] => Some(FormatError::JavaKeystore("JCEKS")),
        [b'P', b'K', 3, 4, ..] => Some(FormatError::Packed(Packing::Zip)),
        [0x1f, 0x8b, ..] => Some(FormatError::Packed(Packing::Gzip)),
        [b'B', b'Z', b'h', ..] => Some(FormatError::Packed(Packing::Bzip2)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(FormatError::Packed(Packing::Xz)),
        // The magic of POSIX's ustar stands behind the first file's name and numbers.
        bytes if bytes.get(257..262) == Some(b"ustar") => Some(FormatError::Packed(Packing::Tar)),
        _ => None,
    }
}

/// Other structures that begin with a sequence, by their first parts.
fn other_binary(bytes: &[u8]) -> Option<FormatError> {
    let mut parts = Element::first(bytes).ok()?.of(SEQUENCE).ok()?.reader();
    let first = parts.next().ok()?;
    match first.tag {
        // PFX begins with version 3 (RFC 7292 section 4); keys with 0 or 1 (RFC 8017 appendix A.1.2, RFC 5958 section 2).
        INTEGER => match first.content {
            [3] => Some(FormatError::Pkcs12),
            [0 | 1] => Some(FormatError::PrivateKey),
            _ => None,
        },
        SEQUENCE => {
            let kind = first.reader().next().ok()?;
            let second = parts.next().ok()?;
            match (kind.tag, second.tag) {
                // EncryptedPrivateKeyInfo (RFC 5958 section 3) and SubjectPublicKeyInfo begin with an algorithm.
                (OBJECT_IDENTIFIER, ber::OCTET_STRING) => Some(FormatError::PrivateKey),
                (OBJECT_IDENTIFIER, ber::BIT_STRING) => Some(FormatError::PublicKey),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A signing request (RFC 2986) or a certificate revocation list (RFC 5280 section 5.1). Both look like a certificate
/// from outside, and a certificate of version 1 begins like them.
fn request_or_list(bytes: &[u8]) -> Option<FormatError> {
    let mut body = fields::whole(bytes).ok()?.reader().next().ok()?.reader();
    let number = body.optional(INTEGER).ok()?.map(|number| number.content);
    let second = body.expect(SEQUENCE).ok()?.reader();
    // A name contains sets; an algorithm begins with an object identifier.
    let is_name = second.is_finished() || second.first_tag() == Some(SET);
    if number == Some(&[0]) && is_name {
        return Some(FormatError::Request);
    }
    body.expect(SEQUENCE).ok()?;
    matches!(body.first_tag(), Some(UTC_TIME | GENERALIZED_TIME)).then_some(FormatError::RevocationList)
}

/// The certificates of a `SignedData` (RFC 5652 section 5.1), with or without signatures; `None` for other structures.
pub(super) fn pkcs7(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    // 1.2.840.113549.1.7.2
    const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    let mut parts = Element::first(bytes).ok()?.of(SEQUENCE).ok()?.reader();
    (parts.expect(OBJECT_IDENTIFIER).ok()?.content == SIGNED_DATA).then_some(())?;
    let explicit = parts.expect(ber::constructed(0)).ok()?;
    let mut data = Element::first(explicit.content).ok()?.of(SEQUENCE).ok()?.reader();
    while !data.is_finished() {
        let part = data.next().ok()?;
        if part.tag == ber::constructed(0) {
            return certificates(part.reader());
        }
    }
    Some(Vec::new())
}

/// The X.509 certificates among `CertificateChoices`; other kinds have other tags.
fn certificates(mut all: BerReader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    while !all.is_finished() {
        let choice = all.next().ok()?;
        if choice.tag == SEQUENCE {
            found.push(choice.whole.to_vec());
        }
    }
    Some(found)
}
