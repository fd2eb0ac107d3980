//! Callers that are not who they say, and requests of odd forms.

use std::io::Write as _;
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::stand::{Gateway, Reply, Stand, basic, message, read_reply};

const PATH: &str = "POST /token/authenticate";

/// The status and the answer without what differs in each.
fn uniform(reply: &Reply) -> (u16, String) {
    let id = reply.header("x-request-id").unwrap();
    (reply.status, reply.body.replace(id, "ID"))
}

#[test]
fn every_failed_identity_gets_the_same_answer() {
    let mut stand = Stand::new();
    stand.tool_identity("unknown");
    stand.tool_identity("elsewhere");
    stand.tool_identity("revoked");
    stand.add_client("elsewhere", "certificates = [\"DIR/elsewhere.pem\"]\nusers = [61234]");
    stand.add_client("revoked", "certificates = [\"DIR/revoked.pem\"]\ndisabled = true");
    let gateway = stand.serve();
    let login = |name: &str| stand.certificate_login(name, "v2", &message(0));
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
    let none = gateway.raw(gateway.text(PATH, &[], ""));
    answers.push(("no header", uniform(&none)));
    let first = answers[0].1.clone();
    assert_eq!(first.0, 401);
    for (what, answer) in &answers {
        assert_eq!(*answer, first, "{what}");
    }
    assert!(stand.service.arrived().is_empty());
    let log = gateway.log();
    assert!(!log.contains("somebody's") && !log.contains("nobody@example.com"), "{log}");
    assert_eq!(gateway.login(&listed.0, &listed.1).status, 201);
}

#[test]
fn a_private_key_in_the_header_is_an_alarm_without_its_content() {
    let stand = Stand::new();
    let gateway = stand.serve();
    let key = std::fs::read_to_string(stand.path().join("tool.key")).unwrap();
    let reply = gateway.login(&format!("CACertificate {}", STANDARD.encode(&key)), "");
    assert_eq!(reply.status, 401);
    gateway.wait_for_log("ALARM");
    let log = gateway.log();
    assert!(key.lines().filter(|line| line.len() == 64).all(|line| !log.contains(line)), "{log}");
}

#[test]
fn request_forms_of_real_clients_are_accepted() {
    let stand = Stand::new();
    let gateway = stand.serve();
    let port = gateway.port;
    let basic = basic("finance");
    let pem = std::fs::read_to_string(stand.path().join("tool.pem")).unwrap().replace('\n', "\r\n");
    let pem = format!("CACertificate {}", STANDARD.encode(format!("Bag Attributes\r\n{pem}{pem}")));
    let v1 = stand.certificate_login("tool", "v1", &[9; 150]).1;
    let as_string = serde_json::to_string(&v1).unwrap();
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&v1).unwrap()).unwrap();
    let mut requests = vec![
        ("HTTP/1.0 without Host", format!("{PATH} HTTP/1.0\r\nAuthorization: {basic}\r\nContent-Length: 0\r\n\r\n")),
        (
            "no length",
            format!(
                "{PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAUTHORIZATION: {}\r\n\r\n",
                basic.replace("Basic", "bAsIC")
            ),
        ),
        ("slashes and a query", gateway.text("POST //token//authenticate/?x=1", &[("Authorization", &basic)], "")),
        (
            "chunked",
            format!(
                "{PATH} HTTP/1.1\r\nHost: [::1]:{port}\r\nAuthorization: {pem}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{v1}\r\n0\r\n\r\n",
                v1.len()
            ),
        ),
        ("another Content-Type", gateway.text(PATH, &[("Authorization", &pem), ("Content-Type", "text/plain")], &v1)),
        ("a JSON string", gateway.text(PATH, &[("Authorization", &pem)], &as_string)),
        ("pretty JSON", gateway.text(PATH, &[("authorization", &pem)], &pretty)),
    ];
    requests.push((
        "Java's offer of HTTP/2",
        gateway.text(
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
        let reply = gateway.raw(request);
        assert_eq!(reply.status, 201, "{what}: {reply:?} {}", gateway.log());
    }
    let mut stream = gateway.connect();
    let head = gateway.text(PATH, &[("Authorization", &pem), ("Expect", "100-continue")], &v1);
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
    let stand = Stand::new();
    let gateway = stand.serve();
    let basic = basic("finance");
    let with = |name: &str, value: &str| gateway.text(PATH, &[("Authorization", &basic), (name, value)], "");
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
        let reply = gateway.raw(&request);
        assert_eq!(reply.status, status, "{request} {reply:?}");
        assert!(!reply.head.to_lowercase().contains("access-control"), "{reply:?}");
    }
    assert!(stand.service.arrived().is_empty());
}

#[test]
fn paths_beyond_the_four_are_not_served() {
    let stand = Stand::new();
    let gateway = stand.serve();
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
        let reply = gateway.raw(gateway.text(line, &[("Authorization", &basic("finance"))], ""));
        assert_eq!(reply.status, 404, "{line}");
    }
    assert!(stand.service.arrived().is_empty());
}

#[test]
fn no_form_of_a_request_smuggles_a_second_one_in() {
    let stand = Stand::new();
    let gateway = stand.serve();
    let port = gateway.port;
    let inner = gateway.text(PATH, &[("Authorization", &basic("finance"))], "");
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
    let logins = stand.service.arrived().into_iter().filter(|arrived| arrived.line.contains("authenticate")).count();
    assert_eq!(logins, 0);
}

#[test]
fn heads_and_bodies_have_a_size_and_a_time() {
    let stand = Stand::new();
    let gateway = stand.serve();
    let basic = basic("finance");
    let long = "x".repeat(17 << 10);
    let reply = gateway.raw(gateway.text(PATH, &[("Authorization", &basic), ("X", &long)], ""));
    assert_eq!(reply.status, 431, "{reply:?}");
    assert_eq!(gateway.login(&basic, &long).status, 413);
    let chunked = format!(
        "{PATH} HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: {basic}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        gateway.port,
        long.len()
    );
    assert_eq!(gateway.raw(chunked).status, 413);
    // A head that never ends is closed without an answer, and never with 408, which clients repeat.
    let mut slow = gateway.connect();
    slow.write_all(b"POST /token/authenticate HTTP/1.1\r\nHost: x").unwrap();
    assert!(read_reply(&mut slow).is_none());
    let mut slow = gateway.connect();
    let text = gateway.text(PATH, &[("Authorization", &basic)], "0123456789");
    slow.write_all(&text.as_bytes()[..text.len() - 5]).unwrap();
    assert_eq!(read_reply(&mut slow).map(|reply| reply.status), Some(400));
    assert!(stand.service.arrived().is_empty());
}

#[test]
fn a_thousand_idle_connections_and_slow_senders_cost_nobody_a_login() {
    let stand = Stand::new();
    let gateway = stand.serve();
    let idle: Vec<TcpStream> = (0..1000).map(|_| gateway.connect()).collect();
    for mut stream in &idle[..500] {
        stream.write_all(b"POST /token/authenticate HTTP/1.1\r\nHo").unwrap();
    }
    for _ in 0..5 {
        assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    }
    // Beyond its share, a source makes room among its own idle connections.
    let more: Vec<TcpStream> = (0..200).map(|_| gateway.connect()).collect();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    assert!(memory(&gateway) < 24 << 10, "{} KiB", memory(&gateway));
    drop((idle, more));
}

/// Resident memory in KiB.
fn memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_flood_of_bad_signatures_stops_only_its_source() {
    let mut stand = Stand::new();
    stand.clients = stand.clients.replace("users = [", "users = [61234, ");
    let gateway = stand.serve();
    let (header, body) = stand.certificate_login("tool", "v1", &[7; 150]);
    let bad = body.replace("encodedSignedData\":\"", "encodedSignedData\":\"AAAA");
    let mut stream = gateway.connect();
    for _ in 0..1000 {
        let request = gateway.text(PATH, &[("Authorization", &header)], &bad);
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_reply(&mut stream).unwrap().status, 401);
    }
    // The source is stopped under this client, though its payload is good now.
    assert_eq!(gateway.login(&header, &body).status, 401);
    gateway.wait_for_log("too many failed logins");
    let log = gateway.log();
    assert!(log.lines().count() < 100, "{log}");
    // The real client is another user, and logs in.
    let reply = crate::users::as_user(61234, &gateway, &header, &body);
    assert!(reply.contains("MARKER-TOKEN"), "{reply} {}", gateway.log());
}

#[test]
fn identical_copies_share_one_login() {
    let stand = Stand::new();
    let gateway = stand.serve();
    let (header, body) = stand.certificate_login("tool", "v2", &message(0));
    stand.service.behave(crate::service::Behaviour::Held);
    let request = gateway.text(PATH, &[("Authorization", &header)], &body);
    let mut first = gateway.connect();
    first.write_all(request.as_bytes()).unwrap();
    stand.service.wait_for(1);
    let mut copy = gateway.connect();
    copy.write_all(request.as_bytes()).unwrap();
    gateway.wait_for_connections(2);
    // The first caller leaves. Its login is already posted, so it continues, and the copy gets the answer.
    drop(first);
    gateway.wait_for_connections(1);
    stand.service.release();
    let reply = read_reply(&mut copy).unwrap();
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(stand.service.arrived().len(), 1);
    gateway.wait_for_log("v2 in, v2 out, 201, ok");
    stand.service.behave(crate::service::Behaviour::Normal);
    assert_eq!(gateway.raw(&request).status, 401);
}

#[test]
fn the_same_bytes_may_come_again_after_503_and_after_a_lost_connection() {
    let stand = Stand::new();
    let gateway = stand.serve();
    let (header, body) = stand.certificate_login("tool", "v2", &message(0));
    stand.service.behave(crate::service::Behaviour::Answer(503, "Retry-After: 5\r\n", "{}"));
    assert_eq!(gateway.login(&header, &body).status, 503);
    stand.service.behave(crate::service::Behaviour::Held);
    let mut lost = gateway.connect();
    lost.write_all(gateway.text(PATH, &[("Authorization", &header)], &body).as_bytes()).unwrap();
    stand.service.wait_for(2);
    drop(lost);
    gateway.wait_for_connections(0);
    stand.service.release();
    gateway.wait_for_log("undelivered");
    stand.service.behave(crate::service::Behaviour::Normal);
    assert_eq!(gateway.login(&header, &body).status, 201, "{}", gateway.log());
    assert_eq!(gateway.login(&header, &body).status, 401);
}

/// Each request is a whole login of a listed client, but for its form.
#[test]
fn requests_of_odd_forms_get_the_documented_answer_and_reach_nobody() {
    let stand = Stand::new();
    let gateway = stand.serve();
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
    assert!(stand.service.arrived().is_empty(), "{:?}", stand.service.arrived());
    // A caller that closes before its request is whole gets nothing, and disturbs nobody.
    for end in [0, 10, 60, 100] {
        let mut stream = gateway.connect();
        stream.write_all(&header("Content-Length: 5").as_bytes()[..end]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answered = read_reply(&mut stream).map_or(0, |reply| reply.status);
        assert!([0, 400].contains(&answered), "{end}: {answered}");
    }
    assert!(stand.service.arrived().is_empty());
    assert_eq!(gateway.login(&basic, "").status, 201);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let stand = Stand::new();
    let gateway = stand.serve();
    let basic = basic("finance");
    let good = gateway.text(PATH, &[("Authorization", &basic)], "");
    let bad = gateway.text(PATH, &[("Authorization", "Basic YTpi")], "");
    let mut stream = gateway.connect();
    stream.write_all(format!("{good}{bad}{good}").as_bytes()).unwrap();
    let mut next = || read_reply(&mut stream).unwrap().status;
    assert_eq!([next(), next(), next()], [201, 401, 201]);
    // What follows a request of bad form is not read.
    let mut stream = gateway.connect();
    stream.write_all(format!("GET /x HTTP/1.1\r\nHost: localhost:{}\r\n\r\n{good}", gateway.port).as_bytes()).unwrap();
    assert_eq!(read_reply(&mut stream).unwrap().status, 404);
    assert!(read_reply(&mut stream).is_none());
    assert_eq!(stand.service.arrived().len(), 2);
}
