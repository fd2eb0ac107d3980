//! Start, reload and shutdown.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, basic, message};
use crate::gateway_process::{Gateway, read_reply};
use crate::service::Behaviour;
use crate::token::{GATEWAY_USER, is_root, run};

#[test]
fn a_reload_takes_the_whole_set_or_nothing() {
    let mut fixture = Fixture::new();
    let mut gateway = fixture.serve();
    let mut open = gateway.connect();
    let request = gateway.request_text("POST /token/authenticate", &[("Authorization", &basic("finance"))], "");
    open.write_all(request.as_bytes()).unwrap();
    assert_eq!(read_reply(&mut open).unwrap().status, 201);
    let good = fixture.clients.clone();
    for broken in [
        "[[client]]\nname = \"x\"\n",
        "surprise = 1\n",
        "[[client]]\nname = \"x\"\ncertificates = [\"/nowhere.pem\"]\nusers = [0]\n",
    ] {
        fixture.clients = format!("{good}{broken}").replacen("users", "disabled = true\nusers", 1);
        fixture.configure();
        gateway.reload();
        gateway.wait_for_log("the gateway keeps the old one");
        assert_eq!(gateway.login(&basic("finance"), "").status, 201);
    }
    // A pipe that nobody writes to, and a file whose end is not read.
    let pipe = fixture.file("pipe");
    run(Command::new("mkfifo").args(["-m", "644", &pipe]));
    fixture.clients = format!("{good}[[client]]\nname = \"x\"\ncertificates = [\"{pipe}\"]\nusers = [0]\n");
    fixture.configure();
    gateway.reload();
    gateway.wait_for_log("pipe: not a regular file");
    fixture.clients = format!("# {}\n{good}", "x".repeat(1 << 20));
    fixture.configure();
    gateway.reload();
    gateway.wait_for_log("config.toml: it is longer than 1 MiB");
    fixture.write("config.toml", "\n");
    gateway.reload();
    gateway.wait_for_log("config.toml: is empty");
    assert_eq!(gateway.login(&basic("finance"), "").status, 201);
    fixture.clients = good.replacen("users", "disabled = true\nusers", 1);
    fixture.configure();
    gateway.reload();
    // The new configuration applies to open connections, too.
    open.write_all(request.as_bytes()).unwrap();
    assert_eq!(read_reply(&mut open).unwrap().status, 401);
}

#[test]
fn a_reload_names_each_setting_that_needs_a_restart() {
    let mut fixture = Fixture::new();
    let mut gateway = fixture.serve();
    fixture.top_keys = format!("state_dir = {:?}\n", fixture.file("run"));
    fixture.toml_tables = format!("[admin]\nsocket = {:?}\n[log]\nlevel = \"warn\"\n", fixture.file("run/other.sock"));
    fixture.configure();
    // The gateway compares with its start, not with the last reload.
    for reloads in 1..=2 {
        gateway.reload();
        let log = gateway.wait_for_log_lines("the new configuration is active", reloads);
        let warning = "changed since the start: [admin] socket or group, state_dir, [log];";
        assert_eq!(log.matches(warning).count(), reloads, "{log}");
    }
    (fixture.top_keys, fixture.toml_tables) = (String::new(), String::new());
    fixture.configure();
    gateway.reload();
    let log = gateway.wait_for_log_lines("the new configuration is active", 3);
    assert_eq!(log.matches("changed since the start").count(), 2, "{log}");
    assert_eq!(gateway.login(&basic("finance"), "").status, 201);
}

/// An alert about silent clients must not name a client that is disabled or gone.
#[test]
fn a_reload_removes_the_last_logins_of_disabled_and_removed_clients() {
    let mut fixture = Fixture::new();
    fixture.add_client("other", "");
    fixture.add_client("third", "");
    let mut gateway = fixture.serve();
    for (number, client) in ["finance", "other", "third"].into_iter().enumerate() {
        assert_eq!(gateway.login(&basic(client), "").status, 201);
        gateway.wait_for_log_lines("password in, ", number + 1);
    }
    let last_logins = |gateway: &Gateway| {
        let metrics = gateway.admin("/metrics");
        let lines = metrics.lines().filter(|line| line.starts_with("cba_gateway_client_last_login"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let all = last_logins(&gateway);
    let (before, third) = fixture.clients.rsplit_once("[[client]]").unwrap();
    assert!(third.contains("third"));
    fixture.clients = before.replacen("users", "disabled = true\nusers", 1);
    fixture.configure();
    gateway.reload();
    assert_eq!(last_logins(&gateway), [all[1].clone()]);
}

#[test]
fn a_reload_forgets_no_spent_message() {
    let fixture = Fixture::new();
    let mut gateway = fixture.serve();
    let (header, body) = fixture.certificate_login("tool", "v2", &message(0));
    assert_eq!(gateway.login(&header, &body).status, 201);
    gateway.reload();
    assert_eq!(gateway.login(&header, &body).status, 401);
}

#[test]
fn sigterm_answers_each_login_under_way() {
    let fixture = Fixture::new();
    let mut gateway = fixture.serve();
    fixture.service.behave(Behaviour::Held);
    let request = gateway.request_text("POST /token/authenticate", &[("Authorization", &basic("finance"))], "");
    let mut callers: Vec<_> = (0..20).map(|_| gateway.connect()).collect();
    for caller in &mut callers {
        caller.write_all(request.as_bytes()).unwrap();
    }
    fixture.service.wait_for(20);
    gateway.signal(Signal::TERM);
    gateway.wait_for_notification("STOPPING=1");
    fixture.service.release();
    for caller in &mut callers {
        let reply = read_reply(caller).unwrap();
        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(reply.header("connection"), Some("close"));
    }
    assert!(gateway.wait().success(), "{}", gateway.log());
}

#[test]
fn no_other_process_of_its_user_shares_its_port() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let share = "import socket, sys\ns = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n\
                 s.bind((\"127.0.0.1\", int(sys.argv[1])))";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", share, &gateway.port.to_string()]);
    if is_root() {
        command.uid(GATEWAY_USER).gid(GATEWAY_USER);
    }
    let output = command.finish();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && errors.contains("Address already in use"), "{errors}");
}

#[test]
fn a_port_that_was_taken_before_is_an_error_that_names_it() {
    let mut fixture = Fixture::new();
    for address in ["127.0.0.1", "[::1]"] {
        let taken = TcpListener::bind(format!("{address}:0")).unwrap();
        let port = taken.local_addr().unwrap().port();
        fixture.top_keys = format!("listen = [\"127.0.0.1:{port}\", \"[::1]:{port}\"]\n");
        let config = fixture.configure();
        let run = fixture.run(&["serve", "--config", &config]);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(
            run.stderr.contains(&format!("cannot listen on {address}:{port}")) && run.stderr.contains("hint: `ss"),
            "{run:?}"
        );
    }
}

#[test]
fn a_plain_listener_on_an_outside_address_is_an_error() {
    let mut fixture = Fixture::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:731"] {
        fixture.top_keys = format!("listen = [\"{address}\"]\n");
        let config = fixture.configure();
        let run = fixture.run(&["serve", "--config", &config]);
        assert!(run.code == 2 && run.stderr.contains("is not a loopback address"), "{run:?}");
    }
    fixture.top_keys = "listen = [\"127.0.0.1:0\"]\n".into();
    fixture.serve().wait_for_log("`localhost` may resolve to the other");
}

#[test]
fn a_listener_on_any_loopback_address_is_served_by_that_address() {
    let mut fixture = Fixture::new();
    fixture.top_keys = "listen = [\"127.0.0.2:0\", \"[::1]:0\"]\n".into();
    let gateway = fixture.serve();
    let address = format!("127.0.0.2:{}", gateway.port_of("plain HTTP on 127.0.0.2:").unwrap());
    for (host, status) in [(address.as_str(), 201), ("evil.example", 403)] {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let basic = basic("finance");
        let head = format!("POST /token/authenticate HTTP/1.1\r\nHost: {host}\r\nAuthorization: {basic}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(read_reply(&mut stream).unwrap().status, status, "{}", gateway.log());
    }
}

/// Starts the gateway with an inherited listener as descriptor 3, as systemd does.
pub(crate) fn inherit(fixture: &Fixture, listener: &TcpListener, config: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    let start = "import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])";
    rustix::io::fcntl_setfd(listener, rustix::io::FdFlags::empty()).unwrap();
    let program = fixture.command(&[]);
    command.args(["-c", start, &listener.as_raw_fd().to_string()]).arg(program.get_program());
    command.args(["serve", "--config", config]).stdin(Stdio::null());
    if is_root() {
        command.uid(GATEWAY_USER).gid(GATEWAY_USER);
    }
    command
}

#[test]
fn an_inherited_listener_is_served_and_an_outside_one_refused() {
    let mut fixture = Fixture::new();
    // The gateway does not bind these addresses if it inherits sockets.
    fixture.top_keys = "listen = [\"127.0.0.1:1\", \"[::1]:1\"]\n".into();
    let config = fixture.configure();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut gateway = fixture.start(inherit(&fixture, &listener, &config));
    gateway.port = listener.local_addr().unwrap().port();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    assert!(gateway.log().contains("listen has no effect: the sockets of systemd replace it"), "{}", gateway.log());
    drop(gateway);
    fixture.top_keys = format!("listen = [\"{}\"]\n", listener.local_addr().unwrap());
    fixture.configure();
    let gateway = fixture.start(inherit(&fixture, &listener, &config));
    assert!(!gateway.log().contains("listen has no effect"), "{}", gateway.log());
    let outside = TcpListener::bind("0.0.0.0:0").unwrap();
    let output = inherit(&fixture, &outside, &config).finish();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && errors.contains("is not a loopback address"), "{errors}");
}

#[test]
fn the_gateway_does_not_serve_as_root() {
    assert!(is_root(), "this test must run as root");
    let fixture = Fixture::new();
    let config = fixture.configure();
    let output = Command::new(crate::fixture::BINARY).args(["serve", "--config", &config]).finish();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(5) && errors.contains("cannot serve as root"), "{errors}");
}

#[test]
fn a_caller_that_left_is_not_signed_for() {
    let mut fixture = Fixture::new();
    let agent = crate::agents::FakeAgent::silent(&fixture);
    fixture.agents = vec![agent.path.clone()];
    let gateway = fixture.serve();
    let mut caller = gateway.connect();
    let request = gateway.request_text("POST /token/authenticate", &[("Authorization", &basic("finance"))], "");
    caller.write_all(request.as_bytes()).unwrap();
    agent.wait_for_request();
    drop(caller);
    // The gateway closes its connection to the agent.
    agent.wait_for_close();
    gateway.wait_for_log("abandoned");
    assert!(fixture.service.arrived().is_empty());
}
