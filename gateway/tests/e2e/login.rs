//! Logins with a password, v1 and v2, and Anaplan's answers to them.

use std::process::Command;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, basic, message};
use crate::service::Behaviour;
use crate::token::token;

#[test]
fn a_password_logs_in_with_a_v2_payload_of_the_token() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!(reply.status, 201, "{reply:?} {}", gateway.log());
    assert!(reply.token().starts_with("MARKER-TOKEN"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let id = reply.header("x-request-id").unwrap();
    gateway.wait_for_log(&format!("login {id}: client finance"));
    gateway.wait_for_log("password in, v2 out, 201, ok");
    let audit = std::fs::read_to_string(&token().audit).unwrap();
    assert!(audit.contains(&format!("\"job\":\"gateway/finance/{id}\"")), "{audit}");
    let arrived = fixture.service.arrived();
    assert_eq!(arrived.len(), 1);
    assert!(!arrived[0].head.contains("Basic") && arrived[0].body.contains("\"encodedDataFormat\":\"v2\""));
}

#[test]
fn curl_logs_in_by_localhost_with_its_url_changed_alone() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let user = format!("finance:finance-{}", crate::fixture::PASSWORD);
    let url = format!("http://localhost:{}/token/authenticate", gateway.port);
    let output = Command::new("curl").args(["-sS", "--ipv4", "-u", &user, "-X", "POST", &url]).finish();
    assert!(String::from_utf8_lossy(&output.stdout).contains("MARKER-TOKEN"), "{output:?} {}", gateway.log());
}

#[test]
fn a_v1_payload_of_a_local_key_logs_in_with_v2() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let (header, body) = fixture.certificate_login("tool", "v1", &[7; 150]);
    let reply = gateway.login(&header, &body);
    assert_eq!(reply.status, 201, "{reply:?} {}", gateway.log());
    gateway.wait_for_log("v1 in, v2 out, 201, ok");
}

#[test]
fn a_v2_payload_logs_in_once_with_seconds_or_milliseconds() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let (header, body) = fixture.certificate_login("tool", "v2", &message(0));
    assert_eq!(gateway.login(&header, &body).status, 201, "{}", gateway.log());
    let replayed = gateway.login(&header, &body);
    assert_eq!((replayed.status, replayed.header("retry-after")), (401, None), "{replayed:?}");
    assert!(replayed.body.contains("used before"), "{replayed:?}");
    let mut milliseconds = message(0);
    let seconds = u64::from_be_bytes(*milliseconds.first_chunk().unwrap());
    milliseconds[..8].copy_from_slice(&(seconds * 1000 + 999).to_be_bytes());
    let (header, body) = fixture.certificate_login("tool", "v2", &milliseconds);
    assert_eq!(gateway.login(&header, &body).status, 201, "{}", gateway.log());
}

#[test]
fn a_v2_payload_too_old_or_too_new_is_refused_and_says_why() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    for (offset, how) in [(-400, "behind"), (400, "ahead of")] {
        let (header, body) = fixture.certificate_login("tool", "v2", &message(offset));
        let reply = gateway.login(&header, &body);
        assert_eq!(reply.status, 401, "{reply:?}");
        assert!(reply.body.contains(how) && reply.body.contains("synchronise"), "{reply:?}");
    }
    assert!(fixture.service.arrived().is_empty());
}

#[test]
fn a_payload_logs_in_once_over_restarts_and_within_the_whole_skew() {
    let mut fixture = Fixture::new();
    let login = |fixture: &Fixture, offset| fixture.certificate_login("tool", "v2", &message(offset));
    // Recent enough for max_skew (300 s), even on a busy machine.
    let old = login(&fixture, -200);
    let gateway = fixture.serve();
    assert_eq!(gateway.login(&old.0, &old.1).status, 201, "{}", gateway.log());
    drop(gateway);
    // That gateway was killed. The file of spent payloads is beside the admin socket.
    let gateway = fixture.serve();
    assert_eq!(gateway.login(&old.0, &old.1).status, 401, "{}", gateway.log());
    let other = login(&fixture, -100);
    assert_eq!(gateway.login(&other.0, &other.1).status, 201, "{}", gateway.log());
    drop(gateway);
    // A state directory replaces the file beside the admin socket.
    fixture.top_keys = format!("state_dir = {:?}\n", fixture.file("run"));
    let next = login(&fixture, -50);
    for status in [201, 401] {
        let gateway = fixture.serve();
        assert_eq!(gateway.login(&next.0, &next.1).status, status, "{}", gateway.log());
    }
    let spent = std::fs::read_to_string(fixture.path().join("run/spent")).unwrap();
    assert_eq!(spent.lines().count(), 1, "{spent}");
    fixture.top_keys = "state_dir = \"/nowhere\"\n".into();
    let config = fixture.configure();
    let run = fixture.run(&["serve", "--config", &config]);
    assert!(run.code == 2 && run.stderr.contains("/nowhere/spent") && run.stderr.contains("hint: "), "{run:?}");
}

#[test]
fn a_client_sends_only_the_versions_that_it_may() {
    let mut fixture = Fixture::new();
    fixture.clients = fixture.clients.replace("payload_versions = [\"v1\", \"v2\"]", "");
    let gateway = fixture.serve();
    let (header, body) = fixture.certificate_login("tool", "v1", &[7; 150]);
    let reply = gateway.login(&header, &body);
    assert!(reply.status == 401 && reply.body.contains("payload_versions"), "{reply:?}");
}

/// The administrator finds the client of each failed login in the log, in `clients` and in the metrics.
#[test]
fn a_verified_login_that_is_refused_names_its_client() {
    let mut fixture = Fixture::new();
    fixture.add_client("slow", "rate_limit_per_minute = 1");
    fixture.tool_identity("new");
    fixture.add_client("newer", "certificates = [\"DIR/new.pem\"]");
    let gateway = fixture.serve();
    let socket = fixture.file("run/admin.sock");
    let used = fixture.certificate_login("tool", "v2", &message(0));
    assert_eq!(gateway.login(&used.0, &used.1).status, 201, "{}", gateway.log());
    assert_eq!(gateway.login(&basic("slow"), "").status, 201, "{}", gateway.log());
    for (client, credentials, outcome, (header, body)) in [
        ("finance", "v2", "skew", fixture.certificate_login("tool", "v2", &message(-400))),
        ("finance", "v2", "replayed", used),
        ("newer", "v1", "version", fixture.certificate_login("new", "v1", &[7; 150])),
        ("slow", "password", "rate_limited", (basic("slow"), String::new())),
    ] {
        let reply = gateway.login(&header, &body);
        let id = reply.header("x-request-id").unwrap();
        gateway.wait_for_log(&format!("login {id}: client {client}, user "));
        gateway.wait_for_log(&format!("{credentials} in, {outcome}, "));
        let listed = fixture.run(&["clients", "--socket", &socket]).stdout;
        let line = listed.lines().find(|line| line.starts_with(client)).unwrap();
        assert!(line.contains(credentials) && line.ends_with(outcome), "{listed}");
        let metric = format!("{{client=\"{client}\",identity=\"{credentials}\",outcome=\"{outcome}\"}} 1");
        assert!(gateway.admin("/metrics").contains(&metric), "{metric}");
    }
}

#[test]
fn a_token_is_validated_refreshed_and_ended_after_a_restart_too() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let token = gateway.login(&basic("finance"), "").token();
    drop(gateway);
    let gateway = fixture.serve();
    assert_eq!(gateway.with_token("GET /token/validate", &token).status, 200);
    assert_eq!(gateway.with_token("POST /token/validate", &token).status, 200);
    let fresh = gateway.with_token("POST /token/refresh", &token);
    assert!(fresh.status == 200 && fresh.token() != token, "{fresh:?}");
    assert_eq!(gateway.with_token("POST /token/logout", &token).status, 204);
    assert_eq!(gateway.with_token("POST /token/validate", &token).status, 401);
}

#[test]
fn anaplans_failures_come_back_as_they_are() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let body = "{\"status\":\"FAILURE_X\"}";
    fixture.service.behave(Behaviour::Answer(500, "Content-Type: application/json\r\n", body));
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!((reply.status, reply.body.as_str(), reply.header("retry-after")), (500, body, None));
    fixture.service.behave(Behaviour::Answer(
        503,
        "Content-Type: text/html\r\nRetry-After: 0\r\n",
        "<html>edge</html>",
    ));
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!(
        (reply.status, reply.header("retry-after"), reply.header("content-type")),
        (503, Some("5"), Some("text/html"))
    );
}

#[test]
fn answers_that_are_not_a_login_are_502() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    for behaviour in [
        Behaviour::Answer(307, "Location: https://evil.example/\r\n", ""),
        Behaviour::Answer(200, "Content-Type: text/html\r\n", "<html>login</html>"),
        Behaviour::Answer(201, "Content-Type: application/json\r\n", "{\"status\":\"SUCCESS\"}"),
        Behaviour::Answer(201, "Content-Encoding: gzip\r\n", "{\"tokenInfo\":{\"tokenValue\":\"x\"}}"),
        Behaviour::Answer(408, "", ""),
        Behaviour::Endless,
        Behaviour::Closes,
    ] {
        fixture.service.behave(behaviour.clone());
        let before = fixture.service.arrived().len();
        let reply = gateway.login(&basic("finance"), "");
        assert_eq!((reply.status, reply.header("retry-after")), (502, Some("5")), "{behaviour:?} {reply:?}");
        // The gateway sent one request to the service.
        assert_eq!(fixture.service.arrived().len(), before + 1, "{behaviour:?}");
    }
}

#[test]
fn a_service_that_does_not_answer_is_504_within_the_deadline() {
    let mut fixture = Fixture::new();
    fixture.top_keys = "deadline = \"2s\"\n".into();
    let gateway = fixture.serve();
    fixture.service.behave(Behaviour::Silent);
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!((reply.status, reply.header("retry-after")), (504, Some("5")), "{reply:?}");
}

#[test]
fn anaplans_429_makes_every_client_wait() {
    let mut fixture = Fixture::new();
    fixture.add_client("other", "");
    let gateway = fixture.serve();
    fixture.service.behave(Behaviour::Answer(
        429,
        "Date: Wed, 21 Oct 2026 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2026 07:29:00 GMT\r\n",
        "{}",
    ));
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("60")));
    fixture.service.behave(Behaviour::Normal);
    let other = gateway.login(&basic("other"), "");
    assert_eq!(other.status, 429, "{other:?}");
    assert!(other.header("retry-after").unwrap().parse::<u64>().unwrap() > 30);
    assert_eq!(fixture.service.arrived().len(), 1);
}

#[test]
fn after_anaplans_refusal_logins_stop_for_a_while() {
    let fixture = Fixture::new();
    let mut gateway = fixture.serve();
    fixture.service.behave(Behaviour::Answer(
        401,
        "Content-Type: application/json\r\n",
        "{\"status\":\"FAILURE_BAD_CREDENTIAL\"}",
    ));
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!((reply.status, reply.header("retry-after")), (401, None));
    fixture.service.behave(Behaviour::Normal);
    let next = gateway.login(&basic("finance"), "");
    assert_eq!((next.status, next.header("retry-after")), (503, None), "{next:?}");
    assert_eq!(fixture.service.arrived().len(), 1);
    // The administrator has fixed the cause, and reloads.
    gateway.reload();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201);
}

#[test]
fn a_client_has_a_rate_of_verified_logins() {
    let mut fixture = Fixture::new();
    fixture.add_client("slow", "rate_limit_per_minute = 2");
    let gateway = fixture.serve();
    for _ in 0..5 {
        let wrong =
            format!("Basic {}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "slow:wrong"));
        assert_eq!(gateway.login(&wrong, "").status, 401);
    }
    assert_eq!(gateway.login(&basic("slow"), "").status, 201);
    assert_eq!(gateway.login(&basic("slow"), "").status, 201);
    let third = gateway.login(&basic("slow"), "");
    assert!(third.status == 429 && third.header("retry-after").is_some(), "{third:?}");
    assert_eq!(gateway.login(&basic("finance"), "").status, 201);
}
