//! A PIV card that looks like a YubiKey, through both usual modules, and the behaviour that only a card has.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::agent::PayloadVerifier;
use crate::deadline::{Finish as _, until};
use crate::fixture::{BINARY, EXTENSIONS, Fixture, Run, tool};
use crate::load::{Seed, Tally, kill_workers, load};
use crate::piv_card::Card;
use crate::scenarios::serve;
use crate::stack::Stack;

pub(crate) struct Piv {
    card: Card,
    fixture: Fixture,
    module: &'static str,
}

impl Piv {
    pub(crate) fn by(module: &'static str) -> Self {
        let mut fixture = Fixture::empty();
        fixture.use_module(Some(module));
        fixture.write("pin", "123456");
        Self { card: Card::start(&fixture), fixture, module }
    }
}

impl Stack for Piv {
    fn fixture(&mut self) -> &mut Fixture {
        &mut self.fixture
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.card.on_host(BINARY);
        command.args(arguments);
        self.fixture.prepare(&mut command);
        command
    }

    fn plain_key(&self) -> Vec<String> {
        vec!["--key-id".into(), "01".into()]
    }

    fn always_authenticate_key(&self) -> Vec<String> {
        vec!["--key-id".into(), "02".into()]
    }

    fn module(&self) -> String {
        let name = if self.module == "ykcs11" { "libykcs11.so" } else { "opensc-pkcs11.so" };
        format!("/usr/lib/x86_64-linux-gnu/{name}")
    }

    fn tries(&self) -> Option<usize> {
        Some(3)
    }

    fn other(&self, program: &str) -> Command {
        self.card.on_host(program)
    }

    fn take_out(&mut self) {
        self.card.tell("unplug");
        self.card.await_token(false);
    }

    fn put_back(&mut self) {
        self.card.tell("plug");
        self.card.await_token(true);
    }
}

const MODULES: [&str; 2] = ["ykcs11", "opensc"];

fn sign(piv: &Piv, more: &[&str]) -> Run {
    piv.sign(&piv.plain_key(), &piv.fixture.pin_source(), more)
}

#[test]
fn the_fuse_leaves_two_of_three_tries_on_the_card() {
    for module in MODULES {
        let mut piv = Piv::by(module);
        assert_eq!(piv.card.tries_left(), 3);
        let wrong = format!("file:{}", piv.fixture().write("wrong", "654321"));
        for _ in 0..10 {
            piv.sign(&piv.plain_key(), &wrong, &[]).failed(4);
        }
        let start = |_| {
            let arguments = ["sign", "--key-id", "01", "--pin-source", &wrong, "--timeout", "60s"];
            piv.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let all: Vec<_> = (0..10).map(start).collect();
        for child in all {
            Run::from_output(child.finish()).failed(4);
        }
        assert_eq!(piv.card.tries_left(), 2, "{module}");
    }
}

#[test]
fn a_pin_of_a_length_that_no_card_takes_spends_no_try() {
    for module in MODULES {
        let mut piv = Piv::by(module);
        let long = format!("file:{}", piv.fixture().write("long", "1234567890123"));
        for _ in 0..4 {
            let error = piv.sign(&piv.plain_key(), &long, &[]).failed(4);
            assert!(error.contains("no try was spent"), "{error}");
        }
        assert_eq!(piv.card.tries_left(), 3, "{module}");
        sign(&piv, &[]).ok();
    }
}

#[test]
fn a_touch_in_time_signs_and_one_too_late_is_exit_6() {
    for module in MODULES {
        let piv = Piv::by(module);
        piv.card.tell("delay 1500");
        sign(&piv, &[]).ok();
        piv.card.tell("delay 6000");
        let error = sign(&piv, &["--timeout", "3s"]).failed(6);
        assert!(error.contains("did not answer within 3s") && error.contains("touch"), "{error}");
        piv.card.tell("delay 0");
        piv.card.await_token(true);
        sign(&piv, &[]).ok();
    }
}

#[test]
fn a_card_pulled_while_it_signs_is_exit_6_within_the_deadline() {
    for module in MODULES {
        let mut piv = Piv::by(module);
        piv.card.tell("delay 2000");
        let before = piv.card.tell("begun");
        let source = piv.fixture.pin_source();
        let arguments = ["sign", "--key-id", "01", "--pin-source", &source, "--timeout", "8s"];
        let start = Instant::now();
        let child = piv.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until(|| !(piv.card.tell("begun") == before && start.elapsed() < Duration::from_secs(5)));
        piv.card.tell("unplug");
        let run = Run::from_output(child.finish());
        run.failed(6);
        piv.card.tell("delay 0");
        piv.card.await_token(false);
        piv.put_back();
        sign(&piv, &[]).ok();
    }
}

#[test]
fn a_card_error_is_exit_6_and_not_a_wrong_pin() {
    for module in MODULES {
        let mut piv = Piv::by(module);
        piv.card.tell("fail 6f00 4");
        let run = sign(&piv, &[]);
        assert_eq!(run.code, 6, "{module}: {run:?}");
        run.failed(6);
        piv.card.tell("fail 6f00 0");
        // ykcs11's logout leaves the card verified, and a verified card reports no number of tries. Removing the card
        // ends that.
        piv.take_out();
        piv.put_back();
        assert_eq!(piv.card.tries_left(), 3);
        sign(&piv, &[]).ok();
    }
}

#[test]
fn a_restarted_pcscd_does_not_matter() {
    for module in MODULES {
        let mut piv = Piv::by(module);
        sign(&piv, &[]).ok();
        piv.card.restart_pcscd();
        sign(&piv, &[]).ok();
    }
}

#[test]
fn ten_thousand_requests_while_workers_die_and_the_card_comes_and_goes() {
    let mut piv = Piv::by("ykcs11");
    let key = piv.plain_key();
    // One worker: where several share a card, the end of one inside a transaction fails another's login.
    let agent = serve(&mut piv, &key, &[]);
    let verifier = PayloadVerifier::of(&piv.fixture, &agent.payload());
    let mut seed = Seed::of_this_run();
    let mut removals = vec![seed.between(6_000, 8_500), seed.between(2_500, 5_500)];
    let (mut at_first, mut back) = (0, None);
    let tally = load(&agent, &verifier, (64, 10_000), |progress| {
        // A worker needs about a second to start on a card.
        let killed = kill_workers(&agent, seed.milliseconds(400, 600), progress, |done| {
            if at_first == 0 && done >= 2_000 {
                at_first = agent.memory();
            }
            if back.is_none() && removals.last().is_some_and(|at| done >= *at) {
                removals.pop();
                piv.card.tell("unplug");
                back = Some(Instant::now() + Duration::from_millis(500));
            }
            if back.is_some_and(|back| back < Instant::now()) {
                piv.card.tell("plug");
                back = None;
            }
        });
        assert!(killed > 20);
    });
    let (payloads, later) = (Tally::get(&tally.payloads), Tally::get(&tally.later));
    assert_eq!((payloads + later, Tally::get(&tally.closed)), (10_000, 0), "{tally:?}");
    assert!(removals.is_empty() && payloads > 2_000 && verifier.count() == payloads, "{tally:?}");
    let growth = agent.memory().abs_diff(at_first);
    assert!(growth < 2048, "{at_first} KiB after 2,000 requests, {growth} KiB more at the end");
    let (status, log) = agent.end("-TERM");
    assert_eq!(status.code(), Some(0), "{log}");
    piv.take_out();
    piv.put_back();
    assert_eq!(piv.card.tries_left(), 3, "no try was spent");
}

#[test]
fn a_restarted_pcscd_does_not_matter_to_an_agent() {
    for module in MODULES {
        let mut piv = Piv::by(module);
        let key = piv.plain_key();
        let mut agent = serve(&mut piv, &key, &["--call-timeout", "5s"]);
        let verifier = PayloadVerifier::of(&piv.fixture, &agent.payload());
        piv.card.restart_pcscd();
        // The first request may be the one that finds the change.
        while agent.ask("POST", "/sign", "{}").status != 200 {
            agent.wait_for_state("STATUS=");
        }
        verifier.accept(&agent.payload());
    }
}

/// Gives the card a certificate with another name, like a renewal. `new_holder` also changes the identifier of the
/// card's holder, as ykman does with each certificate.
fn renew(piv: &mut Piv, name: &str, new_holder: bool) {
    let tool = |piv: &Piv, arguments: &[&str]| tool(piv.card.on_host("yubico-piv-tool").args(arguments));
    let old = tool(piv, &["-a", "read-certificate", "-s", "9a"]);
    let old = piv.fixture.write("old.pem", old);
    let public = piv.fixture.tool("openssl", &["x509", "-in", &old, "-noout", "-pubkey"]);
    let public = piv.fixture.write("renewed.pub", public);
    let renewed = piv.fixture.issue(name, &public, EXTENSIONS, &["-days", "9"]);
    tool(piv, &["-a", "import-certificate", "-s", "9a", "-i", &renewed]);
    if new_holder {
        tool(piv, &["-a", "set-chuid"]);
    }
    piv.take_out();
    piv.put_back();
}

/// Label and serial number of the token as the module reports them.
fn names(piv: &Piv) -> (String, String) {
    let list: serde_json::Value = serde_json::from_str(&piv.run(&["list", "--json"]).ok()).unwrap();
    let slot = &list["modules"][0]["slots"][0];
    (slot["token"]["label"].to_string(), slot["token"]["serial"].to_string())
}

#[test]
fn a_renewed_certificate_gives_the_card_no_new_fuse() {
    for module in MODULES {
        let mut piv = Piv::by(module);
        let wrong = format!("file:{}", piv.fixture.write("wrong", "654321"));
        piv.sign(&piv.plain_key(), &wrong, &[]).failed(4);
        assert_eq!(piv.card.tries_left(), 2, "{module}");
        let mut before = names(&piv);
        for (name, new_holder) in [("renewed", false), ("renewed again", true)] {
            renew(&mut piv, name, new_holder);
            let after = names(&piv);
            if module == "opensc" {
                assert_ne!(before.0, after.0, "OpenSC takes the label from the certificate");
                assert_eq!(
                    before.1 != after.1,
                    new_holder,
                    "OpenSC takes the serial number from the holder's identifier"
                );
            }
            before = after;
            let error = piv.sign(&piv.plain_key(), &wrong, &[]).failed(4);
            assert!(error.contains("no login is tried"), "{module} {name}: {error}");
            assert_eq!(piv.card.tries_left(), 2, "{module} {name}");
        }
        piv.run(&["pin-fuse", "--reset"]).ok();
        sign(&piv, &[]).ok();
    }
}

#[test]
fn two_modules_on_one_card_spend_no_more_tries_than_one() {
    for (first, second) in [("ykcs11", "opensc"), ("opensc", "ykcs11")] {
        let piv = Piv::by(first);
        let wrong = format!("file:{}", piv.fixture.write("wrong", "654321"));
        piv.sign(&piv.plain_key(), &wrong, &[]).failed(4);
        assert_eq!(piv.card.tries_left(), 2);
        let other = ["--module", second];
        let error = piv.sign(&piv.plain_key(), &wrong, &other).failed(4);
        assert!(error.contains("no login is tried") && error.contains("it may be the same token"), "{error}");
        // A changed file gets one try, through any module. After that only a person may log in.
        piv.fixture.write("wrong", "765432");
        piv.sign(&piv.plain_key(), &wrong, &other).failed(4);
        assert_eq!(piv.card.tries_left(), 1);
        piv.fixture.write("wrong", "876543");
        for module in [first, second] {
            let error = piv.sign(&piv.plain_key(), &wrong, &["--module", module]).failed(4);
            assert!(error.contains("no login is tried") || error.contains("FINAL_TRY"), "{error}");
        }
        assert_eq!(piv.card.tries_left(), 1);
    }
}

#[test]
fn two_modules_at_once_on_one_card_spend_one_try() {
    let mut piv = Piv::by("ykcs11");
    let wrong = format!("file:{}", piv.fixture().write("wrong", "654321"));
    let start = |number: usize| {
        let module = MODULES[number % 2];
        let arguments = ["sign", "--key-id", "01", "--pin-source", &wrong, "--timeout", "60s", "--module", module];
        piv.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let all: Vec<_> = (0..6).map(start).collect();
    for child in all {
        Run::from_output(child.finish()).failed(4);
    }
    assert_eq!(piv.card.tries_left(), 2);
}

#[test]
fn an_agent_takes_its_card_back_after_a_renewal_and_no_other_card() {
    let mut piv = Piv::by("opensc");
    let key = piv.plain_key();
    let agent = serve(&mut piv, &key, &["--call-timeout", "8s"]);
    agent.payload();
    // Only the label changes with the certificate. The label does not identify the token.
    renew(&mut piv, "renewed", false);
    until(|| agent.ask("POST", "/sign", "{}").status == 200);
    // A card with another serial number may be another card.
    renew(&mut piv, "another", true);
    until(|| agent.ask("GET", "/readyz", "").status == 503 && agent.log().contains("no PIN is sent to it"));
    assert_eq!(piv.card.tries_left(), 3);
    agent.signal("-HUP");
    until(|| agent.ask("POST", "/sign", "{}").status == 200);
    let (_, log) = agent.end("-TERM");
    assert!(!log.contains("CKR_PIN_INCORRECT"), "{log}");
}
