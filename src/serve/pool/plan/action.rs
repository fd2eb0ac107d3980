//! What the pool's rules speak of: places, requests, orders, refusals.
//!
//! PURE.

use std::time::Duration;

use crate::error::Kind;

/// The number of a worker's place, from 0.
pub(crate) type Slot = usize;

/// The number of a request; never used twice.
pub(crate) type Job = u64;

/// What the pool must do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Start a worker after so long, unless the plan says otherwise by then.
    Start {
        /// Where.
        slot: Slot,
        /// When.
        after: Duration,
    },
    /// Have a worker answer a request.
    Work {
        /// Which worker.
        slot: Slot,
        /// Which request.
        job: Job,
    },
    /// End a worker in good order.
    Close {
        /// Which.
        slot: Slot,
    },
    /// Answer a request with a refusal.
    Refuse {
        /// Which.
        job: Job,
        /// Why.
        refusal: Refusal,
    },
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Nothing: whoever asked is gone, or the policy refused.
    Dropped,
    /// The token answered.
    Answered {
        /// Whether that took less than anybody could feel.
        soon: bool,
    },
}

/// Why there is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What went wrong.
    pub(crate) kind: Kind,
    /// When another request may fare better.
    pub(crate) retry_after: Option<Duration>,
}

/// What a worker's place is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Empty, and nothing is to be done about it.
    Held,
    /// A start is ordered for this time.
    Due(Duration),
    /// The worker is loading, logging in, choosing.
    Starting,
    /// Ready, since this time.
    Idle(Duration),
    /// At a request, and ready since this time.
    Busy(Job, Duration),
    /// Ending in good order, to be started anew.
    Closing,
    /// The token has no room for it.
    Retired,
}

impl Phase {
    /// Whether a worker is logged in.
    pub(crate) fn is_up(self) -> bool {
        matches!(self, Self::Idle(_) | Self::Busy(..))
    }

    /// Whether one is on its way, or makes way for one.
    pub(crate) fn is_coming(self) -> bool {
        matches!(self, Self::Due(_) | Self::Starting | Self::Closing)
    }
}

/// Whether workers may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logins {
    /// This one alone, since no login has succeeded yet.
    First(Slot),
    /// All.
    Open,
    /// None, until somebody acted.
    Stopped(Kind),
}
