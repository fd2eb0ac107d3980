//! What the plan tells the pool to do.
//!
//! PURE. One enum holds all commands; a request moves inside them by value.

use std::time::Duration;

use crate::error::Kind;

/// What the pool must do now. `R` is a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<R> {
    /// Start this worker after this time, unless [`super::Plan::may_start`] says otherwise by then.
    Start { worker: usize, after: Duration },
    /// Give this worker a request.
    Take { worker: usize, request: R },
    /// End this worker: log out, finalize.
    Close { worker: usize },
    /// Answer a request with a refusal.
    Refuse(R, Refusal),
}

/// Why there is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    /// When another request may succeed.
    pub(crate) retry_after: Option<Duration>,
}

/// All that the plan may ask a request.
pub(crate) trait Abandon {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
}
