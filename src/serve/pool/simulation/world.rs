//! The world of the simulation: workers, clients and requests in virtual time.
//!
//! Runs in the parent.

#![cfg(test)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::error::Kind;
use crate::serve::pool::plan::action::{Abandon, Action};
use crate::serve::pool::plan::retry::stops_logins;
use crate::serve::pool::plan::{Logins, Plan};

pub(super) const STEPS: usize = 150;

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
pub(super) enum ClientState {
    Waits,
    Left,
    HasAnswer,
}

/// A request. It cannot be copied, so the plan cannot answer it twice. The test notices a request that is dropped
/// without an answer.
#[derive(Debug)]
pub(super) struct TestRequest {
    pub(super) number: usize,
    pub(super) client: Rc<Cell<ClientState>>,
    pub(super) tries: u32,
}

impl TestRequest {
    pub(super) fn new(number: usize) -> Self {
        Self { number, client: Rc::new(Cell::new(ClientState::Waits)), tries: 0 }
    }

    pub(super) fn begin(&mut self) {
        self.tries += 1;
        assert!(self.tries <= 2, "a request is tried three times");
    }

    pub(super) fn answer(self) {
        if self.client.get() == ClientState::Waits {
            self.client.set(ClientState::HasAnswer);
        }
    }

    /// Returns the request if it may be tried again after the loss of its worker.
    pub(super) fn after_loss(self, kind: Kind) -> Option<Self> {
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
pub(super) struct World {
    pub(super) plan: Plan<TestRequest>,
    pub(super) now: Duration,
    random: Random,
    /// The time of each worker's start.
    pub(super) due: BTreeMap<usize, Duration>,
    pub(super) starting: Vec<usize>,
    /// The requests of each worker. If there are two, the parent checks the reply to the first one.
    pub(super) working: BTreeMap<usize, Vec<TestRequest>>,
    pub(super) closing: Vec<usize>,
    pub(super) clients: Vec<Rc<Cell<ClientState>>>,
    pub(super) pin_is_right: bool,
    pub(super) always_authenticates: bool,
    /// A PIN was refused since the last renewal.
    pub(super) refused: bool,
    pub(super) healthy: bool,
    pub(super) closed: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
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

    pub(super) fn obey(&mut self, actions: Vec<Action<TestRequest>>) {
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
    pub(super) fn step(&mut self) {
        self.happen();
        let nobody_comes = !self.plan.phases().any(|phase| phase.is_ready() || phase.is_coming());
        if matches!(self.plan.logins(), Logins::Stopped(_)) && nobody_comes {
            assert!(self.plan.trouble().is_some() && self.plan.queued() == 0, "{:?}", self.plan);
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

    pub(super) fn finish_close(&mut self) {
        if let Some(worker) = self.closing.pop() {
            let actions = self.plan.closed(worker, self.now);
            self.obey(actions);
        }
    }

    /// From now on, everything succeeds. If logins are stopped, somebody corrects the PIN and renews the workers.
    pub(super) fn heal(&mut self) {
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
