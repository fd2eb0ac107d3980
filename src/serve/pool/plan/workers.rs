//! The workers as the plan counts them: one phase for each, and what follows from the phases alone.
//!
//! PURE.

use std::ops::{Index, IndexMut};
use std::time::Duration;

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is no worker, and no start is scheduled.
    Empty,
    /// A start is scheduled for this time.
    Scheduled(Duration),
    /// The worker loads the module, logs in and reads its identity.
    Starting,
    /// The worker is logged in since this time. It has at most one request, and the parent may still check the last reply.
    Ready { since: Duration, in_flight: u8 },
    /// The worker logs out and ends.
    Closing,
    /// There is no worker: the token has no session left, or one worker is enough.
    Parked,
}

impl Phase {
    /// Whether a worker is logged in.
    pub(crate) fn is_ready(self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// Whether a worker is logged in and has no request.
    pub(crate) fn is_idle(self) -> bool {
        matches!(self, Self::Ready { in_flight: 0, .. })
    }

    /// Whether a worker will start, or ends so that another one can start.
    pub(crate) fn is_coming(self) -> bool {
        matches!(self, Self::Scheduled(_) | Self::Starting | Self::Closing)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerState {
    pub(super) phase: Phase,
    /// The generation of its last start.
    pub(super) generation: u64,
    /// Failures in a row.
    pub(super) failures: u32,
}

/// The states of all workers, by their numbers.
#[derive(Debug)]
pub(super) struct Workers(Vec<WorkerState>);

impl Workers {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![WorkerState { phase: Phase::Empty, generation: 0, failures: 0 }; count])
    }

    pub(super) fn numbers(&self) -> std::ops::Range<usize> {
        0..self.0.len()
    }

    pub(super) fn phases(&self) -> impl Iterator<Item = Phase> {
        self.0.iter().map(|worker| worker.phase)
    }

    pub(super) fn any(&self, is: impl Fn(Phase) -> bool) -> bool {
        self.phases().any(is)
    }

    /// The first worker whose phase matches.
    pub(super) fn position(&self, is: impl Fn(Phase) -> bool) -> Option<usize> {
        self.0.iter().position(|worker| is(worker.phase))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut WorkerState> {
        self.0.iter_mut()
    }

    /// The time until the next start, at least one second; `None` if no start is scheduled.
    pub(super) fn next_start(&self, now: Duration) -> Option<Duration> {
        let wait = |phase: Phase| match phase {
            Phase::Scheduled(at) => Some(at.saturating_sub(now)),
            Phase::Starting | Phase::Closing => Some(Duration::ZERO),
            Phase::Empty | Phase::Ready { .. } | Phase::Parked => None,
        };
        self.phases().filter_map(wait).min().map(|wait| wait.max(Duration::from_secs(1)))
    }
}

impl Index<usize> for Workers {
    type Output = WorkerState;

    fn index(&self, worker: usize) -> &WorkerState {
        &self.0[worker]
    }
}

impl IndexMut<usize> for Workers {
    fn index_mut(&mut self, worker: usize) -> &mut WorkerState {
        &mut self.0[worker]
    }
}
