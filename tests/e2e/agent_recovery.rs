//! Events that an agent survives: killed and hanging workers, removed, swapped and renewed tokens, wrong PINs, and its
//! own end.

use std::fs;
use std::time::Duration;

use crate::agent::{Agent, PayloadVerifier};
use crate::deadline::until;
use crate::fixture::{Fixture, needs_root};
use crate::load::{Seed, Tally, kill_workers, load};

fn move_tokens(fixture: &Fixture, from: &str, to: &str) {
    fs::rename(fixture.file(from), fixture.file(to)).unwrap();
}

#[test]
fn ten_thousand_requests_while_workers_die_and_the_token_comes_and_goes() {
    needs_root("it counts the descriptors of a process that forbids it to other users");
    let mut fixture = Fixture::new();
    fixture.faulty("");
    fixture.set("FAULTY_GONE", fixture.file("gone"));
    let agent = Agent::ready(&fixture, &["--workers", "2"]);
    let verifier = PayloadVerifier::of(&fixture, &agent.payload());
    let mut seed = Seed::of_this_run();
    let (mut at_first, mut removals) = (0, vec![seed.between(6_000, 8_500), seed.between(2_500, 5_500)]);
    let mut back = None;
    let mut killed = 0;
    let tally = load(&agent, &verifier, (64, 10_000), |progress| {
        killed = kill_workers(&agent, seed.milliseconds(60, 140), progress, |done| {
            if at_first == 0 && done >= 2_000 {
                at_first = agent.memory();
            }
            if back.is_none() && removals.last().is_some_and(|at| done >= *at) {
                removals.pop();
                fixture.write("gone", "");
                back = Some(std::time::Instant::now() + seed.milliseconds(200, 800));
            }
            if back.is_some_and(|back| back < std::time::Instant::now()) {
                fs::remove_file(fixture.file("gone")).unwrap();
                back = None;
            }
        });
    });
    let _ = fs::remove_file(fixture.file("gone"));
    let (payloads, later) = (Tally::get(&tally.payloads), Tally::get(&tally.later));
    assert_eq!((payloads + later, Tally::get(&tally.closed)), (10_000, 0), "{tally:?}");
    assert!(removals.is_empty() && killed > 20, "{removals:?} {killed}");
    assert!(payloads > 8_000 && verifier.count() == payloads, "{tally:?}");
    let growth = agent.memory().abs_diff(at_first);
    assert!(growth < 2048, "{at_first} KiB after 2,000 requests, {growth} KiB more at the end");
    agent_has_let_go(&agent);
    let (status, log) = agent.end("-TERM");
    assert_eq!(status.code(), Some(0), "{log}");
}

/// Checks that no process, descriptor or thread of an ended worker remains.
fn agent_has_let_go(agent: &Agent) {
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", agent.id())).unwrap().count();
    let settled = || agent.workers().len() <= 2 && count("fd") < 40 && count("task") < 12;
    until(settled);
}

#[test]
fn sigterm_in_the_middle_loses_nothing_that_was_accepted() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--workers", "2"]);
    let verifier = PayloadVerifier::of(&fixture, &agent.payload());
    let end_at = Seed::of_this_run().between(500, 4_000);
    let tally = load(&agent, &verifier, (32, 20_000), |progress| {
        until(|| progress().is_none_or(|done| done >= end_at));
        agent.signal("-TERM");
    });
    // Late requests were refused; all others got a payload.
    assert_eq!(Tally::get(&tally.later), 0, "{tally:?}");
    assert!(Tally::get(&tally.payloads) >= end_at, "{tally:?}");
    let (status, log) = wait(agent);
    assert_eq!(status, Some(0), "{log}");
    let made = log.lines().filter(|line| line.contains("payload v2 for user")).count();
    assert_eq!(made, verifier.count() + 1, "every payload that was made was received");
}

fn wait(agent: Agent) -> (Option<i32>, String) {
    let (status, log) = agent.end("-0");
    (status.code(), log)
}

#[test]
fn sighup_in_the_middle_loses_nothing() {
    let fixture = Fixture::new();
    let mut agent = Agent::ready(&fixture, &["--workers", "2"]);
    let verifier = PayloadVerifier::of(&fixture, &agent.payload());
    let tally = load(&agent, &verifier, (32, 4_000), |progress| {
        let mut seed = Seed::of_this_run();
        let mut at = 0;
        for _ in 0..5 {
            at += seed.between(200, 700);
            until(|| progress().is_none_or(|done| done >= at));
            agent.signal("-HUP");
        }
    });
    assert_eq!((Tally::get(&tally.payloads), Tally::get(&tally.later)), (4_000, 0), "{tally:?}: {}", agent.log());
    agent.wait_for_state("RELOADING=1");
    agent.logged(|log| log.lines().filter(|line| line.contains("is ready with")).count() > 2);
}

#[test]
fn a_worker_that_is_killed_is_replaced_before_anybody_asks() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let before = agent.workers();
    agent.kill_worker(before[0]);
    let replaced = |agent: &Agent| agent.workers().first().is_some_and(|worker| !before.contains(worker));
    until(|| replaced(&agent));
    agent.payload();
}

#[test]
fn a_warning_that_each_new_worker_finds_again_is_logged_once() {
    let fixture = Fixture::new();
    fixture.provision(&["--label", "two"]);
    let agent = Agent::ready(&fixture, &["--slot", "0"]);
    for _ in 0..2 {
        let before = agent.workers();
        agent.kill_worker(before[0]);
        until(|| agent.workers().first().is_some_and(|worker| !before.contains(worker)));
        agent.payload();
    }
    assert_eq!(agent.log().matches("several tokens are present").count(), 1, "{}", agent.log());
    assert!(agent.log().matches("is ready with token").count() >= 3, "{}", agent.log());
}

#[test]
fn a_request_is_retried_once_on_a_new_worker() {
    let mut fixture = Fixture::new();
    for fault in ["hang", "abort", "0x30", "0x32"] {
        fixture.faulty(&format!("C_Sign#2={fault}"));
        let agent = Agent::ready(&fixture, &["--call-timeout", "1s"]);
        agent.payload();
        let before = agent.workers();
        agent.payload();
        assert_ne!(agent.workers(), before, "{fault}");
    }
    // It is not handed out twice.
    fixture.faulty("C_Sign=0x30");
    let agent = Agent::ready(&fixture, &[]);
    let refused = agent.ask("POST", "/sign", "{}");
    assert_eq!(refused.problem(503), "token_unavailable");
    assert!(refused.header("Retry-After").is_some());
    assert_eq!(fixture.calls("C_Sign"), 2);
}

#[test]
fn a_signature_that_does_not_verify_is_neither_handed_out_nor_retried() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=corrupt");
    let agent = Agent::ready(&fixture, &[]);
    assert_eq!(agent.ask("POST", "/sign", "{}").problem(500), "signature_invalid");
    assert_eq!(fixture.calls("C_Sign"), 1);
    fixture.run(&["sign", "--socket", &agent.socket]).failed(7);
}

#[test]
fn the_agent_waits_for_a_token_that_is_absent_at_the_start() {
    let fixture = Fixture::new();
    move_tokens(&fixture, "tokens", "away");
    fs::create_dir(fixture.file("tokens")).unwrap();
    let mut agent = Agent::begun(&fixture, &[]);
    agent.wait_for_state("STATUS=not ready");
    let refused = agent.ask("POST", "/sign", "{}");
    assert_eq!(refused.problem(503), "token_unavailable");
    assert_eq!(agent.ask("GET", "/readyz", "").problem(503), "token_unavailable");
    assert_eq!(agent.ask("GET", "/healthz", "").status, 200);
    assert!(fixture.run(&["pin-fuse"]).ok().contains("intact"), "no login was tried");
    fs::remove_dir(fixture.file("tokens")).unwrap();
    move_tokens(&fixture, "away", "tokens");
    agent.wait_for_state("STATUS=ready");
    agent.payload();
}

#[test]
fn another_token_in_its_place_gets_no_pin() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let mut agent = Agent::ready(&fixture, &["--slot", "0"]);
    agent.payload();
    let logins = fixture.calls("C_Login");
    move_tokens(&fixture, "tokens", "away");
    fixture.provision(&["--label", "impostor"]);
    let worker = agent.workers()[0];
    agent.kill_worker(worker);
    let why = agent.wait_for_state("STATUS=not ready: token 'impostor'");
    assert!(why.contains("no PIN is sent to it"), "{why}");
    assert_eq!(agent.ask("POST", "/sign", "{}").problem(503), "token_unavailable");
    assert_eq!(fixture.calls("C_Login"), logins);
    // A reload says that this token is meant.
    agent.signal("-HUP");
    agent.wait_for_state("STATUS=ready: token 'impostor'");
    agent.payload();
}

#[test]
fn a_refused_pin_stops_logins_until_its_source_is_corrected() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let right = fixture.pin();
    fixture.write("pin", "wrong-pin");
    let mut agent = Agent::begun(&fixture, &["--workers", "4"]);
    agent.wait_for_state("STATUS=not ready: no login is tried (pin_incorrect)");
    for _ in 0..5 {
        assert_eq!(agent.ask("POST", "/sign", "{}").problem(503), "pin_refused");
        assert_eq!(agent.ask("GET", "/readyz", "").problem(503), "pin_refused");
    }
    assert_eq!(fixture.calls("C_Login"), 1, "four workers, one try");
    fixture.run(&["sign", "--socket", &agent.socket]).failed(4);
    // The same PIN again: the fuse refuses.
    agent.signal("-HUP");
    agent.wait_for_state("STATUS=not ready: no login is tried (pin_fuse)");
    assert_eq!(fixture.calls("C_Login"), 1);
    fixture.write("pin", right);
    agent.signal("-HUP");
    agent.wait_for_state("STATUS=ready");
    agent.payload();
    assert!(agent.ask("GET", "/metrics", "").body.contains("cba_agent_pin_state{state=\"accepted\"} 1"));
}

#[test]
fn a_pin_that_was_changed_meanwhile_costs_one_try() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let mut agent = Agent::ready(&fixture, &["--workers", "2"]);
    until(|| !(agent.workers().len() < 2 || fixture.calls("C_Login") < 2));
    let old = fixture.pin();
    fixture.tool(
        "pkcs11-tool",
        &[
            "--module",
            &crate::fixture::softhsm_module(),
            "--login",
            "--pin",
            &old,
            "--change-pin",
            "--new-pin",
            "87654321",
        ],
    );
    let logins = fixture.calls("C_Login");
    for worker in agent.workers() {
        agent.kill_worker(worker);
    }
    // The second worker meets the refusal of the first as `pin_incorrect` or as `pin_fuse`.
    agent.wait_for_state("STATUS=not ready: no login is tried (pin_");
    assert_eq!(fixture.calls("C_Login") - logins, 1);
    fixture.write("pin", "87654321");
    agent.signal("-HUP");
    agent.wait_for_state("STATUS=ready");
}

#[test]
fn a_token_without_room_means_fewer_workers() {
    let mut fixture = Fixture::new();
    fixture.faulty("one-session");
    let mut agent = Agent::ready(&fixture, &["--workers", "3"]);
    let verifier = PayloadVerifier::of(&fixture, &agent.payload());
    until(|| agent.ask("GET", "/metrics", "").body.contains("cba_agent_workers{state=\"off\"} 2"));
    let opened = fixture.calls("C_OpenSession");
    let tally = load(&agent, &verifier, (4, 100), |_| ());
    assert_eq!(Tally::get(&tally.payloads), 100);
    assert_eq!(fixture.calls("C_OpenSession"), opened, "no loop");
    // One after the other, so that the only session is free for the next.
    agent.signal("-HUP");
    let tally = load(&agent, &verifier, (4, 100), |_| ());
    assert_eq!(Tally::get(&tally.payloads), 100, "{}", agent.log());
    agent.wait_for_state("RELOADING=1");
}

#[test]
fn a_key_with_a_login_for_each_signature_has_one_worker() {
    let mut fixture = Fixture::with(&["--always-auth"]);
    fixture.faulty("");
    let agent = Agent::ready(&fixture, &["--workers", "3"]);
    let verifier = PayloadVerifier::of(&fixture, &agent.payload());
    let tally = load(&agent, &verifier, (4, 20), |_| ());
    assert_eq!(Tally::get(&tally.payloads), 20);
    assert_eq!(agent.workers().len(), 1);
    assert_eq!(fixture.calls("C_Login"), 1 + 21);
    assert!(fixture.run(&["pin-fuse"]).ok().contains("intact"));
    // Other programs can use the token between two logins.
    fixture.sign(&["--timeout", "5s"]).ok();
}

#[test]
fn a_payload_is_not_lost_if_the_login_for_the_next_one_fails() {
    let mut fixture = Fixture::with(&["--always-auth"]);
    // Only its first signature shows that the key needs a login for each. The fourth login is the one for the second payload.
    fixture.faulty("attr:CKA_ALWAYS_AUTHENTICATE=missing;C_Sign=delay:400;C_Login#4=0x30");
    let agent = Agent::ready(&fixture, &["--workers", "1"]);
    let statuses = std::thread::scope(|scope| {
        let ask = || agent.ask("POST", "/sign", "{}").status;
        let asked = [scope.spawn(ask), scope.spawn(ask)];
        asked.map(|client| client.join().unwrap())
    });
    assert_eq!(statuses, [200, 200], "{}", agent.log());
}

#[test]
fn a_certificate_that_was_renewed_is_found_on_sighup() {
    let fixture = Fixture::new();
    let mut agent = Agent::ready(&fixture, &[]);
    let before = agent.ask("GET", "/certificate", "").body;
    fixture.issue("renewed", "pub.pem", crate::fixture::EXTENSIONS, &["-days", "30"]);
    fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    fixture.pkcs11_tool(&["--write-object", "renewed.der", "--type", "cert", "--id", "01"]);
    agent.payload();
    assert_eq!(agent.ask("GET", "/certificate", "").body, before);
    agent.signal("-HUP");
    agent.wait_for_state("RELOADING=1");
    until(|| agent.ask("GET", "/certificate", "").body != before);
    assert_eq!(agent.ask("GET", "/certificate", "").body, fixture.read("renewed.pem"));
    PayloadVerifier::of(&fixture, &agent.payload()).accept(&agent.payload());
}

#[test]
fn a_module_file_that_was_replaced_is_loaded_by_the_next_worker() {
    let mut fixture = Fixture::new();
    let module = fixture.file("module.so");
    fs::copy(crate::fixture::softhsm_module(), &module).unwrap();
    fixture.use_module(Some(&module));
    let mut agent = Agent::ready(&fixture, &[]);
    agent.payload();
    fs::remove_file(&module).unwrap();
    agent.kill_worker(agent.workers()[0]);
    agent.wait_for_state("STATUS=not ready");
    fs::copy(crate::fixture::softhsm_module(), &module).unwrap();
    agent.wait_for_state("STATUS=ready");
    agent.payload();
}

#[test]
fn the_tokens_lock_is_free_while_the_agent_is_logged_in() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    fixture.sign(&["--timeout", "5s"]).ok();
    agent.payload();
}

#[test]
fn a_new_pin_outlives_the_refusal_of_the_old_one() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Login=delay:1500");
    let right = fixture.pin();
    fixture.write("pin", "wrong-pin");
    let mut agent = Agent::begun(&fixture, &[]);
    fixture.await_calls("C_Login", 1);
    fixture.write("pin", right);
    agent.signal("-HUP");
    agent.wait_for_state("STATUS=ready");
    assert_eq!(fixture.calls("C_Login"), 2);
    agent.payload();
}

#[test]
fn reloads_faster_than_workers_start_do_not_block_requests() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Login=delay:200");
    let agent = Agent::ready(&fixture, &[]);
    let verifier = PayloadVerifier::of(&fixture, &agent.payload());
    let tally = load(&agent, &verifier, (2, 20), |progress| {
        while progress().is_some() {
            agent.signal("-HUP");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(Tally::get(&tally.payloads), 20, "{}", agent.log());
}
