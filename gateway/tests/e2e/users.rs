//! Other users of the host on loopback. These tests need root, to become those users.

use std::process::{Command, Stdio};

use crate::stand::{Gateway, Stand, basic};
use crate::token::is_root;

/// What curl gets as another user.
pub(crate) fn as_user(user: u32, gateway: &Gateway, header: &str, body: &str) -> String {
    let url = format!("http://127.0.0.1:{}/token/authenticate", gateway.port);
    let mut command = command_as(user, "curl");
    command.args(["-sS", "-X", "POST", "-H", &format!("Authorization: {header}"), "--data-raw", body, &url]);
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn command_as(user: u32, program: &str) -> Command {
    assert!(is_root(), "this test must run as root, to become another user");
    let mut command = Command::new("setpriv");
    let id = user.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", program]).stdin(Stdio::null());
    command
}

#[test]
fn another_user_on_loopback_is_not_served_and_root_is_not_implied() {
    let mut stand = Stand::new();
    stand.add_client("theirs", "users = [61234]");
    let gateway = stand.serve();
    assert!(as_user(61235, &gateway, &basic("theirs"), "").contains("FAILURE_BAD_CREDENTIAL"));
    assert!(as_user(61234, &gateway, &basic("theirs"), "").contains("MARKER-TOKEN"), "{}", gateway.log());
    // The tests run as root, which is not listed.
    assert_eq!(gateway.login(&basic("theirs"), "").status, 401);
    assert!(as_user(65534, &gateway, &basic("theirs"), "").contains("FAILURE_BAD_CREDENTIAL"));
}

/// Connects by a dual-stack socket to an IPv4 listener, sends a login, and prints the answer.
const DUAL_STACK: &str = "
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.connect(('::ffff:127.0.0.1', int(sys.argv[1])))
s.sendall(sys.argv[2].encode())
print(s.recv(65536).decode())
";

#[test]
fn a_dual_stack_socket_shows_its_user() {
    let mut stand = Stand::new();
    stand.add_client("theirs", "users = [61234]");
    let gateway = stand.serve();
    let request = gateway.text("POST /token/authenticate", &[("Authorization", &basic("theirs"))], "");
    for (user, wanted) in [(61234, "201 Created"), (61235, "401 Unauthorized")] {
        let mut command = command_as(user, "/usr/bin/python3");
        let output = command.args(["-c", DUAL_STACK, &gateway.port.to_string(), &request]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains(wanted), "{user} {output:?} {}", gateway.log());
    }
}

/// Sends a login and closes at once, again and again: the kernel names root as the owner of what was closed.
const CLOSING: &str = "
import socket, sys
for _ in range(300):
    s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
    s.sendall(sys.argv[2].encode())
    s.close()
";

#[test]
fn a_connection_that_closes_at_once_does_not_count_as_roots() {
    let stand = Stand::new();
    let gateway = stand.serve();
    // `finance` may be used by root, as which the tests run.
    let request = gateway.text("POST /token/authenticate", &[("Authorization", &basic("finance"))], "");
    let mut command = command_as(61235, "/usr/bin/python3");
    let output = command.args(["-c", CLOSING, &gateway.port.to_string(), &request]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // The listener takes connections in their order, so all of them were judged before this one.
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    assert_eq!(stand.service.arrived().len(), 1, "{}", gateway.log());
    // No login was begun for any of them: not as root's, and not until it was seen that nobody waits for it.
    gateway.wait_for_log("v2 out, 201, ok");
    let log = gateway.log();
    assert_eq!(log.lines().filter(|line| line.contains("client finance")).count(), 1, "{log}");
}

#[test]
fn a_holder_of_a_token_may_use_it_as_any_user_of_this_host() {
    let stand = Stand::new();
    let gateway = stand.serve();
    let token = gateway.login(&basic("finance"), "").token();
    let url = format!("http://127.0.0.1:{}/token/validate", gateway.port);
    let output = command_as(61234, "curl")
        .args(["-sS", "-H", &format!("Authorization: AnaplanAuthToken {token}"), &url])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("SUCCESS"), "{output:?}");
}
