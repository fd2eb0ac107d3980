//! A host with narrow limits: open files, memory, file sizes, a full disk, blocked signals, and a umask that takes the owner's rights. The
//! error names the limit.

use std::fs;

use crate::agent::Agent;
use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run, needs_root, other_user};

/// Runs the agent after these commands of a shell.
fn after(fixture: &Fixture, script: &str, arguments: &[&str]) -> Run {
    let mut command = fixture.program("bash");
    command.args(["-c", &format!("{script}; exec \"$@\""), "sh", BINARY]).args(arguments);
    Run::from_output(command.finish())
}

#[test]
fn a_limit_of_open_files_is_named_as_the_cause() {
    let fixture = Fixture::new();
    let source = fixture.pin_source();
    let error = after(&fixture, "ulimit -n 6", &["sign", "--pin-source", &source]).failed(1);
    assert!(error.contains("Too many open files") && error.contains("hint: `ulimit -n`"), "{error}");
    for limit in ["4", "8", "12", "20"] {
        let socket = fixture.file("agent.sock");
        let serve = ["serve", "--pin-source", &source, "--socket", &socket];
        let error = after(&fixture, &format!("ulimit -n {limit}"), &serve).failed(2);
        assert!(error.contains("LimitNOFILE=") && !error.contains("defect"), "{limit}: {error}");
        assert!(!fs::exists(socket).unwrap());
    }
}

#[test]
fn a_limit_of_processes_is_named_as_the_cause() {
    needs_root("it acts as another user of the host");
    let fixture = Fixture::new();
    fixture.tool("chown", &["-R", "20001:20001", "."]);
    crate::access::open_to_all(fixture.path());
    let (source, socket) = (fixture.pin_source(), fixture.file("agent.sock"));
    for arguments in [&["sign", "--pin-source", &source][..], &["serve", "--pin-source", &source, "--socket", &socket]]
    {
        let mut command = fixture.program("setpriv");
        command.args(other_user("20001", "")).args(["prlimit", "--nproc=1", BINARY]);
        let error = Run::from_output(command.args(arguments).finish()).failed(1);
        assert!(error.contains("Resource temporarily unavailable") && error.contains("hint: `ulimit -u`"), "{error}");
    }
}

#[test]
fn a_limit_of_memory_is_named_as_the_cause() {
    let fixture = Fixture::new();
    let source = fixture.pin_source();
    let runs = (14..60).map(|limit| {
        after(&fixture, &format!("ulimit -v {}", limit * 1000), &["sign", "--pin-source", &source]).stderr
    });
    let refused: Vec<String> = runs.filter(|said| said.contains("cannot load the module")).collect();
    assert!(!refused.is_empty());
    for said in refused {
        assert!(said.contains("needs more memory") && said.contains("hint: `ulimit -v`"), "{said}");
    }
}

#[test]
fn a_limit_of_file_sizes_ends_no_worker() {
    let fixture = Fixture::new();
    let run = after(&fixture, "ulimit -f 0", &["sign", "--pin-source", &fixture.pin_source()]);
    assert!(run.code != 0 && !run.stderr.contains("killed by signal"), "{run:?}");
}

#[test]
fn a_umask_without_the_owners_rights_locks_nobody_out() {
    needs_root("it acts as another user of the host");
    let fixture = Fixture::new();
    fixture.tool("chown", &["-R", "20001:20001", "."]);
    crate::access::open_to_all(fixture.path());
    let source = fixture.pin_source();
    for umask in ["0777", "0177"] {
        let (state, log) = (fixture.file(&format!("state{umask}")), fixture.file(&format!("log{umask}")));
        for _ in 0..2 {
            let mut command = fixture.program("setpriv");
            command.args(other_user("20001", "")).args(["sh", "-c"]);
            command.args([&format!("umask {umask}; exec \"$@\""), "sh", BINARY, "sign", "--pin-source", &source]);
            command.args(["--state-dir", &state, "--audit-path", &log]);
            Run::from_output(command.finish()).ok();
        }
    }
}

#[test]
fn a_full_disk_is_named_as_the_cause() {
    needs_root("it mounts a full file system");
    let fixture = Fixture::new();
    fs::create_dir(fixture.path().join("full")).unwrap();
    let script = "mount -t tmpfs -o nr_inodes=1 tmpfs full && { \"$@\"; code=$?; df -i full; exit $code; }";
    let mut command = fixture.program("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", BINARY, "serve", "--pin-source", "file:pin"]);
    let run = Run::from_output(command.args(["--socket", &fixture.file("full/agent.sock")]).finish());
    assert!(run.code == 2 && run.stderr.contains("No space left"), "{run:?}");
    let full = fixture.file("full");
    let hint = format!("hint: make room: `df -h {full}` shows the free space, and `df -i {full}` the free inodes");
    assert!(run.stderr.contains(&hint) && run.stdout.contains("100%"), "{run:?}");
}

#[test]
fn what_is_missing_in_a_bare_root_directory_is_named() {
    needs_root("it unmounts /proc and /dev");
    let fixture = Fixture::new();
    let without = |place: &str, code| {
        let script = format!("mount -t tmpfs tmpfs {place}; exec \"$@\"");
        let mut command = fixture.program("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh", BINARY, "sign", "--pin-source", &fixture.pin_source()]);
        Run::from_output(command.finish()).failed(code)
    };
    let error = without("/proc", 1);
    assert!(error.contains("hint: /proc must be mounted, as root: `mount -t proc proc /proc`"), "{error}");
    let mounted = "umount -l /proc && mount -t proc proc /proc && ls -l /dev/null /proc/self/exe";
    fixture.tool("unshare", &["--mount", "sh", "-c", mounted]);
    let error = without("/dev", 6);
    assert!(error.contains("`ls -l /dev/null /proc/self/exe`"), "{error}");
}

#[test]
fn signals_that_the_caller_blocked_end_the_agent() {
    let fixture = Fixture::new();
    let mut command = fixture.program("env");
    command.args(["--block-signal=TERM", BINARY]).args(Agent::arguments(&fixture, &[]));
    let mut agent = Agent::start(&fixture, command);
    agent.wait_for_state("STATUS=ready");
    let (status, log) = agent.end("-TERM");
    assert_eq!(status.code(), Some(0), "{log}");
}
