//! Selects one of several certificates for one key: a renewal adds a second one.
//!
//! PURE.

use super::naming::fingerprint_selector;
use super::{IdentityError, TokenCertificate};
use crate::certificate::utc;
use crate::text::hex;

/// Of the certificates for one key: the first valid one in the order of the pins, else the older valid one.
pub(super) fn one_of<'a>(
    partners: &[&'a TokenCertificate],
    pins: &[Vec<u8>],
    now: u64,
) -> Result<(&'a TokenCertificate, Option<String>), IdentityError> {
    let mut valid: Vec<&TokenCertificate> =
        partners.iter().copied().filter(|s| s.certificate.is_valid_at(now)).collect();
    valid.dedup_by(|a, b| a.certificate == b.certificate);
    let mut pool = if valid.is_empty() { partners.to_vec() } else { valid };
    let place = |stored: &TokenCertificate| pins.iter().position(|pin| pin[..] == stored.certificate.sha256());
    // If none is valid, the one that expired last gives the best error.
    let age = |s: &TokenCertificate| {
        if s.certificate.is_valid_at(now) { s.certificate.not_before } else { u64::MAX - s.certificate.not_after }
    };
    pool.sort_by_key(|stored| (place(stored), age(stored)));
    pool.dedup_by(|a, b| a.certificate == b.certificate);
    let (Some(chosen), next) = (pool.first().copied(), pool.get(1)) else {
        return Err(IdentityError::NoMatch { candidates: Vec::new() });
    };
    let Some(next) = next else { return Ok((chosen, None)) };
    let same_rank = place(chosen) == place(next) && age(chosen) == age(next);
    if same_rank {
        return Err(IdentityError::SameAge(pool.iter().map(|s| fingerprint_selector(s)).collect()));
    }
    let choice = match (chosen.certificate.is_valid_at(now), place(chosen)) {
        (true, Some(_)) => "; the first pinned one is used",
        (true, None) => "; the older one is used",
        (false, Some(_)) => ", none of them valid now; the first pinned one is looked at",
        (false, None) => ", none of them valid now; the one that ends last is looked at",
    };
    let period = |stored: &TokenCertificate| match stored.certificate.not_before {
        start if start > now => format!("from {}", utc(start)),
        _ => format!("until {}", utc(stored.certificate.not_after)),
    };
    let notice = format!(
        "{} certificates for this key{choice} ({}, {}); the next is {} ({})",
        pool.len(),
        hex(&chosen.certificate.sha256()),
        period(chosen),
        hex(&next.certificate.sha256()),
        period(next),
    );
    Ok((chosen, Some(notice)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::leaf;

    /// A certificate that is valid in these seconds; the number makes its fingerprint another one.
    fn stored(number: u8, not_before: u64, not_after: u64) -> TokenCertificate {
        let base = leaf();
        let mut der = base.der().to_vec();
        // A byte of the serial number.
        let serial = 20;
        der[serial] = number;
        let mut certificate = crate::certificate::Certificate::from_der(&der).unwrap();
        (certificate.not_before, certificate.not_after) = (not_before, not_after);
        TokenCertificate { certificate, id: vec![number], label: Vec::new() }
    }

    fn chosen(all: &[TokenCertificate], pins: &[&TokenCertificate], now: u64) -> (u8, Option<String>) {
        let pins: Vec<Vec<u8>> = pins.iter().map(|stored| stored.certificate.sha256().to_vec()).collect();
        let (stored, notice) = one_of(&all.iter().collect::<Vec<_>>(), &pins, now).unwrap();
        (stored.id[0], notice)
    }

    #[test]
    fn the_older_valid_certificate_is_used_unless_a_pin_says_otherwise() {
        let all = [stored(2, 200, 900), stored(1, 100, 500), stored(3, 50, 80)];
        let (number, notice) = chosen(&all, &[], 300);
        let notice = notice.unwrap();
        assert!(number == 1 && notice.starts_with("2 certificates for this key; the older one is used"), "{notice}");
        assert!(notice.contains(&utc(500)) && notice.contains(&utc(900)), "{notice}");
        let (number, notice) = chosen(&all, &[&all[0], &all[1]], 300);
        assert!(number == 2 && notice.unwrap().contains("the first pinned one"));
        assert_eq!(chosen(&all, &[], 600), (2, None));
        assert_eq!(chosen(&all, &[], 60), (3, None));
        // A pinned certificate that has ended does not keep a valid one out.
        assert_eq!(chosen(&all, &[&all[1]], 600), (2, None));
    }

    #[test]
    fn of_certificates_that_all_ended_the_last_one_is_named() {
        let all = [stored(1, 100, 500), stored(2, 200, 900), stored(3, 50, 80)];
        let (number, notice) = chosen(&all, &[], 1000);
        let notice = notice.unwrap();
        let start = "3 certificates for this key, none of them valid now; the one that ends last is looked at (";
        assert!(number == 2 && notice.starts_with(start), "{notice}");
        let pinned = chosen(&all, &[&all[2]], 1000);
        assert!(pinned.1.unwrap().contains("none of them valid now"));
        // One that ended, and one that begins later.
        let (number, notice) = chosen(&[stored(1, 100, 500), stored(2, 800, 900)], &[], 600);
        let notice = notice.unwrap();
        assert!(number == 2 && !notice.contains("older") && !notice.contains("is used"), "{notice}");
        assert!(notice.contains(&format!(", from {}); ", utc(800))), "{notice}");
        assert!(notice.ends_with(&format!("(until {})", utc(500))), "{notice}");
        let late = [stored(1, 100, 5_000_000_000), stored(2, 100, 5_000_000_001)];
        assert_eq!(chosen(&late, &[], 6_000_000_000).0, 2);
        assert!(one_of(&[], &[], 0).is_err());
    }

    #[test]
    fn two_certificates_of_one_age_are_refused_unless_one_is_pinned() {
        let all = [stored(1, 100, 500), stored(2, 100, 900)];
        let refused = one_of(&all.iter().collect::<Vec<_>>(), &[], 300).unwrap_err();
        let IdentityError::SameAge(selectors) = refused else { panic!("{refused}") };
        assert_eq!(selectors, all.each_ref().map(fingerprint_selector));
        assert_eq!(chosen(&all, &[&all[1], &all[0]], 300).0, 2);
        let twice = [stored(1, 100, 500), stored(1, 100, 500)];
        assert_eq!(chosen(&twice, &[], 300), (1, None));
    }
}
