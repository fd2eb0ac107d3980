//! Files that users name: a pipe, a device, a directory, a socket, or none. No command waits for ever, and each error names the file.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::deadline::{Finish as _, PATIENCE};
use crate::fixture::{BINARY, Fixture, Run};

/// Every option that names a file to read, in a command that reads it, and the exit code.
const OPTIONS: [(&[&str], i32); 12] = [
    (&["list", "--config", "FILE"], 2),
    (&["doctor", "--certificate", "FILE"], 2),
    (&["custody", "--roots", "FILE"], 2),
    (&["custody", "--attestation-roots", "FILE"], 2),
    (&["verify", "--roots", "FILE"], 2),
    (&["verify", "--header", "FILE", "--body", "cert.pem"], 2),
    (&["verify", "--header", "cert.pem", "--body", "FILE"], 2),
    (&["sign", "--certificate-file", "FILE", "--pin-source", "file:pin"], 2),
    (&["sign", "--timeout", "1s", "--pin-source", "file:FILE"], 4),
    (&["audit", "verify", "FILE"], 2),
    (&["audit", "verify", "audit.jsonl", "FILE"], 2),
    (&["audit", "head", "FILE"], 2),
];

fn run(fixture: &Fixture, arguments: &[&str], file: &str) -> Run {
    let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace("FILE", file)).collect();
    fixture.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_file_that_is_no_file_stops_no_command_and_is_named() {
    let fixture = Fixture::new();
    fixture.write("audit.jsonl", "");
    let pipe = fixture.file("pipe");
    fixture.tool("mkfifo", &["-m", "600", &pipe]);
    symlink("missing", fixture.path().join("dangling")).unwrap();
    let _listener = UnixListener::bind(fixture.path().join("socket")).unwrap();
    let files =
        [pipe, fixture.file("dangling"), fixture.file("missing"), fixture.file("socket"), fixture.file("tokens")];
    let files = files.into_iter().chain(["/dev/zero".into()]);
    let cases = files.flat_map(|file| OPTIONS.map(|(arguments, code)| (file.clone(), arguments, code)));
    std::thread::scope(|scope| {
        for (file, arguments, code) in cases {
            let fixture = &fixture;
            scope.spawn(move || {
                let begin = Instant::now();
                let error = run(fixture, arguments, &file).failed(code);
                assert!(error.contains(&file), "{arguments:?}: {error}");
                let command = error.lines().any(|line| line.starts_with("hint: ") && line.contains(&file));
                assert!(command || code == 4, "{arguments:?}: {error}");
                assert!(begin.elapsed() < PATIENCE / 2, "{arguments:?} waited");
            });
        }
    });
}

#[test]
fn a_configuration_at_a_usual_path_is_no_pipe() {
    let mut fixture = Fixture::new();
    std::fs::create_dir(fixture.path().join("cba-agent")).unwrap();
    fixture.tool("mkfifo", &["cba-agent/config.toml"]);
    fixture.set("XDG_CONFIG_HOME", fixture.path().display().to_string());
    let error = fixture.run(&["list"]).failed(2);
    assert!(error.contains("cba-agent/config.toml") && error.contains("pipe"), "{error}");
}

#[test]
fn a_pipe_of_a_shell_is_read_as_a_file() {
    let fixture = Fixture::new();
    let script = "set -e; signed=$($0 sign --pin-source file:<(cat pin) --config <(echo 'log = { level = \"info\" }')); \
        field() { python3 -c 'import json, sys; r = json.load(sys.stdin); print(eval(sys.argv[1]))' \"$1\" <<< \"$signed\"; }; \
        $0 verify --roots <(cat ca.pem) --header <(field '\"Authorization: \" + r[\"headers\"][\"Authorization\"]') \
            --body <(field 'json.dumps(r[\"body\"])') --config /dev/null";
    let run = Run::from_output(fixture.program("bash").args(["-c", script, BINARY]).finish());
    assert!(run.ok().contains("valid: v2"));
}

#[test]
fn a_log_that_can_be_read_only_once_is_refused_and_standard_input_checks_it() {
    let fixture = Fixture::new();
    let path = fixture.file("audit.jsonl");
    fixture.sign(&["--audit-path", &path]).ok();
    let script = "$0 audit verify <(cat audit.jsonl) || [ $? = 2 ] && cat audit.jsonl | $0 audit verify -";
    let run = Run::from_output(fixture.program("bash").args(["-c", script, BINARY]).finish());
    assert!(run.stderr.contains("not a regular file") && run.stderr.contains("- for standard input"), "{run:?}");
    assert!(run.ok().contains("valid: 1 records"));
}

#[test]
fn pipes_in_the_modules_configuration_and_among_manual_pages_stop_no_command() {
    let mut fixture = Fixture::new();
    fixture.tool("mkfifo", &["pipe"]);
    let configuration = fixture.read("softhsm2.conf");
    fixture.write("softhsm2.conf", format!("{configuration}log.file = {}\n", fixture.file("pipe")));
    let begin = Instant::now();
    let agent = Agent::ready(&fixture, &[]);
    agent.payload();
    agent.end("-TERM");
    fixture.set("SOFTHSM2_CONF", fixture.file("pipe"));
    let error = fixture.run(&["list", "--timeout", "1s"]).failed(6);
    assert!(error.contains("pipe, which cannot be read: not a regular file"), "{error}");
    fixture.tool("mkfifo", &["cba-agent.1"]);
    let error = fixture.run(&["man", "."]).failed(1);
    assert!(error.contains("cannot write manual pages"), "{error}");
    assert!(begin.elapsed() < PATIENCE / 2 + Duration::from_secs(1));
}
