//! Agents that are away, refuse, or are not what they seem.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use crate::stand::{PATIENCE, Stand, basic};
use crate::token::{run, token};

/// A Unix socket that answers each request with the same bytes.
pub(crate) struct FakeAgent {
    pub(crate) path: PathBuf,
    requests: Receiver<()>,
    closed: Receiver<()>,
}

impl FakeAgent {
    pub(crate) fn answering(stand: &Stand, name: &str, answer: Option<String>) -> Self {
        let path = stand.path().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let (requested, requests) = channel();
        let (ended, closed) = channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                read_request(&mut stream);
                let _ = requested.send(());
                match &answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes())),
                    None => {
                        let _ = stream.read(&mut [0]);
                        let _ = ended.send(());
                    }
                }
            }
        });
        Self { path, requests, closed }
    }

    pub(crate) fn silent(stand: &Stand) -> Self {
        Self::answering(stand, "silent.sock", None)
    }

    fn problem(stand: &Stand, name: &str, status: u16, code: &str, more: &str) -> Self {
        let body = format!("{{\"title\":\"t\",\"status\":{status},\"code\":\"{code}\"}}");
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/problem+json\r\n{more}Content-Length: {length}\r\n\r\n"
        );
        Self::answering(stand, name, Some(head + &body))
    }

    pub(crate) fn wait_for_request(&self) {
        self.requests.recv_timeout(PATIENCE).unwrap();
    }

    pub(crate) fn wait_for_close(&self) {
        self.closed.recv_timeout(PATIENCE).unwrap();
    }
}

fn read_request(stream: &mut UnixStream) {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&all).contains("\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => all.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
}

#[test]
fn an_agents_refusal_tells_whether_to_repeat() {
    for (code, agent_status, status, repeats) in [
        ("pin_refused", 503, 503, None),
        ("policy", 422, 503, None),
        ("not_allowed", 403, 503, None),
        ("busy", 503, 503, Some("5")),
        ("rate_limited", 429, 503, Some("5")),
        ("token_unavailable", 503, 503, Some("30")),
        ("timeout", 504, 504, Some("5")),
    ] {
        let mut stand = Stand::new();
        let more = if code == "token_unavailable" { "Retry-After: 30\r\n" } else { "Retry-After: 1\r\n" };
        stand.agents = vec![FakeAgent::problem(&stand, "fake.sock", agent_status, code, more).path.clone()];
        let gateway = stand.serve();
        let reply = gateway.login(&basic("finance"), "");
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (status, repeats),
            "{code} {reply:?} {}",
            gateway.log()
        );
        assert!(stand.service.arrived().is_empty());
    }
}

#[test]
fn the_next_agent_is_asked_if_one_is_unavailable_and_not_after_a_refusal() {
    let mut stand = Stand::new();
    let busy = FakeAgent::problem(&stand, "busy.sock", 503, "busy", "");
    stand.agents = vec![stand.path().join("nowhere.sock"), busy.path.clone(), token().socket.clone()];
    let gateway = stand.serve();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    drop(gateway);
    let refusing = FakeAgent::problem(&stand, "refusing.sock", 503, "pin_refused", "");
    stand.agents = vec![refusing.path.clone(), token().socket.clone()];
    let gateway = stand.serve();
    assert_eq!(gateway.login(&basic("finance"), "").status, 503);
}

#[test]
fn an_unavailable_agent_is_503_and_its_return_needs_no_restart() {
    let mut stand = Stand::new();
    let path = stand.path().join("agent.sock");
    stand.agents = vec![path.clone()];
    let gateway = stand.serve();
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")), "{reply:?}");
    std::os::unix::fs::symlink(&token().socket, &path).unwrap();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
}

#[test]
fn a_forged_payload_reaches_nobody() {
    let mut stand = Stand::new();
    // A real payload, changed in one character of its signature.
    let mut command = Command::new(crate::token::agent_program());
    command.args(["sign", "--socket"]).arg(&token().socket).env_clear();
    if crate::token::is_root() {
        use std::os::unix::process::CommandExt as _;
        command.uid(crate::token::GATEWAY_USER).gid(crate::token::GATEWAY_USER);
        command.args(["--config", "/dev/null"]);
    }
    let good = run(&mut command);
    let at = good.find("encodedSignedData\":\"").unwrap() + 30;
    let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
    let forged = format!("{}{other}{}", &good[..at], &good[at + 1..]);
    for (name, body) in [("forged", forged), ("no payload", "{}".into()), ("html", "<html>".into())] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let agent = FakeAgent::answering(&stand, &format!("{name}.sock"), Some(answer));
        stand.agents = vec![agent.path.clone()];
        let gateway = stand.serve();
        let reply = gateway.login(&basic("finance"), "");
        assert_eq!((reply.status, reply.header("retry-after")), (503, None), "{name} {reply:?} {}", gateway.log());
    }
    assert!(stand.service.arrived().is_empty());
}

#[test]
fn a_payload_of_another_certificate_than_the_pinned_one_is_refused() {
    let mut stand = Stand::new();
    stand.agents = vec![token().socket.clone()];
    let config = std::fs::read_to_string(stand.configure()).unwrap();
    let pinned = config.replace("[agent]\n", &format!("[agent]\ncertificate_sha256 = [\"{}\"]\n", "ab".repeat(32)));
    let path = stand.write("config.toml", pinned);
    let gateway = stand.start(stand.command(&["serve", "--config", &path]));
    assert_eq!(gateway.login(&basic("finance"), "").status, 503, "{}", gateway.log());
    assert!(stand.service.arrived().is_empty());
}

#[test]
fn a_client_with_the_agents_own_certificate_is_refused() {
    let mut stand = Stand::new();
    stand.copy(token().path.join("cert.pem"), "agent.pem");
    stand.add_client("same", "certificates = [\"DIR/agent.pem\"]\ntransition = true");
    let gateway = stand.serve();
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!(reply.status, 503, "{reply:?}");
    gateway.wait_for_log("has the agent's own key");
}
