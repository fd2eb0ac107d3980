//! How the pool stands, as its rules see it.
//!
//! PURE.

use std::time::Duration;

use super::Plan;
use crate::error::Kind;
use crate::serve::pool::plan::action::{Logins, Phase};

impl Plan {
    /// Whether a worker is logged in.
    pub(crate) fn is_up(&self) -> bool {
        self.phases().any(Phase::is_up)
    }

    /// Why no worker is logged in, as far as that is certain.
    pub(crate) fn trouble(&self) -> Option<Kind> {
        if self.is_up() { None } else { self.trouble }
    }

    /// Whether workers may log in.
    pub(crate) fn logins(&self) -> Logins {
        self.logins
    }

    /// What each worker's place is at.
    pub(crate) fn phases(&self) -> impl Iterator<Item = Phase> {
        self.places.iter().map(|place| place.phase)
    }

    /// How many requests wait, at the workers or before them.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len() + self.places.iter().filter(|place| place.ahead.is_some()).count()
    }

    /// The time of the next start; one second where that is now.
    pub(crate) fn retry_after(&self, now: Duration) -> Option<Duration> {
        let due = |phase: Phase| match phase {
            Phase::Due(at) => Some(at.saturating_sub(now)),
            Phase::Starting | Phase::Closing => Some(Duration::ZERO),
            _ => None,
        };
        self.phases().filter_map(due).min().map(|wait| wait.max(Duration::from_secs(1)))
    }
}
