//! The rules of the pool: which worker starts when, which request goes to which worker, what follows from a failure.
//!
//! PURE. Events come in as method calls, actions come out. Times are durations since the pool started, and randomness
//! is an argument. The plan moves requests (`R`) and cannot look into them. It decides by counts and phases alone.
//!
//! After every event, [`Plan::settle`] does the following:
//!
//! 1. It schedules each `Empty` worker that may log in, or parks it if one worker is enough.
//! 2. It closes each idle worker that is not wanted.
//! 3. It gives each idle worker the first request of the queue.
//! 4. It sets `trouble` if logins are stopped and no worker is ready or coming.
//! 5. It refuses the whole queue while there is trouble.
//!
//! | event | phase | becomes | also |
//! |---|---|---|---|
//! | `submit` | any | | trouble: refused. Queue full without abandoned requests, none idle: refused as busy. A probe goes to the head of the queue |
//! | `may_start` | Scheduled, Parked | Starting if logins, generation and surplus allow; else Empty (Parked stays) | takes the present generation |
//! | `started` | Starting | Ready(0) | clears trouble. Present generation: `exclusive`, `FirstOnly` becomes `Open`. An old one answers one request before it closes |
//! | `refill` | Ready(1) | Ready(2) | returns the first request, unless the worker is of an old generation, not wanted or exclusive |
//! | `finished` | Ready(n) | Ready(n-1) | answered: no failures |
//! | `lost` | Starting, Ready | Scheduled(now + back-off) | returned requests go to the head of the queue; one failure more, counted from 0 if it lived 10 s |
//! | ... a PIN failure of the present generation | Starting, Ready | Empty | `logins` = `Stopped`; all Scheduled become Empty |
//! | ... `TokenSessions` while another is ready | Starting, Ready | Parked | `FirstOnly` passes to a ready worker; a start after 5 min |
//! | ... none ready or starting; away at its start, or failed 5 times | | | `trouble` |
//! | `closed` | Closing | Empty | no failures |
//! | `renew` | Scheduled, Parked | Empty | next generation; trouble, `exclusive`, failures cleared; `FirstOnly` = one underway, else one ready, else 0 |
//! | `close` | Empty, Scheduled, Parked | Closing | no more starts |
//!
//! A worker process has at most one request. Ready(2) lasts while the parent checks one reply and the worker signs the next.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::Kind;
use action::{Abandon, Action, Refusal};
use retry::{is_away, pause, stops_logins};

pub(crate) mod action;
pub(crate) mod retry;
mod workers;

pub(crate) use workers::Phase;
use workers::Workers;

/// Clients get an error after more failures in a row than this. That takes about two seconds.
const TOLERATED_FAILURES: u32 = 4;

/// The time until the next start if the token has no free session.
const PARK_TIME: Duration = Duration::from_secs(300);

/// A worker that was ready for this time resets the count of failures.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Which workers may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logins {
    /// Only this worker, because no login has succeeded yet.
    FirstOnly(usize),
    /// All workers.
    Open,
    /// None, until somebody acts.
    Stopped(Kind),
}

#[derive(Debug)]
pub(crate) struct Plan<R> {
    workers: Workers,
    queue: VecDeque<R>,
    limit: usize,
    logins: Logins,
    /// The number of renewals. Workers of an earlier generation must be replaced.
    generation: u64,
    /// Each signature needs a login. Therefore there is one worker, and it gets no second request.
    exclusive: bool,
    /// The reason why there is no worker, once it is certain.
    trouble: Option<Kind>,
    closing: bool,
}

impl<R: Abandon> Plan<R> {
    /// Creates a pool with this number of workers, and with room for `limit` requests in its queue.
    pub(crate) fn new(workers: usize, limit: usize) -> Self {
        Self {
            workers: Workers::new(workers),
            queue: VecDeque::new(),
            limit,
            logins: Logins::FirstOnly(0),
            generation: 0,
            exclusive: false,
            trouble: None,
            closing: false,
        }
    }

    pub(crate) fn launch(&mut self, now: Duration) -> Vec<Action<R>> {
        self.settle(now)
    }

    pub(crate) fn submit(&mut self, request: R, is_probe: bool, now: Duration) -> Vec<Action<R>> {
        if let Some(kind) = self.trouble() {
            return vec![Action::Refuse(request, Refusal { kind, retry_after: self.retry_after(now) })];
        }
        if self.queue.len() >= self.limit {
            self.queue.retain(|request| !request.is_abandoned());
        }
        if !is_probe && self.queue.len() >= self.limit && !self.workers.any(Phase::is_idle) {
            let refusal = Refusal { kind: Kind::AgentBusy, retry_after: Some(Duration::from_secs(1)) };
            return vec![Action::Refuse(request, refusal)];
        }
        if is_probe {
            self.queue.push_front(request);
        } else {
            self.queue.push_back(request);
        }
        self.assign()
    }

    /// Whether a scheduled start is still wanted. If so, the worker counts as starting.
    pub(crate) fn may_start(&mut self, worker: usize) -> bool {
        let is_parked = self.workers[worker].phase == Phase::Parked;
        if !is_parked && !matches!(self.workers[worker].phase, Phase::Scheduled(_)) {
            return false;
        }
        let is_wanted = self.may_log_in(worker) && !self.closing && !self.is_surplus(worker);
        if is_wanted {
            self.workers[worker].phase = Phase::Starting;
            self.workers[worker].generation = self.generation;
        } else if !is_parked {
            self.workers[worker].phase = Phase::Empty;
        }
        is_wanted
    }

    /// Whether nothing was renewed since this worker's start began.
    pub(crate) fn is_current(&self, worker: usize) -> bool {
        self.workers[worker].generation == self.generation
    }

    pub(crate) fn started(&mut self, worker: usize, exclusive: bool, now: Duration) -> Vec<Action<R>> {
        self.workers[worker].phase = Phase::Ready { since: now, in_flight: 0 };
        self.trouble = None;
        if self.is_current(worker) {
            self.exclusive |= exclusive;
            if !matches!(self.logins, Logins::Stopped(_)) {
                self.logins = Logins::Open;
            }
            return self.settle(now);
        }
        // Renewals may come faster than workers start. Clients must not wait for the last renewal.
        let mut actions = self.assign();
        actions.extend(self.settle(now));
        actions
    }

    /// Returns the next request for a worker. The parent has read the worker's last reply and has not checked it yet.
    pub(crate) fn refill(&mut self, worker: usize) -> Option<R> {
        let Phase::Ready { since, in_flight: 1 } = self.workers[worker].phase else { return None };
        if self.exclusive || !self.is_current(worker) || !self.is_wanted(worker) {
            return None;
        }
        let request = self.next_request()?;
        self.workers[worker].phase = Phase::Ready { since, in_flight: 2 };
        Some(request)
    }

    /// A worker has finished a request. `answered`: the token answered. `exclusive`: it turned out that each signature
    /// needs a login.
    pub(crate) fn finished(&mut self, worker: usize, answered: bool, exclusive: bool, now: Duration) -> Vec<Action<R>> {
        let Phase::Ready { since, in_flight } = self.workers[worker].phase else { return Vec::new() };
        self.workers[worker].phase = Phase::Ready { since, in_flight: in_flight.saturating_sub(1) };
        if answered {
            self.workers[worker].failures = 0;
        }
        self.exclusive |= exclusive && self.is_current(worker);
        self.settle(now)
    }

    /// A worker could not start, or has ended. `returned` contains its requests that may be tried again.
    pub(crate) fn lost(
        &mut self,
        worker: usize,
        kind: Kind,
        returned: Vec<R>,
        now: Duration,
        random: u64,
    ) -> Vec<Action<R>> {
        let is_current = self.is_current(worker);
        let state = &mut self.workers[worker];
        let was_starting = state.phase == Phase::Starting;
        if matches!(state.phase, Phase::Ready { since, .. } if now.saturating_sub(since) >= STABLE_AFTER) {
            state.failures = 0;
        }
        state.failures = if is_current { state.failures.saturating_add(1) } else { 0 };
        state.phase = Phase::Empty;
        let failures = state.failures;
        returned.into_iter().rev().for_each(|request| self.queue.push_front(request));
        let mut actions = Vec::new();
        if stops_logins(kind) && is_current {
            self.logins = Logins::Stopped(kind);
            self.cancel(|phase| matches!(phase, Phase::Scheduled(_)));
        } else if kind == Kind::TokenSessions && self.is_up() {
            // A session may become free later.
            self.workers[worker].phase = Phase::Parked;
            self.pass_on_first_login(worker);
            actions.push(Action::Start { worker, after: PARK_TIME });
        } else {
            let after = if failures <= 1 { Duration::ZERO } else { pause(failures, random) };
            actions.extend(self.schedule(worker, now, after));
        }
        let another_starts = self.workers.any(|phase| phase == Phase::Starting);
        if !self.is_up()
            && !another_starts
            && is_current
            && (was_starting && is_away(kind) || failures > TOLERATED_FAILURES)
        {
            self.trouble = Some(kind);
        }
        actions.extend(self.settle(now));
        actions
    }

    pub(crate) fn closed(&mut self, worker: usize, now: Duration) -> Vec<Action<R>> {
        self.workers[worker].phase = Phase::Empty;
        self.workers[worker].failures = 0;
        self.settle(now)
    }

    /// Replaces every worker by a new one. The first new worker starts alone. Stopped logins are allowed again.
    pub(crate) fn renew(&mut self, now: Duration) -> Vec<Action<R>> {
        self.generation += 1;
        (self.trouble, self.exclusive) = (None, false);
        self.workers.iter_mut().for_each(|worker| worker.failures = 0);
        self.cancel(|phase| matches!(phase, Phase::Scheduled(_) | Phase::Parked));
        let underway = self.workers.position(|phase| matches!(phase, Phase::Starting | Phase::Closing));
        self.logins = Logins::FirstOnly(underway.or_else(|| self.workers.position(Phase::is_ready)).unwrap_or(0));
        self.settle(now)
    }

    /// Starts no more workers, and closes each worker as soon as it is idle.
    pub(crate) fn close(&mut self, now: Duration) -> Vec<Action<R>> {
        self.closing = true;
        let mut actions = Vec::new();
        for worker in self.workers.numbers() {
            if matches!(self.workers[worker].phase, Phase::Empty | Phase::Scheduled(_) | Phase::Parked) {
                self.workers[worker].phase = Phase::Closing;
                actions.push(Action::Close { worker });
            }
        }
        actions.extend(self.settle(now));
        actions
    }

    /// Whether the pool starts no more workers.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether a worker is logged in.
    pub(crate) fn is_up(&self) -> bool {
        self.workers.any(Phase::is_ready)
    }

    /// The reason why no worker is logged in, once it is certain.
    pub(crate) fn trouble(&self) -> Option<Kind> {
        if self.is_up() { None } else { self.trouble }
    }

    pub(crate) fn logins(&self) -> Logins {
        self.logins
    }

    pub(crate) fn phases(&self) -> impl Iterator<Item = Phase> {
        self.workers.phases()
    }

    /// The number of requests that wait in the queue.
    pub(crate) fn queued(&self) -> usize {
        self.queue.iter().filter(|request| !request.is_abandoned()).count()
    }

    /// The time after which another request may succeed while no worker is ready.
    pub(crate) fn retry_after(&self, now: Duration) -> Option<Duration> {
        self.workers.next_start(now)
    }

    fn settle(&mut self, now: Duration) -> Vec<Action<R>> {
        let mut actions = Vec::new();
        for worker in self.workers.numbers() {
            if self.workers[worker].phase == Phase::Empty {
                actions.extend(self.schedule(worker, now, Duration::ZERO));
            }
        }
        for worker in self.workers.numbers() {
            if self.workers[worker].phase.is_idle() && !self.is_wanted(worker) {
                self.workers[worker].phase = Phase::Closing;
                actions.push(Action::Close { worker });
            }
        }
        actions.extend(self.assign());
        if let (Logins::Stopped(kind), false) =
            (self.logins, self.workers.any(|phase| phase.is_ready() || phase.is_coming()))
        {
            self.trouble = Some(kind);
        }
        if let Some(kind) = self.trouble() {
            let refusal = Refusal { kind, retry_after: self.retry_after(now) };
            actions.extend(self.queue.drain(..).map(|request| Action::Refuse(request, refusal)));
        }
        actions
    }

    /// Gives each idle worker the first request of the queue.
    fn assign(&mut self) -> Vec<Action<R>> {
        let mut actions = Vec::new();
        for worker in self.workers.numbers() {
            let Phase::Ready { since, in_flight: 0 } = self.workers[worker].phase else { continue };
            let Some(request) = self.next_request() else { break };
            self.workers[worker].phase = Phase::Ready { since, in_flight: 1 };
            actions.push(Action::Take { worker, request });
        }
        actions
    }

    /// Returns the first request that is not abandoned, and drops the abandoned ones before it.
    fn next_request(&mut self) -> Option<R> {
        std::iter::from_fn(|| self.queue.pop_front()).find(|request| !request.is_abandoned())
    }

    fn schedule(&mut self, worker: usize, now: Duration, after: Duration) -> Option<Action<R>> {
        if !self.may_log_in(worker) || self.closing {
            return None;
        }
        if self.is_surplus(worker) {
            self.workers[worker].phase = Phase::Parked;
            return None;
        }
        self.workers[worker].phase = Phase::Scheduled(now + after);
        self.workers[worker].generation = self.generation;
        Some(Action::Start { worker, after })
    }

    fn may_log_in(&self, worker: usize) -> bool {
        match self.logins {
            Logins::FirstOnly(first) => first == worker,
            Logins::Open => true,
            Logins::Stopped(_) => false,
        }
    }

    /// Whether a worker should continue. While logins are stopped, each logged-in worker continues.
    fn is_wanted(&self, worker: usize) -> bool {
        if self.closing {
            false
        } else if self.is_current(worker) {
            !self.is_surplus(worker)
        } else {
            // A renewal first replaces one worker alone, and then the others one by one.
            !self.may_log_in(worker) || self.workers.any(Phase::is_coming)
        }
    }

    /// Whether one worker is enough, and another one is or will be this worker.
    fn is_surplus(&self, worker: usize) -> bool {
        let is_there = |phase| !matches!(phase, Phase::Empty | Phase::Parked | Phase::Closing);
        let has = |other: usize| self.is_current(other) && is_there(self.workers[other].phase);
        self.exclusive
            && self.workers.numbers().any(|other| has(other) && (other < worker || other > worker && !has(worker)))
    }

    fn pass_on_first_login(&mut self, from: usize) {
        if self.logins == Logins::FirstOnly(from) {
            self.logins = self.workers.position(Phase::is_ready).map_or(self.logins, Logins::FirstOnly);
        }
    }

    fn cancel(&mut self, is: impl Fn(Phase) -> bool) {
        self.workers.iter_mut().filter(|worker| is(worker.phase)).for_each(|worker| worker.phase = Phase::Empty);
    }
}

#[cfg(test)]
mod tests;
