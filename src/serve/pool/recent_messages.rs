//! The messages that were delivered recently, so that none is delivered twice.
//!
//! PURE. A module can return a message that it signed before, in the same worker or in another one. Such a message passes
//! every other check while it is young, but two clients would share one login.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// At least this number of messages is remembered, at any age: a v1 message never becomes too old.
const AT_LEAST: usize = 4096;

#[derive(Debug)]
pub(super) struct RecentMessages {
    /// The oldest first, each with the time of its delivery.
    order: VecDeque<(Duration, [u8; 32])>,
    known: HashSet<[u8; 32]>,
    /// The time for which a v2 message counts as fresh.
    fresh_for: Duration,
}

impl RecentMessages {
    pub(super) fn new(fresh_for: Duration) -> Self {
        Self { order: VecDeque::new(), known: HashSet::new(), fresh_for }
    }

    /// Remembers a message by its digest. Returns `false` if it was delivered before. `now` never decreases.
    pub(super) fn is_new(&mut self, digest: [u8; 32], now: Duration) -> bool {
        while self.order.len() > AT_LEAST
            && self.order.front().is_some_and(|(since, _)| now.saturating_sub(*since) > self.fresh_for)
        {
            if let Some((_, oldest)) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        let is_new = self.known.insert(digest);
        if is_new {
            self.order.push_back((now, digest));
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u32) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        digest
    }

    #[test]
    fn a_message_is_new_once_as_long_as_it_is_fresh_or_among_the_last() {
        let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
        let mut recent = RecentMessages::new(minute);
        let many = u32::try_from(AT_LEAST).unwrap() * 2;
        assert!((0..many).all(|number| recent.is_new(digest(number), second)));
        assert!((0..many).all(|number| !recent.is_new(digest(number), second + minute)), "all are fresh");
        assert!(recent.is_new(digest(many), second * 2 + minute));
        assert!(recent.is_new(digest(0), second * 2 + minute), "old, and not among the last");
        assert!(!recent.is_new(digest(many - 1), minute * 60), "among the last");
        assert!(recent.order.len() <= AT_LEAST + 2 && recent.known.len() == recent.order.len());
    }
}
