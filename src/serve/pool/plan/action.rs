//! The actions that the plan demands of the pool.
//!
//! PURE. One enum contains all actions; a request moves inside them by value.

use std::time::Duration;

use crate::error::Kind;

/// An action that the pool must carry out now. `R` is a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<R> {
    /// Start this worker after this time, unless [`super::Plan::may_start`] refuses then.
    Start {
        worker: usize,
        after: Duration,
    },
    Take {
        worker: usize,
        request: R,
    },
    /// End this worker: log out, finalize.
    Close {
        worker: usize,
    },
    /// Answer a request with a refusal.
    Refuse(R, Refusal),
}

/// The reason why there is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    /// The time after which another request may succeed.
    pub(crate) retry_after: Option<Duration>,
}

/// The only question that the plan may ask a request.
pub(crate) trait Abandon {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
}
