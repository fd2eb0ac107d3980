//! Certificates and their files: facts, both encodings of the header, chains, attestations, padding.

#![no_main]
#![allow(missing_docs)]

use cba_agent::certificate::chain::{Roots, above};
use cba_agent::certificate::{
    Certificate, HeaderEncoding, attestation, file_format, leaf, pem_certificates, unpadded, utc,
};
use cba_agent::policy::{Policy, decide_certificate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = (pem_certificates(bytes), attestation::statement(bytes));
    match file_format::read(bytes) {
        Ok(file) => drop(leaf::find(&file.certificates)),
        Err(what) => assert!(!what.remedy("a file").is_empty()),
    }
    if let Ok(certificate) = unpadded(bytes) {
        assert!(bytes.starts_with(certificate) && unpadded(certificate).ok() == Some(certificate));
    }
    let roots = Roots::read(bytes);
    let parsed = if bytes.starts_with(&[0x30]) { Certificate::from_der(bytes) } else { Certificate::from_pem(bytes) };
    let Ok(certificate) = parsed else { return };
    let _ = (certificate.key_usage_names(), certificate.extended_key_usage_names(), certificate.bits());
    let _ = (certificate.is_self_issued(), utc(certificate.not_before), utc(certificate.not_after));
    let _ = decide_certificate(&Policy::default(), &certificate, 1_800_000_000);
    let _ = above(&certificate, &[bytes, certificate.der()], 1_800_000_000);
    if let Ok((roots, _)) = roots {
        let _ = roots.check(&certificate, &[bytes], 1_800_000_000);
    }
    for encoding in [HeaderEncoding::Der, HeaderEncoding::Pem] {
        let value = certificate.header_value(encoding);
        assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)), "{value:?}");
    }
    let again = Certificate::from_pem(certificate.pem().as_bytes()).expect("its own PEM");
    assert_eq!(again.der(), certificate.der());
    assert_eq!(again.sha256(), certificate.sha256());
});
