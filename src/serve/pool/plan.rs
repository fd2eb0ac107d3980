//! The pool's rules: which worker starts when, which request goes where, what becomes of a failure.
//!
//! PURE. Times are durations since the pool began, and randomness is an argument; what is to be done comes out as orders.
//! The rules: the first worker logs in alone; a refused PIN stops logins; a request is tried at most twice; a worker that
//! fails again and again is started later and later; one that signs quickly is given its next request ahead.

use std::collections::VecDeque;
use std::time::Duration;

use super::plan::action::{Done, Job, Logins, Order, Phase, Refusal, Slot};
use super::plan::retry::{FIRST_PAUSE, is_away, pause, stops_logins};
use crate::error::Kind;

pub(crate) mod action;
pub(super) mod retry;
mod workers;

/// So many failures in a row are no accident: whoever waits is told so, after about two seconds.
const PATIENCE: u32 = 4;

/// A place for which the token had no room is tried again after so long.
const RETIREMENT: Duration = Duration::from_secs(300);

/// A worker that lived so long was a good one.
const PROVEN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    job: Job,
    /// Whether it may be tried once more on a new worker.
    again: bool,
    /// Whether nobody waits for it any more.
    given_up: bool,
}

/// A worker's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    phase: Phase,
    /// The renewal that its worker's start belongs to.
    generation: u64,
    /// Failures in a row, of starts and of workers that had not proved themselves.
    failures: u32,
    /// Whether the request in hand may be tried once more.
    again: bool,
    /// When the request in hand was given out, among all.
    turn: u64,
    /// What the worker goes on with once it has answered the request in hand.
    ahead: Option<Waiting>,
    /// Whether its last answer came soon. A slow one would keep back what another worker could begin, and what is ahead
    /// is made even for a client that leaves.
    is_quick: bool,
}

/// The state of the pool.
#[derive(Debug)]
pub(crate) struct Plan {
    places: Vec<Place>,
    waiting: VecDeque<Waiting>,
    limit: usize,
    /// Counts the requests that were given out.
    turn: u64,
    logins: Logins,
    /// Counts the renewals: a worker of an earlier one is to be replaced.
    generation: u64,
    /// Why there is no worker, once that is certain.
    trouble: Option<Kind>,
    /// Whether a request may be tried again without a person.
    may_repeat: bool,
    /// One worker is all that may be.
    alone: bool,
    closing: bool,
}

impl Plan {
    /// A pool of so many places, in which so many requests may wait; with `may_repeat` unset no request is tried again,
    /// since a person would have to act again.
    pub(crate) fn new(workers: usize, limit: usize, may_repeat: bool) -> Self {
        let (phase, generation, failures, again) = (Phase::Held, 0, 0, false);
        let place = Place { phase, generation, failures, again, turn: 0, ahead: None, is_quick: false };
        Self {
            places: vec![place; workers],
            waiting: VecDeque::new(),
            limit,
            turn: 0,
            logins: Logins::First(0),
            generation: 0,
            trouble: None,
            may_repeat,
            alone: false,
            closing: false,
        }
    }

    /// Begins.
    pub(crate) fn launch(&mut self, now: Duration) -> Vec<Order> {
        self.settle(now)
    }

    /// Takes a request in, at the end of the queue or before all others.
    pub(crate) fn submit(&mut self, job: Job, first: bool, now: Duration) -> Vec<Order> {
        let refuse = |kind, retry_after| vec![Order::Refuse { job, refusal: Refusal { kind, retry_after } }];
        if let Some(kind) = self.trouble() {
            return refuse(kind, self.retry_after(now));
        }
        let has_idle = self.places.iter().any(|place| matches!(place.phase, Phase::Idle(_)));
        if !first && self.waiting() >= self.limit && !has_idle {
            return refuse(Kind::AgentBusy, Some(Duration::from_secs(1)));
        }
        let waiting = Waiting { job, again: self.may_repeat && !first, given_up: false };
        if first {
            self.waiting.push_front(waiting);
        } else {
            self.waiting.push_back(waiting);
        }
        self.dispatch()
    }

    /// Forgets a request that waits: whoever made it is gone, or its time is up. One that a worker has is not tried again.
    pub(crate) fn give_up(&mut self, job: Job) {
        self.waiting.retain(|waiting| waiting.job != job);
        for place in &mut self.places {
            if matches!(place.phase, Phase::Busy(busy, _) if busy == job) {
                place.again = false;
            }
            if let Some(ahead) = place.ahead.as_mut().filter(|ahead| ahead.job == job) {
                ahead.given_up = true;
            }
        }
    }

    /// Whether a start that was ordered is still wanted; it has begun then.
    pub(crate) fn may_start(&mut self, slot: Slot) -> bool {
        let before = self.places[slot].phase;
        if !matches!(before, Phase::Due(_) | Phase::Retired) {
            return false;
        }
        let wanted = self.may_log_in(slot) && !self.closing && !self.is_surplus(slot);
        if wanted {
            self.places[slot].phase = Phase::Starting;
            self.places[slot].generation = self.generation;
        } else if before != Phase::Retired {
            self.places[slot].phase = Phase::Held;
        }
        wanted
    }

    /// Whether what a start found is of the present: nothing was renewed since it began.
    pub(crate) fn is_current(&self, slot: Slot) -> bool {
        self.places[slot].generation == self.generation
    }

    /// A worker is ready. With `alone`, no other may be beside it, since each signature wants a login of its own.
    pub(crate) fn started(&mut self, slot: Slot, alone: bool, now: Duration) -> Vec<Order> {
        self.places[slot].phase = Phase::Idle(now);
        self.places[slot].is_quick = false;
        self.trouble = None;
        if self.is_current(slot) {
            self.alone |= alone;
            if !matches!(self.logins, Logins::Stopped(_)) {
                self.logins = Logins::Open;
            }
            return self.settle(now);
        }
        // Renewals that come faster than workers must not keep everybody waiting: it may answer one before it ends.
        let mut orders = self.dispatch();
        orders.extend(self.settle(now));
        orders
    }

    /// A signature turned out to want a login of its own: no other worker may be beside this one.
    pub(crate) fn needs_to_be_alone(&mut self, slot: Slot) {
        self.alone |= self.is_current(slot);
    }

    /// A worker has not answered soon: nothing more is kept back behind it.
    pub(crate) fn takes_long(&mut self, slot: Slot) {
        self.places[slot].is_quick = false;
    }

    /// A worker is done with one of its requests.
    pub(crate) fn finished(&mut self, slot: Slot, job: Job, done: Done, now: Duration) -> Vec<Order> {
        let place = &mut self.places[slot];
        let Phase::Busy(busy, since) = place.phase else { return Vec::new() };
        if busy == job {
            place.phase = Phase::Idle(since);
            if let Some(ahead) = place.ahead.take() {
                self.give_out(slot, ahead);
            }
        } else {
            place.ahead.take_if(|ahead| ahead.job == job);
        }
        if let Done::Answered { soon } = done {
            (self.places[slot].failures, self.places[slot].is_quick) = (0, soon);
        }
        self.settle(now)
    }

    /// A worker is gone: it could not start, or ended idle or at work. The request in hand is tried once more where that
    /// makes sense.
    pub(crate) fn lost(&mut self, slot: Slot, kind: Kind, now: Duration, random: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        let is_current = self.is_current(slot);
        let place = &mut self.places[slot];
        let was_starting = place.phase == Phase::Starting;
        if let Phase::Idle(since) | Phase::Busy(_, since) = place.phase {
            if now.saturating_sub(since) >= PROVEN {
                place.failures = 0;
            }
        }
        place.failures = if is_current { place.failures.saturating_add(1) } else { 0 };
        let failures = place.failures;
        let (phase, again) = (std::mem::replace(&mut place.phase, Phase::Held), place.again);
        let retry_after = kind.retryable().then_some(FIRST_PAUSE);
        let refuse = |job| Order::Refuse { job, refusal: Refusal { kind, retry_after } };
        match place.ahead.take() {
            Some(ahead) if ahead.given_up => orders.push(refuse(ahead.job)),
            // It goes back to where it was.
            Some(ahead) => self.waiting.push_front(ahead),
            None => {}
        }
        match phase {
            Phase::Busy(job, _) if again && kind.retryable() => {
                self.waiting.push_front(Waiting { job, again: false, given_up: false });
            }
            Phase::Busy(job, _) => orders.push(refuse(job)),
            _ => {}
        }
        if stops_logins(kind) && is_current {
            self.logins = Logins::Stopped(kind);
            for place in self.places.iter_mut().filter(|place| matches!(place.phase, Phase::Due(_))) {
                place.phase = Phase::Held;
            }
        } else if kind == Kind::TokenSessions && self.is_up() {
            // Fewer workers, not a loop. The turn of the first is another's, whose end makes room.
            // Whoever has its room may leave some day.
            self.places[slot].phase = Phase::Retired;
            self.hand_over(slot);
            orders.push(Order::Start { slot, after: RETIREMENT });
        } else {
            let pause = if failures <= 1 { Duration::ZERO } else { pause(failures, random) };
            orders.extend(self.order_start(slot, now, pause));
        }
        let others_start = self.phases().any(|phase| phase == Phase::Starting);
        if !self.is_up() && !others_start && is_current && (was_starting && is_away(kind) || failures > PATIENCE) {
            self.trouble = Some(kind);
        }
        orders.extend(self.settle(now));
        orders
    }

    /// A worker has ended in good order.
    pub(crate) fn closed(&mut self, slot: Slot, now: Duration) -> Vec<Order> {
        self.places[slot].phase = Phase::Held;
        self.places[slot].failures = 0;
        self.settle(now)
    }

    /// Replaces every worker by a new one, one after the other, the first of them alone; stopped logins begin anew.
    pub(crate) fn renew(&mut self, now: Duration) -> Vec<Order> {
        self.generation += 1;
        (self.trouble, self.alone) = (None, false);
        for place in &mut self.places {
            place.failures = 0;
            if matches!(place.phase, Phase::Retired | Phase::Due(_)) {
                place.phase = Phase::Held;
            }
        }
        // One that is on its way already, else one that is up.
        let underway = |place: &Place| matches!(place.phase, Phase::Starting | Phase::Closing);
        let up = |place: &Place| place.phase.is_up();
        let position = |of: fn(&Place) -> bool| self.places.iter().position(of);
        self.logins = Logins::First(position(underway).or_else(|| position(up)).unwrap_or(0));
        self.settle(now)
    }

    /// Starts nothing any more, and ends each worker as soon as it is idle.
    pub(crate) fn close(&mut self, now: Duration) -> Vec<Order> {
        self.closing = true;
        self.settle(now)
    }

    fn may_log_in(&self, slot: Slot) -> bool {
        match self.logins {
            Logins::First(first) => first == slot,
            Logins::Open => true,
            Logins::Stopped(_) => false,
        }
    }

    /// Whether one worker is all that may be, and another place has or gets it.
    fn is_surplus(&self, slot: Slot) -> bool {
        let is_there = |phase| !matches!(phase, Phase::Held | Phase::Retired | Phase::Closing);
        let has = |other: Slot| self.is_current(other) && is_there(self.places[other].phase);
        self.alone && (0..self.places.len()).any(|other| has(other) && (other < slot || other > slot && !has(slot)))
    }

    fn hand_over(&mut self, from: Slot) {
        let up = |place: &Place| place.phase.is_up();
        if let (Logins::First(first), Some(other)) = (self.logins, self.places.iter().position(up)) {
            if first == from {
                self.logins = Logins::First(other);
            }
        }
    }

    fn order_start(&mut self, slot: Slot, now: Duration, after: Duration) -> Option<Order> {
        if !self.may_log_in(slot) || self.closing {
            return None;
        }
        if self.is_surplus(slot) {
            self.places[slot].phase = Phase::Retired;
            return None;
        }
        self.places[slot].phase = Phase::Due(now + after);
        self.places[slot].generation = self.generation;
        Some(Order::Start { slot, after })
    }

    /// What follows from every change: starts, ends, work, and refusals where nobody will come.
    fn settle(&mut self, now: Duration) -> Vec<Order> {
        let mut orders = Vec::new();
        for slot in 0..self.places.len() {
            if self.places[slot].phase == Phase::Held {
                orders.extend(self.order_start(slot, now, Duration::ZERO));
            }
        }
        orders.extend(self.end_next());
        orders.extend(self.dispatch());
        if !self.is_up() && !self.phases().any(Phase::is_coming) {
            if let Logins::Stopped(kind) = self.logins {
                self.trouble = Some(kind);
            }
        }
        if let Some(kind) = self.trouble() {
            let refusal = Refusal { kind, retry_after: self.retry_after(now) };
            orders.extend(self.waiting.drain(..).map(|waiting| Order::Refuse { job: waiting.job, refusal }));
        }
        orders
    }

    /// Ends a worker that is idle and not wanted: at the end each, else one of an earlier generation, or one too many.
    /// One after the other, and never while logins are stopped: what is logged in goes on then.
    fn end_next(&mut self) -> Vec<Order> {
        let idle = |phase| matches!(phase, Phase::Idle(_));
        let mut orders = Vec::new();
        for slot in 0..self.places.len() {
            if idle(self.places[slot].phase) && !self.is_wanted(slot) {
                self.places[slot].phase = Phase::Closing;
                orders.push(Order::Close { slot });
            }
        }
        orders
    }

    /// Whether a worker is to go on.
    fn is_wanted(&self, slot: Slot) -> bool {
        if self.closing {
            false
        } else if self.is_current(slot) {
            !self.is_surplus(slot)
        } else {
            // The first of a renewal alone, and the others when it has come.
            !self.may_log_in(slot) || self.phases().any(Phase::is_coming)
        }
    }

    fn dispatch(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        for slot in 0..self.places.len() {
            if !matches!(self.places[slot].phase, Phase::Idle(_)) {
                continue;
            }
            let Some(waiting) = self.waiting.pop_front() else { return orders };
            self.give_out(slot, waiting);
            orders.push(Order::Work { slot, job: waiting.job });
        }
        // Whoever was given the last one first is most likely done first.
        let eager = |slot: &Slot| {
            let place = &self.places[*slot];
            place.is_quick && place.ahead.is_none() && place.phase.is_up() && self.is_wanted(*slot)
        };
        let mut eager: Vec<Slot> = (0..self.places.len()).filter(eager).collect();
        eager.sort_by_key(|slot| self.places[*slot].turn);
        for slot in eager {
            let Some(waiting) = self.waiting.pop_front() else { break };
            self.places[slot].ahead = Some(waiting);
            orders.push(Order::Work { slot, job: waiting.job });
        }
        orders
    }

    /// Puts a request in the hands of an idle worker.
    fn give_out(&mut self, slot: Slot, waiting: Waiting) {
        let place = &mut self.places[slot];
        let Phase::Idle(since) = place.phase else { return };
        self.turn += 1;
        (place.phase, place.again, place.turn) = (Phase::Busy(waiting.job, since), waiting.again, self.turn);
    }
}
