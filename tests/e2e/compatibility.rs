//! Agents and clients of different versions; docs/clients.md has the promise.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::openssl::openssl_accepts;

/// Answers one request on a socket with this status and body, and returns the request.
fn agent(fixture: &Fixture, status: &str, body: &Value) -> (String, std::thread::JoinHandle<Value>) {
    let socket = fixture.file("other.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let kind = if status.starts_with("200") { "application/json" } else { "application/problem+json" };
    let body = body.to_string();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-New: 1\r\nContent-Length: {}\r\n\r\n", body.len());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let request = String::from_utf8(request[..length].to_vec()).unwrap();
        assert!(request.starts_with("POST /sign HTTP/1.1\r\n"), "{request}");
        serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    });
    (socket, thread)
}

#[test]
fn a_client_ignores_what_a_newer_agent_adds_to_its_answer() {
    let fixture = Fixture::new();
    let mut answer: Value = serde_json::from_str(&fixture.sign(&[]).ok()).unwrap();
    answer["agent"] = json!({ "version": "9.0", "more": [1] });
    answer["headers"]["X-New"] = json!("x");
    answer["body"]["encodedDataMore"] = json!(null);
    let (socket, asked) = agent(&fixture, "200 OK", &answer);
    let printed: Value = serde_json::from_str(&fixture.run(&["sign", "--socket", &socket]).ok()).unwrap();
    openssl_accepts(&fixture, &printed);
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&printed), ["body", "headers", "method", "url"]);
    assert_eq!(members(&printed["headers"]), ["Authorization", "Content-Type"]);
    assert_eq!(printed["body"].as_object().unwrap().len(), 3);
    asked.join().unwrap();
}

#[test]
fn a_client_sends_only_members_that_the_first_agent_knew() {
    let fixture = Fixture::new();
    let answer: Value = serde_json::from_str(&fixture.sign(&[]).ok()).unwrap();
    for (job, expected) in [
        (&[][..], json!({ "payload_version": "v2" })),
        (&["--job", "nightly"], json!({ "payload_version": "v2", "job": "nightly" })),
    ] {
        let (socket, asked) = agent(&fixture, "200 OK", &answer);
        fixture.run(&[&["sign", "--socket", &socket], job].concat()).ok();
        assert_eq!(asked.join().unwrap(), expected);
    }
}

#[test]
fn an_unknown_refusal_counts_by_its_http_status() {
    let fixture = Fixture::new();
    for (status, code) in [("403 Forbidden", 5), ("422 x", 5), ("418 x", 5), ("429 x", 9), ("503 x", 9), ("599 x", 9)] {
        let problem = json!({ "title": "new", "status": 0, "code": "a_new_code", "more": {} });
        let (socket, asked) = agent(&fixture, status, &problem);
        let error = fixture.run(&["sign", "--socket", &socket]).failed(code);
        assert!(error.contains("a_new_code"), "{error}");
        asked.join().unwrap();
    }
}
