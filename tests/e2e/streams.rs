//! Standard streams as programs, daemons and shells pass them: closed, `/dev/null`, read-only, non-blocking.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_setfl};

use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run, tool};

/// `sh -c SCRIPT` in the fixture's environment. `"$@"` is the agent with these arguments.
fn shell(fixture: &Fixture, script: &str, arguments: &[&str]) -> Run {
    let mut command = fixture.program("sh");
    command.args(["-c", script, "sh", BINARY]).args(arguments);
    Run::from_output(command.finish())
}

#[test]
fn a_stdout_on_dev_null_is_valid_however_it_was_opened() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let source = fixture.pin_source();
    let sign = ["sign", "--pin-source", &source];
    for script in [
        r#"exec "$@" > /dev/null"#,
        r#"exec "$@" <> /dev/null >&0"#,
        r#"exec "$@" 0<>/dev/null 1<>/dev/null 2<>/dev/null"#,
        r#"exec "$@" 1<>/dev/null"#,
        r#"exec "$@" 1</dev/null"#,
    ] {
        let run = shell(&fixture, script, &sign);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{script}: {run:?}");
    }
    let python = "import subprocess, sys; null = subprocess.DEVNULL\n\
        sys.exit(subprocess.run(sys.argv[1:], stdin=null, stdout=null, stderr=null).returncode)";
    let mut command = fixture.program("python3");
    tool(command.args(["-c", python, BINARY]).args(sign));
    let node = "const child = require('child_process').spawnSync(process.argv[1], process.argv.slice(2), \
        { stdio: 'ignore' }); process.exit(child.status)";
    let mut command = fixture.program("node");
    tool(command.args(["-e", node, BINARY]).args(sign));
    assert_eq!(fixture.calls("C_Login"), 7);
}

#[test]
fn a_stdout_that_cannot_be_written_is_an_error_before_the_key_is_used() {
    let mut fixture = Fixture::new();
    let source = fixture.pin_source();
    let audit = fixture.file("audit.jsonl");
    fixture.sign(&["--audit-path", &audit]).ok();
    fixture.faulty("");
    for (redirection, why) in
        [(">&-", "closed"), ("1< pin", "open for reading only"), ("1< .", "open for reading only")]
    {
        for arguments in [
            &["sign", "--pin-source", &source][..],
            &["list", "--login", "--pin-source", &source],
            &["custody", "--pin-source", &source],
            &["doctor", "--sign", "--pin-source", &source],
            &["certificate"],
            &["audit", "verify", &audit],
            &["completions", "bash"],
            &["pin-fuse", "--reset"],
            &["help"],
            &["--version"],
        ] {
            let run = shell(&fixture, &format!("exec \"$@\" {redirection}"), arguments);
            assert!(run.stderr.contains(&format!("error: cannot write the result: stdout is {why}")), "{run:?}");
            run.failed(1);
        }
    }
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn every_combination_of_closed_streams_signs_unless_stdout_is_among_them() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let source = fixture.pin_source();
    let sign = ["sign", "-v", "--pin-source", &source];
    for closed in 0..8_u8 {
        let is_closed = |number: u8| closed & 1 << number != 0;
        let close = |number: u8, text: &'static str| if is_closed(number) { text } else { "" };
        let script = format!("exec \"$@\" {} {} {}", close(0, "<&-"), close(2, "2>&-"), close(1, ">&-"));
        let before = fixture.calls("C_Login");
        let run = shell(&fixture, &script, &sign);
        let logins = fixture.calls("C_Login") - before;
        assert_eq!((run.code, logins), if is_closed(1) { (1, 0) } else { (0, 1) }, "{script}: {run:?}");
        assert_eq!(run.stdout.starts_with(r#"{"method":"POST""#), !is_closed(1), "{script}: {run:?}");
        assert_eq!(run.stderr.is_empty(), is_closed(2), "{script}: {run:?}");
    }
}

#[test]
fn a_service_and_its_workers_start_with_all_streams_closed() {
    let fixture = Fixture::new();
    let arguments = crate::agent::Agent::arguments(&fixture, &[]);
    let mut command = fixture.program("sh");
    command.args(["-c", r#"exec "$@" <&- >&- 2>&-"#, "sh", BINARY]).args(&arguments);
    let mut agent = crate::agent::Agent::start(&fixture, command);
    agent.wait_for_state("STATUS=ready");
    agent.payload();
    assert!(agent.end("-TERM").0.success());
}

#[test]
fn a_closed_stdin_is_named_and_differs_from_empty_input() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    for source in ["stdin", "fd:0"] {
        let error = shell(&fixture, r#"exec "$@" <&-"#, &["sign", "--pin-source", source]).failed(4);
        assert!(error.contains("closed") || error.contains("Bad file descriptor"), "{error}");
    }
    for arguments in [&["verify"][..], &["audit", "verify", "-"]] {
        let error = shell(&fixture, r#"exec "$@" <&-"#, arguments).failed(2);
        assert!(error.contains("cannot read standard input: it is closed"), "{error}");
    }
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn a_non_blocking_stdout_gets_the_whole_result() {
    let fixture = Fixture::new();
    let usual = fixture.run(&["completions", "zsh"]).ok();
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let _ = rustix::pipe::fcntl_setpipe_size(&writing, 4096).unwrap();
    fcntl_setfl(&writing, OFlags::NONBLOCK).unwrap();
    let mut command = fixture.command(&["completions", "zsh"]);
    let child = command.stdout(writing).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut text = String::new();
    File::from(reading).read_to_string(&mut text).unwrap();
    assert_eq!(Run::from_output(child.finish()).code, 0);
    assert!(text == usual && text.len() > 4096, "{} of {} bytes", text.len(), usual.len());
}
