//! Tests the plan with seeded faults and in virtual time. No request is lost or answered twice, no login follows a
//! refused PIN, and the pool recovers from every state.
//!
//! Runs in the parent.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::plan::action::{Abandon, Action};
use super::plan::retry::stops_logins;
use super::plan::{Logins, Phase, Plan};
use crate::error::Kind;

const SEEDS: u64 = 10_000;
const STEPS: usize = 150;

/// A small generator with the same numbers on every host (splitmix64).
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

/// What the client of a request sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientState {
    Waits,
    Left,
    HasAnswer,
}

/// A request. It cannot be copied, so the plan cannot answer it twice. The test notices a request that is dropped
/// without an answer.
#[derive(Debug)]
struct TestRequest {
    number: usize,
    client: Rc<Cell<ClientState>>,
    tries: u32,
}

impl TestRequest {
    fn new(number: usize) -> Self {
        Self { number, client: Rc::new(Cell::new(ClientState::Waits)), tries: 0 }
    }

    fn begin(&mut self) {
        self.tries += 1;
        assert!(self.tries <= 2, "a request is tried three times");
    }

    fn answer(self) {
        if self.client.get() == ClientState::Waits {
            self.client.set(ClientState::HasAnswer);
        }
    }

    /// Returns the request if it may be tried again after the loss of its worker.
    fn after_loss(self, kind: Kind) -> Option<Self> {
        if kind.retryable() && self.tries < 2 && !self.is_abandoned() {
            return Some(self);
        }
        self.answer();
        None
    }
}

impl Abandon for TestRequest {
    fn is_abandoned(&self) -> bool {
        self.client.get() == ClientState::Left
    }
}

impl Drop for TestRequest {
    fn drop(&mut self) {
        let is_lost = self.client.get() == ClientState::Waits && !std::thread::panicking();
        assert!(!is_lost, "request {} is dropped without an answer", self.number);
    }
}

/// The environment of the plan: workers, a token, clients.
struct World {
    plan: Plan<TestRequest>,
    now: Duration,
    random: Random,
    /// The time of each worker's start.
    due: BTreeMap<usize, Duration>,
    starting: Vec<usize>,
    /// The requests of each worker. If there are two, the parent checks the reply to the first one.
    working: BTreeMap<usize, Vec<TestRequest>>,
    closing: Vec<usize>,
    clients: Vec<Rc<Cell<ClientState>>>,
    pin_is_right: bool,
    always_authenticates: bool,
    /// A PIN was refused since the last renewal.
    refused: bool,
    healthy: bool,
    closed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let workers = 1 + random.below(3);
        Self {
            plan: Plan::new(workers, 3),
            now: Duration::ZERO,
            due: BTreeMap::new(),
            starting: Vec::new(),
            working: BTreeMap::new(),
            closing: Vec::new(),
            clients: Vec::new(),
            pin_is_right: !random.one_in(4),
            always_authenticates: random.one_in(4),
            refused: false,
            healthy: false,
            closed: false,
            random,
        }
    }

    fn obey(&mut self, actions: Vec<Action<TestRequest>>) {
        for action in actions {
            match action {
                Action::Start { worker, after } => {
                    assert!(!self.closed, "a start after the end");
                    self.due.insert(worker, self.now + after);
                }
                Action::Take { worker, mut request } => {
                    request.begin();
                    let before = self.working.insert(worker, vec![request]);
                    assert!(before.is_none(), "a worker is given a request while it has one");
                }
                Action::Close { worker } => {
                    assert!(!self.working.contains_key(&worker), "a worker is closed while it has a request");
                    self.due.remove(&worker);
                    self.closing.push(worker);
                }
                Action::Refuse(request, _) => request.answer(),
            }
        }
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

    fn lose(&mut self, worker: usize, kind: Kind) {
        let (now, random) = (self.now, self.random.next());
        self.refused |= stops_logins(kind) && self.plan.is_current(worker);
        let requests = self.working.remove(&worker).unwrap_or_default();
        let returned = requests.into_iter().filter_map(|request| request.after_loss(kind)).collect();
        let actions = self.plan.lost(worker, kind, returned, now, random);
        self.obey(actions);
    }

    /// Simulates one event. After it, no client may wait for a worker that will not come.
    fn step(&mut self) {
        self.happen();
        let nobody_comes = !self.plan.phases().any(|phase| phase.is_ready() || phase.is_coming());
        if matches!(self.plan.logins(), Logins::Stopped(_)) && nobody_comes {
            assert!(self.plan.trouble().is_some() && self.plan.waiting() == 0, "{:?}", self.plan);
        }
    }

    fn happen(&mut self) {
        self.now += Duration::from_millis(u64::try_from(self.random.below(400)).unwrap());
        match self.random.below(if self.healthy { 6 } else { 9 }) {
            0 => {
                let request = TestRequest::new(self.clients.len());
                self.clients.push(Rc::clone(&request.client));
                let is_probe = self.random.one_in(8);
                let actions = self.plan.submit(request, is_probe, self.now);
                self.obey(actions);
            }
            1 | 2 => self.wake(),
            3 => self.finish_start(),
            4 => self.finish_work(),
            5 => self.finish_close(),
            6 => {
                let phases = self.plan.phases().enumerate();
                let idle: Vec<usize> = phases.filter(|(_, phase)| phase.is_idle()).map(|(worker, _)| worker).collect();
                if let (false, false) = (idle.is_empty(), self.random.one_in(3)) {
                    let (worker, kind) = (idle[self.random.below(idle.len())], self.kind());
                    self.lose(worker, kind);
                }
            }
            7 if self.random.one_in(4) => self.renew(),
            8 if self.random.one_in(3) => {
                if let Some(client) = self.clients.iter().find(|client| client.get() == ClientState::Waits) {
                    client.set(ClientState::Left);
                }
            }
            _ => {}
        }
    }

    fn renew(&mut self) {
        self.refused = false;
        let actions = self.plan.renew(self.now);
        self.obey(actions);
    }

    fn wake(&mut self) {
        let due = self.due.iter().map(|(worker, at)| (*worker, *at)).min_by_key(|(_, at)| *at);
        let Some((worker, at)) = due else { return };
        if self.healthy {
            self.now = self.now.max(at);
        }
        if at <= self.now {
            self.due.remove(&worker);
            if self.plan.may_start(worker) {
                assert!(!self.refused, "a login after a refused PIN");
                let is_first = matches!(self.plan.logins(), Logins::FirstOnly(_));
                let others = self.starting.iter().filter(|other| self.plan.is_current(**other)).count();
                assert!(!is_first || others == 0, "another login before the first one succeeded");
                self.starting.push(worker);
            }
        }
    }

    fn finish_start(&mut self) {
        if self.starting.is_empty() {
            return;
        }
        let worker = self.starting.swap_remove(self.random.below(self.starting.len()));
        if self.healthy || !self.random.one_in(3) && self.pin_is_right {
            let actions = self.plan.started(worker, self.always_authenticates, self.now);
            self.obey(actions);
        } else {
            let kind = if self.pin_is_right { self.kind() } else { Kind::PinIncorrect };
            self.lose(worker, kind);
        }
    }

    /// A reply arrives. The worker may get its next request before the reply is checked.
    fn finish_work(&mut self) {
        let Some(worker) = self.working.keys().next().copied() else { return };
        if !self.random.one_in(3) {
            if let Some(mut request) = self.plan.refill(worker) {
                assert!(!request.is_abandoned() && !self.always_authenticates, "{request:?}");
                request.begin();
                let requests = self.working.get_mut(&worker).unwrap();
                requests.push(request);
                assert_eq!(requests.len(), 2, "a worker is given a second request while it has two");
            }
        }
        if self.healthy || !self.random.one_in(3) {
            let mut requests = self.working.remove(&worker).unwrap();
            requests.remove(0).answer();
            if !requests.is_empty() {
                self.working.insert(worker, requests);
            }
            let (answered, exclusive) = (!self.random.one_in(5), self.always_authenticates || self.random.one_in(9));
            let actions = self.plan.finished(worker, answered, exclusive, self.now);
            self.obey(actions);
        } else {
            let kind = if self.random.one_in(9) { Kind::PinIncorrect } else { self.kind() };
            self.lose(worker, kind);
        }
    }

    fn finish_close(&mut self) {
        if let Some(worker) = self.closing.pop() {
            let actions = self.plan.closed(worker, self.now);
            self.obey(actions);
        }
    }

    /// From now on, everything succeeds. If logins are stopped, somebody corrects the PIN and renews the workers.
    fn heal(&mut self) {
        (self.healthy, self.pin_is_right) = (true, true);
        if self.refused || !self.plan.is_up() {
            self.renew();
        }
        for _ in 0..STEPS * 4 {
            self.step();
        }
        // No more requests arrive, and each existing request must end.
        while !self.working.is_empty() || !self.starting.is_empty() || !self.closing.is_empty() || !self.due.is_empty()
        {
            self.wake();
            self.finish_start();
            self.finish_work();
            self.finish_close();
        }
    }
}

#[test]
fn ten_thousand_pools_lose_nothing_and_come_back() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let actions = world.plan.launch(world.now);
        world.obey(actions);
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
        assert!(world.plan.is_up(), "seed {seed}: {:?}", world.plan);
        let waits = |client: &Rc<Cell<ClientState>>| client.get() == ClientState::Waits;
        assert!(!world.clients.iter().any(waits), "seed {seed}: {:?}", world.plan);
        let at_rest = |phase: Phase| phase.is_idle() || phase == Phase::Parked;
        assert!(world.plan.phases().all(at_rest), "seed {seed}: {:?}", world.plan);
        world.closed = true;
        let actions = world.plan.close(world.now);
        world.obey(actions);
        while !world.closing.is_empty() {
            world.finish_close();
        }
        assert!(world.plan.phases().all(|phase| phase == Phase::Empty), "seed {seed}: {:?}", world.plan);
    }
}

#[test]
fn a_failing_start_is_tried_later_and_later() {
    let mut plan = Plan::<TestRequest>::new(1, 1);
    let mut after = Vec::new();
    let mut actions = plan.launch(Duration::ZERO);
    for _ in 0..12 {
        let [Action::Start { worker: 0, after: pause }] = actions[..] else { panic!("{actions:?}") };
        after.push(pause);
        assert!(plan.may_start(0));
        actions = plan.lost(0, Kind::TokenRemoved, Vec::new(), Duration::ZERO, u64::MAX / 3);
    }
    assert_eq!(after[..2], [Duration::ZERO; 2]);
    assert!(after[2..].is_sorted() && after[2] < Duration::from_millis(251), "{after:?}");
    assert!((15..=30).contains(&after[11].as_secs()), "{after:?}");
}

/// Returns a plan with one ready worker, and the requests that were submitted to it and have not begun.
fn submitted(requests: usize, exclusive: bool) -> (Plan<TestRequest>, Vec<Rc<Cell<ClientState>>>) {
    let now = Duration::ZERO;
    let mut plan = Plan::new(1, 2);
    plan.launch(now);
    assert!(plan.may_start(0));
    plan.started(0, exclusive, now);
    let mut clients = Vec::new();
    for number in 0..requests {
        let request = TestRequest::new(number);
        clients.push(Rc::clone(&request.client));
        for action in plan.submit(request, false, now) {
            match action {
                Action::Take { request, .. } | Action::Refuse(request, _) => request.answer(),
                action => panic!("{action:?}"),
            }
        }
    }
    (plan, clients)
}

fn leave(clients: &[Rc<Cell<ClientState>>]) {
    clients.iter().for_each(|client| client.set(ClientState::Left));
}

#[test]
fn a_worker_gets_its_next_request_before_its_reply_is_checked() {
    let (mut plan, clients) = submitted(3, false);
    let refilled = plan.refill(0).expect("one waits");
    assert_eq!(refilled.number, 1);
    assert!(plan.refill(0).is_none(), "the worker has it already");
    refilled.answer();
    // The first request is done. The third one waits for the reply to the second.
    assert!(plan.finished(0, true, false, Duration::ZERO).is_empty());
    assert_eq!(plan.waiting(), 1);
    let actions = plan.finished(0, true, false, Duration::ZERO);
    assert!(matches!(&actions[..], [Action::Take { request: TestRequest { number: 2, .. }, .. }]), "{actions:?}");
    leave(&clients);
    // Two workers get no second request: one whose key needs a login for each signature, and one that will be replaced.
    let (mut plan, clients) = submitted(2, true);
    assert!(plan.refill(0).is_none());
    leave(&clients);
    let (mut plan, clients) = submitted(2, false);
    plan.renew(Duration::ZERO);
    plan.close(Duration::ZERO);
    assert!(plan.refill(0).is_none());
    leave(&clients);
}

#[test]
fn a_returned_request_is_the_first_on_the_next_worker() {
    let now = Duration::ZERO;
    let (mut plan, clients) = submitted(3, false);
    let refilled = plan.refill(0).into_iter().collect();
    plan.lost(0, Kind::TokenFailed, refilled, now, 0);
    assert!(plan.may_start(0));
    let actions = plan.started(0, false, now);
    assert!(matches!(&actions[..], [Action::Take { request: TestRequest { number: 1, .. }, .. }]), "{actions:?}");
    leave(&clients);
}

#[test]
fn abandoned_requests_take_no_place_and_no_worker() {
    let now = Duration::ZERO;
    let (mut plan, clients) = submitted(3, false);
    assert_eq!(plan.waiting(), 2);
    leave(&clients);
    assert_eq!(plan.waiting(), 0);
    // The queue is full of abandoned requests. A request with a waiting client has room anyway.
    let request = TestRequest::new(3);
    let client = Rc::clone(&request.client);
    assert!(plan.submit(request, false, now).is_empty());
    assert_eq!(plan.waiting(), 1);
    let actions = plan.finished(0, true, false, now);
    assert!(matches!(&actions[..], [Action::Take { request: TestRequest { number: 3, .. }, .. }]), "{actions:?}");
    client.set(ClientState::Left);
}
