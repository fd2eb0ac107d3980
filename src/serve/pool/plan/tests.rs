//! Unit tests of the plan; the simulation runs whole pools.
//!
//! PURE.

use std::time::Duration;

use super::action::Abandon;
use super::*;

const NOW: Duration = Duration::from_secs(100);

/// A request with a name, whose client may have left. It cannot be copied, as a real one.
#[derive(Debug, PartialEq, Eq)]
struct Request(&'static str, bool);

impl Abandon for Request {
    fn is_abandoned(&self) -> bool {
        self.1
    }
}

fn ready(plan: &mut Plan<Request>, worker: usize, exclusive: bool) -> Vec<Action<Request>> {
    assert!(plan.may_start(worker), "{plan:?}");
    plan.started(worker, exclusive, NOW)
}

fn phases(plan: &Plan<Request>) -> Vec<Phase> {
    plan.phases().collect()
}

#[test]
fn abandoned_requests_do_not_count_as_waiting() {
    let mut plan = Plan::new(1, 8);
    plan.launch(NOW);
    plan.submit(Request("present", false), false, NOW);
    plan.submit(Request("left", true), false, NOW);
    assert_eq!(plan.queued(), 1);
}

#[test]
fn a_full_queue_refuses_requests_but_takes_a_probe_to_its_front() {
    let mut plan = Plan::new(1, 2);
    plan.launch(NOW);
    for name in ["first", "second"] {
        assert_eq!(plan.submit(Request(name, false), false, NOW), []);
    }
    let busy = Refusal { kind: Kind::AgentBusy, retry_after: Some(Duration::from_secs(1)) };
    let refused = plan.submit(Request("third", false), false, NOW);
    assert_eq!(refused, [Action::Refuse(Request("third", false), busy)]);
    assert_eq!(plan.submit(Request("probe", false), true, NOW), []);
    let taken = ready(&mut plan, 0, false);
    assert_eq!(taken, [Action::Take { worker: 0, request: Request("probe", false) }]);
}

#[test]
fn where_each_signature_needs_a_login_the_first_worker_is_enough() {
    let mut plan = Plan::new(3, 8);
    assert_eq!(plan.launch(NOW), [Action::Start { worker: 0, after: Duration::ZERO }]);
    assert_eq!(ready(&mut plan, 0, true), []);
    let idle = Phase::Ready { since: NOW, in_flight: 0 };
    assert_eq!(phases(&plan), [idle, Phase::Parked, Phase::Parked]);
    assert!(!plan.may_start(1));
    plan.lost(0, Kind::TokenFailed, Vec::new(), NOW, 0);
    assert!(plan.may_start(0));
}

#[test]
fn a_worker_that_turns_out_to_be_one_too_many_closes() {
    let mut plan = Plan::new(2, 8);
    plan.launch(NOW);
    ready(&mut plan, 0, false);
    ready(&mut plan, 1, false);
    plan.submit(Request("one", false), false, NOW);
    // Only its reply shows that the key needs a login for each signature.
    assert_eq!(plan.finished(0, true, true, NOW), [Action::Close { worker: 1 }]);
}

#[test]
fn a_refusal_tells_when_the_next_worker_starts_and_nothing_where_none_will() {
    let mut plan = Plan::new(1, 8);
    plan.launch(NOW);
    assert_eq!(plan.retry_after(NOW), Some(Duration::from_secs(1)));
    assert!(plan.may_start(0));
    let lost = plan.lost(0, Kind::TokenRemoved, vec![Request("one", false)], NOW, 0);
    let refusal = Refusal { kind: Kind::TokenRemoved, retry_after: Some(Duration::from_secs(1)) };
    assert!(lost.contains(&Action::Refuse(Request("one", false), refusal)), "{lost:?}");
    assert!(plan.may_start(0));
    plan.lost(0, Kind::PinIncorrect, Vec::new(), NOW, 0);
    assert_eq!((plan.trouble(), plan.retry_after(NOW)), (Some(Kind::PinIncorrect), None));
}
