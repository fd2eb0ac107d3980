//! The command line itself, completions and manual pages.

use std::fs::OpenOptions;
use std::process::Stdio;

use crate::deadline::{Finish as _, status};
use crate::stand::{Stand, same_environment};

#[test]
fn help_and_version_go_to_standard_output() {
    let stand = Stand::empty();
    assert!(stand.run(&["--version"]).ok().starts_with("cba-agent "));
    let help = stand.run(&["help", "sign"]).ok();
    for word in ["Examples:", "--pin-source", "CBA_AGENT_TOKEN_SERIAL"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(!help.contains("--pin "), "the refused option is not advertised");
}

#[test]
fn usage_errors_are_one_error_line_and_a_hint() {
    let stand = Stand::empty();
    for arguments in [
        &[][..],
        &["sing"],
        &["sign", "--slto", "0"],
        &["sign", "--format", "xml"],
        &["sign", "--slot", "-1"],
        &["sign", "--job", "a b"],
    ] {
        let error = stand.run(arguments).failed(2);
        assert!(error.contains("\nhint: "), "{arguments:?}: {error}");
    }
    assert!(stand.run(&["sing"]).failed(2).contains("did you mean sign"));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let stand = Stand::empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = stand.run(&["completions", shell]).ok();
        let names_the_child = script.replace("workers", "").replace("each worker", "").contains("worker");
        assert!(script.contains("cba-agent") && !names_the_child, "{shell}");
    }
    stand.run(&["completions", "tcl"]).failed(2);
    let directory = stand.path().join("man");
    std::fs::create_dir(&directory).unwrap();
    stand.run(&["man", &stand.file("man")]).ok();
    assert!(directory.join("cba-agent-sign.1").exists() && !directory.join("cba-agent-worker.1").exists());
    stand.run(&["man", "/nonexistent"]).failed(2);
}

#[test]
fn a_full_disk_is_an_error_and_a_broken_pipe_is_not() {
    let stand = Stand::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = stand.command(&["list"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap().finish();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("cannot write the result") && errors.contains("hint: free space"), "{errors}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = stand.command(&["list"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap().finish();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_ne!(output.status.code(), Some(0));
}

#[test]
fn the_worker_command_is_not_for_people() {
    let error = Stand::empty().run(&["worker"]).failed(2);
    assert!(error.contains("started by cba-agent itself"), "{error}");
}

#[test]
fn a_closed_standard_output_is_an_error() {
    let stand = Stand::new();
    let base = stand.command(&[]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("exec {} list >&-", crate::stand::BINARY)]);
    same_environment(&mut shell, &base);
    assert_eq!(shell.finish().status.code(), Some(1));
    let to_null = status(&mut stand.command(&["list"]).stdout(Stdio::null()).spawn().unwrap());
    // Rust's null device is opened for reading and writing only if the descriptor was closed.
    assert_eq!(to_null.code(), Some(0));
}

#[test]
fn common_typing_errors_get_a_hint() {
    let stand = Stand::new();
    for (arguments, hint) in [
        (&["sign", "--format", "v2"][..], "--payload-version"),
        (&["sign", "--payload-version", "V2"], "(in lower case)"),
        (&["sign", "--slot", "0x1f"], "--slot-id"),
        (&["sign", "--format", "JSON"], "(in lower case)"),
        (&["sing"], "did you mean sign?"),
    ] {
        let error = stand.run(arguments).failed(2);
        assert!(error.contains(hint), "{arguments:?}: {error}");
    }
}

#[test]
fn the_names_of_opensc_are_understood() {
    let stand = Stand::new();
    stand.sign(&["--slot-index", "0", "--label", "cba", "--id", "01"]).ok();
    stand.sign(&["--id", "02"]).failed(3);
}

#[test]
fn the_help_of_every_command_shows_examples() {
    let help = |command: &[&str]| {
        let all: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        Stand::empty().run(&all).ok()
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
    let stand = Stand::new();
    let config = stand.write("c.toml", format!("[pin]\nsource = \"{}\"\n", stand.pin_source()));
    for options in [
        &["--config", &config][..],
        &[&format!("--config={config}"), "-v"],
        &["-vv", "--log-format", "json", "--config", &config],
        &["--log-level", "error", "--verbose", "--config", &config],
    ] {
        let run = stand.run(&[options, &["sign"]].concat());
        let verbose = options.iter().any(|option| option.starts_with("-v") || *option == "--verbose");
        assert_eq!(run.stderr.contains("module"), verbose, "{run:?}");
        run.ok();
    }
    assert!(stand.run(&["-v", "help", "sign"]).ok().contains("--pin-source"));
    assert!(stand.run(&["-v", "sign", "--help"]).ok().contains("--pin-source"));
    assert!(stand.run(&["-v", "--version"]).ok().starts_with("cba-agent "));
    stand.run(&["--log-format", "json", "completions", "bash"]).ok();
    let json = |arguments: &[&str]| {
        let run = stand.run(&[&["--log-format", "json"], arguments].concat());
        let error: serde_json::Value = serde_json::from_str(run.stderr.lines().last().unwrap()).unwrap();
        (run.code, error["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(json(&["sing"]), (2, "there is no such command".into()));
    assert_eq!(json(&["--config", "/nonexistent", "audit", "verify", "/nonexistent"]).0, 2);
    assert_eq!(json(&["audit", "head", "/nonexistent"]).0, 2);
    // An option of one command only, and an option that is allowed on both sides.
    let error = stand.run(&["--slot", "0", "sign"]).failed(2);
    assert!(error.contains("put the command first, as in `cba-agent sign --slot`"), "{error}");
    assert!(
        stand.run(&["sign", "--version"]).failed(2).contains("hint: use `cba-agent --version` without other arguments")
    );
    let error = stand.run(&["--format", "json", "sign"]).failed(2);
    assert!(error.contains("put the command first, as in `cba-agent sign --format`"), "{error}");
    assert!(stand.run(&["--config", &config, "sign", "--config", &config]).failed(2).contains("given twice"));
    assert!(stand.run(&["--config"]).failed(2).contains("--config needs a value"));
}

#[test]
fn an_impossible_socket_path_is_a_usage_error_and_a_missing_socket_is_not() {
    let stand = Stand::new();
    let (long, directory) = (format!("/tmp/{}", "a".repeat(103)), stand.path().display().to_string());
    let file = stand.write("file", "");
    let datagrams = stand.file("datagrams");
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
            let error = stand.run(&[command, "--socket", socket]).failed(2);
            assert!(error.contains(why), "{command} {socket}: {error}");
        }
        let config = stand.write("c.toml", format!("[sign]\nsocket = [\"{socket}\"]\n"));
        assert!(stand.run(&["sign", "--config", &config]).failed(2).contains(why), "{socket}");
        if !why.starts_with("this is") {
            let config = stand.write("c.toml", format!("[serve]\nsocket = \"{socket}\"\n"));
            for command in ["serve", "doctor"] {
                let run = stand.run(&[command, "--config", &config]);
                let said = format!("{}{}", run.stdout, run.stderr);
                assert!(run.code == if command == "serve" { 2 } else { 8 } && said.contains(why), "{command}: {said}");
            }
        }
    }
    let config = stand.write("c.toml", "[sign]\nsocket = [\"/run/a\\u0000b\"]\n");
    assert!(stand.run(&["sign", "--config", &config]).failed(2).contains("NUL"));
    for socket in ["/nonexistent/agent.sock", "agent.sock", &long[..107]] {
        stand.run(&["sign", "--socket", socket]).failed(9);
    }
}

#[test]
fn a_request_that_another_program_encoded_is_named() {
    let stand = Stand::new();
    let request = stand.sign(&[]).ok();
    let wide: Vec<u8> = request.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, cause) in [
        (format!("\u{feff}{request}").into_bytes(), "a byte order mark"),
        ([&[0xff, 0xfe], &wide[..]].concat(), "UTF-16"),
        (wide, "UTF-16"),
    ] {
        let error = stand.run_with_input(&["verify"], bytes).failed(8);
        assert!(error.contains(cause) && error.contains("PowerShell"), "{error}");
    }
}

#[test]
fn empty_input_is_reported_as_empty() {
    let stand = Stand::empty();
    let file = stand.write("empty", "");
    for (arguments, code) in [
        (&["verify"][..], 8),
        (&["verify", "--header", "-", "--body", &file], 2),
        (&["audit", "verify", "-"], 8),
        (&["verify", "--roots", "-"], 2),
        (&["doctor", "--certificate", "-"], 2),
    ] {
        for input in ["", "\n"] {
            if input.is_empty() || arguments[0] == "verify" {
                let error = stand.run_with_input(arguments, input).failed(code);
                assert!(error.contains("standard input (stdin) was empty"), "{arguments:?}: {error}");
            }
        }
    }
    let error = stand.run(&["verify", "--header", &file, "--body", &file]).failed(8);
    assert!(error.contains("empty is empty"), "{error}");
}
