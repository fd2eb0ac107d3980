//! A module that writes to the parent's socket instead of the worker: the parent checks everything and stays usable.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::fixture::{Fixture, Run};

/// The faulty module sends these messages at the given call, before the worker's own reply or instead of it.
fn forging(rule: &str, messages: &[Value]) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.faulty(rule);
    set_frames(&mut fixture, messages);
    fixture
}

fn set_frames(fixture: &mut Fixture, messages: &[Value]) {
    let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
    let frames = fixture.write("frames", lines.join("\n"));
    fixture.set("FAULTY_FRAMES", frames);
}

/// A token without login, as a worker reports it.
fn token(label: &str, serial: &str) -> Value {
    json!({
        "label": label, "manufacturer": label, "model": "none", "serial": serial, "firmware": "1.0", "hardware": false,
        "initialized": true, "login_required": false, "pinpad": false,
        "pin": { "initialized": true, "count_low": false, "final_try": false, "locked": false, "to_be_changed": false },
    })
}

/// A slot without errors.
fn slot(token: &Value) -> Value {
    json!({ "id": 1, "description": "x", "manufacturer": "x", "token": token, "error": null })
}

/// A loaded module with one token.
fn opened(token: &Value) -> Value {
    let library = json!({ "cryptoki": "2.40", "manufacturer": token["label"], "description": "x", "version": "1.0" });
    // A field from a worker of another build.
    let confinement = json!({ "profile": "softhsm2", "files": 7, "calls": true });
    json!({ "Opened": { "library": library, "slots": [slot(token)], "confinement": confinement } })
}

/// All replies of a worker until the request to sign, about the fixture's key and certificate.
fn conversation(fixture: &Fixture, token: &Value, description: Value) -> Vec<Value> {
    let certificate = STANDARD.encode(fs::read(fixture.file("cert.der")).unwrap());
    let modulus = fixture.tool("openssl", &["x509", "-in", &fixture.file("cert.pem"), "-noout", "-modulus"]);
    let digits = modulus.trim().trim_start_matches("Modulus=").as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let modulus: Vec<u8> = digits.chunks(2).map(byte).collect();
    let label = STANDARD.encode(token["label"].as_str().unwrap());
    let key = json!({
        "handle": 0, "class": "Private", "label": label, "id": "AQ==", "modulus": STANDARD.encode(modulus),
        "sign": true, "always_authenticate": false, "sensitive": true, "extractable": false, "always_sensitive": true,
        "never_extractable": true, "local": true,
    });
    let certificate = json!({ "label": label, "id": "AQ==", "value": certificate });
    vec![
        opened(token),
        json!({ "Session": { "usable": ["Sha512RsaPkcs"], "known": true } }),
        json!({ "Objects": { "keys": [key], "certificates": [certificate] } }),
        json!({ "Described": description }),
    ]
}

fn description(mechanism: impl Into<Value>, certificates: &[Value]) -> Value {
    let mechanism = mechanism.into();
    let detail = json!({
        "decrypt": null, "sign_recover": null, "unwrap": null, "derive": null, "private": null, "modifiable": null,
        "wrap_with_trusted": null, "key_generation_mechanism": mechanism, "allowed_mechanisms": [mechanism],
    });
    json!({ "detail": detail, "certificates": certificates })
}

/// The usual description of the module.
fn honest() -> Value {
    description(0, &[])
}

#[test]
fn a_module_without_a_sandbox_cannot_claim_one() {
    let claim = json!({ "Confined": { "profile": "softhsm2", "landlock_abi": 7, "system_calls": true } });
    let opened = opened(&token("forged", "1"));
    for messages in [vec![opened.clone()], vec![claim.clone(), opened], vec![claim]] {
        let fixture = forging("C_Initialize=send", &messages);
        let doctor = fixture.run(&["doctor", "--pin-source", &fixture.pin_source()]);
        assert!(!doctor.stdout.contains("profile softhsm2"), "{doctor:?}");
    }
}

#[test]
fn a_serial_number_that_is_too_long_reaches_no_audit_record() {
    let log = |fixture: &Fixture| fixture.file("audit.jsonl");
    // With a serial number of normal size, the same replies lead to a record of a failed signature.
    for (length, is_read) in [(16, true), (20_000, false)] {
        let mut fixture = forging("C_Initialize=instead", &[]);
        let mut messages = conversation(&fixture, &token("forged", &"\u{1b}".repeat(length)), honest());
        messages.push(json!({ "Failed": { "Call": { "call": "C_Sign", "ckr": "CKR_DEVICE_ERROR" } } }));
        set_frames(&mut fixture, &messages);
        let mut agent = Agent::begun(&fixture, &["--audit-path", &log(&fixture), "--call-timeout", "5s"]);
        agent.wait_for_state(if is_read { "STATUS=ready" } else { "STATUS=not ready: " });
        let refused = agent.ask("POST", "/sign", "{}");
        assert_eq!(refused.status, 503, "{refused:?}: {}", agent.log());
        agent.end("-TERM");
        let verified = fixture.run(&["audit", "verify", &log(&fixture)]).ok();
        // The agent retried the request.
        let found = if is_read { "valid: 2 records" } else { "valid: no records" };
        assert!(verified.starts_with(found), "{verified}");
        assert!(!fixture.read("audit.jsonl").contains('\u{1b}'));
    }
}

/// Checks that the output does not move the cursor, change a colour, or turn the direction of the text.
#[track_caller]
fn assert_calm(run: &Run) {
    for (stream, text) in [("stdout", &run.stdout), ("stderr", &run.stderr)] {
        let bad = |c: &char| c.is_control() && *c != '\n' || ('\u{202a}'..='\u{202e}').contains(c);
        assert_eq!(text.chars().find(bad), None, "{stream}: {text:?}");
    }
}

#[test]
fn no_text_of_a_module_reaches_a_terminal_with_escape_sequences() {
    const ESCAPES: &str = "\u{1b}[2J\u{9b}31m\u{202e}\u{7f}\r\n\u{85}";
    let mut fixture = forging("C_Initialize=instead", &[]);
    let pin = fixture.pin_source();
    let strange = token(ESCAPES, ESCAPES);
    for (mechanism, is_number) in [(Value::from(1), true), (ESCAPES.into(), false), ("all is well".into(), false)] {
        let mut messages = conversation(&fixture, &strange, description(mechanism, &[]));
        messages.push(json!({ "Slot": slot(&strange) }));
        set_frames(&mut fixture, &messages);
        for arguments in [
            &["custody", "--pin-source", &pin][..],
            &["custody", "--pin-source", &pin, "--format", "json"],
            &["custody", "--pin-source", &pin, "-v", "--log-format", "json"],
        ] {
            let run = fixture.run(&[arguments, &["--timeout", "5s"]].concat());
            assert_calm(&run);
            assert_eq!(run.stdout.contains("sandbox"), is_number, "{run:?}");
            assert_eq!(run.stdout.contains("CKM_RSA_PKCS"), is_number, "{run:?}");
        }
    }
    let session = json!({ "Session": { "usable": ["Sha512RsaPkcs"], "known": true } });
    let objects = conversation(&fixture, &strange, honest()).remove(2);
    set_frames(&mut fixture, &[opened(&strange), session.clone(), objects.clone(), objects, session]);
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["doctor", "--pin-source", &pin],
        &["doctor", "--pin-source", &pin, "--json"],
        &["certificate"],
        &["certificate", "--format", "json"],
        &["sign", "--slot", "7", "--pin-source", &pin],
        &["sign", "--slot", "7", "--pin-source", &pin, "--log-format", "json"],
    ] {
        let run = fixture.run(&[arguments, &["--timeout", "5s"]].concat());
        assert_calm(&run);
    }
    for fault in [
        json!({ "Call": { "call": ESCAPES, "ckr": "CKR_OK" } }),
        json!({ "Call": { "call": "C_Initialize", "ckr": ESCAPES } }),
        json!({ "Load": ESCAPES }),
        json!({ "NoEntryPoint": { "library": ESCAPES } }),
    ] {
        set_frames(&mut fixture, &[json!({ "Failed": fault })]);
        for format in ["text", "json", "journald"] {
            assert_calm(&fixture.run(&["list", "-v", "--log-format", format, "--timeout", "5s"]));
        }
    }
}

#[test]
fn an_endless_error_text_does_not_fill_the_log() {
    let endless = "x".repeat(3 << 20);
    for fault in [
        json!({ "Load": endless }),
        json!({ "Sandbox": endless }),
        json!({ "Call": { "call": endless, "ckr": "CKR_OK" } }),
        json!({ "Malformed": { "call": "C_Initialize", "what": endless } }),
        json!({ "NoEntryPoint": { "library": endless } }),
    ] {
        let fixture = forging("C_Initialize=instead", &[json!({ "Failed": fault })]);
        let run = fixture.run(&["list", "-v", "--timeout", "20s"]);
        assert!(run.code > 0 && run.stdout.is_empty(), "{}", run.stdout);
        assert!(run.stderr.len() < 20_000, "{}", run.stderr.len());
    }
}

#[test]
fn thousands_of_forged_certificates_block_no_request() {
    let mut fixture = forging("C_Initialize=instead", &[]);
    // Many certificates with the name of the leaf's issuer, each with another key: each must be tried as issuer.
    let ca = fixture
        .tool("openssl", &["x509", "-in", &fixture.file("ca.pem"), "-outform", "DER", "-out", &fixture.file("ca.der")]);
    assert_eq!(ca, "");
    let ca = fs::read(fixture.file("ca.der")).unwrap();
    let modulus = ca.windows(4).position(|bytes| bytes == [0x02, 0x82, 0x01, 0x01]).unwrap() + 5;
    let forged = |number: usize| {
        let mut der = ca.clone();
        der[modulus + 40] ^= u8::try_from(number % 255 + 1).unwrap();
        der[modulus + 41] ^= u8::try_from(number / 255).unwrap();
        json!({ "label": "", "id": "", "value": STANDARD.encode(der) })
    };
    for (count, is_read) in [(2000, true), (2500, false)] {
        let certificates: Vec<Value> = (0..count).map(forged).collect();
        let messages = conversation(&fixture, &token("forged", "1"), description(1, &certificates));
        set_frames(&mut fixture, &messages);
        let mut agent = Agent::begun(&fixture, &["--call-timeout", "30s"]);
        agent.wait_for_state(if is_read { "STATUS=ready" } else { "STATUS=not ready: " });
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let report = agent.ask("GET", "/custody", "");
                    assert_eq!(report.status, if is_read { 200 } else { 503 }, "{}", agent.log());
                });
            }
            assert_eq!(agent.ask("GET", "/healthz", "").status, 200);
        });
    }
}

#[test]
fn a_message_that_was_handed_out_is_not_handed_out_again() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=repeat");
    let agent = Agent::ready(&fixture, &["--audit-path", &fixture.file("audit.jsonl")]);
    let first = agent.payload();
    let second = agent.ask("POST", "/sign", "{}");
    assert_eq!(second.problem(500), "signature_invalid");
    assert!(!second.body.contains(first["body"]["encodedData"].as_str().unwrap()));
    agent.logged(|log| log.contains("its message was handed out before"));
    // Another worker replaced it.
    agent.payload();
    let (_, log) = agent.end("-TERM");
    assert!(fixture.run(&["audit", "verify", &fixture.file("audit.jsonl")]).ok().contains("3 records"), "{log}");
}

#[test]
fn a_message_of_another_worker_is_not_handed_out_again() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=repeat:all");
    let agent = Agent::ready(&fixture, &[]);
    agent.payload();
    let worker = agent.workers()[0];
    agent.kill_worker(worker);
    assert_eq!(agent.ask("POST", "/sign", "{}").problem(500), "signature_invalid");
}
