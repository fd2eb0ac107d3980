//! Callers that are not the client that they claim to be.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::fixture::{Fixture, basic, message};
use crate::gateway_process::{Reply, read_reply};

const PATH: &str = "POST /token/authenticate";

/// The status and the body of a reply, without its request ID.
fn uniform(reply: &Reply) -> (u16, String) {
    let id = reply.header("x-request-id").unwrap();
    (reply.status, reply.body.replace(id, "ID"))
}

#[test]
fn every_failed_identity_gets_the_same_answer() {
    let mut fixture = Fixture::new();
    fixture.tool_identity("unknown");
    fixture.tool_identity("elsewhere");
    fixture.tool_identity("revoked");
    fixture.add_client("elsewhere", "certificates = [\"DIR/elsewhere.pem\"]\nusers = [61234]");
    fixture.add_client("revoked", "certificates = [\"DIR/revoked.pem\"]\ndisabled = true");
    let gateway = fixture.serve();
    let login = |name: &str| fixture.certificate_login(name, "v2", &message(0));
    let (unknown, elsewhere, revoked) = (login("unknown"), login("elsewhere"), login("revoked"));
    let listed = login("tool");
    let basic_of = |text: &str| (format!("Basic {}", STANDARD.encode(text)), String::new());
    let mut changed = listed.clone();
    changed.1 = changed.1.replace("encodedSignedData\":\"", "encodedSignedData\":\"AAAA");
    let mut answers = Vec::new();
    for (what, (header, body)) in [
        ("an unknown certificate", unknown.clone()),
        ("a listed certificate with another key", (listed.0.clone(), unknown.1)),
        ("a listed certificate with another signature", changed),
        ("a listed certificate without a payload", (listed.0.clone(), String::new())),
        ("a client of another user", elsewhere),
        ("a disabled client", revoked),
        ("a wrong password", basic_of("finance:wrong")),
        ("an empty password", basic_of("finance:")),
        ("an unknown user", basic_of("nobody@example.com:somebody's Anaplan password")),
        ("a disabled client's password", (basic("revoked"), String::new())),
        ("a token", ("AnaplanAuthToken abc".into(), String::new())),
        ("another scheme", ("Bearer abc".into(), String::new())),
    ] {
        answers.push((what, uniform(&gateway.login(&header, &body))));
    }
    let none = gateway.send(gateway.request_text(PATH, &[], ""));
    answers.push(("no header", uniform(&none)));
    let first = answers[0].1.clone();
    assert_eq!(first.0, 401);
    for (what, answer) in &answers {
        assert_eq!(*answer, first, "{what}");
    }
    assert!(fixture.service.arrived().is_empty());
    let log = gateway.log();
    assert!(!log.contains("somebody's") && !log.contains("nobody@example.com"), "{log}");
    assert_eq!(gateway.login(&listed.0, &listed.1).status, 201);
}

/// The signature does not cover the version. Without it, a captured v2 payload would log in for ever.
#[test]
fn a_used_or_old_v2_payload_does_not_log_in_as_v1() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let (header, used) = fixture.certificate_login("tool", "v2", &message(0));
    assert_eq!(gateway.login(&header, &used).status, 201, "{}", gateway.log());
    let (_, old) = fixture.certificate_login("tool", "v2", &message(-400));
    for (body, reason) in [(used, "used before"), (old, "behind the gateway's clock")] {
        let without_version = body.replace("\"encodedDataFormat\":\"v2\",", "");
        let as_v1 = without_version.replacen('{', "{\"encodedDataFormat\":\"v1\",", 1);
        for changed in [without_version, as_v1] {
            let reply = gateway.login(&header, &changed);
            assert!(reply.status == 401 && reply.body.contains(reason), "{reply:?}");
        }
    }
    assert_eq!(fixture.service.arrived().len(), 1);
    let (header, v1) = fixture.certificate_login("tool", "v1", &[7; 100]);
    for _ in 0..2 {
        assert_eq!(gateway.login(&header, &v1).status, 201, "{}", gateway.log());
    }
}

#[test]
fn a_private_key_in_the_header_is_an_alarm_without_its_content() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let key = std::fs::read_to_string(fixture.path().join("tool.key")).unwrap();
    let reply = gateway.login(&format!("CACertificate {}", STANDARD.encode(&key)), "");
    assert_eq!(reply.status, 401);
    gateway.wait_for_log("ALARM");
    let log = gateway.log();
    assert!(key.lines().filter(|line| line.len() == 64).all(|line| !log.contains(line)), "{log}");
}

#[test]
fn a_flood_of_bad_signatures_stops_only_its_source() {
    let mut fixture = Fixture::new();
    fixture.clients = fixture.clients.replace("users = [", "users = [61234, ");
    let gateway = fixture.serve();
    let (header, body) = fixture.certificate_login("tool", "v1", &[7; 150]);
    let bad = body.replace("encodedSignedData\":\"", "encodedSignedData\":\"AAAA");
    let mut stream = gateway.connect();
    for _ in 0..1000 {
        let request = gateway.request_text(PATH, &[("Authorization", &header)], &bad);
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_reply(&mut stream).unwrap().status, 401);
    }
    // The gateway refuses this source under this client, although the payload is valid now.
    assert_eq!(gateway.login(&header, &body).status, 401);
    gateway.wait_for_log("too many failed logins");
    gateway.wait_for_log(&format!("the log omits refusals of user {}", rustix::process::geteuid().as_raw()));
    let log = gateway.log();
    assert!(log.lines().count() < 100, "{log}");
    // The real client is another user, and logs in.
    let reply = crate::users::as_user(61234, &gateway, &header, &body);
    assert!(reply.contains("MARKER-TOKEN"), "{reply} {}", gateway.log());
}
