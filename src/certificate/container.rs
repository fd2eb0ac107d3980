//! What a file that somebody calls a certificate is: certificates in one of their wrappings, or something else by mistake.
//!
//! PURE.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _};

use super::pem_certificates;

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Container {
    /// Certificates as PEM text; `true` where other text stands around them.
    Pem(Vec<Vec<u8>>, bool),
    /// One certificate as DER.
    Der(Vec<u8>),
    /// Certificates in PKCS#7 (`.p7b`), DER or PEM.
    Pkcs7(Vec<Vec<u8>>),
    /// One certificate as base64 without the lines around it.
    Base64(Vec<u8>),
    /// PKCS#12 (`.p12`, `.pfx`): a key and its certificate under a password.
    Pkcs12,
    /// A Java keystore.
    JavaKeystore,
    /// A private key.
    PrivateKey,
    /// A signing request.
    Request,
    /// Nothing of all that.
    Unknown,
}

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");

/// Looks at a file's bytes.
#[must_use]
pub fn recognise(bytes: &[u8]) -> Container {
    if bytes.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) || bytes.starts_with(&[0xce, 0xce, 0xce, 0xce]) {
        return Container::JavaKeystore;
    }
    let text = String::from_utf8_lossy(bytes);
    let has = |label: &str| text.contains(&format!("-----BEGIN {label}-----"));
    if let Ok(found) = pem_certificates(bytes) {
        return Container::Pem(found, !text.trim_start().starts_with("-----BEGIN CERTIFICATE-----"));
    }
    if has("PKCS7") || has("CMS") {
        let body: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        return STANDARD.decode(body).ok().and_then(|der| pkcs7(&der)).map_or(Container::Unknown, Container::Pkcs7);
    }
    if text.contains("PRIVATE KEY-----") {
        return Container::PrivateKey;
    }
    if has("CERTIFICATE REQUEST") || has("NEW CERTIFICATE REQUEST") {
        return Container::Request;
    }
    let squeezed: String = text.split_whitespace().collect();
    match STANDARD.decode(&squeezed) {
        Ok(der) if x509_cert::Certificate::from_der(&der).is_ok() => Container::Base64(der),
        _ => binary(bytes),
    }
}

fn binary(bytes: &[u8]) -> Container {
    if x509_cert::Certificate::from_der_partial(bytes).is_ok() {
        return Container::Der(bytes.to_vec());
    }
    if let Some(found) = pkcs7(bytes) {
        return Container::Pkcs7(found);
    }
    if x509_cert::request::CertReq::from_der(bytes).is_ok() {
        return Container::Request;
    }
    match first_number(bytes) {
        // PFX begins with version 3 (RFC 7292 section 4); keys with 0 or 1 (RFC 8017 appendix A.1.2, RFC 5958 section 2).
        Some(3) => Container::Pkcs12,
        Some(0 | 1) => Container::PrivateKey,
        _ => Container::Unknown,
    }
}

fn first_number(bytes: &[u8]) -> Option<u8> {
    let inside = AnyRef::from_der(bytes).ok().filter(|any| any.tag() == Tag::Sequence)?;
    u8::decode(&mut SliceReader::new(inside.value()).ok()?).ok()
}

/// The certificates of a `SignedData` (RFC 5652 section 5.1), in which nothing needs to be signed.
fn pkcs7(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    const CERTIFICATES: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
    let mut outer = SliceReader::new(bytes).ok()?;
    let content = AnyRef::decode(&mut outer).ok()?;
    let mut content = SliceReader::new(content.value()).ok()?;
    (ObjectIdentifier::decode(&mut content).ok()? == SIGNED_DATA).then_some(())?;
    let wrapped = AnyRef::decode(&mut content).ok()?;
    let data = AnyRef::from_der(wrapped.value()).ok()?;
    let mut data = SliceReader::new(data.value()).ok()?;
    while !data.is_finished() {
        let part = AnyRef::decode(&mut data).ok()?;
        if part.tag() == CERTIFICATES {
            let mut all = SliceReader::new(part.value()).ok()?;
            let mut found = Vec::new();
            while !all.is_finished() {
                found.push(all.tlv_bytes().ok()?.to_vec());
            }
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{LEAF_PEM, leaf};
    use super::*;

    #[test]
    fn a_certificate_is_known_in_each_of_its_forms() {
        let der = leaf().der().to_vec();
        assert_eq!(recognise(LEAF_PEM), Container::Pem(vec![der.clone()], false));
        let bag = [b"Bag Attributes\n", LEAF_PEM].concat();
        assert_eq!(recognise(&bag), Container::Pem(vec![der.clone()], true));
        assert_eq!(recognise(&der), Container::Der(der.clone()));
        assert_eq!(recognise(STANDARD.encode(&der).as_bytes()), Container::Base64(der));
        assert_eq!(recognise(&[0xfe, 0xed, 0xfe, 0xed, 0]), Container::JavaKeystore);
        assert_eq!(recognise(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), Container::PrivateKey);
        assert_eq!(recognise(b"hello"), Container::Unknown);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let _ = recognise(&bytes);
        }
    }
}
