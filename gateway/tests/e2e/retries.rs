//! Copies of a v2 payload, at the same time and after a failure.

use std::io::Write as _;

use crate::fixture::{Fixture, message};
use crate::gateway_process::read_reply;
use crate::service::Behaviour;

const PATH: &str = "POST /token/authenticate";

#[test]
fn identical_copies_share_one_login() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let (header, body) = fixture.certificate_login("tool", "v2", &message(0));
    fixture.service.behave(Behaviour::Held);
    let request = gateway.request_text(PATH, &[("Authorization", &header)], &body);
    let mut first = gateway.connect();
    first.write_all(request.as_bytes()).unwrap();
    fixture.service.wait_for(1);
    let mut copy = gateway.connect();
    copy.write_all(request.as_bytes()).unwrap();
    gateway.wait_for_connections(2);
    // The first caller leaves. Its login is already posted, so it continues, and the copy gets the answer.
    drop(first);
    gateway.wait_for_connections(1);
    fixture.service.release();
    let reply = read_reply(&mut copy).unwrap();
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(fixture.service.arrived().len(), 1);
    // The log and the agent's audit log have the copy's ID.
    let id = reply.header("x-request-id").unwrap();
    gateway.wait_for_log(&format!("login {id}: client finance"));
    let audit = std::fs::read_to_string(&crate::token::token().audit).unwrap();
    assert!(audit.contains(&format!("gateway/finance/{id}")), "{id} {}", gateway.log());
    gateway.wait_for_log("v2 in, v2 out, 201, ok");
    fixture.service.behave(Behaviour::Normal);
    assert_eq!(gateway.send(&request).status, 401);
}

#[test]
fn the_same_bytes_may_come_again_after_503_and_after_a_lost_connection() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let (header, body) = fixture.certificate_login("tool", "v2", &message(0));
    fixture.service.behave(Behaviour::Answer(503, "Retry-After: 5\r\n", "{}"));
    assert_eq!(gateway.login(&header, &body).status, 503);
    fixture.service.behave(Behaviour::Held);
    let mut lost = gateway.connect();
    lost.write_all(gateway.request_text(PATH, &[("Authorization", &header)], &body).as_bytes()).unwrap();
    fixture.service.wait_for(2);
    drop(lost);
    gateway.wait_for_connections(0);
    fixture.service.release();
    gateway.wait_for_log("undelivered");
    fixture.service.behave(Behaviour::Normal);
    assert_eq!(gateway.login(&header, &body).status, 201, "{}", gateway.log());
    assert_eq!(gateway.login(&header, &body).status, 401);
}
