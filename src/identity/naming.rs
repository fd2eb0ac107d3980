//! Keys and certificates in words, and as selectors to paste.
//!
//! PURE.

use super::TokenCertificate;
use crate::facts::{KeyObject, object_name};
use crate::text::hex;

pub(super) fn singles(keys: &[KeyObject], stored: &[TokenCertificate], from_file: bool) -> Vec<String> {
    let keys = keys.iter().map(|key| format!("key {} has no certificate", key.name()));
    let certificates = stored.iter().map(|stored| {
        let what = if from_file { "of the file".into() } else { object_name(&stored.label, &stored.id) };
        format!("certificate {what} has no private key ({})", stored.certificate.subject)
    });
    keys.chain(certificates).collect()
}

/// Every key and certificate as a selector. If a fingerprint alone would match several keys, with an addition that
/// distinguishes them.
pub(super) fn selectors(pairs: &[(&KeyObject, Vec<&TokenCertificate>)]) -> Vec<String> {
    let all = || pairs.iter().flat_map(|(key, partners)| partners.iter().map(move |stored| (*key, *stored)));
    let describe = |(key, stored): (&KeyObject, &TokenCertificate)| {
        let twins = all().filter(|(_, other)| other.certificate == stored.certificate).count();
        let id = (twins > 1 && !key.id.is_empty()).then(|| format!(" --key-id {}", hex(&key.id)));
        let (selector, id) = (fingerprint_selector(stored), id.unwrap_or_default());
        format!("{selector}{id}   (key {}, {})", key.name(), stored.certificate.subject)
    };
    all().map(describe).collect()
}

pub(super) fn fingerprint_selector(stored: &TokenCertificate) -> String {
    format!("--certificate-sha256 {}", hex(&stored.certificate.sha256()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::leaf;
    use crate::facts::KeyClass;

    fn key(id: &[u8]) -> KeyObject {
        KeyObject { label: b"cba".to_vec(), id: id.to_vec(), ..KeyObject::unreported(1, KeyClass::Private) }
    }

    #[test]
    fn a_selector_names_the_key_only_where_a_certificate_has_several() {
        let stored = TokenCertificate { certificate: leaf(), id: vec![9], label: Vec::new() };
        let mut other = stored.clone();
        other.certificate.serial.push('0');
        let (one, two, nameless) = (key(&[1]), key(&[2]), key(&[]));
        let fingerprint = fingerprint_selector(&stored);
        assert_eq!(fingerprint, format!("--certificate-sha256 {}", hex(&leaf().sha256())));
        let rest = |id: &str| format!("   (key 'cba' (ID {id}), {})", leaf().subject);
        assert_eq!(
            selectors(&[(&one, vec![&stored, &other])]),
            [format!("{fingerprint}{}", rest("01")), format!("{fingerprint}{}", rest("01"))]
        );
        assert_eq!(
            selectors(&[(&one, vec![&stored]), (&two, vec![&stored])]),
            [format!("{fingerprint} --key-id 01{}", rest("01")), format!("{fingerprint} --key-id 02{}", rest("02"))]
        );
        assert_eq!(
            selectors(&[(&nameless, vec![&stored]), (&two, vec![&stored])])[0],
            format!("{fingerprint}{}", rest("none"))
        );
    }

    #[test]
    fn what_stands_alone_is_named() {
        let stored = TokenCertificate { certificate: leaf(), id: vec![9], label: b"x".to_vec() };
        let of = |what: &str| format!("certificate {what} has no private key ({})", leaf().subject);
        let key_alone = "key 'cba' (ID 01) has no certificate".to_owned();
        let all = std::slice::from_ref(&stored);
        assert_eq!(singles(&[key(&[1])], all, false), [key_alone.clone(), of("'x' (ID 09)")]);
        assert_eq!(singles(&[key(&[1])], all, true), [key_alone, of("of the file")]);
    }
}
