//! X.509 certificates: what the front needs to know of one, the two forms in the header, and PEM.
//!
//! PURE. Whether a certificate is good enough is the policy's judgement, not this room's; chains are in [`chain`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5280, rfc5912};
use der::asn1::UintRef;
use der::{Decode as _, Encode as _, Reader as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_cert::ext::pkix::name::{GeneralName, OtherName};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use crate::printable::{hex, printable};

pub mod attestation;
pub mod chain;
pub mod container;

/// The base64 behind `CACertificate`, of which two forms are in circulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderEncoding {
    /// Base64 of the DER.
    #[default]
    Der,
    /// Base64 of the whole PEM text.
    Pem,
}

/// A certificate with an RSA key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    /// The subject's name (RFC 4514), fit for a terminal.
    pub subject: String,
    /// The issuer's name (RFC 4514), fit for a terminal.
    pub issuer: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// Start of validity, seconds of Unix time.
    pub not_before: u64,
    /// End of validity, seconds of Unix time, itself still valid (RFC 5280 section 4.1.2.5).
    pub not_after: u64,
    /// E-mail addresses, those of the subject alternative name first.
    pub emails: Vec<String>,
    /// The RSA modulus, big-endian without leading zeros.
    pub modulus: Vec<u8>,
    /// The RSA public exponent, big-endian without leading zeros.
    pub exponent: Vec<u8>,
    /// All of the subject alternative name, each with its kind, as `email:a@example.com`.
    pub alternative_names: Vec<String>,
    /// The key usage; `None` where the certificate has no such extension.
    pub key_usage: Option<KeyUsage>,
    /// The extended key usages; `None` where the certificate has no such extension.
    pub extended_key_usage: Option<Vec<ObjectIdentifier>>,
    /// Whether the basic constraints make it a CA.
    pub is_ca: bool,
    /// Whether it is a YubiKey's attestation of a key, which shares that key's modulus and ID but logs nobody in.
    pub is_attestation: bool,
    /// Whether it names a CRL or an OCSP responder.
    pub says_where_it_is_revoked: bool,
}

/// Why bytes are no certificate that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Not X.509.
    #[error("not an X.509 certificate")]
    Parse(#[source] der::Error),
    /// More than zero padding behind it.
    #[error("{0} bytes of something else behind the certificate")]
    Trailing(usize),
    /// Another kind of key.
    #[error("the certificate's key is not RSA")]
    NotRsa,
    /// A key that does not parse.
    #[error("the certificate's RSA key does not parse")]
    Key(#[source] der::Error),
    /// No PEM block of a certificate.
    #[error("no PEM certificate found")]
    NoPem,
    /// Several where one is needed.
    #[error("{0} certificates found where one is needed")]
    Several(usize),
}

impl Certificate {
    /// Parses DER, with any zero padding behind it (some tokens pad what they store).
    ///
    /// # Errors
    /// When it is no X.509 certificate (RFC 5280) or its key is not RSA.
    pub fn from_der(bytes: &[u8]) -> Result<Self, CertificateError> {
        let (parsed, rest) = x509_cert::Certificate::from_der_partial(bytes).map_err(CertificateError::Parse)?;
        if rest.iter().any(|&byte| byte != 0 && byte != 0xff) {
            return Err(CertificateError::Trailing(rest.len()));
        }
        let der = bytes[..bytes.len() - rest.len()].to_vec();
        let tbs = parsed.tbs_certificate();
        let (modulus, exponent) = rsa_key(tbs.subject_public_key_info())?;
        let extension = CertificateError::Parse;
        let key_usage = tbs.get_extension::<KeyUsage>().map_err(extension)?;
        let usages = tbs.get_extension::<ExtendedKeyUsage>().map_err(extension)?;
        let constraints = tbs.get_extension::<BasicConstraints>().map_err(extension)?;
        let names = tbs.get_extension::<SubjectAltName>().map_err(extension)?;
        let any_extension = |is_it: &dyn Fn(ObjectIdentifier) -> bool| {
            tbs.extensions().is_some_and(|all| all.iter().any(|one| is_it(one.extn_id)))
        };
        let mut emails: Vec<String> = names.as_ref().map(|(_, names)| rfc822_names(names)).unwrap_or_default();
        emails.extend(
            subject_emails(tbs.subject()).into_iter().filter(|email| !emails.contains(email)).collect::<Vec<_>>(),
        );
        Ok(Self {
            subject: printable(&tbs.subject().to_string()),
            issuer: printable(&tbs.issuer().to_string()),
            serial: hex(tbs.serial_number().as_bytes()),
            not_before: tbs.validity().not_before.to_unix_duration().as_secs(),
            not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
            emails,
            modulus,
            exponent,
            alternative_names: names.map(|(_, names)| names.0.iter().map(named).collect()).unwrap_or_default(),
            key_usage: key_usage.map(|(_, usage)| usage),
            extended_key_usage: usages.map(|(_, usages)| usages.0),
            is_ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
            is_attestation: any_extension(&attestation::is_attestation),
            says_where_it_is_revoked: any_extension(&|oid| {
                [rfc5280::ID_CE_CRL_DISTRIBUTION_POINTS, rfc5280::ID_PE_AUTHORITY_INFO_ACCESS].contains(&oid)
            }),
            der,
        })
    }

    /// Parses the one certificate of a PEM text; other text and other blocks around it are passed over.
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
    pub fn pem(&self) -> String {
        let body = STANDARD.encode(&self.der);
        let lines: Vec<&str> = (0..body.len()).step_by(64).map(|at| &body[at..body.len().min(at + 64)]).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    /// The text behind `CACertificate ` in the header.
    #[must_use]
    pub fn header_value(&self, encoding: HeaderEncoding) -> String {
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
    pub fn is_valid_at(&self, now: u64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Its key usages by the standard's names (RFC 5280 section 4.2.1.3).
    #[must_use]
    pub fn key_usage_names(&self) -> Option<Vec<&'static str>> {
        let usage = self.key_usage?;
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
        Some(all.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect())
    }

    /// Its extended key usages by the names that policies use; others by their numbers.
    #[must_use]
    pub fn extended_key_usage_names(&self) -> Option<Vec<String>> {
        let name = |oid: &ObjectIdentifier| {
            let known = USAGES.iter().find(|(_, known)| known == oid);
            known.map_or_else(|| oid.to_string(), |(name, _)| (*name).to_owned())
        };
        self.extended_key_usage.as_ref().map(|usages| usages.iter().map(name).collect())
    }
}

/// Extended key usages that have a name here (RFC 5280 section 4.2.1.12).
pub const USAGES: [(&str, ObjectIdentifier); 4] = [
    ("clientAuth", rfc5280::ID_KP_CLIENT_AUTH),
    ("emailProtection", rfc5280::ID_KP_EMAIL_PROTECTION),
    ("serverAuth", rfc5280::ID_KP_SERVER_AUTH),
    ("codeSigning", rfc5280::ID_KP_CODE_SIGNING),
];

/// The name of an extended key usage given by name or number, as [`Certificate::extended_key_usage_names`] has it; `None` for
/// anything else.
#[must_use]
pub fn usage_name(text: &str) -> Option<String> {
    let oid = || ObjectIdentifier::new(text).ok();
    let known = USAGES.iter().find(|(name, known)| *name == text || oid().is_some_and(|oid| oid == *known));
    known.map(|(name, _)| (*name).to_owned()).or_else(|| oid().map(|oid| oid.to_string()))
}

/// The DER of every certificate in a PEM text.
///
/// # Errors
/// When there is none, or a block is broken.
pub fn pem_certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, CertificateError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let all = all.map_err(|_| CertificateError::NoPem)?;
    if all.is_empty() {
        return Err(CertificateError::NoPem);
    }
    Ok(all.into_iter().map(|der| der.to_vec()).collect())
}

/// A time of a certificate as RFC 3339 in UTC.
#[must_use]
pub fn utc(seconds: u64) -> String {
    der::DateTime::from_unix_duration(std::time::Duration::from_secs(seconds))
        .map_or_else(|_| format!("{seconds} s after 1970"), |time| time.to_string())
}

fn rsa_key(key: &x509_cert::spki::SubjectPublicKeyInfoOwned) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
    if key.algorithm.oid != rfc5912::RSA_ENCRYPTION {
        return Err(CertificateError::NotRsa);
    }
    let bytes = key.subject_public_key.raw_bytes();
    // RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER } (RFC 8017 appendix A.1.1)
    let parse = || -> der::Result<(Vec<u8>, Vec<u8>)> {
        let mut reader = der::SliceReader::new(bytes)?;
        let pair = reader.sequence(|inner| {
            let modulus = UintRef::decode(inner)?;
            let exponent = UintRef::decode(inner)?;
            Ok::<_, der::Error>((modulus.as_bytes().to_vec(), exponent.as_bytes().to_vec()))
        })?;
        reader.finish()?;
        Ok(pair)
    };
    parse().map_err(CertificateError::Key)
}

fn rfc822_names(names: &SubjectAltName) -> Vec<String> {
    let email = |name: &GeneralName| match name {
        GeneralName::Rfc822Name(email) => Some(printable(email.as_str())),
        _ => None,
    };
    names.0.iter().filter_map(email).collect()
}

/// A name with its kind, in the words of OpenSSL.
fn named(name: &GeneralName) -> String {
    let text = match name {
        GeneralName::Rfc822Name(email) => format!("email:{}", email.as_str()),
        GeneralName::DnsName(name) => format!("DNS:{}", name.as_str()),
        GeneralName::UniformResourceIdentifier(uri) => format!("URI:{}", uri.as_str()),
        GeneralName::DirectoryName(name) => format!("DirName:{name}"),
        GeneralName::IpAddress(bytes) => match *bytes.as_bytes() {
            [a, b, c, d] => format!("IP:{}", std::net::Ipv4Addr::new(a, b, c, d)),
            _ => <[u8; 16]>::try_from(bytes.as_bytes())
                .map_or_else(|_| "IP:?".into(), |bytes| format!("IP:{}", std::net::Ipv6Addr::from(bytes))),
        },
        GeneralName::OtherName(other) => format!("otherName:{}:{}", other.type_id, other_text(other)),
        GeneralName::RegisteredId(oid) => format!("RID:{oid}"),
        GeneralName::EdiPartyName(_) => "ediPartyName".into(),
    };
    printable(&text)
}

/// The text of another kind of name, such as Microsoft's user principal name; its DER where it is none.
fn other_text(other: &OtherName) -> String {
    let text = other.value.decode_as::<der::asn1::Utf8StringRef<'_>>();
    text.map_or_else(|_| hex(other.value.value()), |text| text.as_str().to_owned())
}

fn subject_emails(subject: &x509_cert::name::Name) -> Vec<String> {
    subject
        .iter()
        .filter(|attribute| attribute.oid == const_oid::db::rfc3280::EMAIL_ADDRESS)
        .filter_map(|attribute| attribute.value.to_der().ok())
        .filter_map(|value| der::asn1::Ia5StringRef::from_der(&value).ok().map(|email| printable(email.as_str())))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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
        assert_eq!(leaf.extended_key_usage_names().unwrap(), ["clientAuth", "emailProtection"]);
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
}
