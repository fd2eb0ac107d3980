//! The scenarios for every stack.

use std::process::Stdio;

use serde_json::Value;

use crate::agent::{Agent, PayloadVerifier};
use crate::deadline::{Finish as _, until};
use crate::fixture::Run;
use crate::load::{Tally, load};
use crate::openssl::accepted;
use crate::spy;
use crate::stack::Stack;

fn right(stack: &mut dyn Stack) -> String {
    stack.fixture().pin_source()
}

fn wrong(stack: &mut dyn Stack, pin: &str) -> String {
    format!("file:{}", stack.fixture().write("wrong-pin", pin))
}

pub(crate) fn lists_tokens_and_takes_its_uris_back(stack: &mut dyn Stack) {
    let list: Value = serde_json::from_str(&stack.run(&["list", "--json"]).ok()).unwrap();
    let slots = list["modules"][0]["slots"].as_array().unwrap().clone();
    let slot = slots.iter().find(|slot| !slot["index"].is_null()).expect("an initialised token");
    assert_eq!(slot["error"], Value::Null, "{slot}");
    let plain = stack.plain_key();
    let source = right(stack);
    let mut with_uri = plain.clone();
    with_uri.extend(["--uri".into(), slot["uri"].as_str().unwrap().into()]);
    let run = stack.sign(&with_uri, &source, &[]);
    accepted(stack.fixture(), run);
    assert!(stack.run(&["list"]).ok().contains("certificate"), "certificates show without a login");
    let label = slot["token"]["label"].as_str().unwrap();
    let mut p11tool = stack.other("p11tool");
    let output = p11tool.args(["--provider", &stack.module(), "--list-tokens"]).finish();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let uris = text.lines().filter_map(|line| line.trim().strip_prefix("URL: "));
    let encoded = |byte: u8| match byte {
        b' ' | b'#' | b'(' | b')' => format!("%{byte:02X}"),
        plain => char::from(plain).to_string(),
    };
    let label: String = label.bytes().map(encoded).collect();
    let uri = uris.into_iter().find(|uri| uri.contains(&format!("token={label}")));
    let uri = uri.unwrap_or_else(|| panic!("apt-get install gnutls-bin: {output:?}"));
    let mut by_p11tool = plain.clone();
    by_p11tool.extend(["--uri".into(), uri.into()]);
    let run = stack.sign(&by_p11tool, &source, &[]);
    accepted(stack.fixture(), run);
}

pub(crate) fn signs_both_versions_and_openssl_verifies(stack: &mut dyn Stack) {
    let (key, source) = (stack.plain_key(), right(stack));
    for version in ["v2", "v1"] {
        let run = stack.sign(&key, &source, &["--payload-version", version]);
        accepted(stack.fixture(), run);
    }
}

pub(crate) fn signs_in_the_sandbox_of_its_module(stack: &mut dyn Stack) {
    let (key, source) = (stack.plain_key(), right(stack));
    let run = stack.sign(&key, &source, &["-v"]);
    assert!(run.stderr.contains("debug: sandbox: profile "), "{run:?}");
    assert!(run.stderr.contains(": files (Landlock ABI ") && run.stderr.contains(", system calls"), "{run:?}");
    accepted(stack.fixture(), run);
}

pub(crate) fn says_what_it_holds_and_what_a_host_lacks(stack: &mut dyn Stack) {
    let (key, source) = (stack.plain_key(), right(stack));
    let run = |stack: &dyn Stack, command: &str, more: &[&str]| {
        let own = [command, "--pin-source", &source].into_iter().chain(key.iter().map(String::as_str));
        stack.run(&own.chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let custody = run(stack, "custody", &["--format", "json"]);
    let report: Value = serde_json::from_str(&custody.stdout).unwrap_or_else(|error| panic!("{error}: {custody:?}"));
    assert_eq!((report["verdict"].as_str(), custody.code), (Some("allowed"), 0), "{report}");
    assert_eq!(report["key"]["bits"], 2048, "{report}");
    let is_kryoptic = stack.module().contains("kryoptic");
    assert_eq!(report["token"]["software"] == "kryoptic", is_kryoptic, "{report}");
    let version = report["rules"].as_array().unwrap().iter().find(|row| row["rule"] == "module_version").unwrap();
    assert!(version["verdict"] == "holds" && (!is_kryoptic || version["found"] == "kryoptic 1.5"), "{version}");
    assert_eq!(report["key"]["usages"]["sign"], true, "{report}");
    assert!(report["certificate"]["sha256"].as_str().is_some_and(|digest| digest.len() == 64), "{report}");
    let doctor = run(stack, "doctor", &["--sign"]);
    assert!(doctor.stdout.contains("ok       trial payload"), "{doctor:?}");
    let is_card = stack.module().contains("ykcs11") || stack.module().contains("opensc-pkcs11");
    assert_eq!(doctor.stdout.contains("ok       pcscd"), is_card, "{doctor:?}");
    doctor.ok();
}

pub(crate) fn spends_one_try_on_a_wrong_pin(stack: &mut dyn Stack) {
    let (key, source) = (stack.plain_key(), wrong(stack, "654321"));
    let error = stack.sign(&key, &source, &[]).failed(4);
    assert!(error.contains("C_Login: CKR_PIN_INCORRECT"), "{error}");
    let error = stack.sign(&key, &source, &[]).failed(4);
    assert!(error.contains("no login is tried"), "{error}");
    stack.run(&["pin-fuse", "--reset"]).ok();
    let source = right(stack);
    let run = stack.sign(&key, &source, &[]);
    accepted(stack.fixture(), run);
}

pub(crate) fn ten_unattended_runs_with_a_wrong_pin_spend_one_try(stack: &mut dyn Stack) {
    let (key, source) = (stack.plain_key(), wrong(stack, "654321"));
    let mut refused = 0;
    for _ in 0..10 {
        refused += usize::from(stack.sign(&key, &source, &[]).failed(4).contains("CKR_PIN_INCORRECT"));
    }
    let mut arguments = vec!["sign", "--pin-source", &source, "--timeout", "60s"];
    arguments.extend(key.iter().map(String::as_str));
    let start = |_| stack.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let all_at_once: Vec<_> = (0..10).map(start).collect();
    for child in all_at_once {
        let error = Run::from_output(child.finish()).failed(4);
        refused += usize::from(error.contains("CKR_PIN_INCORRECT"));
    }
    assert_eq!(refused, 1, "tries spent");
    // The token reports that it is not locked, and the tries left if it can.
    stack.run(&["pin-fuse", "--reset"]).ok();
    let source = right(stack);
    let run = stack.sign(&key, &source, &[]);
    assert!(!run.stderr.contains("FINAL_TRY"), "{}", run.stderr);
    accepted(stack.fixture(), run);
}

pub(crate) fn says_that_a_locked_pin_is_locked(stack: &mut dyn Stack) {
    let (key, source) = (stack.plain_key(), right(stack));
    let Some(tries) = stack.tries() else {
        // A token that never locks accepts the right PIN after many wrong ones.
        for _ in 0..12 {
            wrong_login(stack);
        }
        let run = stack.sign(&key, &source, &[]);
        return accepted(stack.fixture(), run);
    };
    for _ in 0..tries {
        wrong_login(stack);
    }
    let error = stack.sign(&key, &source, &[]).failed(4);
    assert!(error.contains("locked") || error.contains("LOCKED"), "{error}");
    assert!(error.contains("unblock"), "{error}");
}

/// A wrong PIN from another program, which has no fuse.
fn wrong_login(stack: &dyn Stack) {
    let mut command = stack.other("pkcs11-tool");
    command.args(["--module", &stack.module(), "--login", "--pin", "654321", "--list-objects", "--type", "privkey"]);
    let output = command.finish();
    assert!(!output.status.success(), "{output:?}");
}

pub(crate) fn signs_with_an_always_authenticate_key(stack: &mut dyn Stack) {
    let (key, source) = (stack.always_authenticate_key(), right(stack));
    for _ in 0..2 {
        let run = stack.sign(&key, &source, &[]);
        accepted(stack.fixture(), run);
    }
    let source = wrong(stack, "654321");
    stack.sign(&key, &source, &[]).failed(4);
}

pub(crate) fn survives_a_lost_token_and_works_when_it_is_back(stack: &mut dyn Stack) {
    let (key, source) = (stack.plain_key(), right(stack));
    let run = stack.sign(&key, &source, &[]);
    accepted(stack.fixture(), run);
    stack.take_out();
    let lost = stack.sign(&key, &source, &["--timeout", "10s"]);
    assert!([3, 6].contains(&lost.code), "{lost:?}");
    let code = lost.code;
    lost.failed(code);
    stack.put_back();
    let run = stack.sign(&key, &source, &[]);
    accepted(stack.fixture(), run);
}

/// An agent on the key of these flags, after its login.
pub(crate) fn serve(stack: &mut dyn Stack, key: &[String], more: &[&str]) -> Agent {
    let more: Vec<&str> = key.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let arguments = Agent::arguments(stack.fixture(), &more);
    let command = stack.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut agent = Agent::start(stack.fixture(), command);
    agent.wait_for_state("STATUS=ready");
    agent
}

pub(crate) fn serves_and_recovers_from_a_lost_token_by_itself(stack: &mut dyn Stack) {
    let key = stack.plain_key();
    let mut agent = serve(stack, &key, &["--call-timeout", "8s", "--workers", "2"]);
    let verifier = PayloadVerifier::of(stack.fixture(), &agent.payload());
    verifier.accept(&agent.payload());
    for _ in 0..2 {
        // SoftHSM2 can lose its token if a process is killed during a login.
        until(|| agent.ask("GET", "/metrics", "").body.contains("cba_agent_workers{state=\"starting\"} 0\n"));
        stack.take_out();
        // A removed token may sign from memory until its worker ends. Nothing else may succeed.
        for worker in agent.workers() {
            agent.kill_worker(worker);
        }
        let lost = loop {
            let reply = agent.ask("POST", "/sign", "{}");
            if reply.status != 200 {
                break reply;
            }
        };
        assert!(lost.header("Retry-After").is_some(), "{lost:?}");
        assert_eq!(agent.ask("GET", "/readyz", "").status, 503);
        stack.put_back();
        agent.wait_for_state("STATUS=ready");
        verifier.accept(&agent.payload());
    }
    let (status, log) = agent.end("-TERM");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(stack.run(&["pin-fuse"]).ok().contains("intact"), "{log}");
}

pub(crate) fn serves_a_key_that_wants_a_login_for_each_signature(stack: &mut dyn Stack) {
    let key = stack.always_authenticate_key();
    let agent = serve(stack, &key, &["--workers", "3"]);
    let verifier = PayloadVerifier::of(stack.fixture(), &agent.payload());
    let tally = load(&agent, &verifier, (4, 12), |_| ());
    assert_eq!(Tally::get(&tally.payloads), 12, "{}", agent.log());
    assert_eq!(agent.workers().len(), 1);
}

pub(crate) fn serves_on_after_a_reload(stack: &mut dyn Stack) {
    let key = stack.plain_key();
    let mut agent = serve(stack, &key, &[]);
    let verifier = PayloadVerifier::of(stack.fixture(), &agent.payload());
    let before = agent.workers();
    agent.signal("-HUP");
    agent.wait_for_state("RELOADING=1");
    let tally = load(&agent, &verifier, (4, 40), |_| ());
    assert_eq!(Tally::get(&tally.payloads), 40, "{}", agent.log());
    assert_ne!(agent.workers(), before);
}

pub(crate) fn asks_the_module_nothing_but_reading_login_and_signing(stack: &mut dyn Stack) {
    let (key, always, source) = (stack.plain_key(), stack.always_authenticate_key(), right(stack));
    let flags = |key: &[String], more: &[&str]| -> Vec<String> {
        more.iter().map(|text| (*text).to_owned()).chain(key.iter().cloned()).collect()
    };
    for (arguments, may_log_in) in [
        (flags(&[], &["list"]), false),
        (flags(&[], &["list", "--login", "--pin-source", &source]), true),
        (flags(&key, &["certificate"]), false),
        (flags(&[], &["pin-fuse", "--slot", "0"]), false),
        (flags(&[], &["doctor"]), false),
        (flags(&key, &["custody", "--pin-source", &source]), true),
        (flags(&key, &["sign", "--pin-source", &source]), true),
        (flags(&always, &["sign", "--pin-source", &source]), true),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let calls = spy::record(stack, &arguments);
        spy::check(&calls, may_log_in, arguments[0] == "sign");
    }
}
