//! Limits of size, time, connections and memory.

use std::io::Write as _;
use std::net::TcpStream;

use crate::fixture::{Fixture, basic};
use crate::gateway_process::{Gateway, read_reply};

const PATH: &str = "POST /token/authenticate";

#[test]
fn heads_and_bodies_have_a_size_and_a_time() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let basic = basic("finance");
    let long = "x".repeat(17 << 10);
    let reply = gateway.send(gateway.request_text(PATH, &[("Authorization", &basic), ("X", &long)], ""));
    assert_eq!(reply.status, 431, "{reply:?}");
    assert_eq!(gateway.login(&basic, &long).status, 413);
    let chunked = format!(
        "{PATH} HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: {basic}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        gateway.port,
        long.len()
    );
    assert_eq!(gateway.send(chunked).status, 413);
    // After an incomplete head, the gateway closes without a reply. It never sends 408, after which clients retry.
    let mut slow = gateway.connect();
    slow.write_all(b"POST /token/authenticate HTTP/1.1\r\nHost: x").unwrap();
    assert!(read_reply(&mut slow).is_none());
    let mut slow = gateway.connect();
    let text = gateway.request_text(PATH, &[("Authorization", &basic)], "0123456789");
    slow.write_all(&text.as_bytes()[..text.len() - 5]).unwrap();
    assert_eq!(read_reply(&mut slow).map(|reply| reply.status), Some(400));
    assert!(fixture.service.arrived().is_empty());
}

#[test]
fn a_thousand_idle_connections_and_slow_senders_cost_nobody_a_login() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let idle: Vec<TcpStream> = (0..1000).map(|_| gateway.connect()).collect();
    for mut stream in &idle[..500] {
        stream.write_all(b"POST /token/authenticate HTTP/1.1\r\nHo").unwrap();
    }
    for _ in 0..5 {
        assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    }
    // At its limit, a source loses its own oldest idle connections.
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
