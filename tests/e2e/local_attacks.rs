//! Attacks of a local user on the agent's socket, files and processes.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::access::open_to_all;
use crate::agent::{Agent, Client, children};
use crate::deadline::{Finish as _, until};
use crate::fixture::{BINARY, Fixture, Run, needs_root, other_user, tool};

#[test]
fn a_replaced_socket_is_left_alone() {
    needs_root("it acts as other users of the host");
    let fixture = Fixture::new();
    for what in ["gone", "file", "socket"] {
        let agent = Agent::ready(&fixture, &[]);
        let path = agent.socket.clone();
        let mut connected = Client::connect(&path);
        fs::remove_file(&path).unwrap();
        let _other = match what {
            "file" => fs::write(&path, "somebody's").map(|()| None).unwrap(),
            "socket" => Some(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            _ => None,
        };
        assert_eq!(connected.exchange("POST", "/sign", "{}").unwrap().status, 200, "{what}");
        drop(connected);
        let (status, log) = agent.end("-TERM");
        // The agent may have noticed the loss before the signal.
        assert!([Some(0), Some(1)].contains(&status.code()), "{log}");
        assert_eq!(fs::symlink_metadata(&path).is_ok(), what != "gone", "{what}");
        let _ = fs::remove_file(&path);
    }
    // Another user cannot replace it: only its owner may write the directory.
    let agent = Agent::ready(&fixture, &[]);
    open_to_all(fixture.path());
    for command in [["rm", "-f"], ["mv", "-f"]] {
        let mut other = Command::new("setpriv");
        other.args(other_user("1234", "")).args(command).arg(&agent.socket);
        if command[0] == "mv" {
            other.arg("/tmp/cba-agent-hostile");
        }
        assert!(!other.finish().status.success(), "{command:?}");
    }
    agent.payload();
}

#[test]
fn an_agent_whose_socket_is_lost_says_so_and_ends_for_a_restart() {
    let fixture = Fixture::new();
    for is_replaced in [false, true] {
        let agent = Agent::ready(&fixture, &[]);
        let socket = agent.socket.clone();
        fs::remove_file(&socket).unwrap();
        if is_replaced {
            fs::write(&socket, "another program's").unwrap();
        }
        let config = fixture.write("c.toml", format!("[serve]\nsocket = \"{socket}\"\n"));
        let report = fixture.run(&["doctor", "--config", &config]);
        assert!(report.code == 8 && report.stdout.contains("failed   agent"), "{report:?}");
        let (status, log) = agent.ended();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(
            log.contains("agent.sock was removed or replaced") && log.contains("hint: start the agent again"),
            "{log}"
        );
        assert_eq!(fs::read_to_string(&socket).is_ok(), is_replaced);
        let _ = fs::remove_file(&socket);
    }
}

#[test]
fn links_at_the_paths_of_our_files_are_not_followed() {
    let fixture = Fixture::new();
    let victim = |name: &str| {
        let path = fixture.write(name, "somebody's");
        (path.clone(), move |how: &str| assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's", "{how}"))
    };
    // The socket.
    let (path, is_untouched) = victim("victim-socket");
    symlink(&path, fixture.path().join("link.sock")).unwrap();
    let arguments = Agent::arguments(&fixture, &["--socket", &fixture.file("link.sock")]);
    let error = fixture.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).failed(2);
    assert!(error.contains("link.sock exists and is not a socket"), "{error}");
    is_untouched("socket");
    // The state: each of its files, and the name of the directory.
    fixture.sign(&[]).ok();
    let state = fixture.path().join("home/.local/state/cba-agent");
    let (path, is_untouched) = victim("victim-state");
    for entry in fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()) {
        let kept = fs::read(&entry).unwrap();
        for hard in [false, true] {
            fs::remove_file(&entry).unwrap();
            if hard {
                fs::hard_link(&path, &entry).unwrap()
            } else {
                symlink(&path, &entry).unwrap()
            }
            let run = fixture.sign(&[]);
            is_untouched(&format!("{} by a link (hard: {hard}): {run:?}", entry.display()));
            assert!([0, 4].contains(&run.code), "{run:?}");
        }
        fs::remove_file(&entry).unwrap();
        fs::write(&entry, kept).unwrap();
    }
    // The audit log and its lock.
    for (name, hard) in
        [("audit.jsonl", false), ("audit.jsonl", true), (".audit.jsonl.lock", false), (".audit.jsonl.lock", true)]
    {
        let (path, is_untouched) = victim("victim-audit");
        for own in ["audit.jsonl", ".audit.jsonl.lock"] {
            let _ = fs::remove_file(fixture.path().join(own));
        }
        let link = fixture.path().join(name);
        if hard {
            fs::hard_link(&path, &link).unwrap()
        } else {
            symlink(&path, &link).unwrap()
        }
        fixture.sign(&["--audit-path", &fixture.file("audit.jsonl")]).failed(1);
        is_untouched(name);
        fs::remove_file(&path).unwrap();
    }
    // The metrics: the link itself is replaced.
    let (path, is_untouched) = victim("victim-metrics");
    symlink(&path, fixture.path().join("cba_agent.prom")).unwrap();
    let _agent = Agent::ready(&fixture, &["--metrics-file", &fixture.file("cba_agent.prom")]);
    let metrics = fixture.path().join("cba_agent.prom");
    until(|| !fs::symlink_metadata(&metrics).unwrap().is_symlink());
    is_untouched("metrics");
}

#[test]
fn a_pin_file_that_changes_while_it_is_read_costs_no_wrong_try() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let (good, pin_file) = (fixture.write("good", fixture.pin()), fixture.file("current-pin"));
    let open = fixture.write("open", "wrong-1");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    tool(Command::new("mkfifo").args(["-m", "600", &fixture.file("fifo")]));
    tool(Command::new("truncate").args(["-s", "1G", &fixture.write("sparse", "")]));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let targets = [
                good.as_str(),
                "/dev/zero",
                &open,
                &fixture.file("sparse"),
                "/nonexistent",
                &fixture.file("tokens"),
                &good,
            ];
            let new = fixture.path().join("new-link");
            for target in targets.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                symlink(target, &new).unwrap();
                fs::rename(&new, &pin_file).unwrap();
            }
        });
        let source = format!("file:{pin_file}");
        let runs: Vec<Run> = (0..40).map(|_| fixture.run(&["sign", "--pin-source", &source])).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(runs.iter().all(|run| [0, 4].contains(&run.code)), "{runs:?}");
        assert!(runs.iter().any(|run| run.code == 4), "every run read the right PIN: the file never changed in time");
    });
    // A pipe without a writer: the agent stops reading at the deadline.
    let fifo = format!("file:{}", fixture.file("fifo"));
    let error = fixture.run(&["sign", "--pin-source", &fifo, "--timeout", "1s"]).failed(4);
    assert!(error.contains("in time"), "{error}");
    let state = fixture.run(&["pin-fuse"]).ok();
    assert!(!state.contains("blown") && state.contains("refused 0"), "{state}");
}

#[test]
fn a_pin_file_that_is_replaced_after_it_was_opened_is_judged_and_read_as_it_was() {
    needs_root("it looks at the descriptors of a process that forbids it to other users");
    let fixture = Fixture::new();
    let pin_file = fixture.write("current-pin", fixture.pin());
    fs::set_permissions(&pin_file, fs::Permissions::from_mode(0o600)).unwrap();
    let other = fixture.write("other", "wrong-1");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = fixture.program("strace");
    // strace stops the agent for three seconds after it has opened the file.
    let pause = ["-P", &pin_file, "-e", "trace=openat", "-e", "inject=openat:delay_exit=3000000:when=1"];
    command.args(["-qq", "-o", "/dev/null"]).args(pause);
    command.args([BINARY, "sign", "--pin-source", &format!("file:{pin_file}")]);
    let strace = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let has_opened = |process: u32| {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten();
        descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).any(|file| file == Path::new(&pin_file))
    };
    until(|| children(strace.id()).into_iter().any(has_opened));
    fs::rename(&other, &pin_file).unwrap();
    Run::from_output(strace.finish()).ok();
}

#[test]
fn a_worker_that_is_stopped_is_replaced_and_the_next_request_served() {
    let fixture = Fixture::new();
    let mut agent = Agent::ready(&fixture, &["--call-timeout", "1s", "--request-timeout", "3s"]);
    agent.payload();
    let worker = agent.workers()[0];
    tool(Command::new("kill").args(["-STOP", &worker.to_string()]));
    let reply = agent.ask("POST", "/sign", "{}");
    assert!([200, 503, 504].contains(&reply.status), "{reply:?}");
    until(|| agent.ask("POST", "/sign", "{}").status == 200);
    assert!(!fs::exists(format!("/proc/{worker}")).unwrap(), "the stopped worker is still there");
    // The parent, stopped and continued.
    agent.signal("-STOP");
    let mut waiting = Client::connect(&agent.socket);
    waiting.send_sign_request();
    agent.signal("-CONT");
    assert_eq!(waiting.receive("POST").unwrap().status, 200);
    agent.wait_for_state("STATUS=ready");
}

#[test]
fn the_directory_of_the_socket_is_never_left_open() {
    let fixture = Fixture::new();
    let run = fixture.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).unwrap();
    let agent = Agent::ready(&fixture, &["--socket", &run.join("s").display().to_string()]);
    agent.logged(|log| log.contains("other users could"));
    let socket = fs::symlink_metadata(run.join("s")).unwrap();
    assert!(socket.file_type().is_socket() && socket.mode() & 0o777 == 0o660, "{:o}", socket.mode());
    let left: Vec<_> = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "s" || name.as_encoded_bytes().ends_with(b".lock")), "{left:?}");
}
