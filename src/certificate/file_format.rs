//! The content of a certificate file: certificates in one of their forms, or the name of another format.
//!
//! PURE.

use super::pem::{self, PemBlock};
use super::{fields, unpadded};

mod binary;
mod contents;
mod error;
mod private_key;

pub use super::pem::PemBlockError;
pub use crate::text::shell::always_quoted as quoted;
pub use contents::CertificateFile;
pub(crate) use contents::{FileForm, Oddity};
pub use error::{FormatError, Packing};

pub(crate) use private_key::HOLDS_A_PRIVATE_KEY;

use binary::pkcs7;
use error::in_words;
use private_key::mentions_private_key;

/// Reads a file's bytes.
///
/// # Errors
/// The name of the format, if the file contains no readable certificate.
pub fn read(bytes: &[u8]) -> Result<CertificateFile, FormatError> {
    let (text, mut oddities) = decoded(bytes);
    let has_private_key = mentions_private_key(&text);
    if let Some(what) = binary::by_first_bytes(bytes).or_else(|| by_first_words(&text)) {
        return Err(what);
    }
    const SEQUENCE: u8 = 0x30;
    let certificates = (bytes.first() == Some(&SEQUENCE)).then(|| binary::read(bytes).ok()).flatten();
    let mut file = match pem::blocks(&text) {
        _ if certificates.is_some() => certificates.unwrap_or_default(),
        (blocks, _) if blocks.is_empty() => without_pem(bytes, &text, has_private_key)?,
        (blocks, has_other_text) => {
            oddities.extend(has_other_text.then_some(Oddity::OtherText));
            let is_begin_line = |line: &&str| line.starts_with("-----BEGIN ") && line.matches("-----").count() == 2;
            let begin_lines = text.lines().filter(is_begin_line).count();
            oddities.extend((begin_lines < blocks.len()).then_some(Oddity::NoLines));
            from_blocks(blocks, has_private_key)?
        }
    };
    if !matches!(file.form, FileForm::Der | FileForm::Pkcs7Der) {
        file.oddities.extend(oddities);
    }
    file.has_private_key |= has_private_key;
    Ok(file)
}

/// The text of the bytes, and the peculiarities of its encoding.
fn decoded(bytes: &[u8]) -> (String, Vec<Oddity>) {
    let wide = |bytes: &[u8], read: fn([u8; 2]) -> u16, name| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| read([pair[0], pair[1]])).collect();
        (String::from_utf16_lossy(&units), vec![Oddity::Utf16(name)])
    };
    match bytes {
        // With the byte order mark, which iconv's name UTF-16 expects.
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes, "UTF-16"),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes, "UTF-16"),
        [0x09..=0x7f, 0, 0x09..=0x7f, 0, ..] => wide(bytes, u16::from_le_bytes, "UTF-16LE"),
        [0, 0x09..=0x7f, 0, 0x09..=0x7f, ..] => wide(bytes, u16::from_be_bytes, "UTF-16BE"),
        [0xef, 0xbb, 0xbf, rest @ ..] => (String::from_utf8_lossy(rest).into_owned(), vec![Oddity::ByteOrderMark]),
        bytes => (String::from_utf8_lossy(bytes).into_owned(), Vec::new()),
    }
}

fn by_first_words(text: &str) -> Option<FormatError> {
    let start: String = text.trim_start().chars().take(64).collect::<String>().to_ascii_lowercase();
    let begins = |words: &[&str]| words.iter().any(|word| start.starts_with(word));
    if start.is_empty() {
        Some(FormatError::Empty)
    } else if begins(&["<!doctype html", "<html"]) {
        Some(FormatError::Html)
    } else if begins(&["putty-user-key-file"]) {
        Some(FormatError::PrivateKey)
    } else if begins(&["ssh-", "---- begin ssh2 public"]) {
        Some(FormatError::PublicKey)
    } else {
        None
    }
}

fn from_blocks(blocks: Vec<PemBlock<'_>>, has_private_key: bool) -> Result<CertificateFile, FormatError> {
    let mut file = CertificateFile::default();
    let (mut other_labels, mut has_empty_pkcs7) = (Vec::new(), false);
    for PemBlock { label, content } in blocks {
        let is_pkcs7 = matches!(label, "PKCS7" | "CMS" | "PKCS #7 SIGNED DATA");
        let oddity = match label {
            "CERTIFICATE" => None,
            "TRUSTED CERTIFICATE" => Some(Oddity::Trusted),
            "X509 CERTIFICATE" => Some(Oddity::OldLabel),
            _ if is_pkcs7 => None,
            _ => {
                other_labels.push(label);
                continue;
            }
        };
        let content = content.map_err(|reason| FormatError::Block { label: label.to_owned(), reason })?;
        // Windows also writes PKCS#7 with the label of a certificate.
        if let Some(found) = pkcs7(&content) {
            file.form = FileForm::Pkcs7Pem;
            has_empty_pkcs7 |= found.is_empty();
            file.certificates.extend(found);
            continue;
        }
        // In a trusted certificate, OpenSSL's trust settings follow.
        let certificate = match oddity {
            Some(Oddity::Trusted) => fields::whole(&content).map(|certificate| certificate.whole),
            _ => unpadded(&content),
        };
        file.certificates.push(certificate.map_err(in_words)?.to_vec());
        file.oddities.extend(oddity.filter(|oddity| !file.oddities.contains(oddity)));
    }
    if !file.certificates.is_empty() {
        return Ok(file);
    }
    other_labels.sort_unstable();
    other_labels.dedup();
    Err(match other_labels.as_slice() {
        _ if has_private_key => FormatError::PrivateKey,
        _ if has_empty_pkcs7 => FormatError::NoneInPkcs7,
        ["CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"] => FormatError::Request,
        ["X509 CRL"] => FormatError::RevocationList,
        ["PUBLIC KEY" | "RSA PUBLIC KEY"] => FormatError::PublicKey,
        [label] if label.starts_with("PGP ") => FormatError::Pgp,
        labels => FormatError::OtherBlocks(crate::text::printable(&labels.join(", "))),
    })
}

/// Binary forms, and base64 without PEM lines.
fn without_pem(bytes: &[u8], text: &str, has_private_key: bool) -> Result<CertificateFile, FormatError> {
    let file_of = |form, certificates| CertificateFile { form, certificates, ..CertificateFile::default() };
    if let Some(decoded) = pem::base64(text) {
        let inner = binary::read(&decoded);
        match inner {
            Ok(CertificateFile { form: FileForm::Der, certificates, .. }) => {
                return Ok(file_of(FileForm::Base64, certificates));
            }
            Ok(CertificateFile { certificates, .. }) => return Ok(file_of(FileForm::Pkcs7Base64, certificates)),
            // The base64 of a whole PEM file, as in secrets of Kubernetes and CI systems.
            Err(_) if decoded.starts_with(b"-----BEGIN ") => {
                let mut file = read(&decoded)?;
                file.oddities.push(Oddity::Encoded);
                return Ok(file);
            }
            Err(FormatError::Unknown) => {}
            Err(other) => return Err(other),
        }
    }
    let has_begin_line = || {
        let text = text.to_ascii_lowercase();
        text.split_once("begin ")
            .is_some_and(|(_, label)| label.lines().next().unwrap_or_default().contains("certificate"))
    };
    match binary::read(bytes) {
        Err(FormatError::Unknown) if has_begin_line() => Err(FormatError::BeginLine),
        Err(_) if has_private_key => Err(FormatError::PrivateKey),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::super::pem::PemBlockError;
    use super::super::tests::{LEAF_PEM, leaf};
    use super::*;

    fn found(bytes: &[u8]) -> (FileForm, usize, Vec<Oddity>) {
        let file = read(bytes).unwrap();
        assert_eq!(file.certificates[0], leaf().der());
        (file.form, file.certificates.len(), file.oddities)
    }

    fn wide(text: &[u8], write: fn(u16) -> [u8; 2]) -> Vec<u8> {
        String::from_utf8_lossy(text).encode_utf16().flat_map(write).collect()
    }

    #[test]
    fn a_certificate_is_read_in_each_of_its_forms() {
        let (der, text) = (leaf().der().to_vec(), String::from_utf8(LEAF_PEM.to_vec()).unwrap());
        let label = |label: &str| text.replace("CERTIFICATE", label).into_bytes();
        let trusted = STANDARD.encode([&der[..], &[0x30, 0]].concat());
        let trusted = format!("-----BEGIN TRUSTED CERTIFICATE-----\n{trusted}\n-----END TRUSTED CERTIFICATE-----\n");
        for (bytes, form, count, oddities) in [
            (LEAF_PEM.to_vec(), FileForm::Pem, 1, vec![]),
            (text.replace('\n', "\r\n").into_bytes(), FileForm::Pem, 1, vec![]),
            (LEAF_PEM.repeat(2), FileForm::Pem, 2, vec![]),
            ([b"\xef\xbb\xbf", LEAF_PEM].concat(), FileForm::Pem, 1, vec![Oddity::ByteOrderMark]),
            (
                [&[0xff, 0xfe], &wide(LEAF_PEM, u16::to_le_bytes)[..]].concat(),
                FileForm::Pem,
                1,
                vec![Oddity::Utf16("UTF-16")],
            ),
            (
                [&[0xfe, 0xff], &wide(LEAF_PEM, u16::to_be_bytes)[..]].concat(),
                FileForm::Pem,
                1,
                vec![Oddity::Utf16("UTF-16")],
            ),
            (wide(LEAF_PEM, u16::to_le_bytes), FileForm::Pem, 1, vec![Oddity::Utf16("UTF-16LE")]),
            (wide(LEAF_PEM, u16::to_be_bytes), FileForm::Pem, 1, vec![Oddity::Utf16("UTF-16BE")]),
            ([b"Bag Attributes\n", LEAF_PEM].concat(), FileForm::Pem, 1, vec![Oddity::OtherText]),
            (label("X509 CERTIFICATE"), FileForm::Pem, 1, vec![Oddity::OldLabel]),
            (trusted.into_bytes(), FileForm::Pem, 1, vec![Oddity::Trusted]),
            (text.replace('\n', "\\n").into_bytes(), FileForm::Pem, 1, vec![Oddity::OtherText, Oddity::NoLines]),
            (der.clone(), FileForm::Der, 1, vec![]),
            ([&der[..], b"\r\n"].concat(), FileForm::Der, 1, vec![]),
            (STANDARD.encode(&der).into_bytes(), FileForm::Base64, 1, vec![]),
            (STANDARD.encode(LEAF_PEM).into_bytes(), FileForm::Pem, 1, vec![Oddity::Encoded]),
        ] {
            assert_eq!(found(&bytes), (form, count, oddities), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn pkcs7_is_read_in_der_and_in_ber() {
        let der = leaf().der().to_vec();
        let tlv = |tag: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x82], &length[..], content].concat()
        };
        let endless = |tag: u8, content: &[u8]| [&[tag, 0x80], content, &[0, 0]].concat();
        let oid = |last| [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, last];
        let content = [&[2, 1, 1, 0x31, 0, 0x30, 11][..], &oid(1)].concat();
        for wrap in [&tlv as &dyn Fn(u8, &[u8]) -> Vec<u8>, &endless] {
            let data = wrap(0x30, &[&content[..], &wrap(0xa0, &der), &[0x31, 0]].concat());
            let whole = wrap(0x30, &[&oid(2)[..], &wrap(0xa0, &data)].concat());
            assert_eq!(found(&whole), (FileForm::Pkcs7Der, 1, vec![]));
            assert_eq!(found(STANDARD.encode(&whole).as_bytes()), (FileForm::Pkcs7Base64, 1, vec![]));
            for label in ["PKCS7", "CERTIFICATE", "PKCS #7 SIGNED DATA"] {
                let body = STANDARD.encode(&whole);
                let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
                assert_eq!(found(text.as_bytes()), (FileForm::Pkcs7Pem, 1, vec![]), "{label}");
            }
            let empty = wrap(0x30, &[&oid(2)[..], &wrap(0xa0, &wrap(0x30, &content))].concat());
            assert_eq!(read(&empty), Err(FormatError::NoneInPkcs7));
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let broken = String::from_utf8(LEAF_PEM.to_vec()).unwrap().replace("MII", "!!!");
        for (bytes, wanted) in [
            (&b" \n"[..], FormatError::Empty),
            (&[0xfe, 0xed, 0xfe, 0xed, 0], FormatError::JavaKeystore("JKS")),
            (&[0xce, 0xce, 0xce, 0xce, 0], FormatError::JavaKeystore("JCEKS")),
            (&[0x30, 3, 2, 1, 3], FormatError::Pkcs12),
            (&[0x30, 3, 2, 1, 0], FormatError::PrivateKey),
            (
                b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAEC\n-----END ENCRYPTED PRIVATE KEY-----\n",
                FormatError::PrivateKey,
            ),
            (b"-----BEGIN EC PRIVATE KEY-----\n", FormatError::PrivateKey),
            (b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nAAAA", FormatError::PrivateKey),
            (b"PuTTY-User-Key-File-3: ssh-rsa\n", FormatError::PrivateKey),
            (
                b"-----BEGIN NEW CERTIFICATE REQUEST-----\nAAEC\n-----END NEW CERTIFICATE REQUEST-----\n",
                FormatError::Request,
            ),
            (b"-----BEGIN X509 CRL-----\nAAEC\n-----END X509 CRL-----\n", FormatError::RevocationList),
            (b"-----BEGIN PUBLIC KEY-----\nAAEC\n-----END PUBLIC KEY-----\n", FormatError::PublicKey),
            (b"ssh-rsa AAAAB3NzaC1yc2E", FormatError::PublicKey),
            (b"PK\x03\x04...", FormatError::Packed(Packing::Zip)),
            (b"\x1f\x8b\x08\0", FormatError::Packed(Packing::Gzip)),
            (b"\n<!DOCTYPE html><html>", FormatError::Html),
            (b"hello", FormatError::Unknown),
            (broken.as_bytes(), FormatError::Block { label: "CERTIFICATE".into(), reason: PemBlockError::Base64 }),
            (&LEAF_PEM[..200], FormatError::Block { label: "CERTIFICATE".into(), reason: PemBlockError::NoEnd }),
        ] {
            assert_eq!(read(bytes), Err(wanted), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_private_key_beside_the_certificate_is_seen_in_every_encoding() {
        for label in
            ["PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY", "ANY PRIVATE KEY"]
        {
            let key = format!("-----BEGIN {label}-----\nAAEC\n-----END {label}-----\n");
            let both = [LEAF_PEM, key.as_bytes()].concat();
            for bytes in [
                both.clone(),
                [key.as_bytes(), LEAF_PEM].concat(),
                [b"\xef\xbb\xbf", &both[..]].concat(),
                wide(&both, u16::to_le_bytes),
                STANDARD.encode(&both).into_bytes(),
                [leaf().der(), key.as_bytes()].concat(),
            ] {
                assert!(read(&bytes).unwrap().has_private_key, "{label} {}", String::from_utf8_lossy(&bytes));
            }
        }
        assert!(!read(LEAF_PEM).unwrap().has_private_key);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
