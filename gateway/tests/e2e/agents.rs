//! Agents that are unavailable, refuse, or send an invalid payload.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, basic};
use crate::gateway_process::TIME_LIMIT;
use crate::token::{run, token};

/// A Unix socket that answers each request with the same bytes.
pub(crate) struct FakeAgent {
    pub(crate) path: PathBuf,
    requests: Receiver<()>,
    closed: Receiver<()>,
}

impl FakeAgent {
    pub(crate) fn answering(fixture: &Fixture, name: &str, answer: Option<String>) -> Self {
        let path = fixture.path().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let (requested, requests) = channel();
        let (ended, closed) = channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // The gateway asks for the certificate and for readiness by GET.
                if read_request(&mut stream).starts_with(b"GET ") {
                    continue;
                }
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

    pub(crate) fn silent(fixture: &Fixture) -> Self {
        Self::answering(fixture, "silent.sock", None)
    }

    fn problem(fixture: &Fixture, name: &str, status: u16, code: &str, more: &str) -> Self {
        let body = format!("{{\"title\":\"t\",\"status\":{status},\"code\":\"{code}\"}}");
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/problem+json\r\n{more}Content-Length: {length}\r\n\r\n"
        );
        Self::answering(fixture, name, Some(head + &body))
    }

    pub(crate) fn wait_for_request(&self) {
        self.requests.recv_timeout(TIME_LIMIT).unwrap();
    }

    pub(crate) fn wait_for_close(&self) {
        self.closed.recv_timeout(TIME_LIMIT).unwrap();
    }
}

fn read_request(stream: &mut UnixStream) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&all).contains("\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => all.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    all
}

#[test]
fn retry_after_is_set_only_where_a_retry_at_the_agent_can_help() {
    for (code, agent_status, status, retry_after) in [
        ("pin_refused", 503, 503, None),
        ("policy", 422, 503, None),
        ("not_allowed", 403, 503, None),
        ("busy", 503, 503, Some("5")),
        ("rate_limited", 429, 503, Some("5")),
        ("token_unavailable", 503, 503, Some("30")),
        ("timeout", 504, 504, Some("5")),
    ] {
        let mut fixture = Fixture::new();
        let more = if code == "token_unavailable" { "Retry-After: 30\r\n" } else { "Retry-After: 1\r\n" };
        fixture.agents = vec![FakeAgent::problem(&fixture, "fake.sock", agent_status, code, more).path.clone()];
        let gateway = fixture.serve();
        let reply = gateway.login(&basic("finance"), "");
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (status, retry_after),
            "{code} {reply:?} {}",
            gateway.log()
        );
        assert!(fixture.service.arrived().is_empty());
    }
}

#[test]
fn the_next_agent_is_asked_if_one_is_unavailable_and_not_after_a_refusal() {
    let mut fixture = Fixture::new();
    let busy = FakeAgent::problem(&fixture, "busy.sock", 503, "busy", "");
    fixture.agents = vec![fixture.path().join("nowhere.sock"), busy.path.clone(), token().socket.clone()];
    let gateway = fixture.serve();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    drop(gateway);
    let refusing = FakeAgent::problem(&fixture, "refusing.sock", 503, "pin_refused", "");
    fixture.agents = vec![refusing.path.clone(), token().socket.clone()];
    let gateway = fixture.serve();
    assert_eq!(gateway.login(&basic("finance"), "").status, 503);
}

#[test]
fn an_unavailable_agent_is_503_and_its_return_needs_no_restart() {
    let mut fixture = Fixture::new();
    let path = fixture.path().join("agent.sock");
    fixture.agents = vec![path.clone()];
    let gateway = fixture.serve();
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")), "{reply:?}");
    std::os::unix::fs::symlink(&token().socket, &path).unwrap();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
}

/// A payload of the token, as the agent's client prints it.
fn real_payload() -> String {
    let mut command = Command::new(crate::token::agent_program());
    command.args(["sign", "--socket"]).arg(&token().socket).env_clear();
    if crate::token::is_root() {
        use std::os::unix::process::CommandExt as _;
        command.uid(crate::token::GATEWAY_USER).gid(crate::token::GATEWAY_USER);
        command.args(["--config", "/dev/null"]);
    }
    run(&mut command)
}

fn success(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn the_answer_of_a_newer_agent_may_have_more_members() {
    let mut fixture = Fixture::new();
    fixture.agents = vec![fixture.path().join("newer.sock")];
    let gateway = fixture.serve();
    let answer = real_payload().replacen('{', "{\"more\":1,", 1).replacen("\"body\":{", "\"body\":{\"more\":1,", 1);
    assert_eq!(answer.matches("more").count(), 2, "{answer}");
    let _agent = FakeAgent::answering(&fixture, "newer.sock", Some(success(&answer)));
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    assert!(!fixture.service.arrived()[0].body.contains("\"more\""));
}

#[test]
fn an_agent_that_does_not_answer_is_logged_and_the_next_one_asked() {
    let mut fixture = Fixture::new();
    fixture.top_keys = "deadline = \"4s\"\n".into();
    let silent = FakeAgent::silent(&fixture);
    fixture.agents = vec![silent.path.clone(), token().socket.clone()];
    let gateway = fixture.serve();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    gateway.wait_for_log("silent.sock did not answer in time; trying the next agent");
}

#[test]
fn a_forged_payload_reaches_nobody() {
    let mut fixture = Fixture::new();
    // A real payload, changed in one character of its signature.
    let good = real_payload();
    let at = good.find("encodedSignedData\":\"").unwrap() + 30;
    let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
    let forged = format!("{}{other}{}", &good[..at], &good[at + 1..]);
    for (name, body) in [("forged", forged), ("no payload", "{}".into()), ("html", "<html>".into())] {
        let agent = FakeAgent::answering(&fixture, &format!("{name}.sock"), Some(success(&body)));
        fixture.agents = vec![agent.path.clone()];
        let gateway = fixture.serve();
        let reply = gateway.login(&basic("finance"), "");
        assert_eq!((reply.status, reply.header("retry-after")), (503, None), "{name} {reply:?} {}", gateway.log());
    }
    assert!(fixture.service.arrived().is_empty());
}

#[test]
fn a_payload_of_another_certificate_than_the_pinned_one_is_refused() {
    let mut fixture = Fixture::new();
    fixture.agents = vec![token().socket.clone()];
    let config = std::fs::read_to_string(fixture.configure()).unwrap();
    let pinned = config.replace("[agent]\n", &format!("[agent]\ncertificate_sha256 = [\"{}\"]\n", "ab".repeat(32)));
    let path = fixture.write("config.toml", pinned);
    let gateway = fixture.start(fixture.command(&["serve", "--config", &path]));
    assert_eq!(gateway.login(&basic("finance"), "").status, 503, "{}", gateway.log());
    assert!(fixture.service.arrived().is_empty());
}

#[test]
fn a_client_with_the_agents_own_certificate_is_refused() {
    let mut fixture = Fixture::new();
    fixture.copy(token().path.join("cert.pem"), "agent.pem");
    fixture.add_client("same", "certificates = [\"DIR/agent.pem\"]\ntransition = true");
    let config = fixture.configure();
    let run = fixture.run(&["serve", "--config", &config]);
    assert!(run.code == 2 && run.stderr.contains("client same: it has the key of the agent"), "{run:?}");
    // An agent that starts later is recognised by its first payload.
    let path = fixture.path().join("later.sock");
    fixture.agents = vec![path.clone()];
    let gateway = fixture.serve();
    std::os::unix::fs::symlink(&token().socket, &path).unwrap();
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!((reply.status, reply.header("retry-after")), (503, None), "{reply:?}");
    gateway.wait_for_log("has the agent's own key");
}

/// Starts the gateway with this `/etc/cba-agent/policy.toml`, in a mount namespace with a copy of `/etc`.
fn under_policy(fixture: &Fixture, policy: &str) -> Command {
    fixture.write("policy.toml", policy);
    let config = fixture.configure();
    let program = fixture.command(&[]);
    let script = "{ [ -d etc ] || cp -a /etc etc; } && mkdir -p etc/cba-agent && cp -f policy.toml etc/cba-agent/ && \
        mount --bind etc /etc && exec setpriv --reuid \"$1\" --regid \"$1\" --clear-groups \"$2\" serve --config \"$3\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", &crate::token::GATEWAY_USER.to_string()]);
    command.arg(program.get_program()).arg(config).current_dir(fixture.path());
    command
}

#[test]
fn a_payload_that_roots_policy_file_forbids_is_refused() {
    assert!(crate::token::is_root(), "this test must run as root, to mount a copy of /etc");
    let fixture = Fixture::new();
    let gateway = fixture.start(under_policy(&fixture, "[policy]\nmin_rsa_bits = 2048\n"));
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    drop(gateway);
    let gateway = fixture.start(under_policy(&fixture, "[policy]\nmin_rsa_bits = 4096\n"));
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!((reply.status, reply.header("retry-after")), (503, None), "{reply:?} {}", gateway.log());
    gateway.wait_for_log("2048 bits");
    drop(gateway);
    assert_eq!(fixture.service.arrived().len(), 1);
    let output = under_policy(&fixture, "[policy]\nsurprise = 1\n").finish();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && errors.contains("/etc/cba-agent/policy.toml"), "{errors}");
}

#[test]
fn an_agent_of_the_gateways_own_user_is_refused() {
    use crate::token::GATEWAY_USER;
    assert!(crate::token::is_root(), "this test must run as root, to become another user");
    let mut fixture = Fixture::new();
    let path = fixture.path().join("run/own.sock");
    fixture.agents = vec![path.clone()];
    // A listener of the gateway's user.
    let listen = "import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print('listening', flush=True)
while True:
    c, _ = s.accept()
    c.recv(65536)
    c.close()";
    let user = GATEWAY_USER.to_string();
    let mut listener = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--pdeathsig", "KILL", "/usr/bin/python3", "-c"])
        .arg(listen)
        .arg(&path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 10];
    listener.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    let config = fixture.configure();
    let run = fixture.run(&["serve", "--config", &config]);
    assert!(run.code == 5 && run.stderr.contains("runs as the gateway's own user"), "{run:?}");
    assert!(run.stderr.contains("hint: "), "{run:?}");
    // The file of the socket may belong to root; the process behind it counts.
    std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let gateway = fixture.serve();
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!((reply.status, reply.header("retry-after")), (503, None), "{reply:?}");
    gateway.wait_for_log("runs as the gateway's own user");
    drop(gateway);
    // For a demonstration on one user's host.
    let gateway = fixture.start(fixture.command(&["serve", "--single-user", "--config", &config]));
    assert_eq!(gateway.login(&basic("finance"), "").status, 503);
    assert!(!gateway.log().contains("runs as the gateway's own user"), "{}", gateway.log());
    drop(gateway);
    listener.kill().unwrap();
    listener.wait().unwrap();
}
