//! The audit log: the record is written before the payload is handed out, and every change is found.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::agent::{Agent, Client, Judge};
use crate::deadline::{Finish as _, until};
use crate::load::{Tally, load};
use crate::stand::{BINARY, Run, Stand, needs_root, own_user, same_environment, tool};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signed(stand: &Stand, more: &[&str]) -> Value {
    let path = stand.file("audit.jsonl");
    let all: Vec<&str> = ["--audit-path", &path].into_iter().chain(more.iter().copied()).collect();
    serde_json::from_str(&stand.sign(&all).ok()).unwrap()
}

fn message_sha256(request: &Value) -> String {
    hex(&STANDARD.decode(request["body"]["encodedData"].as_str().unwrap()).unwrap())
}

fn records(stand: &Stand, name: &str) -> Vec<Value> {
    stand.read(name).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn verify(stand: &Stand, arguments: &[&str]) -> Run {
    let all: Vec<&str> = ["audit", "verify"].into_iter().chain(arguments.iter().copied()).collect();
    stand.run(&all)
}

#[test]
fn each_payload_has_a_record_that_names_it_and_lets_nobody_log_in() {
    let stand = Stand::new();
    let first = signed(&stand, &["--job", "etl/nightly"]);
    let second = signed(&stand, &["--payload-version", "v1"]);
    let log = stand.read("audit.jsonl");
    let lines: Vec<&str> = log.lines().collect();
    let records = records(&stand, "audit.jsonl");
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
    assert!(!log.contains(&stand.pin()));
    let head = stand.run(&["audit", "head", "audit.jsonl"]).ok();
    assert_eq!(head.trim(), format!("2:{}", records[1]["hash"].as_str().unwrap()));
    let said = verify(&stand, &["audit.jsonl", "--expect-head", head.trim()]).ok();
    assert!(said.starts_with("valid: 2 records, 1 to 2\n"), "{said}");
}

#[test]
fn a_refused_pin_and_a_failed_token_leave_no_record_of_a_payload() {
    let stand = Stand::new();
    let wrong = stand.write("wrong", "654321");
    let path = stand.file("audit.jsonl");
    stand.run(&["sign", "--audit-path", &path, "--pin-source", &format!("file:{wrong}")]).failed(4);
    assert!(records(&stand, "audit.jsonl").iter().all(|record| record["outcome"] != "ok"));
}

#[test]
fn every_change_of_the_log_is_named_by_its_line() {
    let stand = Stand::new();
    let path = stand.file("audit.jsonl");
    let agent = Agent::ready(&stand, &["--audit-path", &path]);
    (0..9).for_each(|_| drop(agent.payload()));
    agent.end("-TERM");
    let lines: Vec<String> = stand.read("audit.jsonl").lines().map(|line| format!("{line}\n")).collect();
    assert_eq!(lines.len(), 9);
    let changed = |name: &str, change: &dyn Fn(&mut Vec<String>), named: &str| {
        let mut lines = lines.clone();
        change(&mut lines);
        let file = stand.write(name, lines.concat());
        let error = verify(&stand, &[&file]).failed(8);
        assert!(error.contains(named), "{name}: {error}");
        let through_a_pipe = stand.run_with_input(&["audit", "verify", "-"], lines.concat()).failed(8);
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
    let other = stand.file("other.jsonl");
    let agent = Agent::ready(&stand, &["--audit-path", &other]);
    (0..5).for_each(|_| drop(agent.payload()));
    agent.end("-TERM");
    let foreign = stand.read("other.jsonl").lines().nth(4).map(|line| format!("{line}\n")).unwrap();
    changed("foreign", &|lines| lines[4].clone_from(&foreign), "line 5: record 5 does not follow record 4");
    // A chain alone cannot show that its end is missing.
    let short = stand.write("short", lines[..7].concat());
    let head = stand.run(&["audit", "head", "audit.jsonl"]).ok();
    verify(&stand, &[&short]).ok();
    let error = verify(&stand, &[&short, "--expect-head", head.trim()]).failed(8);
    assert!(error.contains("ends before record 9"), "{error}");
    let other = format!("7:{}", "a".repeat(64));
    verify(&stand, &[&short, "--expect-head", &other]).failed(8);
    verify(&stand, &[&short, "--expect-head", "7"]).failed(2);
    verify(&stand, &["missing"]).failed(2);
}

#[test]
fn the_chain_continues_in_a_new_file_and_is_checked_over_all_files() {
    let stand = Stand::new();
    let path = stand.file("audit.jsonl");
    let agent = Agent::ready(&stand, &["--audit-path", &path]);
    agent.payload();
    agent.payload();
    fs::rename(&path, stand.file("audit.jsonl.1")).unwrap();
    agent.payload();
    // A second process, after the file was renamed again and replaced by an empty one.
    fs::rename(&path, stand.file("audit.jsonl.2")).unwrap();
    fs::write(&path, "").unwrap();
    agent.end("-TERM");
    signed(&stand, &[]);
    let said = verify(&stand, &["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]).ok();
    assert!(said.starts_with("valid: 4 records, 1 to 4\n"), "{said}");
    let by_pattern = stand.tool("sh", &["-c", "\"$0\" audit verify audit.jsonl*", BINARY]);
    assert!(by_pattern.starts_with("valid: 4 records, 1 to 4\n"), "{by_pattern}");
    let said = verify(&stand, &["audit.jsonl"]).ok();
    assert!(said.starts_with("valid: 1 records, 4 to 4, older records"), "{said}");
    let error = verify(&stand, &["audit.jsonl", "audit.jsonl.1"]).failed(8);
    assert!(error.contains("audit.jsonl line 1: record 3 is missing before it"), "{error}");
    tool(Command::new("gzip").arg(stand.file("audit.jsonl.1")));
    let error = verify(&stand, &["audit.jsonl.1.gz"]).failed(2);
    assert!(error.contains("zcat"), "{error}");
}

#[test]
fn an_incomplete_record_after_a_crash_is_named_and_the_chain_continues() {
    let stand = Stand::new();
    signed(&stand, &[]);
    let whole = stand.read("audit.jsonl");
    for torn in [&whole[..50], "\0\0\0\0\0\0", "{"] {
        let before = stand.read("audit.jsonl");
        stand.write("audit.jsonl", format!("{before}{torn}"));
        verify(&stand, &["audit.jsonl"]).failed(8);
        signed(&stand, &[]);
        let lines = stand.read("audit.jsonl").lines().count();
        let run = verify(&stand, &["audit.jsonl"]);
        let said = run.stderr.clone();
        run.ok();
        assert!(said.contains(&format!("line {}: an incomplete record after a crash", lines - 2)), "{said}");
    }
    // A complete record without its newline counts as a record.
    let before = stand.read("audit.jsonl");
    stand.write("audit.jsonl", before.trim_end());
    signed(&stand, &[]);
    verify(&stand, &["audit.jsonl"]).ok();
    assert_eq!(records(&stand, "audit.jsonl").iter().filter(|record| record["event"] == "torn").count(), 3);
}

#[test]
fn a_log_with_a_missing_end_is_not_continued_silently() {
    let stand = Stand::new();
    (0..3).for_each(|_| drop(signed(&stand, &[])));
    let lines = stand.read("audit.jsonl");
    stand.write("audit.jsonl", lines.split_inclusive('\n').take(2).collect::<String>());
    signed(&stand, &[]);
    let error = verify(&stand, &["audit.jsonl"]).failed(8);
    assert!(error.contains("line 3: record 3 is missing before it"), "{error}");
}

#[test]
fn a_full_disk_hands_out_nothing_and_leaves_the_log_whole() {
    needs_root("it mounts file systems of its own");
    let stand = Stand::new();
    fs::create_dir(stand.path().join("disk")).unwrap();
    let path = stand.file("disk/audit.jsonl");
    let source = stand.pin_source();
    // Fill the disk page by page until there is no room for another record.
    let script = "mount -t tmpfs -o size=12k tmpfs disk && $0 sign --audit-path $1 --pin-source $2 >first || exit 90
        head -c 12000 /dev/zero >disk/fill 2>/dev/null
        for i in 1 2 3 4 5 6 7 8 9; do $0 sign --audit-path $1 --pin-source $2 >/dev/null 2>&1 || break; done
        cp disk/audit.jsonl kept; $0 sign --audit-path $1 --pin-source $2 >second; code=$?
        cmp -s disk/audit.jsonl kept && $0 audit verify kept >/dev/null || exit 91; exit $code";
    let base = stand.command(&[]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, BINARY, &path, &source]).current_dir(stand.path());
    same_environment(&mut command, &base);
    let run = Run::from_output(command.finish());
    let error = run.failed(1);
    assert!(error.contains("the audit log") && error.contains("hint: make room"), "{error}");
    assert_eq!(stand.read("second"), "");
    assert!(!stand.read("first").is_empty());
}

#[test]
fn a_log_that_cannot_be_written_costs_no_try_and_gives_no_payload() {
    let mut stand = Stand::new();
    stand.faulty("");
    symlink("/dev/null", stand.path().join("link")).unwrap();
    fs::write(stand.path().join("plain"), "").unwrap();
    fs::write(stand.path().join("victim"), "").unwrap();
    fs::hard_link(stand.path().join("victim"), stand.path().join("second-name")).unwrap();
    crate::stand::tool(std::process::Command::new("mkfifo").arg(stand.path().join("pipe")));
    for path in ["link", "missing/audit.jsonl", "plain/audit.jsonl", ".", "second-name", "pipe", "/dev/null"] {
        let error = stand.sign(&["--audit-path", &stand.file(path)]).failed(1);
        assert!(error.contains("the audit log"), "{error}");
    }
    assert_eq!(stand.read("victim"), "");
    for text in ["what is this\n", "what is this"] {
        let damaged = stand.write("damaged", text);
        let error = stand.sign(&["--audit-path", &damaged]).failed(1);
        assert!(error.contains("does not end in a record"), "{error}");
        assert_eq!(stand.read("damaged"), text);
    }
    assert_eq!(stand.calls("C_Login") + stand.calls("C_Sign"), 0);
}

#[test]
fn the_agent_hands_out_no_payload_while_its_log_is_unwritable_and_then_recovers() {
    let stand = Stand::new();
    let path = stand.file("audit.jsonl");
    let mut agent = Agent::ready(&stand, &["--audit-path", &path]);
    agent.payload();
    fs::rename(&path, stand.file("audit.jsonl.1")).unwrap();
    symlink("/dev/null", &path).unwrap();
    for _ in 0..2 {
        let reply = agent.ask("POST", "/sign", "{}");
        assert_eq!(reply.problem(503), "audit_unavailable");
        assert!(reply.header("Retry-After").is_some(), "{reply:?}");
    }
    agent.hear("STATUS=not ready: the audit log");
    assert_eq!(agent.ask("GET", "/readyz", "").problem(503), "audit_unavailable");
    assert!(agent.ask("GET", "/metrics", "").body.contains("\ncba_agent_audit_writable 0\n"));
    let error = stand.run(&["sign", "--socket", &agent.socket]).failed(1);
    assert!(error.contains("audit log"), "{error}");
    fs::remove_file(&path).unwrap();
    // A readiness request makes the agent try again.
    until(|| agent.ask("GET", "/readyz", "").status == 200);
    agent.payload();
    let (_, log) = agent.end("-TERM");
    assert!(log.contains("the audit log can be written again"), "{log}");
    let resumed = &records(&stand, "audit.jsonl")[0];
    assert_eq!((&resumed["event"], &resumed["count"]), (&"resumed".into(), &3.into()), "{resumed}");
    verify(&stand, &["audit.jsonl.1", "audit.jsonl"]).ok();
}

#[test]
fn a_killed_agent_handed_out_no_payload_without_its_record() {
    let stand = Stand::new();
    let path = stand.file("audit.jsonl");
    let agent = Agent::ready(&stand, &["--audit-path", &path, "--workers", "2", "--rate-limit-per-second", "100000"]);
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
        until(|| records(&stand, "audit.jsonl").len() >= 300);
        agent.end("-KILL");
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let recorded: HashSet<String> = records(&stand, "audit.jsonl")
        .iter()
        .map(|record| record["message_sha256"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(got.len() >= 200, "{}", got.len());
    assert!(got.iter().all(|message| recorded.contains(message)));
    // After a kill, the next run continues the log.
    signed(&stand, &[]);
    verify(&stand, &["audit.jsonl"]).ok();
}

#[test]
fn possible_signatures_of_a_lost_worker_are_recorded() {
    let mut stand = Stand::new();
    stand.faulty("C_Sign#2=abort");
    let agent = Agent::begun(&stand, &["--audit-path", &stand.file("audit.jsonl")]);
    std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| agent.payload()))));
    let records = records(&stand, "audit.jsonl");
    let count = |outcome: &str| records.iter().filter(|record| record["outcome"] == outcome).count();
    // Each worker makes one payload and ends at the next one, which the worker after it makes.
    assert_eq!((count("ok"), count("token_failed")), (3, 2), "{records:?}");
}

#[test]
fn many_processes_append_to_one_chain() {
    let stand = Stand::new();
    let path = stand.file("audit.jsonl");
    let agent = Agent::ready(&stand, &["--audit-path", &path]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| signed(&stand, &["--timeout", "60s"]));
            scope.spawn(|| agent.payload());
        }
    });
    let said = verify(&stand, &["audit.jsonl"]).ok();
    assert!(said.starts_with("valid: 8 records"), "{said}");
}

#[test]
fn refused_users_are_counted_and_cannot_fill_the_log() {
    let stand = Stand::new();
    let path = stand.file("audit.jsonl");
    let agent = Agent::ready(&stand, &["--audit-path", &path, "--allow-users", "4242"]);
    for _ in 0..50 {
        assert_eq!(agent.ask("POST", "/sign", "{}").problem(403), "not_allowed");
    }
    assert_eq!(stand.read("audit.jsonl"), "");
    agent.end("-TERM");
    let records = records(&stand, "audit.jsonl");
    assert_eq!(records.len(), 1);
    assert_eq!((&records[0]["event"], &records[0]["count"]), (&"refused_peers".into(), &50.into()));
}

#[test]
fn records_that_come_together_share_a_sync() {
    let stand = Stand::new();
    let (path, trace) = (stand.file("audit.jsonl"), stand.file("trace"));
    let mut command = Command::new("strace");
    // On a disk that takes 50 ms for each sync, records that arrive meanwhile must share the next sync.
    let slow = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=50000"];
    command.args(["-f", "-qq"]).args(slow).args(["-o", &trace, BINARY]);
    command.args(Agent::arguments(&stand, &["--workers", "2", "--audit-path", &path]));
    let base = stand.command(&[]);
    same_environment(&mut command, &base);
    let mut agent = Agent::start(&stand, command);
    agent.hear("STATUS=ready");
    let judge = Judge::of(&stand, &agent.payload());
    let tally = load(&agent, &judge, (32, 1_000), |_| ());
    assert_eq!(Tally::get(&tally.payloads), 1_000, "{tally:?}");
    let traced = crate::agent::children(agent.id())[0];
    tool(Command::new("kill").args(["-TERM", &traced.to_string()]));
    agent.hear("STOPPING=1");
    agent.end("-0");
    let syncs = stand.read("trace").lines().filter(|line| line.contains("fdatasync(")).count();
    assert!((1..=500).contains(&syncs), "{syncs} syncs");
    assert!(verify(&stand, &[&path]).ok().starts_with("valid: 1001 records"));
}
