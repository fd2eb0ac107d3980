//! Keys and certificates in words, and as selectors to paste.
//!
//! PURE.

use super::Stored;
use crate::facts::Key;
use crate::text::{hex, printable_bytes};

pub(super) fn singles(keys: &[Key], stored: &[Stored], from_file: bool) -> Vec<String> {
    let keys = keys.iter().map(|key| format!("key {} has no certificate", name(&key.label, &key.id)));
    let certificates = stored.iter().map(|stored| {
        let what = if from_file { "of the file".into() } else { name(&stored.label, &stored.id) };
        format!("certificate {what} has no private key ({})", stored.certificate.subject)
    });
    keys.chain(certificates).collect()
}

/// Every key and certificate as a selector. If a fingerprint alone would match several keys, with an addition that
/// distinguishes them.
pub(super) fn selectors(pairs: &[(&Key, Vec<&Stored>)]) -> Vec<String> {
    let all = || pairs.iter().flat_map(|(key, partners)| partners.iter().map(move |stored| (*key, *stored)));
    let describe = |(key, stored): (&Key, &Stored)| {
        let twins = all().filter(|(_, other)| other.certificate == stored.certificate).count();
        let id = (twins > 1 && !key.id.is_empty()).then(|| format!(" --key-id {}", hex(&key.id)));
        let (selector, id) = (fingerprint_selector(stored), id.unwrap_or_default());
        format!("{selector}{id}   (key {}, {})", name(&key.label, &key.id), stored.certificate.subject)
    };
    all().map(describe).collect()
}

pub(super) fn fingerprint_selector(stored: &Stored) -> String {
    format!("--certificate-sha256 {}", hex(&stored.certificate.sha256()))
}

pub(super) fn name(label: &[u8], id: &[u8]) -> String {
    format!("'{}' (ID {})", printable_bytes(label), if id.is_empty() { "none".into() } else { hex(id) })
}
