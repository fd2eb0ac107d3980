//! Forms of requests: those of real clients are accepted, those of browsers and proxies are refused.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::fixture::{Fixture, basic};
use crate::gateway_process::read_reply;

const PATH: &str = "POST /token/authenticate";

#[test]
fn request_forms_of_real_clients_are_accepted() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let port = gateway.port;
    let basic = basic("finance");
    let pem = std::fs::read_to_string(fixture.path().join("tool.pem")).unwrap().replace('\n', "\r\n");
    let pem = format!("CACertificate {}", STANDARD.encode(format!("Bag Attributes\r\n{pem}{pem}")));
    let v1 = fixture.certificate_login("tool", "v1", &[9; 150]).1;
    let as_string = serde_json::to_string(&v1).unwrap();
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&v1).unwrap()).unwrap();
    let marked_pem = format!("\u{feff}{}", std::fs::read_to_string(fixture.path().join("tool.pem")).unwrap());
    let marked_pem = format!("CACertificate {}", STANDARD.encode(marked_pem));
    let marked_body = format!("\u{feff}{v1}");
    let mut requests = vec![
        ("HTTP/1.0 without Host", format!("{PATH} HTTP/1.0\r\nAuthorization: {basic}\r\nContent-Length: 0\r\n\r\n")),
        (
            "no length",
            format!(
                "{PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAUTHORIZATION: {}\r\n\r\n",
                basic.replace("Basic", "bAsIC")
            ),
        ),
        (
            "slashes and a query",
            gateway.request_text("POST //token//authenticate/?x=1", &[("Authorization", &basic)], ""),
        ),
        (
            "chunked",
            format!(
                "{PATH} HTTP/1.1\r\nHost: [::1]:{port}\r\nAuthorization: {pem}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{v1}\r\n0\r\n\r\n",
                v1.len()
            ),
        ),
        (
            "another Content-Type",
            gateway.request_text(PATH, &[("Authorization", &pem), ("Content-Type", "text/plain")], &v1),
        ),
        ("byte order marks", gateway.request_text(PATH, &[("Authorization", &marked_pem)], &marked_body)),
        ("a JSON string", gateway.request_text(PATH, &[("Authorization", &pem)], &as_string)),
        ("pretty JSON", gateway.request_text(PATH, &[("authorization", &pem)], &pretty)),
    ];
    requests.push((
        "Java's offer of HTTP/2",
        gateway.request_text(
            PATH,
            &[
                ("Authorization", &basic),
                ("Connection", "Upgrade, HTTP2-Settings"),
                ("Upgrade", "h2c"),
                ("HTTP2-Settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"),
            ],
            "",
        ),
    ));
    for (what, request) in requests {
        let reply = gateway.send(request);
        assert_eq!(reply.status, 201, "{what}: {reply:?} {}", gateway.log());
    }
    let mut stream = gateway.connect();
    let head = gateway.request_text(PATH, &[("Authorization", &pem), ("Expect", "100-continue")], &v1);
    let (head, body) = head.split_at(head.len() - v1.len());
    stream.write_all(head.as_bytes()).unwrap();
    let mut continued = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut continued).unwrap();
    assert!(continued.starts_with(b"HTTP/1.1 100"));
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(read_reply(&mut stream).unwrap().status, 201);
}

#[test]
fn requests_of_browsers_and_proxies_are_refused() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let basic = basic("finance");
    let with = |name: &str, value: &str| gateway.request_text(PATH, &[("Authorization", &basic), (name, value)], "");
    let host = |host: &str| with("X", "y").replace(&format!("localhost:{}", gateway.port), host);
    let line = |line: &str| with("X", "y").replace(PATH, line);
    for (status, request) in [
        (403, with("Origin", "https://evil.example")),
        (403, with("Origin", "null")),
        (403, with("Sec-Fetch-Site", "same-origin")),
        (403, line("OPTIONS /token/authenticate")),
        (403, host("evil.example")),
        (403, host(&format!("evil.example:{}", gateway.port))),
        (403, host("localhost:1")),
        (400, with("Upgrade", "websocket")),
        (400, with("Authorization", "Basic AAAA")),
        (400, line(&format!("POST http://localhost:{}/token/authenticate", gateway.port))),
        (400, line(&format!("CONNECT localhost:{}", gateway.port))),
    ] {
        let reply = gateway.send(&request);
        assert_eq!(reply.status, status, "{request} {reply:?}");
        assert!(!reply.head.to_lowercase().contains("access-control"), "{reply:?}");
    }
    assert!(fixture.service.arrived().is_empty());
}

#[test]
fn paths_beyond_the_four_are_not_served() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    for line in [
        "GET /",
        "GET /token/authenticate",
        "PUT /token/authenticate",
        "POST /token",
        "POST /token/authenticate/x",
        "POST /sign",
        "GET /metrics",
        "GET /clients",
        "GET /healthz",
        "GET /2/0/workspaces",
        "POST /token/../sign",
        "POST /%74oken/authenticate",
        "DELETE /token/logout",
        "GET /token/logout",
        "GET /token/refresh",
    ] {
        let reply = gateway.send(gateway.request_text(line, &[("Authorization", &basic("finance"))], ""));
        assert_eq!(reply.status, 404, "{line}");
    }
    assert!(fixture.service.arrived().is_empty());
}
