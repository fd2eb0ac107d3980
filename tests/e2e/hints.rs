//! Runs the commands that hints and remedies offer. A test creates the fault, pastes the offered command into a shell,
//! and checks that the fault is fixed.
//!
//! A hint is a complete command, or has its commands in backticks. A remedy is a hint of `doctor`; its line begins with
//! "fix: ". Messages about the host are in `host_hints`. The list of all messages with a command is in `hint_trials`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::agent::Agent;
use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run};
use crate::hint_trials::PROGRAMS;

/// Returns all commands in the hints of errors and in the remedies of `doctor`.
pub(crate) fn commands_in(said: &str) -> Vec<String> {
    let hint = |line: &str| {
        let text = line.trim_start();
        text.strip_prefix("hint: ").or_else(|| text.strip_prefix("fix: ")).map(str::to_owned)
    };
    said.lines().filter_map(hint).flat_map(|hint| commands(&hint)).collect()
}

/// Returns the commands of one hint.
fn commands(hint: &str) -> Vec<String> {
    if hint.contains('`') {
        return hint.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    }
    let first = hint.split(' ').next().unwrap_or_default();
    if PROGRAMS.contains(&first) && hint.contains(' ') { vec![hint.to_owned()] } else { Vec::new() }
}

/// Returns the offered command with this beginning. Fails unless there is exactly one.
#[track_caller]
pub(crate) fn one_command(said: &str, beginning: &str) -> String {
    let found: Vec<String> = commands_in(said).into_iter().filter(|command| command.starts_with(beginning)).collect();
    assert_eq!(found.len(), 1, "{beginning}: {said}");
    found.into_iter().next().unwrap()
}

/// Runs a command in a shell, in the fixture's environment and with the binary in the PATH.
pub(crate) fn run_in_shell(fixture: &Fixture, command: &str) -> Run {
    let mut shell = fixture.program("bash");
    shell.args(["-c", command]);
    let directory = Path::new(BINARY).parent().unwrap().display().to_string();
    shell.env("PATH", format!("{directory}:{}", std::env::var("PATH").unwrap()));
    Run::from_output((&mut shell).finish())
}

/// Runs a command as [`run_in_shell`] does, and returns its stdout. Fails if the command fails.
#[track_caller]
pub(crate) fn succeeds(fixture: &Fixture, command: &str) -> String {
    let run = run_in_shell(fixture, command);
    assert_eq!(run.code, 0, "{command}: {run:?}");
    run.stdout
}

pub(crate) fn output_of(run: &Run) -> String {
    format!("{}\n{}", run.stdout, run.stderr)
}

#[test]
fn the_hint_stops_other_users_from_reading_a_pin_file() {
    let fixture = Fixture::new();
    let path = fixture.write("Jo's \"own\" pin", fixture.pin());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let source = format!("file:{path}");
    for said in [
        fixture.run(&["sign", "--pin-source", &source]).stderr,
        fixture.run(&["doctor", "--pin-source", &source]).stdout,
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        succeeds(&fixture, &one_command(&said, "chmod "));
        fixture.run(&["sign", "--pin-source", &source]).ok();
    }
}

#[test]
fn the_hint_clears_a_blown_fuse_in_the_commands_state_directory() {
    let fixture = Fixture::with(&["--label", "Jo's token; rm x"]);
    let (state, wrong) = (fixture.file("my state"), fixture.write("wrong", "wrong-pin"));
    let sign = |pin: &str| {
        fixture.run(&["sign", "--module", "softhsm2", "--state-dir", &state, "--pin-source", &format!("file:{pin}")])
    };
    let blow = || {
        sign(&wrong).failed(4);
        sign(&wrong).failed(4)
    };
    let doctor = || fixture.run(&["doctor", "--state-dir", &state, "--pin-source", &fixture.pin_source()]).stdout;
    let said = blow();
    succeeds(&fixture, &one_command(&said, "cba-agent pin-fuse --reset"));
    sign(&fixture.file("pin")).ok();
    blow();
    succeeds(&fixture, &one_command(&doctor(), "cba-agent pin-fuse --reset"));
    sign(&fixture.file("pin")).ok();
    assert!(doctor().contains("ok       PIN fuse"), "{}", doctor());
}

#[test]
fn every_selector_that_a_hint_offers_selects_a_token() {
    let fixture = Fixture::with(&["--label", "Jo's \"first\""]);
    fixture.provision(&["--label", "$HOME `id` second"]);
    let said = fixture.sign(&[]).failed(3);
    let selectors: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("hint: choose with ")).collect();
    assert_eq!(selectors.len(), 2, "{said}");
    for selector in selectors {
        // The names of the key or token follow in parentheses.
        let selector = selector.split("   (").next().unwrap();
        succeeds(&fixture, &format!("cba-agent sign --pin-source {} {selector}", fixture.pin_source()));
    }
    let said = fixture.sign(&["--slot", "7"]).failed(3);
    for selector in said.lines().filter_map(|line| line.strip_prefix("hint: there is ")) {
        let selector = selector.split("   (").next().unwrap();
        succeeds(&fixture, &format!("cba-agent sign --pin-source {} {selector}", fixture.pin_source()));
    }
}

#[test]
fn commands_that_only_show_something_run_with_the_options_of_the_command_that_failed() {
    let fixture = Fixture::new();
    let config = fixture.write("my config.toml", format!("[pin]\nsource = \"{}\"\n", fixture.pin_source()));
    let source = fixture.pin_source();
    for (arguments, beginning) in [
        (&["sign", "--slto", "x"][..], "cba-agent help sign"),
        (&["sign", "--slot", "x"], "cba-agent help sign"),
        (&["audit", "verify", "--expect-head", "x", "/x"], "cba-agent help audit verify"),
        (&["list", "--module", "softhsm2", "--token-label", "none"], "cba-agent list --module softhsm2"),
        (&["sign", "--config", &config, "--key-id", "77"], "cba-agent list"),
        (&["sign", "--pin-source", &source, "--key-id", "77"], "cba-agent list"),
    ] {
        let said = output_of(&fixture.run(arguments));
        for command in commands_in(&said).iter().filter(|command| command.starts_with(beginning)) {
            succeeds(&fixture, command);
        }
        assert!(arguments.contains(&"--key-id") || said.contains(beginning), "{arguments:?}: {said}");
    }
    // Another agent is already running.
    let agent = Agent::ready(&fixture, &["--socket", &fixture.file("a b.sock")]);
    let said = fixture.run(&["serve", "--pin-source", &source, "--socket", &agent.socket]).stderr;
    assert_eq!(succeeds(&fixture, &one_command(&said, "cba-agent health")).trim(), "ready");
    drop(agent);
    let said = fixture.run(&["serve", "--pin-source", &source, "--socket-group", "no-such-group"]).stderr;
    succeeds(&fixture, &one_command(&said, "getent "));
}

#[test]
fn the_remedy_converts_a_certificate_in_another_format() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path().join("Jo's files")).unwrap();
    let file = |name: &str| format!("Jo's files/{name}");
    fixture.issue("good", "pub.pem", crate::fixture::EXTENSIONS, &["-days", "9"]);
    let copy = |from: &str, to: &str| fs::copy(fixture.file(from), fixture.file(&file(to))).unwrap();
    copy("good.der", "good.der");
    let text = fixture.tool("openssl", &["x509", "-in", "good.pem", "-text"]);
    fixture.write(&file("bag.pem"), text);
    let base64: String = fixture.read("good.pem").lines().filter(|line| !line.starts_with('-')).collect();
    fixture.write(&file("bare.txt"), base64);
    let p7b = file("all.p7b");
    fixture.tool("openssl", &["crl2pkcs7", "-nocrl", "-certfile", "good.pem", "-certfile", "ca.pem", "-out", &p7b]);
    fixture.tool("openssl", &["pkcs7", "-in", &p7b, "-outform", "DER", "-out", &file("all.der")]);
    fixture.write("password", "x");
    let p12 = file("own.p12");
    let own = ["-newkey", "rsa:2048", "-nodes", "-keyout", "own.key", "-subj", "/CN=own", "-out", "own.pem"];
    fixture.tool("openssl", &[&["req", "-x509"][..], &own].concat());
    let export = ["-in", "own.pem", "-inkey", "own.key", "-passout", "file:password", "-out", &p12];
    fixture.tool("openssl", &[&["pkcs12", "-export"][..], &export].concat());
    let doctor = |name: &str| fixture.run(&["doctor", "--certificate", name]);
    let plain = doctor("good.pem").stdout;
    let utf16: Vec<u8> = fixture.read("good.pem").encode_utf16().flat_map(u16::to_le_bytes).collect();
    fixture.write(&file("utf16.pem"), [&[0xff, 0xfe][..], &utf16].concat());
    fixture.write(&file("bom.pem"), format!("\u{feff}{}", fixture.read("good.pem")));
    for name in ["good.der", "bag.pem", "bare.txt", "all.p7b", "all.der", "own.p12", "utf16.pem", "bom.pem"] {
        let _ = fs::remove_file(fixture.file("leaf.pem"));
        let said = doctor(&file(name)).stdout;
        let command = commands_in(&said)
            .into_iter()
            .find(|command| command.ends_with("leaf.pem"))
            .unwrap_or_else(|| panic!("{said}"));
        if name == "own.p12" {
            succeeds(&fixture, &command.replacen("-clcerts", "-clcerts -passin file:password", 1));
            assert!(doctor("leaf.pem").stdout.contains("CN=own"));
            continue;
        }
        succeeds(&fixture, &command);
        assert_eq!(doctor("leaf.pem").stdout, plain, "{name}: {command}");
    }
    fixture.write(&file("broken.pem"), "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    succeeds(&fixture, &one_command(&doctor(&file("broken.pem")).stdout, "openssl asn1parse"));
    let request = fixture.sign(&[]).ok();
    fixture.write(&file("roots.pem"), fixture.read("good.pem"));
    let said = fixture.run_with_input(&["verify", "--roots", &file("roots.pem")], request).stderr;
    assert!(succeeds(&fixture, &one_command(&said, "openssl crl2pkcs7")).contains("good"));
    fixture.tool(
        "keytool",
        &[
            "-genkeypair",
            "-alias",
            "mykey",
            "-keyalg",
            "RSA",
            "-keysize",
            "2048",
            "-dname",
            "CN=x",
            "-storetype",
            "JKS",
            "-keystore",
            &file("own.jks"),
            "-storepass",
            "secret",
            "-keypass",
            "secret",
        ],
    );
    let said = doctor(&file("own.jks")).stdout;
    let _ = fs::remove_file(fixture.file("leaf.pem"));
    for command in commands_in(&said) {
        succeeds(&fixture, &format!("{command} -storepass secret"));
    }
    assert!(doctor("leaf.pem").stdout.contains("CN=x"));
}

#[test]
fn the_hints_prepare_a_new_token() {
    let fixture = Fixture::empty();
    fs::create_dir(fixture.file("tokens")).unwrap();
    fixture.write("softhsm2.conf", format!("directories.tokendir = {}\n", fixture.file("tokens")));
    let source = format!("file:{}", fixture.write("pin", "123456"));
    let sign = || fixture.run(&["sign", "--pin-source", &source]).failed(3);
    // The PINs that pkcs11-tool would ask for.
    let pins = " --so-pin 12345678 --new-pin 123456";
    let said = sign();
    succeeds(
        &fixture,
        &format!(
            "{} --so-pin 12345678",
            commands_in(&said).into_iter().find(|command| command.contains("--init-token")).unwrap()
        ),
    );
    let said = fixture.run(&["sign", "--pin-source", &source]).failed(4);
    assert!(said.contains("no user PIN was ever set"), "{said}");
    let from_doctor = fixture.run(&["doctor", "--pin-source", &source]).stdout;
    assert_eq!(one_command(&said, "pkcs11-tool "), one_command(&from_doctor, "pkcs11-tool "));
    succeeds(&fixture, &format!("{}{pins}", one_command(&said, "pkcs11-tool ")));
    assert!(!sign().contains("PIN"), "{}", sign());
}

#[test]
fn the_second_command_for_a_new_token_sets_its_pin() {
    let fixture = Fixture::empty();
    fs::create_dir(fixture.file("tokens")).unwrap();
    fixture.write("softhsm2.conf", format!("directories.tokendir = {}\n", fixture.file("tokens")));
    let source = format!("file:{}", fixture.write("pin", "123456"));
    let said = fixture.run(&["sign", "--pin-source", &source]).failed(3);
    let both: Vec<String> =
        commands_in(&said).into_iter().filter(|command| command.starts_with("pkcs11-tool ")).collect();
    assert_eq!(both.len(), 2, "{said}");
    succeeds(&fixture, &format!("{} --so-pin 12345678", both[0]));
    succeeds(&fixture, &format!("{} --so-pin 12345678 --new-pin 123456", both[1]));
    let said = fixture.run(&["sign", "--pin-source", &source]).failed(3);
    assert!(said.contains("no private RSA key") && !said.contains("initialise"), "{said}");
}

#[test]
fn the_hint_changes_a_pin_that_must_be_changed() {
    let mut fixture = Fixture::new();
    fixture.faulty("flags+CKF_USER_PIN_TO_BE_CHANGED");
    let source = fixture.pin_source();
    let said = fixture.run(&["sign", "--pin-source", &source]).failed(4);
    assert!(said.contains("CKF_USER_PIN_TO_BE_CHANGED"), "{said}");
    let command = format!("{} --pin {} --new-pin 87654321", one_command(&said, "pkcs11-tool "), fixture.pin());
    fixture.faulty("");
    succeeds(&fixture, &command);
    fixture.write("pin", "87654321");
    fixture.sign(&[]).ok();
}

#[test]
fn the_hint_writes_the_missing_certificate_of_a_key() {
    let fixture = Fixture::new();
    fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    let said = fixture.sign(&[]).failed(3);
    let command = one_command(&said, "pkcs11-tool ");
    succeeds(&fixture, &format!("{command} --pin {}", fixture.pin()));
    fixture.sign(&[]).ok();
}
