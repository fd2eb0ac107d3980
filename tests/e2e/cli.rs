//! The command line itself, completions and manual pages.

use std::fs::OpenOptions;
use std::process::Stdio;

use crate::deadline::{Finish as _, status};
use crate::fixture::Fixture;

#[test]
fn help_and_version_go_to_standard_output() {
    let fixture = Fixture::empty();
    assert!(fixture.run(&["--version"]).ok().starts_with("cba-agent "));
    let help = fixture.run(&["help", "sign"]).ok();
    for word in ["Examples:", "--pin-source", "CBA_AGENT_TOKEN_SERIAL"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(!help.contains("--pin "), "the refused option is not advertised");
}

#[test]
fn usage_errors_are_one_error_line_and_a_hint() {
    let fixture = Fixture::empty();
    for arguments in [
        &[][..],
        &["sing"],
        &["sign", "--slto", "0"],
        &["sign", "--format", "xml"],
        &["sign", "--slot", "-1"],
        &["sign", "--job", "a b"],
    ] {
        let error = fixture.run(arguments).failed(2);
        assert!(error.contains("\nhint: "), "{arguments:?}: {error}");
    }
    assert!(fixture.run(&["sing"]).failed(2).contains("did you mean sign"));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let fixture = Fixture::empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = fixture.run(&["completions", shell]).ok();
        let names_the_child = script.replace("workers", "").replace("each worker", "").contains("worker");
        assert!(script.contains("cba-agent") && !names_the_child, "{shell}");
    }
    fixture.run(&["completions", "tcl"]).failed(2);
    let directory = fixture.path().join("man");
    std::fs::create_dir(&directory).unwrap();
    fixture.run(&["man", &fixture.file("man")]).ok();
    assert!(directory.join("cba-agent-sign.1").exists() && !directory.join("cba-agent-worker.1").exists());
    assert!(fixture.run(&["man", "/nonexistent"]).failed(2).contains("hint: mkdir -p /nonexistent"));
    for no_directory in ["", "/dev/null", "/dev/null/man"] {
        let error = fixture.run(&["man", no_directory]).failed(2);
        assert!(error.contains("hint: name a directory") && !error.contains("mkdir"), "{error}");
    }
    // No directory for files, not even for root.
    let error = fixture.run(&["man", "/proc/self"]).failed(1);
    assert!(error.contains("cannot write manual pages into /proc/self: "), "{error}");
    assert!(error.contains("hint: name a directory that this user can write"), "{error}");
}

#[test]
fn a_full_disk_is_an_error_and_a_broken_pipe_is_not() {
    let fixture = Fixture::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = fixture.command(&["list"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap().finish();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("cannot write the result") && errors.contains("hint: free space"), "{errors}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = fixture.command(&["list"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap().finish();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_ne!(output.status.code(), Some(0));
}

#[test]
fn the_worker_command_is_not_for_people() {
    let error = Fixture::empty().run(&["worker"]).failed(2);
    assert!(error.contains("started by cba-agent itself"), "{error}");
}

#[test]
fn a_closed_standard_output_is_an_error() {
    let fixture = Fixture::new();
    let mut shell = fixture.program("sh");
    shell.args(["-c", &format!("exec {} list >&-", crate::fixture::BINARY)]);
    assert_eq!(shell.finish().status.code(), Some(1));
    let to_null = status(&mut fixture.command(&["list"]).stdout(Stdio::null()).spawn().unwrap());
    // Rust's null device is opened for reading and writing only if the descriptor was closed.
    assert_eq!(to_null.code(), Some(0));
}

#[test]
fn common_typing_errors_get_a_hint() {
    let fixture = Fixture::new();
    for (arguments, hint) in [
        (&["sign", "--format", "v2"][..], "--payload-version"),
        (&["sign", "--payload-version", "V2"], "(in lower case)"),
        (&["sign", "--slot", "0x1f"], "--slot-id"),
        (&["sign", "--format", "JSON"], "(in lower case)"),
        (&["sing"], "did you mean sign?"),
    ] {
        let error = fixture.run(arguments).failed(2);
        assert!(error.contains(hint), "{arguments:?}: {error}");
    }
}

#[test]
fn the_names_of_opensc_are_understood() {
    let fixture = Fixture::new();
    fixture.sign(&["--slot-index", "0", "--label", "cba", "--id", "01"]).ok();
    fixture.sign(&["--id", "02"]).failed(3);
}

#[test]
fn the_help_of_every_command_shows_examples() {
    let help = |command: &[&str]| {
        let all: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        Fixture::empty().run(&all).ok()
    };
    let commands = help(&[]);
    let names = commands.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    for name in names.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        assert!(help(&[name]).contains("Examples:\n  cba-agent "), "{name}");
    }
    assert!(help(&["audit", "verify"]).contains("Examples:"));
}

#[test]
fn options_of_every_command_may_stand_before_the_command() {
    let fixture = Fixture::new();
    let config = fixture.write("c.toml", format!("[pin]\nsource = \"{}\"\n", fixture.pin_source()));
    for options in [
        &["--config", &config][..],
        &[&format!("--config={config}"), "-v"],
        &["-vv", "--log-format", "json", "--config", &config],
        &["--log-level", "error", "--verbose", "--config", &config],
    ] {
        let run = fixture.run(&[options, &["sign"]].concat());
        let verbose = options.iter().any(|option| option.starts_with("-v") || *option == "--verbose");
        assert_eq!(run.stderr.contains("module"), verbose, "{run:?}");
        run.ok();
    }
    assert!(fixture.run(&["-v", "help", "sign"]).ok().contains("--pin-source"));
    assert!(fixture.run(&["-v", "sign", "--help"]).ok().contains("--pin-source"));
    assert!(fixture.run(&["-v", "--version"]).ok().starts_with("cba-agent "));
    fixture.run(&["--log-format", "json", "completions", "bash"]).ok();
    let json = |arguments: &[&str]| {
        let run = fixture.run(&[&["--log-format", "json"], arguments].concat());
        let error: serde_json::Value = serde_json::from_str(run.stderr.lines().last().unwrap()).unwrap();
        (run.code, error["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(json(&["sing"]), (2, "there is no such command".into()));
    assert_eq!(json(&["--config", "/nonexistent", "audit", "verify", "/nonexistent"]).0, 2);
    assert_eq!(json(&["audit", "head", "/nonexistent"]).0, 2);
    // An option of one command only, and an option that is allowed on both sides.
    let error = fixture.run(&["--slot", "0", "sign"]).failed(2);
    assert!(error.contains("put the command first, as in `cba-agent sign --slot`"), "{error}");
    assert!(
        fixture
            .run(&["sign", "--version"])
            .failed(2)
            .contains("hint: use `cba-agent --version` without other arguments")
    );
    let error = fixture.run(&["--format", "json", "sign"]).failed(2);
    assert!(error.contains("put the command first, as in `cba-agent sign --format`"), "{error}");
    assert!(fixture.run(&["--config", &config, "sign", "--config", &config]).failed(2).contains("given twice"));
    assert!(fixture.run(&["--config"]).failed(2).contains("--config needs a value"));
}

#[test]
fn an_impossible_socket_path_is_a_usage_error_and_a_missing_socket_is_not() {
    let fixture = Fixture::new();
    let (long, directory) = (format!("/tmp/{}", "a".repeat(103)), fixture.path().display().to_string());
    let file = fixture.write("file", "");
    let datagrams = fixture.file("datagrams");
    let _datagrams = std::os::unix::net::UnixDatagram::bind(&datagrams).unwrap();
    let through = format!("{file}/agent.sock");
    for (socket, why) in [
        ("http://localhost/sign", "not a URL"),
        ("unix:///run/agent.sock", "not a URL"),
        ("localhost:8080", "not a network address"),
        ("", "not an empty text"),
        ("@agent", "not an abstract socket"),
        (&long, "at most 107 bytes; this one has 108"),
        ("~/agent.sock", "~ is not expanded"),
        (&directory, "this is a directory"),
        (&file, "this is a file"),
        (&through, "this is a path through a file"),
        (&datagrams, "this is a socket of another type"),
    ] {
        for command in ["sign", "health"] {
            let error = fixture.run(&[command, "--socket", socket]).failed(2);
            assert!(error.contains(why), "{command} {socket}: {error}");
        }
        let config = fixture.write("c.toml", format!("[sign]\nsocket = [\"{socket}\"]\n"));
        assert!(fixture.run(&["sign", "--config", &config]).failed(2).contains(why), "{socket}");
        if !why.starts_with("this is") {
            let config = fixture.write("c.toml", format!("[serve]\nsocket = \"{socket}\"\n"));
            for command in ["serve", "doctor"] {
                let run = fixture.run(&[command, "--config", &config]);
                let said = format!("{}{}", run.stdout, run.stderr);
                assert!(run.code == if command == "serve" { 2 } else { 8 } && said.contains(why), "{command}: {said}");
            }
        }
    }
    let config = fixture.write("c.toml", "[sign]\nsocket = [\"/run/a\\u0000b\"]\n");
    assert!(fixture.run(&["sign", "--config", &config]).failed(2).contains("NUL"));
    for socket in ["/nonexistent/agent.sock", "agent.sock", &long[..107]] {
        fixture.run(&["sign", "--socket", socket]).failed(9);
    }
}

#[test]
fn a_request_that_another_program_encoded_is_named() {
    let fixture = Fixture::new();
    let request = fixture.sign(&[]).ok();
    let wide: Vec<u8> = request.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, cause) in [
        (format!("\u{feff}{request}").into_bytes(), "a byte order mark"),
        ([&[0xff, 0xfe], &wide[..]].concat(), "UTF-16"),
        (wide, "UTF-16"),
    ] {
        let error = fixture.run_with_input(&["verify"], bytes).failed(8);
        assert!(error.contains(cause) && error.contains("PowerShell"), "{error}");
    }
}

#[test]
fn empty_input_is_reported_as_empty() {
    let fixture = Fixture::empty();
    let file = fixture.write("empty", "");
    for (arguments, code) in [
        (&["verify"][..], 8),
        (&["verify", "--header", "-", "--body", &file], 2),
        (&["audit", "verify", "-"], 8),
        (&["verify", "--roots", "-"], 2),
        (&["doctor", "--certificate", "-"], 2),
    ] {
        for input in ["", "\n"] {
            if input.is_empty() || arguments[0] == "verify" {
                let error = fixture.run_with_input(arguments, input).failed(code);
                assert!(error.contains("standard input (stdin) was empty"), "{arguments:?}: {error}");
            }
        }
    }
    let error = fixture.run(&["verify", "--header", &file, "--body", &file]).failed(8);
    assert!(error.contains("empty is empty"), "{error}");
}
