//! The audit log: the record is written before the payload is handed out, and every change is found.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::agent::{Agent, Client, PayloadVerifier};
use crate::deadline::{Finish as _, until};
use crate::fixture::{BINARY, Fixture, Run, needs_root, own_user, tool};
use crate::load::{Tally, load};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signed(fixture: &Fixture, more: &[&str]) -> Value {
    let path = fixture.file("audit.jsonl");
    let all: Vec<&str> = ["--audit-path", &path].into_iter().chain(more.iter().copied()).collect();
    serde_json::from_str(&fixture.sign(&all).ok()).unwrap()
}

fn message_sha256(request: &Value) -> String {
    hex(&STANDARD.decode(request["body"]["encodedData"].as_str().unwrap()).unwrap())
}

fn records(fixture: &Fixture, name: &str) -> Vec<Value> {
    fixture.read(name).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn verify(fixture: &Fixture, arguments: &[&str]) -> Run {
    let all: Vec<&str> = ["audit", "verify"].into_iter().chain(arguments.iter().copied()).collect();
    fixture.run(&all)
}

#[test]
fn each_payload_has_a_record_that_names_it_and_lets_nobody_log_in() {
    let fixture = Fixture::new();
    let first = signed(&fixture, &["--job", "etl/nightly"]);
    let second = signed(&fixture, &["--payload-version", "v1"]);
    let log = fixture.read("audit.jsonl");
    let lines: Vec<&str> = log.lines().collect();
    let records = records(&fixture, "audit.jsonl");
    assert_eq!(records.len(), 2, "{log}");
    for (at, (record, request)) in records.iter().zip([&first, &second]).enumerate() {
        assert_eq!((&record["event"], &record["outcome"]), (&"sign".into(), &"ok".into()), "{log}");
        assert_eq!(record["message_sha256"], message_sha256(request));
        assert_eq!(record["uid"], own_user());
        assert_eq!(record["mechanism"], "CKM_SHA512_RSA_PKCS");
        // As any verifier does: all bytes of the line before the last member.
        let (body, hash) = lines[at].rsplit_once(",\"hash\":").unwrap();
        assert_eq!(hash, format!("\"{}\"}}", hex(body.as_bytes())));
        for secret in ["encodedData", "encodedSignedData"] {
            let secret = request["body"][secret].as_str().unwrap();
            assert!(!log.contains(secret) && !log.contains(&hex(secret.as_bytes())));
        }
    }
    assert_eq!(records[0]["prev"], "0".repeat(64));
    assert_eq!(records[1]["prev"], records[0]["hash"]);
    assert_eq!((&records[0]["job"], &records[1]["job"]), (&"etl/nightly".into(), &Value::Null));
    assert!(!log.contains(&fixture.pin()));
    let head = fixture.run(&["audit", "head", "audit.jsonl"]).ok();
    assert_eq!(head.trim(), format!("2:{}", records[1]["hash"].as_str().unwrap()));
    let said = verify(&fixture, &["audit.jsonl", "--expect-head", head.trim()]).ok();
    assert!(said.starts_with("valid: 2 records, 1 to 2\n"), "{said}");
}

#[test]
fn a_refused_pin_and_a_failed_token_leave_no_record_of_a_payload() {
    let fixture = Fixture::new();
    let wrong = fixture.write("wrong", "654321");
    let path = fixture.file("audit.jsonl");
    fixture.run(&["sign", "--audit-path", &path, "--pin-source", &format!("file:{wrong}")]).failed(4);
    assert!(records(&fixture, "audit.jsonl").iter().all(|record| record["outcome"] != "ok"));
}

#[test]
fn every_change_of_the_log_is_named_by_its_line() {
    let fixture = Fixture::new();
    let path = fixture.file("audit.jsonl");
    let agent = Agent::ready(&fixture, &["--audit-path", &path]);
    (0..9).for_each(|_| drop(agent.payload()));
    agent.end("-TERM");
    let lines: Vec<String> = fixture.read("audit.jsonl").lines().map(|line| format!("{line}\n")).collect();
    assert_eq!(lines.len(), 9);
    let changed = |name: &str, change: &dyn Fn(&mut Vec<String>), named: &str| {
        let mut lines = lines.clone();
        change(&mut lines);
        let file = fixture.write(name, lines.concat());
        let error = verify(&fixture, &[&file]).failed(8);
        assert!(error.contains(named), "{name}: {error}");
        let through_a_pipe = fixture.run_with_input(&["audit", "verify", "-"], lines.concat()).failed(8);
        assert!(through_a_pipe.contains(named.split("jsonl ").last().unwrap()), "{through_a_pipe}");
    };
    changed(
        "edited",
        &|lines| lines[4] = lines[4].replace(&format!("\"uid\":{}", own_user()), "\"uid\":7"),
        "line 5: record 5 was changed",
    );
    changed("outcome", &|lines| lines[0] = lines[0].replace("\"ok\"", "\"no\""), "line 1: record 1 was changed");
    changed("removed", &|lines| drop(lines.remove(4)), "line 5: record 5 is missing before it");
    changed("two", &|lines| drop(lines.drain(4..6)), "line 5: records 5 to 6 are missing before it");
    changed("swapped", &|lines| lines.swap(4, 5), "line 6: record 5 is inserted or out of order");
    changed("doubled", &|lines| lines.insert(5, lines[4].clone()), "line 6: record 5 occurs twice");
    changed("text", &|lines| lines.insert(5, "\n".into()), "line 6: not a record");
    changed("cut", &|lines| drop(lines[8].split_off(30)), "line 9: 30 bytes without an end");
    // A record of another log, whose own digest is right.
    let other = fixture.file("other.jsonl");
    let agent = Agent::ready(&fixture, &["--audit-path", &other]);
    (0..5).for_each(|_| drop(agent.payload()));
    agent.end("-TERM");
    let foreign = fixture.read("other.jsonl").lines().nth(4).map(|line| format!("{line}\n")).unwrap();
    changed("foreign", &|lines| lines[4].clone_from(&foreign), "line 5: record 5 does not follow record 4");
    // A chain alone cannot show that its end is missing.
    let short = fixture.write("short", lines[..7].concat());
    let head = fixture.run(&["audit", "head", "audit.jsonl"]).ok();
    verify(&fixture, &[&short]).ok();
    let error = verify(&fixture, &[&short, "--expect-head", head.trim()]).failed(8);
    assert!(error.contains("ends before record 9"), "{error}");
    let other = format!("7:{}", "a".repeat(64));
    verify(&fixture, &[&short, "--expect-head", &other]).failed(8);
    verify(&fixture, &[&short, "--expect-head", "7"]).failed(2);
    verify(&fixture, &["missing"]).failed(2);
}

#[test]
fn the_chain_continues_in_a_new_file_and_is_checked_over_all_files() {
    let fixture = Fixture::new();
    let path = fixture.file("audit.jsonl");
    let agent = Agent::ready(&fixture, &["--audit-path", &path]);
    agent.payload();
    agent.payload();
    fs::rename(&path, fixture.file("audit.jsonl.1")).unwrap();
    agent.payload();
    // A second process, after the file was renamed again and replaced by an empty one.
    fs::rename(&path, fixture.file("audit.jsonl.2")).unwrap();
    fs::write(&path, "").unwrap();
    agent.end("-TERM");
    signed(&fixture, &[]);
    let said = verify(&fixture, &["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]).ok();
    assert!(said.starts_with("valid: 4 records, 1 to 4\n"), "{said}");
    let by_pattern = fixture.tool("sh", &["-c", "\"$0\" audit verify audit.jsonl*", BINARY]);
    assert!(by_pattern.starts_with("valid: 4 records, 1 to 4\n"), "{by_pattern}");
    let said = verify(&fixture, &["audit.jsonl"]).ok();
    assert!(said.starts_with("valid: 1 records, 4 to 4, older records"), "{said}");
    let error = verify(&fixture, &["audit.jsonl", "audit.jsonl.1"]).failed(8);
    assert!(error.contains("audit.jsonl line 1: record 3 is missing before it"), "{error}");
    tool(Command::new("gzip").arg(fixture.file("audit.jsonl.1")));
    let error = verify(&fixture, &["audit.jsonl.1.gz"]).failed(2);
    assert!(error.contains("zcat"), "{error}");
}

#[test]
fn an_incomplete_record_after_a_crash_is_named_and_the_chain_continues() {
    let fixture = Fixture::new();
    signed(&fixture, &[]);
    let whole = fixture.read("audit.jsonl");
    for torn in [&whole[..50], "\0\0\0\0\0\0", "{"] {
        let before = fixture.read("audit.jsonl");
        fixture.write("audit.jsonl", format!("{before}{torn}"));
        verify(&fixture, &["audit.jsonl"]).failed(8);
        signed(&fixture, &[]);
        let lines = fixture.read("audit.jsonl").lines().count();
        let run = verify(&fixture, &["audit.jsonl"]);
        let said = run.stderr.clone();
        run.ok();
        assert!(said.contains(&format!("line {}: an incomplete record after a crash", lines - 2)), "{said}");
    }
    // A complete record without its newline counts as a record.
    let before = fixture.read("audit.jsonl");
    fixture.write("audit.jsonl", before.trim_end());
    signed(&fixture, &[]);
    verify(&fixture, &["audit.jsonl"]).ok();
    assert_eq!(records(&fixture, "audit.jsonl").iter().filter(|record| record["event"] == "torn").count(), 3);
}

#[test]
fn a_log_with_a_missing_end_is_not_continued_silently() {
    let fixture = Fixture::new();
    (0..3).for_each(|_| drop(signed(&fixture, &[])));
    let lines = fixture.read("audit.jsonl");
    fixture.write("audit.jsonl", lines.split_inclusive('\n').take(2).collect::<String>());
    signed(&fixture, &[]);
    let error = verify(&fixture, &["audit.jsonl"]).failed(8);
    assert!(error.contains("line 3: record 3 is missing before it"), "{error}");
}

#[test]
fn a_full_disk_hands_out_nothing_and_leaves_the_log_whole() {
    needs_root("it mounts file systems of its own");
    let fixture = Fixture::new();
    fs::create_dir(fixture.path().join("disk")).unwrap();
    let path = fixture.file("disk/audit.jsonl");
    let source = fixture.pin_source();
    // Fill the disk page by page until there is no room for another record.
    let script = "mount -t tmpfs -o size=12k tmpfs disk && $0 sign --audit-path $1 --pin-source $2 >first || exit 90
        head -c 12000 /dev/zero >disk/fill 2>/dev/null
        for i in 1 2 3 4 5 6 7 8 9; do $0 sign --audit-path $1 --pin-source $2 >/dev/null 2>&1 || break; done
        cp disk/audit.jsonl kept; $0 sign --audit-path $1 --pin-source $2 >second; code=$?
        cmp -s disk/audit.jsonl kept && $0 audit verify kept >/dev/null || exit 91; exit $code";
    let mut command = fixture.program("unshare");
    command.args(["--mount", "sh", "-c", script, BINARY, &path, &source]);
    let run = Run::from_output(command.finish());
    let error = run.failed(1);
    assert!(error.contains("the audit log") && error.contains("hint: make room"), "{error}");
    assert_eq!(fixture.read("second"), "");
    assert!(!fixture.read("first").is_empty());
}

#[test]
fn a_log_that_cannot_be_written_costs_no_try_and_gives_no_payload() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    symlink("/dev/null", fixture.path().join("link")).unwrap();
    fs::write(fixture.path().join("plain"), "").unwrap();
    fs::write(fixture.path().join("victim"), "").unwrap();
    fs::hard_link(fixture.path().join("victim"), fixture.path().join("second-name")).unwrap();
    crate::fixture::tool(std::process::Command::new("mkfifo").arg(fixture.path().join("pipe")));
    for path in ["link", "missing/audit.jsonl", "plain/audit.jsonl", ".", "second-name", "pipe", "/dev/null"] {
        let error = fixture.sign(&["--audit-path", &fixture.file(path)]).failed(1);
        assert!(error.contains("the audit log"), "{error}");
    }
    assert_eq!(fixture.read("victim"), "");
    for text in ["what is this\n", "what is this"] {
        let damaged = fixture.write("damaged", text);
        let error = fixture.sign(&["--audit-path", &damaged]).failed(1);
        assert!(error.contains("does not end in a record"), "{error}");
        assert_eq!(fixture.read("damaged"), text);
    }
    assert_eq!(fixture.calls("C_Login") + fixture.calls("C_Sign"), 0);
}

#[test]
fn the_agent_hands_out_no_payload_while_its_log_is_unwritable_and_then_recovers() {
    let fixture = Fixture::new();
    let path = fixture.file("audit.jsonl");
    let mut agent = Agent::ready(&fixture, &["--audit-path", &path]);
    agent.payload();
    fs::rename(&path, fixture.file("audit.jsonl.1")).unwrap();
    symlink("/dev/null", &path).unwrap();
    for _ in 0..2 {
        let reply = agent.ask("POST", "/sign", "{}");
        assert_eq!(reply.problem(503), "audit_unavailable");
        assert!(reply.header("Retry-After").is_some(), "{reply:?}");
    }
    agent.wait_for_state("STATUS=not ready: the audit log");
    assert_eq!(agent.ask("GET", "/readyz", "").problem(503), "audit_unavailable");
    assert!(agent.ask("GET", "/metrics", "").body.contains("\ncba_agent_audit_writable 0\n"));
    let error = fixture.run(&["sign", "--socket", &agent.socket]).failed(1);
    assert!(error.contains("audit log"), "{error}");
    fs::remove_file(&path).unwrap();
    // A readiness request makes the agent try again.
    until(|| agent.ask("GET", "/readyz", "").status == 200);
    agent.payload();
    let (_, log) = agent.end("-TERM");
    assert!(log.contains("the audit log can be written again"), "{log}");
    let resumed = &records(&fixture, "audit.jsonl")[0];
    assert_eq!((&resumed["event"], &resumed["count"]), (&"resumed".into(), &3.into()), "{resumed}");
    verify(&fixture, &["audit.jsonl.1", "audit.jsonl"]).ok();
}

#[test]
fn a_killed_agent_handed_out_no_payload_without_its_record() {
    let fixture = Fixture::new();
    let path = fixture.file("audit.jsonl");
    let agent = Agent::ready(&fixture, &["--audit-path", &path, "--workers", "2", "--rate-limit-per-second", "100000"]);
    let socket = agent.socket.clone();
    let client = || {
        let mut client = Client::connect(&socket);
        let mut got = Vec::new();
        while let Some(reply) = client.exchange("POST", "/sign", "{}") {
            assert_eq!(reply.status, 200, "{reply:?}");
            got.push(message_sha256(&serde_json::from_str(&reply.body).unwrap()));
        }
        got
    };
    let got: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(client)).collect();
        until(|| records(&fixture, "audit.jsonl").len() >= 300);
        agent.end("-KILL");
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let recorded: HashSet<String> = records(&fixture, "audit.jsonl")
        .iter()
        .map(|record| record["message_sha256"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(got.len() >= 200, "{}", got.len());
    assert!(got.iter().all(|message| recorded.contains(message)));
    // After a kill, the next run continues the log.
    signed(&fixture, &[]);
    verify(&fixture, &["audit.jsonl"]).ok();
}

#[test]
fn possible_signatures_of_a_lost_worker_are_recorded() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign#2=abort");
    let agent = Agent::begun(&fixture, &["--audit-path", &fixture.file("audit.jsonl")]);
    std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| agent.payload()))));
    let records = records(&fixture, "audit.jsonl");
    let count = |outcome: &str| records.iter().filter(|record| record["outcome"] == outcome).count();
    // Each worker makes one payload and ends at the next one, which the worker after it makes.
    assert_eq!((count("ok"), count("token_failed")), (3, 2), "{records:?}");
}

#[test]
fn many_processes_append_to_one_chain() {
    let fixture = Fixture::new();
    let path = fixture.file("audit.jsonl");
    let agent = Agent::ready(&fixture, &["--audit-path", &path]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| signed(&fixture, &["--timeout", "60s"]));
            scope.spawn(|| agent.payload());
        }
    });
    let said = verify(&fixture, &["audit.jsonl"]).ok();
    assert!(said.starts_with("valid: 8 records"), "{said}");
}

#[test]
fn refused_users_are_counted_and_cannot_fill_the_log() {
    let fixture = Fixture::new();
    let path = fixture.file("audit.jsonl");
    let agent = Agent::ready(&fixture, &["--audit-path", &path, "--allow-users", "4242"]);
    for _ in 0..50 {
        assert_eq!(agent.ask("POST", "/sign", "{}").problem(403), "not_allowed");
    }
    assert_eq!(fixture.read("audit.jsonl"), "");
    agent.end("-TERM");
    let records = records(&fixture, "audit.jsonl");
    assert_eq!(records.len(), 1);
    assert_eq!((&records[0]["event"], &records[0]["count"]), (&"refused_peers".into(), &50.into()));
}

#[test]
fn records_that_come_together_share_a_sync() {
    let fixture = Fixture::new();
    let (path, trace) = (fixture.file("audit.jsonl"), fixture.file("trace"));
    let mut command = fixture.program("strace");
    // On a disk that takes 50 ms for each sync, records that arrive meanwhile must share the next sync.
    let slow = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=50000"];
    command.args(["-f", "-qq"]).args(slow).args(["-o", &trace, BINARY]);
    command.args(Agent::arguments(&fixture, &["--workers", "2", "--audit-path", &path]));
    let mut agent = Agent::start(&fixture, command);
    agent.wait_for_state("STATUS=ready");
    let verifier = PayloadVerifier::of(&fixture, &agent.payload());
    let tally = load(&agent, &verifier, (32, 1_000), |_| ());
    assert_eq!(Tally::get(&tally.payloads), 1_000, "{tally:?}");
    let traced = crate::agent::children(agent.id())[0];
    tool(Command::new("kill").args(["-TERM", &traced.to_string()]));
    agent.wait_for_state("STOPPING=1");
    agent.end("-0");
    let syncs = fixture.read("trace").lines().filter(|line| line.contains("fdatasync(")).count();
    assert!((1..=500).contains(&syncs), "{syncs} syncs");
    assert!(verify(&fixture, &[&path]).ok().starts_with("valid: 1001 records"));
}
