//! Selects one of several certificates for one key: a renewal adds a second one.
//!
//! PURE.

use super::naming::fingerprint_selector;
use super::{IdentityError, Stored};
use crate::certificate::utc;
use crate::text::hex;

/// Of the certificates for one key: the first valid one in the order of the pins, else the older valid one.
pub(super) fn one_of<'a>(
    partners: &[&'a Stored],
    pins: &[Vec<u8>],
    now: u64,
) -> Result<(&'a Stored, Option<String>), IdentityError> {
    let mut valid: Vec<&Stored> = partners.iter().copied().filter(|s| s.certificate.is_valid_at(now)).collect();
    valid.dedup_by(|a, b| a.certificate == b.certificate);
    let mut pool = if valid.is_empty() { partners.to_vec() } else { valid };
    let place = |stored: &Stored| pins.iter().position(|pin| pin[..] == stored.certificate.sha256());
    // If none is valid, the one that expired last gives the best error.
    let age = |s: &Stored| {
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
    let why = if place(chosen).is_some() { "the first pinned one" } else { "the older one" };
    let notice = format!(
        "{} certificates for this key; {why} is used ({}, until {}); the next is {} (until {})",
        pool.len(),
        hex(&chosen.certificate.sha256()),
        utc(chosen.certificate.not_after),
        hex(&next.certificate.sha256()),
        utc(next.certificate.not_after),
    );
    Ok((chosen, Some(notice)))
}
