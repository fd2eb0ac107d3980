//! The process boundary: a module's faults stay in its process, and no process remains.

use std::fs;
use std::process::{Child, Stdio};

use crate::deadline::{Finish as _, status, until};
use crate::fixture::{Fixture, Run, needs_root};

/// Starts `sign`, and returns when the worker is inside a call of the faulty module.
fn start_until(fixture: &Fixture, call: &str, arguments: &[&str]) -> (Child, u32) {
    let source = fixture.pin_source();
    let all: Vec<&str> = ["sign", "--pin-source", &source].into_iter().chain(arguments.iter().copied()).collect();
    let mut command = fixture.command(&all);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fixture.await_calls(call, 1);
    let parent = child.id();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    (child, children.trim().parse().unwrap())
}

/// Whether a process has ended, or is a zombie.
pub(crate) fn is_gone(process: u32) -> bool {
    until(|| fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| stat.contains(") Z ")));
    true
}

#[test]
fn a_hang_ends_at_the_deadline_with_exit_6_and_no_process_left() {
    let hang = |call: &str| {
        let mut fixture = Fixture::new();
        fixture.faulty(&format!("{call}=hang"));
        // Long enough to reach the call on a busy host.
        let (child, worker) = start_until(&fixture, call, &["--timeout", "5s"]);
        let error = Run::from_output(child.finish()).failed(6);
        assert!(error.contains("did not answer within 5s"), "{call}: {error}");
        assert!(is_gone(worker), "{call}");
    };
    let calls = ["C_Initialize", "C_GetSlotList", "C_OpenSession", "C_Login", "C_FindObjects", "C_SignInit", "C_Sign"];
    std::thread::scope(|scope| calls.map(|call| scope.spawn(move || hang(call))).map(|run| run.join().unwrap()));
}

#[test]
fn a_hang_at_the_end_does_not_delay_a_good_result() {
    let mut fixture = Fixture::new();
    for rules in
        ["C_Finalize=hang", "C_Logout=hang", "exit=hang", "C_Finalize=abort", "exit=abort", "C_CloseSession=abort"]
    {
        // With -v a worker may exit normally, so that the module can print more.
        for more in [&[][..], &["-v"]] {
            fixture.faulty(rules);
            let run = fixture.sign(more);
            assert!(run.ok().starts_with(r#"{"method":"POST""#), "{rules} {more:?}");
        }
    }
}

#[test]
fn the_modules_last_output_is_logged() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=noise");
    let run = fixture.sign(&["-v"]);
    assert!(run.stderr.contains("debug: module: noise that was held back"), "{}", run.stderr);
    run.ok();
}

#[test]
fn a_crash_is_exit_6_with_the_signal() {
    let mut fixture = Fixture::new();
    for call in ["C_Initialize", "C_OpenSession", "C_FindObjectsInit", "C_SignInit", "C_Sign"] {
        fixture.faulty(&format!("{call}=abort"));
        let error = fixture.sign(&[]).failed(6);
        assert!(error.contains("killed by signal 6"), "{call}: {error}");
    }
}

#[test]
fn a_module_that_prints_spoils_neither_output_nor_terminal() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Initialize=noise;C_Login=noise;C_Sign=noise;exit=noise");
    let run = fixture.sign(&[]);
    assert_eq!(run.stderr, "", "noise is logged, and only at -v");
    assert_eq!(run.ok().lines().count(), 1);
    let loud = fixture.sign(&["-v"]);
    assert!(loud.stderr.contains("debug: module: noise on standard output \\u{1b}[31m"), "{}", loud.stderr);
    assert!(loud.stderr.contains("debug: module: noise on standard error"), "{}", loud.stderr);
}

#[test]
fn killing_the_parent_ends_the_worker() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=hang");
    let (mut child, worker) = start_until(&fixture, "C_Sign", &[]);
    child.kill().unwrap();
    status(&mut child);
    assert!(is_gone(worker));
}

#[test]
fn ctrl_c_leaves_no_process_behind() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=hang");
    let (child, worker) = start_until(&fixture, "C_Sign", &[]);
    crate::fixture::tool(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]));
    let output = child.finish();
    assert!(output.stdout.is_empty());
    assert!(is_gone(worker));
}

#[test]
fn processes_started_by_the_module_end_with_the_parent() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_SignInit=spawn;C_Sign=hang");
    for signal in ["-INT", "-TERM", "-HUP", "-KILL"] {
        let _ = fs::remove_file(fixture.file("calls"));
        let (child, worker) = start_until(&fixture, "C_Sign", &[]);
        let started = fs::read_to_string(format!("/proc/{worker}/task/{worker}/children")).unwrap();
        let started: u32 = started.trim().parse().unwrap();
        crate::fixture::tool(std::process::Command::new("kill").args([signal, &child.id().to_string()]));
        child.finish();
        assert!(is_gone(worker) && is_gone(started), "{signal}");
    }
}

#[test]
fn killing_the_worker_is_exit_6() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=hang");
    let (child, worker) = start_until(&fixture, "C_Sign", &[]);
    crate::fixture::tool(std::process::Command::new("kill").args(["-KILL", &worker.to_string()]));
    let error = Run::from_output(child.finish()).failed(6);
    assert!(error.contains("killed by signal 9"), "{error}");
}

#[test]
fn vendors_debug_variables_reach_the_module_only_when_asked() {
    let mut fixture = Fixture::new();
    fixture.faulty("environment");
    for (name, value) in [("OPENSC_DEBUG", "9"), ("YKCS11_DBG", "9"), ("LD_LIBRARY_PATH", "/nonexistent"), ("A", "")] {
        fixture.set(name, value);
    }
    for (flags, reaches) in [(&[][..], false), (&["--module-debug"], true)] {
        // A prestarted worker gets its environment later. None is prestarted where a file may name an agent.
        let file = fixture.write("config.toml", "# No socket.\n");
        for more in [&[][..], &["--config", &file]] {
            let _ = fs::remove_file(fixture.file("calls"));
            let run = fixture.sign(&[flags, more].concat());
            let debug = fixture.calls("variable OPENSC_DEBUG") + fixture.calls("variable YKCS11_DBG");
            assert_eq!(debug, if reaches { 2 } else { 0 });
            for name in ["SOFTHSM2_CONF", "HOME", "LD_LIBRARY_PATH", "A"] {
                assert_eq!(fixture.calls(&format!("variable {name}")), 1, "{name}: all else reaches the module");
            }
            assert_eq!(run.stderr.contains("warning: --module-debug"), reaches, "{}", run.stderr);
            run.ok();
        }
    }
}

/// Checks both limits for core files.
#[track_caller]
pub(crate) fn leaves_no_core(process: u32) {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
}

#[test]
fn the_worker_is_not_dumpable_and_reads_no_terminal() {
    needs_root("it reads the memory and descriptors of processes that hide them");
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=hang");
    let (mut child, worker) = start_until(&fixture, "C_Sign", &[]);
    leaves_no_core(worker);
    let input = fs::read_link(format!("/proc/{worker}/fd/0")).unwrap();
    assert_eq!(input.to_str(), Some("/dev/null"));
    let out = fs::read_link(format!("/proc/{worker}/fd/1")).unwrap();
    assert!(out.to_str().unwrap().starts_with("pipe:"), "{}", out.display());
    child.kill().unwrap();
    status(&mut child);
}

/// Arguments of setpriv for a program without root's rights to look into every process.
const NO_TRACER: [&str; 3] =
    ["--bounding-set=-sys_ptrace,-sys_admin,-perfmon", "--inh-caps=-sys_ptrace,-sys_admin,-perfmon", "--"];

/// Whether a process of the same user may read the memory of this one.
fn is_dumpable(process: u32) -> bool {
    let mut look = std::process::Command::new("setpriv");
    look.args(NO_TRACER).args(["cat", &format!("/proc/{process}/environ")]);
    look.finish().status.success()
}

#[test]
fn no_process_of_the_same_user_looks_into_parent_and_worker() {
    needs_root("it takes rights of root away");
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=hang");
    let source = fixture.pin_source();
    let mut command = fixture.program("setpriv");
    command.args(NO_TRACER).args([crate::fixture::BINARY, "sign", "--pin-source", &source]);
    let mut parent = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    fixture.await_calls("C_Sign", 1);
    let id = parent.id();
    let worker = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap().trim().parse().unwrap();
    let mut other = std::process::Command::new("setpriv");
    let mut other = other.args(NO_TRACER).args(["sleep", "60"]).spawn().unwrap();
    until(|| fs::read(format!("/proc/{}/cmdline", other.id())).unwrap().starts_with(b"sleep"));
    assert!(is_dumpable(other.id()), "this look sees nothing");
    assert!(!is_dumpable(id), "the parent");
    assert!(!is_dumpable(worker), "the worker");
    for process in [&mut parent, &mut other] {
        process.kill().unwrap();
        status(process);
    }
}

/// Every command in `help`, and other ways to start the program.
fn every_command(fixture: &Fixture) -> Vec<Vec<String>> {
    let help = fixture.run(&["help"]).ok();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let named: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(named.len() > 10 && named.contains(&"sign"), "{help}");
    let more =
        [&["worker"][..], &["--help"], &["--version"], &["sign", "--help"], &["audit", "verify", "-"], &["no"], &[]];
    let more = more.iter().map(|words| words.iter().map(|word| (*word).to_owned()).collect());
    named.into_iter().map(|name| vec![name.to_owned()]).chain(more).collect()
}

#[test]
fn a_program_with_more_rights_than_its_caller_refuses_every_command() {
    needs_root("it acts as other users of the host, and gives a program capabilities");
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::empty();
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("user-id", 0o4755), ("group-id", 0o2755), ("capability", 0o755)] {
        let program = fixture.file(name);
        fs::copy(crate::fixture::BINARY, &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        if name == "capability" {
            crate::fixture::tool(std::process::Command::new("setcap").args(["cap_net_raw+ep", &program]));
        }
        for arguments in every_command(&fixture) {
            let mut command = std::process::Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &program]).args(&arguments);
            command.env_clear().env("PATH", "/usr/bin:/bin");
            let error = Run::from_output(command.finish()).failed(1);
            assert!(error.contains("refused to run set-user-ID"), "{name} {arguments:?}: {error}");
        }
    }
}

#[test]
fn the_parent_leaves_no_core() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=hang");
    // From a shell that allows cores, as far as possible.
    let allow = "ulimit -c unlimited 2>/dev/null || ulimit -c $(ulimit -H -c)";
    let script = format!("{allow}; exec {} sign --pin-source {}", crate::fixture::BINARY, fixture.pin_source());
    let mut shell = fixture.program("sh");
    shell.args(["-c", &script]);
    let child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fixture.await_calls("C_Sign", 1);
    leaves_no_core(child.id());
    crate::fixture::tool(std::process::Command::new("kill").args(["-ABRT", &child.id().to_string()]));
    use std::os::unix::process::ExitStatusExt as _;
    let status = child.finish().status;
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
}

#[test]
fn a_module_that_floods_its_output_is_read_all_the_time() {
    let mut fixture = Fixture::new();
    for call in ["C_Initialize", "C_OpenSession", "C_Login", "C_Sign", "C_Finalize", "exit"] {
        fixture.faulty(&format!("{call}=flood"));
        // A wait for a time limit would fail here.
        fixture.sign(&["--timeout", "10s"]).ok();
        let run = fixture.sign(&["--timeout", "10s", "-v"]);
        assert!(run.stderr.contains("module: line 4095 of a flood"), "{call}");
        run.ok();
    }
}
