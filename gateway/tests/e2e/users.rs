//! Other users of the host on loopback. These tests need root, to become those users.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, basic};
use crate::gateway_process::{Gateway, read_reply};
use crate::token::is_root;

/// The reply that curl gets as another user.
pub(crate) fn as_user(user: u32, gateway: &Gateway, header: &str, body: &str) -> String {
    let url = format!("http://127.0.0.1:{}/token/authenticate", gateway.port);
    let mut command = command_as(user, "curl");
    command.args(["-sS", "-X", "POST", "-H", &format!("Authorization: {header}"), "--data-raw", body, &url]);
    let output = command.finish();
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
    let mut fixture = Fixture::new();
    fixture.add_client("theirs", "users = [61234]");
    let gateway = fixture.serve();
    assert!(as_user(61235, &gateway, &basic("theirs"), "").contains("FAILURE_BAD_CREDENTIAL"));
    assert!(as_user(61234, &gateway, &basic("theirs"), "").contains("MARKER-TOKEN"), "{}", gateway.log());
    // The tests run as root, which is not listed.
    assert_eq!(gateway.login(&basic("theirs"), "").status, 401);
    assert!(as_user(65534, &gateway, &basic("theirs"), "").contains("FAILURE_BAD_CREDENTIAL"));
}

/// Connects by a dual-stack socket to an address, sends a login, and prints the answer.
const DUAL_STACK: &str = "
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.connect((sys.argv[1], int(sys.argv[2])))
s.sendall(sys.argv[3].encode())
print(s.recv(65536).decode())
";

/// Sends many logins and closes each connection at once. For a closed connection, the kernel names root as the owner.
const CLOSING: &str = "
import socket, sys
for _ in range(300):
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    s.sendall(sys.argv[3].encode())
    s.close()
";

/// Listeners as systemd can hand them over, and the addresses at which callers reach them.
fn listeners() -> [(TcpListener, &'static [&'static str]); 3] {
    [
        (TcpListener::bind("127.0.0.1:0").unwrap(), &["::ffff:127.0.0.1"]),
        (TcpListener::bind("[::1]:0").unwrap(), &["::1"]),
        // An IPv6 socket whose callers use IPv4.
        (TcpListener::bind("[::ffff:127.0.0.1]:0").unwrap(), &["::ffff:127.0.0.1"]),
    ]
}

#[test]
fn a_dual_stack_socket_shows_its_user() {
    let mut fixture = Fixture::new();
    fixture.add_client("theirs", "users = [61234]");
    let config = fixture.configure();
    for (listener, addresses) in listeners() {
        let mut gateway = fixture.start(crate::lifecycle::inherit(&fixture, &listener, &config));
        gateway.port = listener.local_addr().unwrap().port();
        let request = gateway.request_text("POST /token/authenticate", &[("Authorization", &basic("theirs"))], "");
        for address in addresses {
            for (user, wanted) in [(61234, "201 Created"), (61235, "401 Unauthorized")] {
                let mut command = command_as(user, "/usr/bin/python3");
                command.args(["-c", DUAL_STACK, address, &gateway.port.to_string(), &request]);
                let output = command.finish();
                let answer = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(answer.contains(wanted), "{listener:?} {address} {user} {output:?} {}", gateway.log());
            }
        }
    }
}

#[test]
fn a_connection_that_closes_at_once_does_not_count_as_roots() {
    let fixture = Fixture::new();
    let config = fixture.configure();
    for (number, (listener, addresses)) in listeners().into_iter().enumerate() {
        let mut gateway = fixture.start(crate::lifecycle::inherit(&fixture, &listener, &config));
        gateway.port = listener.local_addr().unwrap().port();
        // `finance` may be used by root, as which the tests run.
        let request = gateway.request_text("POST /token/authenticate", &[("Authorization", &basic("finance"))], "");
        let mut command = command_as(61235, "/usr/bin/python3");
        command.args(["-c", CLOSING, addresses[0], &gateway.port.to_string(), &request]);
        let output = command.finish();
        assert!(output.status.success(), "{output:?}");
        // The gateway accepts connections in their order, so all of them are accepted before this one.
        let mut stream = TcpStream::connect((addresses[0], gateway.port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_reply(&mut stream).unwrap().status, 201, "{}", gateway.log());
        assert_eq!(fixture.service.arrived().len(), number + 1, "{}", gateway.log());
        // None of them began a login.
        gateway.wait_for_log("v2 out, 201, ok");
        let log = gateway.log();
        assert_eq!(
            log.lines().filter(|line| line.contains(": client finance") && line.contains("login ")).count(),
            1,
            "{log}"
        );
    }
}

/// The kernel shows the overflow user for each user that the user namespace does not map.
#[test]
fn the_overflow_user_uses_no_token_unless_a_client_lists_it() {
    let mut fixture = Fixture::new();
    let mut gateway = fixture.serve();
    let token = gateway.login(&basic("finance"), "").token();
    let url = format!("http://127.0.0.1:{}/token/validate", gateway.port);
    let header = format!("Authorization: AnaplanAuthToken {token}");
    let validate = || {
        let output = command_as(65534, "curl").args(["-sS", "-H", &header, &url]).finish();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(validate().contains("FAILURE_BAD_CREDENTIAL"), "{}", gateway.log());
    gateway.wait_for_log("this user ID may be shared");
    fixture.add_client("theirs", "users = [65534]");
    // The port stays: a reload does not change listeners.
    fixture.configure();
    gateway.reload();
    assert!(validate().contains("SUCCESS"), "{}", gateway.log());
}

#[test]
fn a_holder_of_a_token_may_use_it_as_any_user_of_this_host() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let token = gateway.login(&basic("finance"), "").token();
    let url = format!("http://127.0.0.1:{}/token/validate", gateway.port);
    let output = command_as(61234, "curl")
        .args(["-sS", "-H", &format!("Authorization: AnaplanAuthToken {token}"), &url])
        .finish();
    assert!(String::from_utf8_lossy(&output.stdout).contains("SUCCESS"), "{output:?}");
}
