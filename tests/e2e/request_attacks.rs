//! Attacks on the agent with unusual and with many requests. Other users are served afterwards, and each payload
//! belongs to a request.

use std::fs;
use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::access::open_to_all;
use crate::agent::{Agent, Client, SIGN_REQUEST};
use crate::deadline::{PATIENCE, status};
use crate::fixture::{Fixture, needs_root};

/// The number of payloads in the agent's metrics.
fn handed_out(agent: &Agent) -> u64 {
    let metrics = agent.ask("GET", "/metrics", "").body;
    let of = |line: &str| line.starts_with("cba_agent_payloads_total{") && line.contains("outcome=\"ok\"");
    metrics.lines().filter(|line| of(line)).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Sends bytes on a new connection, and reads until the agent closes it.
fn raw(agent: &Agent, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(&agent.socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The agent may have refused and closed already.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of all answers in a text.
fn statuses(answer: &str) -> Vec<&str> {
    answer.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)).collect()
}

#[test]
fn no_form_of_a_request_smuggles_a_second_one_in() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let post = |headers: &str, body: &str| format!("POST /sign HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}");
    // Each must get an error or no answer, and the bytes behind it must not count as a request.
    let refused = [
        post("Content-Length: 2\r\nContent-Length: 60\r\n", &format!("{{}}{SIGN_REQUEST}")),
        post("Content-Length: 2, 60\r\n", &format!("{{}}{SIGN_REQUEST}")),
        post("Content-Length: +2\r\n", &format!("{{}}{SIGN_REQUEST}")),
        post("Content-Length: -1\r\n", &format!("{{}}{SIGN_REQUEST}")),
        post("Content-Length: 0x2\r\n", &format!("{{}}{SIGN_REQUEST}")),
        post("Content-Length: 99999999999999999999\r\n", SIGN_REQUEST),
        post("Content-Length : 2\r\n", &format!("{{}}{SIGN_REQUEST}")),
        post("Transfer-Encoding: xchunked\r\n", &format!("0\r\n\r\n{SIGN_REQUEST}")),
        post("Transfer-Encoding: chunked, identity\r\n", &format!("0\r\n\r\n{SIGN_REQUEST}")),
        post("Transfer-Encoding: chunked\r\n", &format!("zz\r\n{{}}\r\n0\r\n\r\n{SIGN_REQUEST}")),
        post("Transfer-Encoding: chunked\r\n", &format!("-2\r\n{{}}\r\n0\r\n\r\n{SIGN_REQUEST}")),
        post("Transfer-Encoding: chunked\r\n", &format!("fffffffffffffffff\r\n{{}}\r\n0\r\n\r\n{SIGN_REQUEST}")),
        post("X: a\r\n Content-Length: 60\r\nContent-Length: 2\r\n", &format!("{{}}{SIGN_REQUEST}")),
        post("X: a\0b\r\nContent-Length: 2\r\n", &format!("{{}}{SIGN_REQUEST}")),
        post("\u{e9}: x\r\nContent-Length: 2\r\n", &format!("{{}}{SIGN_REQUEST}")),
        "CONNECT /sign HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SIGN_REQUEST}"),
        format!("POST /sign\r\n\r\n{SIGN_REQUEST}"),
        format!("POST  /sign  HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}{SIGN_REQUEST}"),
        format!("POST /sign HTTP/9.9\r\nContent-Length: 2\r\n\r\n{{}}{SIGN_REQUEST}"),
        format!("\u{0}\u{1}\u{2}{SIGN_REQUEST}"),
    ];
    for (number, request) in refused.iter().enumerate() {
        let before = handed_out(&agent);
        let answer = raw(&agent, request.as_bytes());
        let statuses = statuses(&answer);
        assert!(
            statuses.len() <= 1 && statuses.iter().all(|status| status.starts_with(['4', '5'])),
            "{number}: {answer}"
        );
        assert_eq!(handed_out(&agent), before, "{number}: {request:?}");
    }
    // A valid request is one request, whatever its body contains.
    let one = [
        post("Transfer-Encoding: chunked\r\nConnection: close\r\n", "2;x=y\r\n{}\r\n0\r\n\r\n"),
        post(&format!("Content-Length: {}\r\nConnection: close\r\n", SIGN_REQUEST.len()), SIGN_REQUEST),
        post("Upgrade: h2c\r\nConnection: Upgrade, close\r\nContent-Length: 2\r\n", "{}"),
        "POST http://elsewhere/sign HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".into(),
        // Both lengths: the chunks count, and the connection is closed (RFC 9112 section 6.1).
        post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", &format!("2\r\n{{}}\r\n0\r\n\r\n{SIGN_REQUEST}")),
    ];
    for request in &one {
        let before = handed_out(&agent);
        let answer = raw(&agent, request.as_bytes());
        assert_eq!(statuses(&answer).len(), 1, "{request:?}: {answer}");
        let made = u64::from(statuses(&answer)[0] == "200");
        assert_eq!(handed_out(&agent), before + made, "{request:?}: {answer}");
    }
    agent.payload();
}

#[test]
fn pipelined_requests_are_answered_in_order_each_with_its_own_payload() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let last = SIGN_REQUEST.replace("Host: x", "Host: x\r\nConnection: close");
    let answer = raw(&agent, format!("{}{last}", SIGN_REQUEST.repeat(9)).as_bytes());
    assert_eq!(statuses(&answer), ["200"; 10], "{answer}");
    let messages: std::collections::HashSet<&str> =
        answer.split("\"encodedData\":\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(messages.len(), 10);
    assert_eq!(handed_out(&agent), 10);
}

#[test]
fn heads_and_bodies_without_an_end_are_cut_off() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let memory = agent.memory();
    let long = "x".repeat(8 << 20);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nX: {long}\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(200_000)),
        format!("POST /sign HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
        format!("POST /sign HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n800000\r\n{long}\r\n0\r\n\r\n"),
        format!("POST /sign HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}", "1\r\n \r\n".repeat(500_000)),
    ] {
        let answer = raw(&agent, request.as_bytes());
        let head: String = request.chars().take(60).collect();
        assert!(
            statuses(&answer).iter().all(|status| ["400", "413", "414", "431"].contains(status)),
            "{head}: {answer}"
        );
    }
    assert!(agent.memory() < memory + 8192, "{} KiB became {}", memory, agent.memory());
    assert_eq!(handed_out(&agent), 0);
    agent.payload();
}

#[test]
fn invalid_utf8_and_control_characters_are_refused_and_forge_no_log_line() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--audit-path", &fixture.file("audit.jsonl")]);
    for job in ["\\u0000", "\\n{\\\"seq\\\":1}", "\\ud800", "a b", "\u{1b}[31m", "é", ""] {
        let reply = agent.ask("POST", "/sign", &format!("{{\"job\":\"{job}\"}}"));
        assert_eq!(reply.problem(400), "bad_request");
    }
    for body in [&b"{\"job\":\"\xff\xfe\"}"[..], b"\xff", b"{\0}", b"\xef\xbb\xbf{}"] {
        let mut client = Client::connect(&agent.socket);
        let head = format!("POST /sign HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        client.stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        assert_eq!(client.receive("POST").unwrap().problem(400), "bad_request");
    }
    for path in ["/%00", "/sign%0d%0aX:y", "/..%2f..%2fetc%2fpasswd", "//sign", "/sign/", "/sign\u{e9}"] {
        let answer = raw(
            &agent,
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}").as_bytes(),
        );
        assert!(statuses(&answer).iter().all(|status| status.starts_with('4')), "{path}: {answer}");
    }
    agent.payload();
    assert_eq!(fixture.read("audit.jsonl").lines().count(), 1);
    assert!(agent.log().chars().all(|c| c == '\n' || !c.is_control()), "{:?}", agent.log());
}

/// Sends requests as another user, as fast as possible on many connections, until it is stopped.
const FLOOD: &str = "
import os, socket, sys, select
os.setgroups([4242]); os.setgid(1234); os.setuid(int(sys.argv[2]))
request = b'POST /sign HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{}'
print('begun', flush=True)
while not select.select([0], [], [], 0)[0]:
    held = []
    try:
        for _ in range(200):
            s = socket.socket(socket.AF_UNIX); s.setblocking(False); s.connect(sys.argv[1]); s.send(request * 20); held.append(s)
    except OSError:
        pass
";

#[test]
fn users_who_flood_the_agent_do_not_stop_others() {
    needs_root("it acts as other users of the host");
    use std::io::BufRead as _;
    let fixture = Fixture::new();
    let agent = Agent::ready(
        &fixture,
        &["--socket-group", "4242", "--allow-groups", "4242", "--allow-users", "0", "--rate-limit-per-second", "50"],
    );
    open_to_all(fixture.path());
    let flood = |user: &str| {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-B", "-c", FLOOD, &agent.socket, user]);
        let mut child =
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        child
    };
    let floods = ["1234", "1235"].map(flood);
    // Slower than without the flood, but answered.
    for _ in 0..2 {
        fixture.run(&["sign", "--socket", &agent.socket, "--timeout", "60s"]).ok();
    }
    for mut child in floods {
        drop(child.stdin.take());
        assert!(status(&mut child).success());
    }
    let metrics = agent.ask("GET", "/metrics", "").body;
    let limited = metrics.lines().find(|line| line.contains("reason=\"rate_limited\"")).unwrap_or_default();
    assert!(limited.rsplit(' ').next().is_some_and(|count| count != "0"), "they were held to their rate: {metrics}");
}

#[test]
fn a_client_that_never_reads_blocks_nobody_and_fills_no_memory() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let memory = agent.memory();
    let deaf: Vec<UnixStream> = (0..20)
        .map(|_| {
            let stream = UnixStream::connect(&agent.socket).unwrap();
            stream.set_nonblocking(true).unwrap();
            while (&stream).write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").is_ok() {}
            stream
        })
        .collect();
    agent.payload();
    assert!(agent.memory() < memory + 16_384, "{} KiB became {}", memory, agent.memory());
    drop(deaf);
}

#[test]
fn descriptors_that_a_client_passes_are_not_kept() {
    needs_root("it reads the memory and descriptors of processes that hide them");
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let open = || fs::read_dir(format!("/proc/{}/fd", agent.id())).unwrap().count();
    agent.payload();
    let before = open();
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(&agent.socket);
        let passed = [client.stream.as_fd(); 64];
        let mut space = [MaybeUninit::uninit(); 2048];
        let mut message = SendAncillaryBuffer::new(&mut space);
        assert!(message.push(SendAncillaryMessage::ScmRights(&passed)));
        let request = std::io::IoSlice::new(SIGN_REQUEST.as_bytes());
        sendmsg(&client.stream, &[request], &mut message, SendFlags::empty()).unwrap();
        assert_eq!(client.receive("POST").unwrap().status, 200);
        held.push(client);
    }
    assert!(open() <= before + held.len(), "{} descriptors became {}", before, open());
}
