//! Parses the `Authorization` header of a request.
//!
//! PURE. This file only parses: `verify` compares the parsed credentials with the clients of the configuration.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use crate::library::file_format;

/// The longest Anaplan token that is forwarded, in bytes.
const TOKEN_LIMIT: usize = 8 << 10;

/// Base64 of the standard alphabet, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A user name and the SHA-256 of a password. The password itself is not kept.
    Password {
        /// The user name.
        name: String,
        /// SHA-256 of the password.
        sha256: [u8; 32],
    },
    /// The DER bytes of a certificate, not parsed.
    Certificate(Vec<u8>),
    /// An Anaplan token.
    Token(String),
}

/// The reason why a header contains no valid credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// A scheme other than `CACertificate`, `Basic` and `AnaplanAuthToken`.
    #[error("the Authorization header has an unknown scheme")]
    Scheme,
    /// Not base64.
    #[error("the Authorization header is not base64")]
    Base64,
    /// Base64 of something other than a certificate.
    #[error("the Authorization header contains no certificate")]
    NoCertificate,
    /// A private key or a keystore.
    #[error("the Authorization header contains a private key")]
    PrivateKey,
    /// Basic credentials without a colon.
    #[error("the Basic credentials have no colon")]
    NoColon,
    /// An Anaplan token that is too long, or has bytes other than visible ASCII.
    #[error("the Anaplan token is malformed")]
    Token,
}

impl Credentials {
    /// Parses the value of an `Authorization` header. The scheme is case-insensitive.
    pub(crate) fn read(value: &[u8]) -> Result<Self, CredentialsError> {
        let value = value.trim_ascii();
        let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
        let (scheme, rest) = (&value[..end], value[end..].trim_ascii());
        // A tool may send its key with any scheme, or without one.
        let decodes_to_key = |text| decode_base64(text).is_some_and(|decoded| has_private_key(&decoded));
        if has_private_key(value) || decodes_to_key(rest) || decodes_to_key(value) {
            return Err(CredentialsError::PrivateKey);
        }
        if scheme.eq_ignore_ascii_case(b"Basic") {
            basic(rest)
        } else if scheme.eq_ignore_ascii_case(b"CACertificate") {
            certificate(rest).map(Self::Certificate)
        } else if scheme.eq_ignore_ascii_case(b"AnaplanAuthToken") {
            token(rest)
        } else {
            Err(CredentialsError::Scheme)
        }
    }
}

/// Decodes base64 that may contain white space. Java's MIME encoder writes such base64.
#[must_use]
pub(crate) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let without_spaces: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(without_spaces).ok()
}

/// Removes a byte order mark. Editors of Windows begin a PEM file with it, and clients of .NET a JSON body (RFC 8259 section
/// 8.1 lets a parser ignore it there).
#[must_use]
pub(crate) fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

fn basic(text: &[u8]) -> Result<Credentials, CredentialsError> {
    let decoded = decode_base64(text).ok_or(CredentialsError::Base64)?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(CredentialsError::NoColon)?;
    let name = String::from_utf8_lossy(&decoded[..colon]).into_owned();
    Ok(Credentials::Password { name, sha256: Sha256::digest(&decoded[colon + 1..]).into() })
}

fn token(text: &[u8]) -> Result<Credentials, CredentialsError> {
    let is_valid = !text.is_empty() && text.len() <= TOKEN_LIMIT && text.iter().all(u8::is_ascii_graphic);
    let text = std::str::from_utf8(text).map_err(|_| CredentialsError::Token)?;
    if is_valid { Ok(Credentials::Token(text.to_owned())) } else { Err(CredentialsError::Token) }
}

fn certificate(text: &[u8]) -> Result<Vec<u8>, CredentialsError> {
    let decoded = decode_base64(text).ok_or(CredentialsError::Base64)?;
    if contains(&decoded, b"-----BEGIN CERTIFICATE-----") {
        let first = CertificateDer::from_pem_slice(without_byte_order_mark(&decoded))
            .map_err(|_| CredentialsError::NoCertificate)?;
        return Ok(first.to_vec());
    }
    match file_format::read(&decoded) {
        Err(error) if error.has_private_key() => Err(CredentialsError::PrivateKey),
        // DER of a certificate begins with the tag of a SEQUENCE. `verify` compares all bytes with the clients' certificates.
        _ if decoded.first() == Some(&0x30) => Ok(decoded),
        _ => Err(CredentialsError::NoCertificate),
    }
}

fn has_private_key(text: &[u8]) -> bool {
    contains(text, b"PRIVATE KEY-----")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::test_data::{KEY_PEM, LEAF_PEM, leaf_der};

    fn read(value: &str) -> Result<Credentials, CredentialsError> {
        Credentials::read(value.as_bytes())
    }

    fn header(content: &[u8]) -> String {
        format!("CACertificate {}", STANDARD.encode(content))
    }

    #[test]
    fn a_certificate_is_read_as_der_and_as_pem_with_other_text_around_it() {
        let crlf = LEAF_PEM.replace('\n', "\r\n");
        let pems = [
            LEAF_PEM.to_owned(),
            crlf,
            format!("\u{feff}{LEAF_PEM}"),
            format!("Bag Attributes\n  friendlyName: x\n{LEAF_PEM}"),
            format!("{LEAF_PEM}{LEAF_PEM}trailing text\n"),
        ];
        for value in pems.iter().map(|pem| header(pem.as_bytes())).chain([
            header(&leaf_der()),
            header(&leaf_der()).replace("CACertificate", "cacertificate  "),
            header(&leaf_der()).trim_end_matches('=').to_owned(),
        ]) {
            assert!(read(&value) == Ok(Credentials::Certificate(leaf_der())), "{value}");
        }
    }

    #[test]
    fn a_header_that_holds_a_private_key_is_refused() {
        let both = format!("{LEAF_PEM}{KEY_PEM}");
        for content in [KEY_PEM.as_bytes(), both.as_bytes(), &[0xfe, 0xed, 0xfe, 0xed, 0, 0]] {
            assert!(read(&header(content)) == Err(CredentialsError::PrivateKey));
        }
        for scheme in ["CACertificate ", "Basic ", "AnaplanAuthToken ", "Bearer ", ""] {
            for key in [KEY_PEM.replace('\n', " "), STANDARD.encode(KEY_PEM)] {
                assert!(read(&format!("{scheme}{key}")) == Err(CredentialsError::PrivateKey), "{scheme}{key}");
            }
        }
    }

    #[test]
    fn only_the_hash_of_a_password_is_kept() {
        let Ok(Credentials::Password { name, sha256 }) = read(&format!("bAsIc {}", STANDARD.encode("finance:a:b")))
        else {
            panic!("not read");
        };
        assert_eq!((name.as_str(), sha256), ("finance", Sha256::digest(b"a:b").into()));
    }

    #[test]
    fn invalid_headers_are_refused() {
        for (value, error) in [
            ("", CredentialsError::Scheme),
            ("Bearer x", CredentialsError::Scheme),
            ("Basic *", CredentialsError::Base64),
            ("Basic YWJj", CredentialsError::NoColon),
            ("CACertificate YWJj", CredentialsError::NoCertificate),
            ("AnaplanAuthToken", CredentialsError::Token),
            ("AnaplanAuthToken a b", CredentialsError::Token),
        ] {
            assert!(read(value) == Err(error), "{value}");
        }
    }

    #[test]
    fn a_token_has_at_most_8192_visible_bytes() {
        let of_length = |length| read(&format!("AnaplanAuthToken {}", "a".repeat(length)));
        assert!(of_length(8192) == Ok(Credentials::Token("a".repeat(8192))));
        assert!(of_length(8193) == Err(CredentialsError::Token));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(value: Vec<u8>, scheme in "(CACertificate|Basic|AnaplanAuthToken) ") {
            let _ = Credentials::read(&value);
            let _ = Credentials::read(&[scheme.as_bytes(), STANDARD.encode(&value).as_bytes()].concat());
        }
    }
}
