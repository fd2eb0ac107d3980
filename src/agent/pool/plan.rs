//! The pool's rules: which worker starts when, which request goes where, what becomes of a failure.
//!
//! PURE. Times are durations since the pool began, and randomness is an argument; what is to be done comes out as orders.
//! The rules: the first worker logs in alone; a refused PIN stops logins; a request is tried at most twice; a worker that
//! fails again and again is started later and later.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::Kind;

/// The number of a worker's place, from 0.
pub(crate) type Slot = usize;

/// The number of a request; never used twice.
pub(crate) type Job = u64;

/// The first pause between two starts that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A worker that lived so long was a good one.
const PROVEN: Duration = Duration::from_secs(10);

/// What the pool must do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Start a worker after so long, unless [`Plan::may_start`] says otherwise by then.
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

#[derive(Clone, Copy, Debug)]
struct Waiting {
    job: Job,
    /// Whether it may be tried once more on a new worker.
    again: bool,
}

/// The state of the pool.
#[derive(Debug)]
pub(crate) struct Plan {
    phases: Vec<Phase>,
    /// Workers to be replaced by new ones, one after the other.
    renewing: VecDeque<Slot>,
    waiting: VecDeque<Waiting>,
    /// Requests in hand that may be tried once more.
    repeatable: Vec<Option<bool>>,
    limit: usize,
    logins: Logins,
    /// Failures in a row, of starts and of workers that had not proved themselves.
    failures: Vec<u32>,
    /// Why there is no worker, once that is certain.
    trouble: Option<Kind>,
    may_repeat: bool,
    /// Starts that were under way when all were to be renewed: what they find is out of date.
    stale: Vec<bool>,
    /// One worker is all that may be.
    alone: bool,
    closing: bool,
}

impl Plan {
    /// A pool of so many places, in which so many requests may wait; with `may_repeat` unset no request is tried again,
    /// since a person would have to act again.
    pub(crate) fn new(workers: usize, limit: usize, may_repeat: bool) -> Self {
        Self {
            phases: vec![Phase::Held; workers],
            renewing: VecDeque::new(),
            waiting: VecDeque::new(),
            repeatable: vec![None; workers],
            limit,
            logins: Logins::First(0),
            failures: vec![0; workers],
            trouble: None,
            may_repeat,
            stale: vec![false; workers],
            alone: false,
            closing: false,
        }
    }

    /// Begins.
    pub(crate) fn launch(&mut self, now: Duration) -> Vec<Order> {
        self.order_start(0, now, Duration::ZERO).into_iter().collect()
    }

    /// Takes a request in, at the end of the queue or before all others.
    pub(crate) fn submit(&mut self, job: Job, first: bool, now: Duration) -> Vec<Order> {
        let refuse = |kind, retry_after| vec![Order::Refuse { job, refusal: Refusal { kind, retry_after } }];
        if let (Some(kind), false) = (self.trouble, self.is_up()) {
            return refuse(kind, self.retry_after(now));
        }
        if !first && self.waiting.len() >= self.limit && !self.has_idle() {
            return refuse(Kind::AgentBusy, Some(Duration::from_secs(1)));
        }
        let waiting = Waiting { job, again: self.may_repeat && !first };
        if first {
            self.waiting.push_front(waiting);
        } else {
            self.waiting.push_back(waiting);
        }
        self.dispatch()
    }

    /// Forgets a request that waits: whoever made it is gone, or its time is up.
    pub(crate) fn give_up(&mut self, job: Job) {
        self.waiting.retain(|waiting| waiting.job != job);
        if let Some(slot) = self.phases.iter().position(|phase| matches!(phase, Phase::Busy(busy, _) if *busy == job)) {
            self.repeatable[slot] = Some(false);
        }
    }

    /// Whether a start that was ordered is still wanted; it has begun then.
    pub(crate) fn may_start(&mut self, slot: Slot) -> bool {
        let allowed = match self.logins {
            Logins::First(first) => first == slot,
            Logins::Open => true,
            Logins::Stopped(_) => false,
        };
        if !matches!(self.phases[slot], Phase::Due(_)) {
            return false;
        }
        self.phases[slot] = if allowed && !self.closing { Phase::Starting } else { Phase::Held };
        self.phases[slot] == Phase::Starting
    }

    /// A worker is ready. With `alone`, no other may be beside it, since each signature wants a login of its own.
    pub(crate) fn started(&mut self, slot: Slot, alone: bool, now: Duration) -> Vec<Order> {
        self.phases[slot] = Phase::Idle(now);
        self.logins = Logins::Open;
        self.trouble = None;
        self.alone = alone;
        if self.closing {
            self.phases[slot] = Phase::Closing;
            return vec![Order::Close { slot }];
        }
        if std::mem::take(&mut self.stale[slot]) {
            self.logins = Logins::First(slot);
            self.renewing.push_front(slot);
            return self.renew_next();
        }
        let mut orders = Vec::new();
        for other in 0..self.phases.len() {
            if other == slot || self.phases[other] != Phase::Held {
                continue;
            }
            if alone {
                self.phases[other] = Phase::Retired;
            } else {
                orders.extend(self.order_start(other, now, Duration::ZERO));
            }
        }
        // One that is to be renewed takes no more requests, where another can.
        orders.extend(self.renew_next());
        orders.extend(self.dispatch());
        orders
    }

    /// A signature turned out to want a login of its own: the other workers end.
    pub(crate) fn needs_to_be_alone(&mut self, slot: Slot) -> Vec<Order> {
        if std::mem::replace(&mut self.alone, true) {
            return Vec::new();
        }
        let others = (0..self.phases.len()).filter(|other| *other != slot);
        self.renewing.extend(others.filter(|other| matches!(self.phases[*other], Phase::Idle(_) | Phase::Busy(..))));
        self.renew_next()
    }

    /// A worker answered its request, or refused it for a reason that is not its own.
    pub(crate) fn finished(&mut self, slot: Slot, proven: bool) -> Vec<Order> {
        let Phase::Busy(_, since) = self.phases[slot] else { return Vec::new() };
        self.phases[slot] = Phase::Idle(since);
        self.repeatable[slot] = None;
        if proven {
            self.failures[slot] = 0;
        }
        if self.closing {
            return self.close();
        }
        let mut orders = self.renew_next();
        orders.extend(self.dispatch());
        orders
    }

    /// A worker is gone: it could not start, or ended idle or at work. Its request is tried once more where that makes sense.
    pub(crate) fn lost(&mut self, slot: Slot, kind: Kind, now: Duration, random: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        let (job, since) = match self.phases[slot] {
            Phase::Busy(job, since) => (Some(job), Some(since)),
            Phase::Idle(since) => (None, Some(since)),
            _ => (None, None),
        };
        if since.is_some_and(|since| now.saturating_sub(since) >= PROVEN) {
            self.failures[slot] = 0;
        }
        self.failures[slot] = self.failures[slot].saturating_add(1);
        let again = self.repeatable[slot].take() == Some(true);
        if let Some(job) = job {
            if again && kind.retryable() {
                self.waiting.push_front(Waiting { job, again: false });
            } else {
                let retry_after = kind.retryable().then_some(FIRST_PAUSE);
                orders.push(Order::Refuse { job, refusal: Refusal { kind, retry_after } });
            }
        }
        self.phases[slot] = Phase::Held;
        self.renewing.retain(|renewing| *renewing != slot);
        if std::mem::take(&mut self.stale[slot]) {
            (self.logins, self.failures[slot]) = (Logins::First(slot), 0);
            orders.extend(self.order_start(slot, now, Duration::ZERO));
        } else if stops_logins(kind) {
            self.logins = Logins::Stopped(kind);
            self.renewing.clear();
        } else if kind == Kind::TokenSessions && self.is_up() {
            // Fewer workers, not a loop.
            self.phases[slot] = Phase::Retired;
        } else if self.failures[slot] <= 1 {
            orders.extend(self.order_start(slot, now, Duration::ZERO));
        } else {
            let pause = pause(self.failures[slot], random);
            orders.extend(self.order_start(slot, now, pause));
        }
        let coming = |phase: &Phase| matches!(phase, Phase::Due(_) | Phase::Starting | Phase::Closing);
        let kind = if let Logins::Stopped(kind) = self.logins { kind } else { kind };
        let nobody_comes = !self.phases.iter().any(coming);
        if !self.is_up() && (nobody_comes || is_away(kind) || self.failures[slot] > 2) {
            self.trouble = Some(kind);
            let refusal = Refusal { kind, retry_after: self.retry_after(now) };
            orders.extend(self.waiting.drain(..).map(|waiting| Order::Refuse { job: waiting.job, refusal }));
        }
        orders.extend(self.dispatch());
        orders
    }

    /// A worker has ended in good order.
    pub(crate) fn closed(&mut self, slot: Slot, now: Duration) -> Vec<Order> {
        self.phases[slot] = Phase::Held;
        self.failures[slot] = 0;
        if self.alone && self.logins == Logins::Open && self.is_up() {
            self.phases[slot] = Phase::Retired;
            return self.renew_next();
        }
        self.order_start(slot, now, Duration::ZERO).into_iter().collect()
    }

    /// Replaces every worker by a new one, one after the other, the first of them alone; stopped logins begin anew.
    pub(crate) fn renew(&mut self, now: Duration) -> Vec<Order> {
        self.renewing = (0..self.phases.len())
            .filter(|slot| matches!(self.phases[*slot], Phase::Idle(_) | Phase::Busy(..)))
            .collect();
        self.failures.fill(0);
        for phase in &mut self.phases {
            if matches!(phase, Phase::Retired | Phase::Due(_)) {
                *phase = Phase::Held;
            }
        }
        // One that is on its way to its login, or ends for the sake of a new one, is the first.
        for (slot, phase) in self.phases.iter().enumerate() {
            self.stale[slot] = *phase == Phase::Starting;
            if matches!(phase, Phase::Starting | Phase::Closing) {
                self.logins = Logins::First(slot);
            }
        }
        if self.phases.iter().any(|phase| matches!(phase, Phase::Starting | Phase::Closing)) {
            return Vec::new();
        }
        let first = self.renewing.front().copied().unwrap_or(0);
        self.logins = Logins::First(first);
        if self.renewing.is_empty() {
            return self.order_start(first, now, Duration::ZERO).into_iter().collect();
        }
        self.renew_next()
    }

    /// Starts nothing any more, and ends what is ready.
    pub(crate) fn close(&mut self) -> Vec<Order> {
        self.closing = true;
        let mut orders = Vec::new();
        for (slot, phase) in self.phases.iter_mut().enumerate() {
            match phase {
                Phase::Idle(_) => {
                    *phase = Phase::Closing;
                    orders.push(Order::Close { slot });
                }
                Phase::Due(_) => *phase = Phase::Held,
                _ => {}
            }
        }
        orders
    }

    /// Whether a worker is logged in.
    pub(crate) fn is_up(&self) -> bool {
        self.phases.iter().any(|phase| matches!(phase, Phase::Idle(_) | Phase::Busy(..)))
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
    pub(crate) fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The time of the next start; one second where that is now.
    pub(crate) fn retry_after(&self, now: Duration) -> Option<Duration> {
        let due = |phase: &Phase| match phase {
            Phase::Due(at) => Some(at.saturating_sub(now)),
            Phase::Starting | Phase::Closing => Some(Duration::ZERO),
            _ => None,
        };
        self.phases.iter().filter_map(due).min().map(|wait| wait.max(Duration::from_secs(1)))
    }

    fn has_idle(&self) -> bool {
        self.phases.iter().any(|phase| matches!(phase, Phase::Idle(_)))
    }

    fn order_start(&mut self, slot: Slot, now: Duration, after: Duration) -> Option<Order> {
        let held = match self.logins {
            Logins::First(first) => first != slot,
            Logins::Open => false,
            Logins::Stopped(_) => true,
        };
        if held || self.closing {
            self.phases[slot] = Phase::Held;
            return None;
        }
        self.phases[slot] = Phase::Due(now + after);
        Some(Order::Start { slot, after })
    }

    fn dispatch(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        while !self.waiting.is_empty() {
            let idle = self.phases.iter().enumerate().find_map(|(slot, phase)| match phase {
                Phase::Idle(since) => Some((slot, *since)),
                _ => None,
            });
            let (Some((slot, since)), Some(waiting)) = (idle, self.waiting.front().copied()) else { break };
            self.waiting.pop_front();
            self.phases[slot] = Phase::Busy(waiting.job, since);
            self.repeatable[slot] = Some(waiting.again);
            orders.push(Order::Work { slot, job: waiting.job });
        }
        orders
    }

    /// Ends the next worker that is to be renewed, as soon as it is idle and no other is on its way.
    fn renew_next(&mut self) -> Vec<Order> {
        let underway = |phase: &Phase| matches!(phase, Phase::Starting | Phase::Closing);
        let Some(slot) = self.renewing.front().copied() else { return Vec::new() };
        if self.phases.iter().any(underway) || !matches!(self.phases[slot], Phase::Idle(_)) {
            return Vec::new();
        }
        self.renewing.pop_front();
        self.phases[slot] = Phase::Closing;
        vec![Order::Close { slot }]
    }
}

/// Whether a failure says that no PIN should be sent until somebody acted. What stands in the way of an attempt without
/// having cost one, and passes by itself, does not.
pub(crate) fn stops_logins(kind: Kind) -> bool {
    kind.exit_code() == 4 && !matches!(kind, Kind::StateDir | Kind::PinState)
}

/// Whether a failure says that a worker would not come up at once.
fn is_away(kind: Kind) -> bool {
    !kind.retryable() || matches!(kind, Kind::TokenRemoved | Kind::TokenSessions)
}

/// Twice as long each time, and not at the same time as everybody else: between half of it and all of it.
fn pause(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(2).min(16);
    let whole = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let half = whole / 2;
    let jitter = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_millis(random % jitter)
}
