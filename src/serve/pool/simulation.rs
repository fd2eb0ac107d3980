//! Tests the plan with seeded faults and in virtual time. No request is lost or answered twice, no login follows a
//! refused PIN, and the pool recovers from every state.
//!
//! Runs in the parent.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::plan::action::Action;
use super::plan::{Phase, Plan};
use crate::error::Kind;

mod world;

use world::{ClientState, STEPS, TestRequest, World};

const SEEDS: u64 = 10_000;

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
    assert_eq!(plan.queued(), 1);
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
    assert_eq!(plan.queued(), 2);
    leave(&clients);
    assert_eq!(plan.queued(), 0);
    // The queue is full of abandoned requests. A request with a waiting client has room anyway.
    let request = TestRequest::new(3);
    let client = Rc::clone(&request.client);
    assert!(plan.submit(request, false, now).is_empty());
    assert_eq!(plan.queued(), 1);
    let actions = plan.finished(0, true, false, now);
    assert!(matches!(&actions[..], [Action::Take { request: TestRequest { number: 3, .. }, .. }]), "{actions:?}");
    client.set(ClientState::Left);
}
