//! What is read from each certificate of `tests/data/certificates`.
//!
//! PURE. Tests alone. `UPDATE_CORPUS=1 cargo test --lib corpus` writes `tests/data/corpus.txt` anew.

#![cfg(test)]

use std::fmt::Write as _;
use std::fs;

use super::{Certificate, CertificateError};
use crate::text::hex;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// Everything that a certificate says, except a long list of names and the middle of its modulus.
fn shown(certificate: &Certificate) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "subject: {}", certificate.subject)?;
    writeln!(text, "issuer: {}, self-issued: {}", certificate.issuer, certificate.is_self_issued())?;
    writeln!(text, "serial: {}", certificate.serial)?;
    writeln!(text, "from {} ({})", certificate.valid_from, certificate.not_before)?;
    writeln!(text, "until {} ({})", certificate.valid_until, certificate.not_after)?;
    writeln!(text, "emails: {:?}", certificate.emails)?;
    let names = &certificate.alternative_names;
    writeln!(text, "{} names: {:?}", names.len(), &names[..names.len().min(9)])?;
    let modulus = hex(&certificate.modulus);
    let (begin, end) = (&modulus[..modulus.len().min(8)], &modulus[modulus.len().saturating_sub(8)..]);
    writeln!(text, "key: {} bits, {begin}..{end}, {}", certificate.bits(), hex(&certificate.exponent))?;
    writeln!(text, "usages: {:?}, {:?}", certificate.key_usage_names(), certificate.extended_key_usage)?;
    let flags = (certificate.is_ca, certificate.is_attestation, certificate.says_where_it_is_revoked);
    writeln!(text, "CA, attestation, revocation: {flags:?}")?;
    writeln!(text, "deviations: {:#?}", certificate.deviations)?;
    writeln!(text, "length: {}", certificate.der().len())?;
    Ok(text)
}

#[test]
fn each_certificate_of_the_corpus_is_read_as_recorded() {
    let mut files: Vec<_> =
        fs::read_dir(format!("{DATA}/certificates")).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "der"));
    files.sort();
    let mut all = String::new();
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let read = Certificate::from_der(&fs::read(&path).unwrap());
        let text = read.map_or_else(
            |error: CertificateError| format!("refused: {error}\n"),
            |certificate| shown(&certificate).unwrap(),
        );
        write!(all, "== {name}\n{text}\n").unwrap();
    }
    let recorded = format!("{DATA}/corpus.txt");
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        fs::write(&recorded, &all).unwrap();
    }
    let wanted = fs::read_to_string(&recorded).unwrap();
    let differs = all.lines().zip(wanted.lines()).enumerate().find(|(_, (is, was))| is != was);
    assert!(all == wanted, "{differs:#?}; UPDATE_CORPUS=1 writes the file anew");
}
