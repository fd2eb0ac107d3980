//! Malformed and ambiguous requests, and several requests on one connection.

use std::io::Write as _;

use crate::fixture::{Fixture, basic};
use crate::gateway_process::read_reply;

const PATH: &str = "POST /token/authenticate";

#[test]
fn no_form_of_a_request_smuggles_a_second_one_in() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let port = gateway.port;
    let inner = gateway.request_text(PATH, &[("Authorization", &basic("finance"))], "");
    let head =
        format!("POST /token/validate HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: AnaplanAuthToken x\r\n");
    for (what, request) in [
        (
            "two kinds of length",
            format!("{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        (
            "two kinds of length, other order",
            format!("{head}Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n0\r\n\r\n{inner}", inner.len()),
        ),
        ("two lengths", format!("{head}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{inner}", inner.len())),
        (
            "chunked twice",
            format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        ("another coding", format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}")),
        ("a length with a sign", format!("{head}Content-Length: +0\r\n\r\n{inner}")),
        ("space before the colon", format!("{head}Content-Length : {}\r\n\r\n{inner}", inner.len())),
        ("folded header", format!("{head}X: a\r\n Content-Length: 9\r\n\r\n{inner}")),
    ] {
        let mut stream = gateway.connect();
        let _ = stream.write_all(request.as_bytes());
        let mut replies = Vec::new();
        while let Some(reply) = read_reply(&mut stream) {
            replies.push(reply.status);
        }
        assert!(!replies.contains(&201), "{what}: {replies:?}");
    }
    let logins = fixture.service.arrived().into_iter().filter(|arrived| arrived.line.contains("authenticate")).count();
    assert_eq!(logins, 0);
}

/// Each request has valid credentials, and only its form is invalid.
#[test]
fn requests_of_odd_forms_get_the_documented_answer_and_reach_nobody() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let port = gateway.port;
    let basic = basic("finance");
    let login = |line: &str, headers: &str, body: &str| {
        format!("{line}\r\nHost: localhost:{port}\r\nAuthorization: {basic}\r\n{headers}\r\n{body}")
    };
    let line = format!("{PATH} HTTP/1.1");
    let header = |headers: &str| login(&line, &format!("{headers}\r\n"), "");
    let with_body = |headers: &str, body: &str| login(&line, &format!("{headers}\r\n"), body);
    let target = |target: &str| login(&format!("POST {target} HTTP/1.1"), "", "");
    let start = |start: &str| login(start, "", "");
    let host = |host: &str| format!("{line}\r\n{host}Authorization: {basic}\r\n\r\n");
    let many: String = (0..101).map(|number| format!("X{number}: y\r\n")).collect();
    // 0 stands for a connection that is closed without an answer.
    let cases = [
        (400, header("X: a\r\n b")),
        (400, header("Content-Length: 0\r\nContent-Length: 0")),
        (400, header("Content-Length: 0, 0")),
        (400, header("Content-Length: -1")),
        (400, header("Content-Length: 0x0")),
        (400, header("Content-Length: 99999999999999999999")),
        (400, with_body("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n")),
        (400, with_body("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
        (400, with_body("Transfer-Encoding: chunked, identity", "0\r\n\r\n")),
        (501, with_body("Transfer-Encoding: gzip, chunked", "0\r\n\r\n")),
        (400, header("Transfer-Encoding: x")),
        (400, login(&format!("{PATH} HTTP/1.0"), "Transfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        (400, with_body("Transfer-Encoding: chunked", "zz\r\n\r\n")),
        (400, with_body("Transfer-Encoding: chunked", "fffffffffffffffff\r\n\r\n")),
        (
            401,
            format!(
                "{line}\r\nHost: localhost:{port}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: {basic}\r\n\r\n"
            ),
        ),
        (400, target(&format!("http://localhost:{port}/token/authenticate"))),
        (400, target(&format!("HTTP://localhost:{port}/token/authenticate"))),
        (400, target("https://auth.anaplan.com/token/authenticate")),
        (400, start("CONNECT auth.anaplan.com:443 HTTP/1.1")),
        (403, start("OPTIONS * HTTP/1.1")),
        (404, target("*")),
        (404, target("//evil.example/token/authenticate")),
        (404, target("/token/%2e/authenticate")),
        (404, target("/x/%2e%2e/token/authenticate")),
        (404, target("/token/x/../authenticate")),
        (404, target("/token%2fauthenticate")),
        (404, target("/token\\authenticate")),
        (404, target("/token/authenticate;x=1")),
        (404, target("/TOKEN/AUTHENTICATE")),
        (404, target("/token/authenticat\u{e9}")),
        (400, target("/token/authenticate\0")),
        (400, header("X: a\0b")),
        (400, header("X: a\rb")),
        (400, header(": x")),
        (404, start("post /token/authenticate HTTP/1.1")),
        (404, login("GET /token/authenticate HTTP/1.1", "X-HTTP-Method-Override: POST\r\n", "")),
        (404, login("POST /x HTTP/1.1", "X-Original-URL: /token/authenticate\r\n", "")),
        (400, start(&format!("{PATH} HTTP/1.2"))),
        (400, start(&format!("{PATH} HTTP/2.0"))),
        (400, start(PATH)),
        (0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".into()),
        (400, "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".repeat(20)),
        (400, header("Connection: Upgrade\r\nUpgrade: h2c, websocket")),
        (431, header(many.trim_end())),
        (431, header(&format!("X: {}", "y".repeat(17 << 10)))),
        (413, header("Content-Length: 16385")),
        (413, header("Expect: 100-continue\r\nContent-Length: 999999")),
        (400, header(&format!("Host: localhost:{port}"))),
        (403, host("")),
        (403, host("Host:\r\n")),
        (403, host("Host: localhost\r\n")),
        (403, host(&format!("Host: localhost.:{port}\r\n"))),
        (403, host(&format!("Host: a@localhost:{port}\r\n"))),
        (403, host(&format!("Host: 127.1:{port}\r\n"))),
        (403, host(&format!("Host: 2130706433:{port}\r\n"))),
        (403, host(&format!("Host: localhost:0{port}\r\n"))),
        (403, header("Origin:")),
        (401, header("X: y").replace("Authorization", "Proxy-Authorization")),
        (401, header("X: y").replace(&basic, &format!("{basic}, Basic AAAA"))),
        (401, header("X: y").replace("POST /token/authenticate", "GET /token/validate")),
    ];
    for (status, request) in &cases {
        let mut stream = gateway.connect();
        let _ = stream.write_all(request.as_bytes());
        let answered = read_reply(&mut stream).map_or(0, |reply| reply.status);
        let shown: String = request.chars().take(300).collect();
        assert_eq!(answered, *status, "{shown:?}");
    }
    assert!(fixture.service.arrived().is_empty(), "{:?}", fixture.service.arrived());
    // A caller that closes before its request is complete does not disturb others.
    for end in [0, 10, 60, 100] {
        let mut stream = gateway.connect();
        stream.write_all(&header("Content-Length: 5").as_bytes()[..end]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answered = read_reply(&mut stream).map_or(0, |reply| reply.status);
        assert!([0, 400].contains(&answered), "{end}: {answered}");
    }
    assert!(fixture.service.arrived().is_empty());
    assert_eq!(gateway.login(&basic, "").status, 201);
}

/// A tool whose URL begins with https:// instead of http:// sends such bytes.
#[test]
fn a_request_that_is_not_http_is_counted_and_logged() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    for (number, request) in
        ["\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".repeat(20), "PRI * HTTP/2.0\r\n\r\n".into()].iter().enumerate()
    {
        let mut stream = gateway.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let answered = read_reply(&mut stream).map_or(0, |reply| reply.status);
        assert!([0, 400].contains(&answered), "{answered}");
        gateway.wait_for_log_lines("it is not HTTP/1.1: ", number + 1);
        let metric = format!("cba_gateway_refused_total{{reason=\"bad_request\"}} {}", number + 1);
        assert!(gateway.admin("/metrics").contains(&metric), "{}", gateway.admin("/metrics"));
    }
    // A caller that leaves in the middle of a head is not refused.
    let mut stream = gateway.connect();
    stream.write_all(b"POST /token").unwrap();
    drop(stream);
    gateway.wait_for_connections(0);
    assert_eq!(gateway.log().matches("it is not HTTP/1.1: ").count(), 2, "{}", gateway.log());
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let basic = basic("finance");
    let good = gateway.request_text(PATH, &[("Authorization", &basic)], "");
    let bad = gateway.request_text(PATH, &[("Authorization", "Basic YTpi")], "");
    let mut stream = gateway.connect();
    stream.write_all(format!("{good}{bad}{good}").as_bytes()).unwrap();
    let mut next = || read_reply(&mut stream).unwrap().status;
    assert_eq!([next(), next(), next()], [201, 401, 201]);
    // The gateway does not read the bytes after a malformed request.
    let mut stream = gateway.connect();
    stream.write_all(format!("GET /x HTTP/1.1\r\nHost: localhost:{}\r\n\r\n{good}", gateway.port).as_bytes()).unwrap();
    assert_eq!(read_reply(&mut stream).unwrap().status, 404);
    assert!(read_reply(&mut stream).is_none());
    assert_eq!(fixture.service.arrived().len(), 2);
}

#[test]
fn a_pipelined_request_with_two_lengths_is_refused_as_alone() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let (port, basic) = (gateway.port, basic("finance"));
    let login = |headers: &str, body: &str| {
        format!("{PATH} HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: {basic}\r\n{headers}\r\n{body}")
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    let good = [
        login("Content-Length: 3\r\n", "\r\n\r"),
        login("", ""),
        // As Java's client sends it.
        login(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\nContent-Length: 0\r\n",
            "",
        ),
        login(chunked, "3;x=y\r\n\n\r\n\r\n0\r\nContent-Length: 1\r\n\r\n"),
    ];
    let bad = [
        login("Content-Length: 0\r\nContent-Length: 0\r\n", ""),
        login(&format!("{chunked}Content-Length: 5\r\n"), "0\r\n\r\n"),
        login(&format!("Content-Length: 5\r\n{chunked}"), "0\r\n\r\n"),
    ];
    for bad in &bad {
        let mut stream = gateway.connect();
        stream.write_all(format!("{}{bad}{}", good.concat(), good[0]).as_bytes()).unwrap();
        let replies: Vec<u16> = std::iter::from_fn(|| read_reply(&mut stream)).map(|reply| reply.status).collect();
        assert_eq!(replies, [201, 201, 201, 201, 400], "{bad}");
    }
    assert_eq!(fixture.service.arrived().len(), bad.len() * good.len());
}
