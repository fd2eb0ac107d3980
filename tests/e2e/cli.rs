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
fn a_full_disk_is_an_error_and_a_broken_pipe_is_none() {
    let stand = Stand::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = stand.command(&["list"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap().finish();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write the result"));
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
fn a_closed_standard_output_is_no_success() {
    let stand = Stand::new();
    let base = stand.command(&[]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("exec {} list >&-", crate::stand::BINARY)]);
    same_environment(&mut shell, &base);
    assert_eq!(shell.finish().status.code(), Some(1));
    let to_null = status(&mut stand.command(&["list"]).stdout(Stdio::null()).spawn().unwrap());
    // Rust's own null device is opened for reading and writing only where nothing was open at all.
    assert_eq!(to_null.code(), Some(0));
}

#[test]
fn what_people_mistype_gets_a_hint() {
    let stand = Stand::new();
    for (arguments, hint) in [
        (&["sign", "--format", "v2"][..], "--payload-version"),
        (&["sign", "--payload-version", "V2"], "(in small letters)"),
        (&["sign", "--slot", "0x1f"], "--slot-id"),
        (&["sign", "--format", "JSON"], "(in small letters)"),
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
