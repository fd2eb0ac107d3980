//! Events that an agent survives: killed and hanging workers, removed, swapped and renewed tokens, wrong PINs, and its
//! own end.

use std::fs;
use std::time::Duration;

use crate::agent::{Agent, Judge};
use crate::deadline::until;
use crate::load::{Seed, Tally, kill_workers, load};
use crate::stand::{Stand, needs_root};

fn move_tokens(stand: &Stand, from: &str, to: &str) {
    fs::rename(stand.file(from), stand.file(to)).unwrap();
}

#[test]
fn ten_thousand_requests_while_workers_die_and_the_token_comes_and_goes() {
    needs_root("it counts the descriptors of a process that forbids it to other users");
    let mut stand = Stand::new();
    stand.faulty("");
    stand.set("FAULTY_GONE", stand.file("gone"));
    let agent = Agent::ready(&stand, &["--workers", "2"]);
    let judge = Judge::of(&stand, &agent.payload());
    let mut seed = Seed::of_this_run();
    let (mut at_first, mut removals) = (0, vec![seed.between(6_000, 8_500), seed.between(2_500, 5_500)]);
    let mut back = None;
    let mut killed = 0;
    let tally = load(&agent, &judge, (64, 10_000), |progress| {
        killed = kill_workers(&agent, seed.milliseconds(60, 140), progress, |done| {
            if at_first == 0 && done >= 2_000 {
                at_first = agent.memory();
            }
            if back.is_none() && removals.last().is_some_and(|at| done >= *at) {
                removals.pop();
                stand.write("gone", "");
                back = Some(std::time::Instant::now() + seed.milliseconds(200, 800));
            }
            if back.is_some_and(|back| back < std::time::Instant::now()) {
                fs::remove_file(stand.file("gone")).unwrap();
                back = None;
            }
        });
    });
    let _ = fs::remove_file(stand.file("gone"));
    let (payloads, later) = (Tally::get(&tally.payloads), Tally::get(&tally.later));
    assert_eq!((payloads + later, Tally::get(&tally.closed)), (10_000, 0), "{tally:?}");
    assert!(removals.is_empty() && killed > 20, "{removals:?} {killed}");
    assert!(payloads > 8_000 && judge.count() == payloads, "{tally:?}");
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
    let stand = Stand::new();
    let agent = Agent::ready(&stand, &["--workers", "2"]);
    let judge = Judge::of(&stand, &agent.payload());
    let end_at = Seed::of_this_run().between(500, 4_000);
    let tally = load(&agent, &judge, (32, 20_000), |progress| {
        until(|| progress().is_none_or(|done| done >= end_at));
        agent.signal("-TERM");
    });
    // Late requests were refused; all others got a payload.
    assert_eq!(Tally::get(&tally.later), 0, "{tally:?}");
    assert!(Tally::get(&tally.payloads) >= end_at, "{tally:?}");
    let (status, log) = wait(agent);
    assert_eq!(status, Some(0), "{log}");
    let made = log.lines().filter(|line| line.contains("payload v2 for user")).count();
    assert_eq!(made, judge.count() + 1, "every payload that was made was received");
}

fn wait(agent: Agent) -> (Option<i32>, String) {
    let (status, log) = agent.end("-0");
    (status.code(), log)
}

#[test]
fn sighup_in_the_middle_loses_nothing() {
    let stand = Stand::new();
    let mut agent = Agent::ready(&stand, &["--workers", "2"]);
    let judge = Judge::of(&stand, &agent.payload());
    let tally = load(&agent, &judge, (32, 4_000), |progress| {
        let mut seed = Seed::of_this_run();
        let mut at = 0;
        for _ in 0..5 {
            at += seed.between(200, 700);
            until(|| progress().is_none_or(|done| done >= at));
            agent.signal("-HUP");
        }
    });
    assert_eq!((Tally::get(&tally.payloads), Tally::get(&tally.later)), (4_000, 0), "{tally:?}: {}", agent.log());
    agent.hear("RELOADING=1");
    agent.logged(|log| log.lines().filter(|line| line.contains("is ready with")).count() > 2);
}

#[test]
fn a_worker_that_is_killed_is_replaced_before_anybody_asks() {
    let stand = Stand::new();
    let agent = Agent::ready(&stand, &[]);
    let before = agent.workers();
    agent.kill_worker(before[0]);
    let replaced = |agent: &Agent| agent.workers().first().is_some_and(|worker| !before.contains(worker));
    until(|| replaced(&agent));
    agent.payload();
}

#[test]
fn a_request_is_retried_once_on_a_new_worker() {
    let mut stand = Stand::new();
    for fault in ["hang", "abort", "0x30", "0x32"] {
        stand.faulty(&format!("C_Sign#2={fault}"));
        let agent = Agent::ready(&stand, &["--call-timeout", "1s"]);
        agent.payload();
        let before = agent.workers();
        agent.payload();
        assert_ne!(agent.workers(), before, "{fault}");
    }
    // It is not handed out twice.
    stand.faulty("C_Sign=0x30");
    let agent = Agent::ready(&stand, &[]);
    let refused = agent.ask("POST", "/sign", "{}");
    assert_eq!(refused.problem(503), "token_unavailable");
    assert!(refused.header("Retry-After").is_some());
    assert_eq!(stand.calls("C_Sign"), 2);
}

#[test]
fn a_signature_that_does_not_verify_is_neither_handed_out_nor_retried() {
    let mut stand = Stand::new();
    stand.faulty("C_Sign=corrupt");
    let agent = Agent::ready(&stand, &[]);
    assert_eq!(agent.ask("POST", "/sign", "{}").problem(500), "signature_invalid");
    assert_eq!(stand.calls("C_Sign"), 1);
    stand.run(&["sign", "--socket", &agent.socket]).failed(7);
}

#[test]
fn the_agent_waits_for_a_token_that_is_absent_at_the_start() {
    let stand = Stand::new();
    move_tokens(&stand, "tokens", "away");
    fs::create_dir(stand.file("tokens")).unwrap();
    let mut agent = Agent::begun(&stand, &[]);
    agent.hear("STATUS=not ready");
    let refused = agent.ask("POST", "/sign", "{}");
    assert_eq!(refused.problem(503), "token_unavailable");
    assert_eq!(agent.ask("GET", "/readyz", "").problem(503), "token_unavailable");
    assert_eq!(agent.ask("GET", "/healthz", "").status, 200);
    assert!(stand.run(&["pin-fuse"]).ok().contains("intact"), "no login was tried");
    fs::remove_dir(stand.file("tokens")).unwrap();
    move_tokens(&stand, "away", "tokens");
    agent.hear("STATUS=ready");
    agent.payload();
}

#[test]
fn another_token_in_its_place_gets_no_pin() {
    let mut stand = Stand::new();
    stand.faulty("");
    let mut agent = Agent::ready(&stand, &["--slot", "0"]);
    agent.payload();
    let logins = stand.calls("C_Login");
    move_tokens(&stand, "tokens", "away");
    stand.provision(&["--label", "impostor"]);
    let worker = agent.workers()[0];
    agent.kill_worker(worker);
    let why = agent.hear("STATUS=not ready: token 'impostor'");
    assert!(why.contains("no PIN is sent to it"), "{why}");
    assert_eq!(agent.ask("POST", "/sign", "{}").problem(503), "token_unavailable");
    assert_eq!(stand.calls("C_Login"), logins);
    // A reload says that this token is meant.
    agent.signal("-HUP");
    agent.hear("STATUS=ready: token 'impostor'");
    agent.payload();
}

#[test]
fn a_refused_pin_stops_logins_until_its_source_is_corrected() {
    let mut stand = Stand::new();
    stand.faulty("");
    let right = stand.pin();
    stand.write("pin", "wrong-pin");
    let mut agent = Agent::begun(&stand, &["--workers", "4"]);
    agent.hear("STATUS=not ready: no login is tried (pin_incorrect)");
    for _ in 0..5 {
        assert_eq!(agent.ask("POST", "/sign", "{}").problem(503), "pin_refused");
        assert_eq!(agent.ask("GET", "/readyz", "").problem(503), "pin_refused");
    }
    assert_eq!(stand.calls("C_Login"), 1, "four workers, one try");
    stand.run(&["sign", "--socket", &agent.socket]).failed(4);
    // The same PIN again: the fuse refuses.
    agent.signal("-HUP");
    agent.hear("STATUS=not ready: no login is tried (pin_fuse)");
    assert_eq!(stand.calls("C_Login"), 1);
    stand.write("pin", right);
    agent.signal("-HUP");
    agent.hear("STATUS=ready");
    agent.payload();
    assert!(agent.ask("GET", "/metrics", "").body.contains("cba_agent_pin_state{state=\"accepted\"} 1"));
}

#[test]
fn a_pin_that_was_changed_meanwhile_costs_one_try() {
    let mut stand = Stand::new();
    stand.faulty("");
    let mut agent = Agent::ready(&stand, &["--workers", "2"]);
    until(|| !(agent.workers().len() < 2 || stand.calls("C_Login") < 2));
    let old = stand.pin();
    stand.tool(
        "pkcs11-tool",
        &[
            "--module",
            &crate::stand::softhsm_module(),
            "--login",
            "--pin",
            &old,
            "--change-pin",
            "--new-pin",
            "87654321",
        ],
    );
    let logins = stand.calls("C_Login");
    for worker in agent.workers() {
        agent.kill_worker(worker);
    }
    // The second worker meets the refusal of the first as `pin_incorrect` or as `pin_fuse`.
    agent.hear("STATUS=not ready: no login is tried (pin_");
    assert_eq!(stand.calls("C_Login") - logins, 1);
    stand.write("pin", "87654321");
    agent.signal("-HUP");
    agent.hear("STATUS=ready");
}

#[test]
fn a_token_without_room_means_fewer_workers() {
    let mut stand = Stand::new();
    stand.faulty("one-session");
    let mut agent = Agent::ready(&stand, &["--workers", "3"]);
    let judge = Judge::of(&stand, &agent.payload());
    until(|| agent.ask("GET", "/metrics", "").body.contains("cba_agent_workers{state=\"off\"} 2"));
    let opened = stand.calls("C_OpenSession");
    let tally = load(&agent, &judge, (4, 100), |_| ());
    assert_eq!(Tally::get(&tally.payloads), 100);
    assert_eq!(stand.calls("C_OpenSession"), opened, "no loop");
    // One after the other, so that the only session is free for the next.
    agent.signal("-HUP");
    let tally = load(&agent, &judge, (4, 100), |_| ());
    assert_eq!(Tally::get(&tally.payloads), 100, "{}", agent.log());
    agent.hear("RELOADING=1");
}

#[test]
fn a_key_with_a_login_for_each_signature_has_one_worker() {
    let mut stand = Stand::with(&["--always-auth"]);
    stand.faulty("");
    let agent = Agent::ready(&stand, &["--workers", "3"]);
    let judge = Judge::of(&stand, &agent.payload());
    let tally = load(&agent, &judge, (4, 20), |_| ());
    assert_eq!(Tally::get(&tally.payloads), 20);
    assert_eq!(agent.workers().len(), 1);
    assert_eq!(stand.calls("C_Login"), 1 + 21);
    assert!(stand.run(&["pin-fuse"]).ok().contains("intact"));
    // Other programs can use the token between two logins.
    stand.sign(&["--timeout", "5s"]).ok();
}

#[test]
fn a_payload_is_not_lost_if_the_login_for_the_next_one_fails() {
    let mut stand = Stand::with(&["--always-auth"]);
    // Only its first signature shows that the key needs a login for each. The fourth login is the one for the second payload.
    stand.faulty("attr:CKA_ALWAYS_AUTHENTICATE=missing;C_Sign=delay:400;C_Login#4=0x30");
    let agent = Agent::ready(&stand, &["--workers", "1"]);
    let statuses = std::thread::scope(|scope| {
        let ask = || agent.ask("POST", "/sign", "{}").status;
        let asked = [scope.spawn(ask), scope.spawn(ask)];
        asked.map(|client| client.join().unwrap())
    });
    assert_eq!(statuses, [200, 200], "{}", agent.log());
}

#[test]
fn a_certificate_that_was_renewed_is_found_on_sighup() {
    let stand = Stand::new();
    let mut agent = Agent::ready(&stand, &[]);
    let before = agent.ask("GET", "/certificate", "").body;
    stand.issue("renewed", "pub.pem", crate::stand::EXTENSIONS, &["-days", "30"]);
    stand.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    stand.pkcs11_tool(&["--write-object", "renewed.der", "--type", "cert", "--id", "01"]);
    agent.payload();
    assert_eq!(agent.ask("GET", "/certificate", "").body, before);
    agent.signal("-HUP");
    agent.hear("RELOADING=1");
    until(|| agent.ask("GET", "/certificate", "").body != before);
    assert_eq!(agent.ask("GET", "/certificate", "").body, stand.read("renewed.pem"));
    Judge::of(&stand, &agent.payload()).accept(&agent.payload());
}

#[test]
fn a_module_file_that_was_replaced_is_loaded_by_the_next_worker() {
    let mut stand = Stand::new();
    let module = stand.file("module.so");
    fs::copy(crate::stand::softhsm_module(), &module).unwrap();
    stand.use_module(Some(&module));
    let mut agent = Agent::ready(&stand, &[]);
    agent.payload();
    fs::remove_file(&module).unwrap();
    agent.kill_worker(agent.workers()[0]);
    agent.hear("STATUS=not ready");
    fs::copy(crate::stand::softhsm_module(), &module).unwrap();
    agent.hear("STATUS=ready");
    agent.payload();
}

#[test]
fn the_tokens_lock_is_free_while_the_agent_is_logged_in() {
    let stand = Stand::new();
    let agent = Agent::ready(&stand, &[]);
    stand.sign(&["--timeout", "5s"]).ok();
    agent.payload();
}

#[test]
fn a_new_pin_outlives_the_refusal_of_the_old_one() {
    let mut stand = Stand::new();
    stand.faulty("C_Login=delay:1500");
    let right = stand.pin();
    stand.write("pin", "wrong-pin");
    let mut agent = Agent::begun(&stand, &[]);
    stand.await_calls("C_Login", 1);
    stand.write("pin", right);
    agent.signal("-HUP");
    agent.hear("STATUS=ready");
    assert_eq!(stand.calls("C_Login"), 2);
    agent.payload();
}

#[test]
fn reloads_faster_than_workers_start_do_not_block_requests() {
    let mut stand = Stand::new();
    stand.faulty("C_Login=delay:200");
    let agent = Agent::ready(&stand, &[]);
    let judge = Judge::of(&stand, &agent.payload());
    let tally = load(&agent, &judge, (2, 20), |progress| {
        while progress().is_some() {
            agent.signal("-HUP");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(Tally::get(&tally.payloads), 20, "{}", agent.log());
}
