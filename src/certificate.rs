//! X.509 certificates: the facts that the parent needs, the two forms in the header, and PEM.
//!
//! PURE. The policy judges certificates, not this module; chains are in [`chain`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

pub(crate) mod attestation;
mod ber;
pub(crate) mod chain;
#[cfg(test)]
mod corpus;
mod error;
mod extensions;
mod fields;
pub mod file_format;
pub mod leaf;
mod names;
mod pem;
mod summary;
mod time;
mod usages;

pub use ber::BerError;
pub use error::CertificateError;
pub(crate) use summary::CertificateSummary;
pub use time::utc;
pub(crate) use usages::{USAGES, usage_name};
pub(crate) use x509_cert::ext::pkix::KeyUsage;

use extensions::Extensions;
use fields::Fields;
use usages::key_usage_names;

/// The form of the base64 after `CACertificate`. Both are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderEncoding {
    /// Base64 of the DER.
    #[default]
    Der,
    /// Base64 of the whole PEM text.
    Pem,
}

/// Further deviations are only counted.
const MAX_DEVIATIONS: usize = 16;

/// A certificate with an RSA key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    /// The subject's name (RFC 4514), escaped for a terminal.
    pub(crate) subject: String,
    /// The issuer's name (RFC 4514), escaped for a terminal.
    pub(crate) issuer: String,
    /// The serial number in hexadecimal; negative ones begin with a minus sign.
    pub(crate) serial: String,
    /// Start of validity, seconds of Unix time; 0 for all times before 1970.
    pub(crate) not_before: u64,
    /// End of validity, seconds of Unix time, inclusive (RFC 5280 section 4.1.2.5); 0 for all times before 1970.
    pub not_after: u64,
    /// Start of validity as RFC 3339 in UTC.
    pub(crate) valid_from: String,
    /// End of validity as RFC 3339 in UTC.
    pub(crate) valid_until: String,
    /// E-mail addresses, those of the subject alternative name first.
    pub emails: Vec<String>,
    /// The RSA modulus, big-endian without leading zeros.
    pub modulus: Vec<u8>,
    /// The RSA public exponent, big-endian without leading zeros.
    pub exponent: Vec<u8>,
    /// All entries of the subject alternative name, each with its kind, such as `email:a@example.com`.
    pub(crate) alternative_names: Vec<String>,
    /// The key usage; `None` without this extension.
    pub(crate) key_usage: Option<KeyUsage>,
    /// The extended key usages, with the names of policies and others as dotted numbers; `None` without this extension.
    pub(crate) extended_key_usage: Option<Vec<String>>,
    /// Whether the basic constraints say that it is a CA.
    pub(crate) is_ca: bool,
    /// Whether it is a YubiKey's attestation of a key. It has the key's modulus and ID, but cannot log in.
    pub(crate) is_attestation: bool,
    /// Whether it names a CRL or an OCSP responder.
    pub(crate) says_where_it_is_revoked: bool,
    /// Violations of RFC 5280 that did not prevent parsing, such as `its serial number is negative`.
    pub(crate) deviations: Vec<String>,
}

impl Certificate {
    /// Parses DER or BER. Padding may follow: some tokens fill certificates with `00` or `ff`, and people add newlines.
    ///
    /// # Errors
    /// When it is not an X.509 certificate (RFC 5280), a field that a rule reads is broken, or its key is not RSA.
    pub fn from_der(bytes: &[u8]) -> Result<Self, CertificateError> {
        let mut fields = Fields::read(unpadded(bytes)?)?;
        let (modulus, exponent) = fields.rsa_key()?;
        let extensions = Extensions::read(&fields)?;
        let mut deviations = fields.deviations;
        deviations.extend(extensions.deviations);
        let mut emails = extensions.alternative_names.emails;
        emails.extend(fields.subject.emails);
        let mut seen = std::collections::HashSet::new();
        emails.retain(|email| seen.insert(email.clone()));
        let clamped = |time: time::Time| u64::try_from(time.seconds).unwrap_or(0);
        Ok(Self {
            der: fields.whole.to_vec(),
            subject: fields.subject.text,
            issuer: fields.issuer.text,
            serial: fields.serial,
            not_before: clamped(fields.not_before),
            not_after: clamped(fields.not_after),
            valid_from: time::text(fields.not_before.seconds),
            valid_until: time::text(fields.not_after.seconds),
            emails,
            modulus,
            exponent,
            alternative_names: extensions.alternative_names.names,
            key_usage: extensions.key_usage,
            extended_key_usage: extensions.extended_key_usage,
            is_ca: extensions.is_ca,
            is_attestation: extensions.is_attestation,
            says_where_it_is_revoked: extensions.says_where_it_is_revoked,
            deviations: limited(deviations),
        })
    }

    /// Parses the only certificate of a PEM text. Other text and other blocks are ignored.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn from_pem(text: &[u8]) -> Result<Self, CertificateError> {
        let all = pem_certificates(text)?;
        match all.as_slice() {
            [one] => Self::from_der(one),
            several => Err(CertificateError::Several(several.len())),
        }
    }

    /// The DER, without padding.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The PEM text (RFC 7468), ended by a newline.
    #[must_use]
    pub(crate) fn pem(&self) -> String {
        let body = STANDARD.encode(&self.der);
        let lines: Vec<&str> = (0..body.len()).step_by(64).map(|at| &body[at..body.len().min(at + 64)]).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    /// The text after `CACertificate ` in the header.
    #[must_use]
    pub(crate) fn header_value(&self, encoding: HeaderEncoding) -> String {
        match encoding {
            HeaderEncoding::Der => STANDARD.encode(&self.der),
            HeaderEncoding::Pem => STANDARD.encode(self.pem()),
        }
    }

    /// The SHA-256 fingerprint.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// The size of the RSA key.
    #[must_use]
    pub fn bits(&self) -> usize {
        let leading = self.modulus.first().map_or(0, |byte| byte.leading_zeros());
        self.modulus.len() * 8 - usize::try_from(leading).unwrap_or(0)
    }

    /// Whether subject and issuer have the same name.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether it is valid at a time in seconds of Unix time.
    #[must_use]
    pub(crate) fn is_valid_at(&self, now: u64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Its key usages, with the standard's names (RFC 5280 section 4.2.1.3).
    #[must_use]
    pub(crate) fn key_usage_names(&self) -> Option<Vec<&'static str>> {
        self.key_usage.map(key_usage_names)
    }
}

/// The first deviations, and the number of the others.
fn limited(mut deviations: Vec<String>) -> Vec<String> {
    let more = deviations.len().saturating_sub(MAX_DEVIATIONS);
    if more > 0 {
        deviations.truncate(MAX_DEVIATIONS);
        deviations.push(format!("{more} more deviations"));
    }
    deviations
}

/// The DER of every certificate in a PEM text.
///
/// # Errors
/// When there is none, or a block is broken.
pub(crate) fn pem_certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, CertificateError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let all = all.map_err(|_| CertificateError::NoPem)?;
    if all.is_empty() {
        return Err(CertificateError::NoPem);
    }
    Ok(all.into_iter().map(|der| der.to_vec()).collect())
}

/// A certificate without its padding.
///
/// # Errors
/// When the bytes are not a certificate, or other bytes follow it.
pub(crate) fn unpadded(bytes: &[u8]) -> Result<&[u8], CertificateError> {
    let whole = fields::whole(bytes)?.whole;
    let rest = &bytes[whole.len()..];
    let is_padding = |byte: &u8| matches!(byte, 0 | 0xff | b'\n' | b'\r' | b' ' | b'\t');
    if rest.iter().all(is_padding) { Ok(whole) } else { Err(CertificateError::Trailing(rest.len())) }
}

#[cfg(test)]
pub(crate) mod tests {
    use der::Decode as _;
    use x509_cert::ext::pkix::SubjectAltName;
    use x509_cert::ext::pkix::name::GeneralName;

    use super::*;
    use crate::text::{hex, printable};

    /// A certificate of a test CA: RSA 2048, clientAuth and emailProtection, e-mail in the subject alternative name.
    pub(crate) const LEAF_PEM: &[u8] = include_bytes!("../tests/data/leaf.pem");
    const LEAF_FINGERPRINT: &str = include_str!("../tests/data/leaf.sha256");

    pub(crate) fn leaf() -> Certificate {
        Certificate::from_pem(LEAF_PEM).unwrap()
    }

    #[test]
    fn reads_what_openssl_wrote() {
        let leaf = leaf();
        assert_eq!(leaf.bits(), 2048);
        assert_eq!(leaf.emails, ["integration@example.com"]);
        assert!(!leaf.is_ca && !leaf.is_self_issued() && !leaf.is_attestation);
        assert_eq!(leaf.key_usage_names().unwrap(), ["digitalSignature"]);
        assert_eq!(leaf.alternative_names, ["email:integration@example.com"]);
        assert_eq!(leaf.extended_key_usage.clone().unwrap(), ["clientAuth", "emailProtection"]);
        assert_eq!(hex(&leaf.sha256()), LEAF_FINGERPRINT.trim());
        assert!(leaf.subject.contains("CN=integration"), "{}", leaf.subject);
    }

    #[test]
    fn zero_padding_is_cut_and_anything_else_is_refused() {
        let der = leaf().der().to_vec();
        let mut padded = der.clone();
        padded.extend([0; 700]);
        assert_eq!(Certificate::from_der(&padded).unwrap().der(), der);
        padded.push(1);
        assert!(matches!(Certificate::from_der(&padded), Err(CertificateError::Trailing(701))));
    }

    #[test]
    fn the_two_header_encodings_begin_as_documented() {
        let leaf = leaf();
        assert!(leaf.header_value(HeaderEncoding::Der).starts_with("MII"));
        assert!(leaf.header_value(HeaderEncoding::Pem).starts_with("LS0tLS1CRUdJTi"));
        assert_eq!(Certificate::from_pem(leaf.pem().as_bytes()).unwrap(), leaf);
    }

    #[test]
    fn text_around_the_pem_block_is_passed_over() {
        let mut text = b"Bag Attributes\n    friendlyName: cba\nsubject=CN = x\n".to_vec();
        text.extend(LEAF_PEM);
        assert_eq!(Certificate::from_pem(&text).unwrap(), leaf());
        text.extend(LEAF_PEM);
        assert!(matches!(Certificate::from_pem(&text), Err(CertificateError::Several(2))));
    }

    #[test]
    fn times_are_printed_in_utc() {
        assert_eq!(utc(1_750_736_826), "2025-06-24T03:47:06Z");
    }
    /// The certificates of the corpus that x509-cert reads whole.
    fn read_whole_by_the_library() -> Vec<(String, x509_cert::Certificate, Vec<u8>)> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/certificates");
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let files = files.map(|path| (path.display().to_string(), std::fs::read(path).unwrap()));
        files.filter_map(|(name, der)| Some((name, x509_cert::Certificate::from_der(&der).ok()?, der))).collect()
    }

    #[test]
    fn what_x509_cert_reads_whole_is_read_alike() {
        use CertificateError::{Field, NotRsa, Twice};
        let (mut read, mut named) = (0, 0);
        for (file, library, der) in read_whole_by_the_library() {
            let tbs = library.tbs_certificate();
            let own = match Certificate::from_der(&der) {
                Ok(own) => own,
                // To read a certificate, the library does not decode its key and extensions.
                Err(NotRsa | Twice(_) | Field { field: "RSA key", .. }) => continue,
                Err(Field { field: "key usage" | "extended key usage" | "basic constraints", .. }) => continue,
                Err(error) => panic!("{file}: {error}"),
            };
            for (own, library) in [(&own.subject, tbs.subject()), (&own.issuer, tbs.issuer())] {
                // The library shows strings of rare types as bytes.
                let library = printable(&library.to_string());
                assert!(*own == library || library.contains("=#"), "{file}: {own} {library}");
            }
            let digits = hex(tbs.serial_number().as_bytes());
            let serial = digits.strip_prefix("00").filter(|rest| !rest.is_empty()).unwrap_or(&digits);
            assert!(own.serial == serial || own.serial.starts_with('-'), "{file}: {} {serial}", own.serial);
            let validity = tbs.validity();
            let seconds = |time: x509_cert::time::Time| (time.to_unix_duration().as_secs(), time.to_string());
            assert_eq!((own.not_before, own.valid_from), seconds(validity.not_before), "{file}");
            assert_eq!((own.not_after, own.valid_until), seconds(validity.not_after), "{file}");
            let key = tbs.subject_public_key_info().subject_public_key.raw_bytes();
            assert!(key.windows(own.modulus.len()).any(|bytes| bytes == own.modulus), "{file}");
            assert!(key.ends_with(&own.exponent), "{file}");
            read += 1;
            let Ok(Some((_, names))) = tbs.get_extension::<SubjectAltName>() else { continue };
            let names = names.0.iter().filter_map(|name| match name {
                GeneralName::Rfc822Name(text) if text.as_str().contains('@') => Some(format!("email:{text}")),
                GeneralName::DnsName(text) => Some(format!("DNS:{text}")),
                GeneralName::UniformResourceIdentifier(text) => Some(format!("URI:{text}")),
                _ => None,
            });
            let names: Vec<String> = names.filter(|name| !name.contains('\n')).collect();
            let is_text = |name: &&String| ["email:", "DNS:", "URI:"].iter().any(|kind| name.starts_with(kind));
            assert_eq!(
                own.alternative_names.iter().filter(is_text).collect::<Vec<_>>(),
                names.iter().collect::<Vec<_>>()
            );
            named += 1;
        }
        assert!(read > 90 && named > 80, "{read} {named}");
    }

    #[test]
    fn many_deviations_are_counted() {
        let all = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(limited(all(MAX_DEVIATIONS)), all(MAX_DEVIATIONS));
        let shortened = limited(all(MAX_DEVIATIONS + 2));
        assert_eq!((shortened.len(), shortened[MAX_DEVIATIONS].as_str()), (MAX_DEVIATIONS + 1, "2 more deviations"));
    }

    #[test]
    fn size_validity_and_issuer_are_those_of_the_fields() {
        let mut leaf = leaf();
        let (start, end) = (leaf.not_before, leaf.not_after);
        for (now, valid) in [(start - 1, false), (start, true), (end, true), (end + 1, false)] {
            assert_eq!(leaf.is_valid_at(now), valid, "{now}");
        }
        leaf.issuer.clone_from(&leaf.subject);
        assert!(leaf.is_self_issued());
        for (modulus, bits) in [(vec![1], 1), (vec![0x80, 0], 16), (vec![0x7f, 0, 0], 23), (vec![], 0)] {
            leaf.modulus = modulus;
            assert_eq!(leaf.bits(), bits);
        }
    }

    #[test]
    fn usages_are_known_by_name_and_by_number() {
        for (text, name) in [
            ("clientAuth", Some("clientAuth")),
            ("1.3.6.1.5.5.7.3.2", Some("clientAuth")),
            ("1.3.6.1.5.5.7.3.3", Some("codeSigning")),
            ("1.2.3.4", Some("1.2.3.4")),
            ("clientauth", None),
            ("", None),
        ] {
            assert_eq!(usage_name(text).as_deref(), name, "{text}");
        }
        assert!(matches!(pem_certificates(b"no PEM"), Err(CertificateError::NoPem)));
    }
}
