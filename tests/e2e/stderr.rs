//! A stderr that is full, closed or never read changes neither result nor exit code, and nothing waits for it.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::agent::Agent;
use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run};

const FORMATS: [&str; 3] = ["text", "json", "journald"];

fn dev_full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A full pipe, whose reader has stopped. The first end is the reader's.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let flags = fcntl_getfl(&writing).unwrap();
    fcntl_setfl(&writing, flags | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writing, b"x").is_ok() {}
    fcntl_setfl(&writing, flags).unwrap();
    (reading, writing)
}

/// Runs a command with this stderr. It must end by itself.
#[track_caller]
fn run(mut command: Command, stderr: impl Into<Stdio>) -> Run {
    let child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    // The command holds a copy of stderr.
    drop(command);
    Run::from_output(child.finish())
}

/// Runs a command with each kind of unwritable stderr, with its name.
fn with_each(fixture: &Fixture, arguments: &[&str], check: impl Fn(Run, &str)) {
    check(run(fixture.command(arguments), dev_full()), "full");
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    drop(reading);
    check(run(fixture.command(arguments), writing), "a pipe without reader");
    let (_reading, writing) = full_pipe();
    check(run(fixture.command(arguments), writing), "a pipe that nobody reads");
    check(run(fixture.command(arguments), File::open("/dev/null").unwrap()), "read-only");
    let mut closed = fixture.program("sh");
    closed.args(["-c", "exec \"$@\" 2>&-", "sh", BINARY]).args(arguments);
    check(run(closed, Stdio::null()), "closed");
}

#[test]
fn a_payload_is_printed_even_if_the_log_fails() {
    let fixture = Fixture::new();
    let source = fixture.pin_source();
    for format in FORMATS {
        let arguments = ["sign", "-vv", "--log-format", format, "--pin-source", &source];
        with_each(&fixture, &arguments, |run, stderr| {
            assert_eq!(run.code, 0, "{format}, {stderr}: {run:?}");
            assert!(run.stdout.starts_with(r#"{"method":"POST""#) && run.stdout.ends_with("}\n"), "{run:?}");
        });
    }
}

#[test]
fn the_right_pin_on_a_token_that_warns_never_marks_the_fuse() {
    let mut fixture = Fixture::new();
    fixture.faulty("flags+CKF_USER_PIN_COUNT_LOW");
    let source = fixture.pin_source();
    for arguments in [&["sign", "--pin-source", &source][..], &["sign", "-vv", "--pin-source", &source]] {
        with_each(&fixture, arguments, |run, stderr| assert_eq!(run.code, 0, "{stderr}: {run:?}"));
        assert!(fixture.run(&["pin-fuse"]).ok().contains("intact"));
    }
    let warned = fixture.run(&["sign", "--pin-source", &source]);
    assert!(warned.stderr.contains("warning: a wrong PIN was entered"), "{warned:?}");
}

#[test]
fn the_pin_directly_follows_the_mark_of_an_attempt() {
    let mut fixture = Fixture::new();
    fixture.faulty("flags+CKF_USER_PIN_COUNT_LOW");
    let trace = fixture.file("trace");
    let mut command = fixture.program("strace");
    command.args(["-f", "-o", &trace, "-s", "8", BINARY, "sign", "-vv", "--pin-source", &fixture.pin_source()]);
    assert_eq!(run(command, Stdio::null()).code, 0);
    let trace = fs::read_to_string(trace).unwrap();
    let parent = trace.split_whitespace().next().unwrap();
    let is_own = |line: &&str| line.split_whitespace().next() == Some(parent) && !line.contains(" resumed>");
    let own: Vec<&str> = trace.lines().filter(is_own).collect();
    // The first byte at the start of a file. strace does not show the byte to an ordinary user.
    let mark = own.iter().position(|line| line.contains("pwrite64(") && line.contains(", 1, 0")).expect("the mark");
    let [sync, pin] = own[mark + 1..mark + 3] else { panic!("nothing follows the mark") };
    assert!(sync.contains("fdatasync(") && pin.contains("writev("), "{sync}\n{pin}");
}

/// Every exit code, and how to reach it.
#[test]
fn errors_keep_their_exit_codes() {
    let mut fixture = Fixture::new();
    fixture.write("wrong", "not-the-pin");
    let (source, wrong) = (fixture.pin_source(), format!("file:{}", fixture.file("wrong")));
    let payload = fixture.sign(&[]).ok();
    let header = fixture.write("header", "Authorization: CACertificate AAAA");
    let body = fixture.write("body", serde_json::from_str::<serde_json::Value>(&payload).unwrap()["body"].to_string());
    let sign = |more: &[&'static str]| {
        let all = ["sign", "--pin-source", &source, "-v"].into_iter().chain(more.iter().copied());
        all.map(str::to_owned).collect::<Vec<_>>()
    };
    let own = |arguments: &[&str]| arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let cases: [(i32, &str, Vec<String>); 13] = [
        (2, "", sign(&["--slot", "x"])),
        (2, "", sign(&["--no-such-option"])),
        (2, "", own(&["no-such-command"])),
        (2, "", own(&["sign", "--pin", "1234"])),
        (2, "", own(&["worker"])),
        (3, "", sign(&["--slot", "9"])),
        (4, "", own(&["sign", "--state-dir", &fixture.file("state"), "--pin-source", &wrong])),
        (5, "", sign(&["--policy-min-rsa-bits", "4096"])),
        (6, "C_Sign=0x30", sign(&[])),
        (7, "C_Sign=corrupt", sign(&[])),
        (8, "", own(&["verify", "--header", &header, "--body", &body])),
        (9, "", own(&["sign", "--socket", "/nonexistent/agent.sock"])),
        (9, "", own(&["health", "--socket", "/nonexistent/agent.sock"])),
    ];
    for (code, rules, arguments) in cases {
        fixture.faulty(rules);
        for format in FORMATS {
            let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            if !["worker", "no-such-command"].contains(&arguments[0]) {
                arguments.extend(["--log-format", format]);
            }
            // A stderr that cannot be written behaves like the others. Each is tried with a valid payload.
            let run = run(fixture.command(&arguments), dev_full());
            assert_eq!((run.code, run.stdout.as_str()), (code, ""), "{arguments:?}: {run:?}");
        }
    }
}

#[test]
fn every_other_command_prints_the_same() {
    let fixture = Fixture::new();
    let (source, log) = (fixture.pin_source(), fixture.file("audit.jsonl"));
    fixture.sign(&["--audit-path", &log]).ok();
    fixture.sign(&["--audit-path", &log]).ok();
    for arguments in [
        &["list", "-vv"][..],
        &["list", "-vv", "--login", "--pin-source", &source],
        &["certificate", "-vv"],
        &["custody", "-vv", "--pin-source", &source, "--format", "json"],
        &["audit", "verify", "-vv", &log],
        &["audit", "head", "-vv", &log],
        &["pin-fuse", "-vv"],
        &["completions", "fish"],
        &["help", "sign"],
        &["--version"],
    ] {
        let usual = fixture.run(arguments);
        with_each(&fixture, arguments, |run, stderr| {
            assert_eq!(run.code, usual.code, "{arguments:?}, {stderr}: {run:?}");
            // The custody report contains its time.
            assert!(arguments[0] == "custody" || run.stdout == usual.stdout, "{arguments:?}, {stderr}: {run:?}");
        });
    }
}

/// An agent whose stderr is a pipe, and the pipe's other end.
fn agent(fixture: &Fixture, more: &[&str]) -> (Agent, OwnedFd) {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut agent = Agent::begun_with_log(fixture, more, writing);
    agent.wait_for_state("STATUS=ready");
    (agent, reading)
}

#[test]
fn an_agent_whose_log_reader_goes_away_keeps_answering() {
    let fixture = Fixture::new();
    for format in FORMATS {
        let (agent, reading) = agent(&fixture, &["-vv", "--log-format", format]);
        drop(reading);
        for _ in 0..20 {
            agent.payload();
        }
        assert!(agent.end("-TERM").0.success());
    }
}

#[test]
fn an_agent_whose_log_reader_stops_answers_thousands_of_requests_and_counts_what_it_could_not_log() {
    const REQUESTS: usize = 4000;
    let fixture = Fixture::new();
    let (agent, reading) = agent(&fixture, &["-vv"]);
    let mut client = crate::agent::Client::connect(&agent.socket);
    for _ in 0..REQUESTS {
        // A long job name makes long lines.
        let body = format!(r#"{{"job":"{}"}}"#, "j".repeat(64));
        assert_eq!(client.exchange("POST", "/sign", &body).expect("an answer").status, 200);
    }
    drop(client);
    agent.signal("-TERM");
    let mut log = String::new();
    File::from(reading).read_to_string(&mut log).unwrap();
    assert!(agent.end("-TERM").0.success());
    let logged = log.matches("payload v2 for user").count();
    assert!(logged > 0 && log.lines().all(|line| line.contains(": ")), "{log}");
    let lost = log.lines().filter_map(|line| line.strip_prefix("warning: ")?.split_once(" lines of the log were lost"));
    let lost: usize = lost.map(|(count, _)| count.parse::<usize>().unwrap()).sum();
    assert!(lost > 0 && logged + lost >= REQUESTS, "{logged} logged, {lost} lost");
}
