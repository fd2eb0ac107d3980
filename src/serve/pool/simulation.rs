//! The pool's rules under seeded faults and virtual time: no request lost or answered twice, no login after a refused
//! PIN, and no state from which it does not come back.
//!
//! Runs in the parent.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::plan::Plan;
use super::plan::action::{Done, Job, Logins, Order, Phase, Slot};
use super::plan::retry::stops_logins;
use crate::error::Kind;

const SEEDS: u64 = 10_000;
const STEPS: usize = 150;

/// A small generator, the same everywhere (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(most).unwrap()).unwrap()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

/// What stands around the plan: places, workers, a token, clients.
struct World {
    plan: Plan,
    now: Duration,
    random: Random,
    /// When each place wakes for a start.
    due: BTreeMap<Slot, Duration>,
    starting: Vec<Slot>,
    /// What each worker has, in order.
    working: HashMap<Slot, VecDeque<Job>>,
    closing: Vec<Slot>,
    /// Requests that are owed an answer, with the tries they had.
    open: HashMap<Job, u32>,
    next: Job,
    pin_is_right: bool,
    always_authenticates: bool,
    /// Since the last renewal, by the plan's own word.
    refused: bool,
    healthy: bool,
    closed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let workers = 1 + random.below(3);
        Self {
            plan: Plan::new(workers, 3, true),
            now: Duration::ZERO,
            due: BTreeMap::new(),
            starting: Vec::new(),
            working: HashMap::new(),
            closing: Vec::new(),
            open: HashMap::new(),
            next: 0,
            pin_is_right: !random.one_in(4),
            always_authenticates: random.one_in(4),
            refused: false,
            healthy: false,
            closed: false,
            random,
        }
    }

    fn obey(&mut self, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Start { slot, after } => {
                    assert!(!self.closed, "a start after the end");
                    self.due.insert(slot, self.now + after);
                }
                Order::Work { slot, job } => {
                    let all = self.working.entry(slot).or_default();
                    all.push_back(job);
                    assert!(all.len() <= 2, "three requests at one worker");
                    if all.len() == 1 {
                        self.begin(job);
                    }
                }
                Order::Close { slot } => {
                    assert!(!self.working.contains_key(&slot), "a worker is ended at work");
                    self.closing.push(slot);
                }
                Order::Refuse { job, .. } => self.answer(job),
            }
        }
    }

    fn begin(&mut self, job: Job) {
        let tries = self.open.get_mut(&job).expect("a request that was given up is worked on");
        *tries += 1;
        assert!(*tries <= 2, "a request is tried three times");
    }

    fn answer(&mut self, job: Job) {
        self.open.remove(&job).expect("a request is answered twice");
        let had: Vec<Slot> = self.working.iter().filter(|(_, all)| all[0] == job).map(|(slot, _)| *slot).collect();
        self.working.values_mut().for_each(|all| all.retain(|own| *own != job));
        self.working.retain(|_, all| !all.is_empty());
        let next: Vec<Job> = had.iter().filter_map(|slot| self.working.get(slot)).map(|all| all[0]).collect();
        next.into_iter().for_each(|job| self.begin(job));
    }

    fn kind(&mut self) -> Kind {
        let kinds = [
            Kind::TokenFailed,
            Kind::TokenFailed,
            Kind::TokenRemoved,
            Kind::TokenTimeout,
            Kind::TokenSessions,
            Kind::NotFound,
            Kind::SignatureInvalid,
            Kind::StateDir,
        ];
        kinds[self.random.below(kinds.len())]
    }

    fn lose(&mut self, slot: Slot, kind: Kind) {
        let (now, random) = (self.now, self.random.next());
        if stops_logins(kind) && self.plan.is_current(slot) {
            self.refused = true;
        }
        self.working.remove(&slot);
        let orders = self.plan.lost(slot, kind, now, random);
        self.obey(orders);
    }

    /// One thing happens, after which nobody waits for what will not come.
    fn step(&mut self) {
        self.happen();
        let nobody_comes = !self.plan.phases().any(|phase| phase.is_up() || phase.is_coming());
        if matches!(self.plan.logins(), Logins::Stopped(_)) && nobody_comes {
            assert!(self.plan.trouble().is_some() && self.plan.waiting() == 0, "{:?}", self.plan);
        }
    }

    fn happen(&mut self) {
        self.now += Duration::from_millis(u64::try_from(self.random.below(400)).unwrap());
        let now = self.now;
        match self.random.below(if self.healthy { 6 } else { 9 }) {
            0 => {
                let (job, first) = (self.next, self.random.one_in(8));
                self.next += 1;
                self.open.insert(job, 0);
                let orders = self.plan.submit(job, first, now);
                self.obey(orders);
            }
            1 | 2 => self.wake(),
            3 => self.finish_start(),
            4 => self.finish_work(),
            5 => {
                if let Some(slot) = self.closing.pop() {
                    let orders = self.plan.closed(slot, now);
                    self.obey(orders);
                }
            }
            6 => {
                let idle: Vec<Slot> = self
                    .plan
                    .phases()
                    .enumerate()
                    .filter(|(_, phase)| matches!(phase, Phase::Idle(_)))
                    .map(|(slot, _)| slot)
                    .collect();
                if let (false, false) = (idle.is_empty(), self.random.one_in(3)) {
                    let slot = idle[self.random.below(idle.len())];
                    let kind = self.kind();
                    self.lose(slot, kind);
                }
            }
            7 if self.random.one_in(4) => self.renew(),
            8 => {
                let job = self.open.keys().copied().min();
                if let Some(job) = job.filter(|_| self.random.one_in(3)) {
                    self.plan.give_up(job);
                    if !self.working.values().any(|all| all.contains(&job)) {
                        self.open.remove(&job);
                    }
                }
            }
            _ => {}
        }
    }

    fn renew(&mut self) {
        self.refused = false;
        let orders = self.plan.renew(self.now);
        self.obey(orders);
    }

    fn wake(&mut self) {
        let Some((slot, at)) = self.due.iter().map(|(slot, at)| (*slot, *at)).min_by_key(|(_, at)| *at) else { return };
        if self.healthy {
            self.now = self.now.max(at);
        }
        if at <= self.now {
            self.due.remove(&slot);
            if self.plan.may_start(slot) {
                assert!(!self.refused, "a login after a refused PIN");
                let is_first = matches!(self.plan.logins(), Logins::First(_));
                let others = self.starting.iter().filter(|other| self.plan.is_current(**other)).count();
                assert!(!is_first || others == 0, "another login before the first one succeeded");
                self.starting.push(slot);
            }
        }
    }

    fn finish_start(&mut self) {
        if self.starting.is_empty() {
            return;
        }
        let slot = self.starting.swap_remove(self.random.below(self.starting.len()));
        if self.healthy || !self.random.one_in(3) && self.pin_is_right {
            let orders = self.plan.started(slot, self.always_authenticates, self.now);
            self.obey(orders);
        } else {
            let kind = if self.pin_is_right { self.kind() } else { Kind::PinIncorrect };
            self.lose(slot, kind);
        }
    }

    fn finish_work(&mut self) {
        let Some(slot) = self.working.keys().copied().min() else { return };
        let all = &self.working[&slot];
        // What was not begun may come to nothing before what is in hand is done.
        let job = all[if self.random.one_in(9) { all.len() - 1 } else { 0 }];
        let done = if job == all[0] { Done::Answered { soon: !self.random.one_in(5) } } else { Done::Dropped };
        if self.healthy || !self.random.one_in(3) {
            self.answer(job);
            if self.random.one_in(9) {
                self.plan.needs_to_be_alone(slot);
            }
            let orders = self.plan.finished(slot, job, done, self.now);
            self.obey(orders);
        } else {
            let kind = if self.random.one_in(9) { Kind::PinIncorrect } else { self.kind() };
            self.lose(slot, kind);
        }
    }

    /// Everything goes well from now on; somebody mends the PIN and has all renewed where logins were stopped.
    fn heal(&mut self) {
        (self.healthy, self.pin_is_right) = (true, true);
        if self.refused || !self.plan.is_up() {
            self.renew();
        }
        for _ in 0..STEPS * 4 {
            self.step();
        }
        // No more requests; what is there comes to its end.
        while !self.working.is_empty() || !self.starting.is_empty() || !self.closing.is_empty() || !self.due.is_empty()
        {
            self.wake();
            self.finish_start();
            self.finish_work();
            if let Some(slot) = self.closing.pop() {
                let orders = self.plan.closed(slot, self.now);
                self.obey(orders);
            }
        }
    }
}

#[test]
fn ten_thousand_pools_lose_nothing_and_come_back() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let orders = world.plan.launch(world.now);
        world.obey(orders);
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
        assert!(world.plan.is_up(), "seed {seed}: {:?}", world.plan);
        assert!(world.open.is_empty(), "seed {seed}: {:?} lost, {:?}", world.open, world.plan);
        assert!(
            world.plan.phases().all(|phase| matches!(phase, Phase::Idle(_) | Phase::Retired)),
            "seed {seed}: {:?}",
            world.plan
        );
        world.closed = true;
        let orders = world.plan.close(world.now);
        world.obey(orders);
        while let Some(slot) = world.closing.pop() {
            let orders = world.plan.closed(slot, world.now);
            world.obey(orders);
        }
        assert!(!world.plan.is_up(), "seed {seed}: {:?}", world.plan);
    }
}

#[test]
fn a_failing_start_is_tried_later_and_later() {
    let mut plan = Plan::new(1, 1, true);
    let mut after = Vec::new();
    let mut orders = plan.launch(Duration::ZERO);
    for _ in 0..12 {
        let [Order::Start { slot: 0, after: pause }] = orders[..] else { panic!("{orders:?}") };
        after.push(pause);
        assert!(plan.may_start(0));
        orders = plan.lost(0, Kind::TokenRemoved, Duration::ZERO, u64::MAX / 3);
    }
    assert_eq!(after[..2], [Duration::ZERO; 2]);
    assert!(after[2..].is_sorted() && after[2] < Duration::from_millis(251), "{after:?}");
    assert!((15..=30).contains(&after[11].as_secs()), "{after:?}");
}

/// A pool of one worker that has answered the first of so many requests, and what it is told then.
fn answered_one_of(requests: Job, soon: bool) -> (Plan, Vec<Order>) {
    let now = Duration::ZERO;
    let mut plan = Plan::new(1, 8, true);
    plan.launch(now);
    assert!(plan.may_start(0));
    plan.started(0, false, now);
    (0..requests).for_each(|job| drop(plan.submit(job, false, now)));
    let orders = plan.finished(0, 0, Done::Answered { soon }, now);
    (plan, orders)
}

#[test]
fn a_fast_worker_gets_the_next_request_early_and_a_slow_one_does_not() {
    let (first, second) = (Order::Work { slot: 0, job: 1 }, Order::Work { slot: 0, job: 2 });
    assert_eq!(answered_one_of(3, true).1, [first, second]);
    assert_eq!(answered_one_of(3, false).1, [first]);
    // Nor one that was quick until now.
    let (mut plan, _) = answered_one_of(2, true);
    plan.takes_long(0);
    assert_eq!(plan.submit(2, false, Duration::ZERO), []);
    let (mut plan, _) = answered_one_of(2, true);
    assert_eq!(plan.submit(2, false, Duration::ZERO), [second]);
}

#[test]
fn a_request_sent_ahead_to_a_lost_worker_waits_again() {
    let now = Duration::ZERO;
    let (mut plan, _) = answered_one_of(3, true);
    for _ in 0..2 {
        let orders = plan.lost(0, Kind::TokenFailed, now, 0);
        assert!(!orders.iter().any(|order| matches!(order, Order::Refuse { job: 2, .. })), "{orders:?}");
        assert!(plan.may_start(0));
        plan.started(0, false, now);
    }
    // The one in hand had both of its tries, and this one none so far.
    assert!(matches!(plan.phases().next(), Some(Phase::Busy(2, _))), "{plan:?}");
    let (mut plan, _) = answered_one_of(3, true);
    plan.give_up(2);
    let orders = plan.lost(0, Kind::TokenFailed, now, 0);
    assert!(orders.iter().any(|order| matches!(order, Order::Refuse { job: 2, .. })), "{orders:?}");
}
