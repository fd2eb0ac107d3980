//! PINs: their sources, what is refused before a login, and where they must not appear.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run};
use crate::hints::{commands_in, succeeds};

/// Differs from all other output.
pub(crate) const MARKER: &str = "Zk7qMarker93";

#[test]
fn every_source_that_needs_no_person_works() {
    let mut fixture = Fixture::new();
    let pin = fixture.pin();
    fixture.sign_with(&fixture.pin_source()).ok();
    fixture.run_with_input(&["sign", "--pin-source", "stdin"], format!("{pin}\nmore")).ok();
    fixture.set("MY_PIN", pin.clone());
    fixture.sign_with("env:MY_PIN").ok();
    let credentials = fixture.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fixture.write("credentials/prod", &pin);
    fixture.set("CREDENTIALS_DIRECTORY", credentials.display().to_string());
    fixture.sign_with("credential:prod").ok();
    fixture.write("credentials/cba-agent-pin", &pin);
    fixture.run(&["sign"]).ok();
    let shell = format!("exec {BINARY} sign --pin-source fd:7 7< pin");
    let mut shell_command = fixture.program("sh");
    shell_command.args(["-c", &shell]);
    Run::from_output(shell_command.finish()).ok();
}

#[test]
fn a_uri_may_name_the_pin_file() {
    let fixture = Fixture::new();
    let uri = format!("pkcs11:token=cba?pin-source=file:{}", fixture.file("pin"));
    fixture.run(&["sign", "--uri", &uri]).ok();
}

#[test]
fn a_symbolic_link_to_a_pin_file_is_followed() {
    let fixture = Fixture::new();
    std::os::unix::fs::symlink("pin", fixture.file("link")).unwrap();
    fixture.sign_with(&format!("file:{}", fixture.file("link"))).ok();
}

#[test]
fn a_pin_file_may_end_with_at_most_one_newline() {
    let mut fixture = Fixture::new();
    let pin = fixture.pin();
    for content in [pin.clone(), format!("{pin}\n")] {
        fixture.write("p", content);
        fixture.sign_with(&format!("file:{}", fixture.file("p"))).ok();
    }
    fixture.faulty("");
    for content in [format!("{pin}\r\n"), format!("{pin}\n\n"), "\n".into(), String::new(), format!("{pin}\0")] {
        fixture.write("p", &content);
        let error = fixture.sign_with(&format!("file:{}", fixture.file("p"))).failed(4);
        assert!(!error.contains(&pin), "{error}");
    }
    assert_eq!(fixture.calls("C_Login"), 0);
}

/// Bytes that programs write and no keyboard types, each with its name in the error.
fn odd_bytes(pin: &str) -> Vec<(Vec<u8>, &'static str)> {
    let wide = |order: fn(u16) -> [u8; 2], text: String| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    vec![
        (format!("\u{feff}{pin}").into_bytes(), "byte order mark"),
        (wide(u16::to_le_bytes, format!("\u{feff}{pin}\r\n")), "UTF-16"),
        (wide(u16::to_be_bytes, format!("\u{feff}{pin}\n")), "UTF-16"),
        (wide(u16::to_le_bytes, format!("{pin}\r\n")), "UTF-16LE"),
        (wide(u16::to_be_bytes, pin.into()), "UTF-16BE"),
        (format!("{pin}\0").into_bytes(), "zero byte"),
        (format!("{pin}\r\n").into_bytes(), "Windows line end"),
        (format!("{pin}\x1b").into_bytes(), "control character"),
        (format!("{pin}\u{200b}").into_bytes(), "invisible"),
        (format!("{pin}\u{a0}").into_bytes(), "no-break space"),
        (format!("\u{3000}{pin}").into_bytes(), "begins or ends with white space"),
        (format!("{pin}\u{200d}").into_bytes(), "begins or ends with white space"),
        (format!("{pin}\u{3164}").into_bytes(), "invisible"),
        ([pin.as_bytes(), b"\xfc"].concat(), "Latin-1"),
        ([b"\x93", pin.as_bytes(), b"\x94"].concat(), "Windows-1252"),
        (b"VERIFY_NONE".to_vec(), "ykcs11"),
        (b"VERIFY_BIO\n".to_vec(), "ykcs11"),
    ]
}

#[test]
fn control_and_invisible_characters_in_a_pin_are_refused_from_every_source_before_any_login() {
    use std::os::unix::ffi::OsStringExt as _;
    let mut fixture = Fixture::new();
    fixture.faulty("");
    fixture.set("CREDENTIALS_DIRECTORY", fixture.path().display().to_string());
    let pin = fixture.pin();
    for (bytes, cause) in odd_bytes(&pin) {
        let odd = fixture.write("odd", &bytes);
        let with_fd = format!("exec {BINARY} sign --pin-source fd:7 7< odd");
        let mut shell = fixture.program("sh");
        shell.args(["-c", &with_fd]);
        let mut runs = vec![
            fixture.sign_with(&format!("file:{odd}")),
            fixture.sign_with("credential:odd"),
            fixture.run_with_input(&["sign", "--pin-source", "stdin"], &bytes),
            Run::from_output(shell.finish()),
        ];
        // A variable ends at its first zero byte, and its line end is removed by the program that sets it.
        if !bytes.contains(&0) {
            let mut command = fixture.command(&["sign", "--pin-source", "env:ODD"]);
            command.env("ODD", std::ffi::OsString::from_vec(bytes.clone()));
            runs.push(Run::from_output(command.finish()));
        }
        for run in runs {
            let error = run.failed(4);
            assert!(error.contains(cause) && error.contains("no login was tried"), "{bytes:?}: {error}");
            assert!(!error.contains(&pin), "{error}");
        }
    }
    assert_eq!(fixture.calls("C_Login"), 0);
    assert!(fixture.run(&["pin-fuse"]).ok().contains("no refused PIN"), "no attempt was marked");
}

#[test]
fn the_hint_for_a_refused_pin_file_repairs_it() {
    let fixture = Fixture::new();
    let pin = fixture.pin();
    let mut offered = 0;
    for (bytes, cause) in odd_bytes(&pin) {
        let odd = fixture.write("Jo's pin", &bytes);
        let error = fixture.sign_with(&format!("file:{odd}")).failed(4);
        let Some(command) = commands_in(&error).into_iter().find(|command| command.starts_with("pin=$(")) else {
            continue;
        };
        succeeds(&fixture, &command);
        if cause == "Latin-1" {
            assert_eq!(fixture.read("Jo's pin"), format!("{pin}ü"));
        } else if cause == "Windows-1252" {
            assert_eq!(fixture.read("Jo's pin"), format!("\u{201c}{pin}\u{201d}"));
        } else {
            assert_eq!(fixture.read("Jo's pin"), pin, "{cause}");
            fixture.sign_with(&format!("file:{odd}")).ok();
        }
        offered += 1;
    }
    assert_eq!(offered, 9);
}

#[test]
fn pins_of_every_length_and_script_reach_the_token_unchanged() {
    let fixture = Fixture::new();
    let mut before = fixture.pin();
    for pin in ["p ü n", " 1234 ", "пароль-密码", "1\u{a0}2\u{200c}34", "a'b\"c$d\\e", &"9".repeat(255)] {
        let change = ["--login", "--change-pin", "--new-pin", pin, "--pin", &before];
        let module = crate::fixture::softhsm_module();
        fixture.tool("pkcs11-tool", &[&["--module", &module][..], &change].concat());
        before = pin.to_owned();
        fixture.write("pin", pin);
        fixture.sign(&[]).ok();
    }
}

#[test]
fn sources_that_cannot_be_used_fail_before_any_login() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let open = fixture.write("open", fixture.pin());
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let error = fixture.sign_with(&format!("file:{open}")).failed(4);
    assert!(error.contains(&format!("hint: chmod o-rwx {open}")), "{error}");
    for (source, word) in [
        (format!("file:{}", fixture.file("none")), "does not exist"),
        (format!("file:{}", fixture.path().display()), "cannot read the PIN file"),
        ("env:NOT_SET".into(), "not set"),
        ("credential:none".into(), "no credential"),
        ("fd:99".into(), "cannot read the PIN from the file descriptor"),
        ("stdin".into(), "is empty"),
        ("pinpad".into(), "has no PIN pad"),
        ("file:/dev/null".into(), "the PIN file /dev/null is a device"),
        (format!("file:\"{open}\""), "begins or ends with a quotation mark"),
        (format!("file:{open} "), "begins or ends with a space"),
    ] {
        let error = fixture.sign_with(&source).failed(4);
        assert!(error.contains(word), "{source}: {error}");
        // The mode of a device is the system's.
        assert!(!error.contains("/dev/null") || !error.contains("chmod"), "{error}");
    }
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn a_missing_pin_file_is_named_and_unexpanded_text_is_explained() {
    let fixture = Fixture::new();
    let missing = fixture.file("none");
    for (source, said) in [
        (format!("file:{missing}"), format!("the PIN file {missing} does not exist")),
        ("file:./none".into(), "the PIN file ./none does not exist".into()),
        ("file:~/pin".into(), "file:PATH does not expand ~".into()),
        ("file:$HOME/pin".into(), "file:PATH does not expand $".into()),
        ("file:${HOME}/pin".into(), "file:PATH does not expand $".into()),
        ("file:%h/pin".into(), "file:PATH does not expand %".into()),
        // The name may be the PIN itself.
        (format!("file:{MARKER}"), "its name is not shown".into()),
    ] {
        let error = fixture.sign_with(&source).failed(4);
        assert!(
            error.contains(&said) && error.contains("does not exist") && !error.contains(MARKER),
            "{source}: {error}"
        );
        let report = fixture.run(&["doctor", "--pin-source", &source]).stdout;
        assert!(report.contains(&said) || report.contains("does not exist"), "{source}: {report}");
    }
}

#[test]
fn without_a_source_and_a_terminal_the_sources_are_listed() {
    let fixture = Fixture::new();
    // setsid removes the controlling terminal.
    let mut command = fixture.program("setsid");
    command.args(["--wait", BINARY, "sign"]).stdin(Stdio::null());
    let error = Run::from_output(command.finish()).failed(4);
    assert!(error.contains("no PIN source is configured") && error.contains("file:PATH"), "{error}");
}

#[test]
fn a_wrong_pin_is_exit_4_after_one_login() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    fixture.write("wrong", MARKER);
    let error = fixture.sign_with(&format!("file:{}", fixture.file("wrong"))).failed(4);
    assert!(error.contains("C_Login: CKR_PIN_INCORRECT") && error.contains("token 'cba'"), "{error}");
    assert_eq!(fixture.calls("C_Login"), 1);
    assert_eq!(fixture.calls("C_Finalize"), 0, "a worker with a refused PIN is killed, not ended");
}

#[test]
fn the_json_form_of_a_pin_error_tells_programs_not_to_retry() {
    let fixture = Fixture::new();
    fixture.write("wrong", MARKER);
    let run =
        fixture.run(&["sign", "--log-format", "json", "--pin-source", &format!("file:{}", fixture.file("wrong"))]);
    assert_eq!((run.code, run.stdout.as_str()), (4, ""));
    let error: serde_json::Value = serde_json::from_str(run.stderr.trim()).unwrap();
    assert_eq!(error["level"], "ERROR");
    assert_eq!(error["code"], 4);
    assert_eq!(error["kind"], "pin_incorrect");
    assert_eq!(error["retryable"], false);
}

#[test]
fn waiting_for_a_pin_ends_at_the_deadline() {
    let fixture = Fixture::new();
    fixture.tool("mkfifo", &["-m", "600", "pipe"]);
    let error = fixture.run(&["sign", "--timeout", "500ms", "--pin-source", &format!("file:{}", fixture.file("pipe"))]);
    let hint = |from: &str| format!("write the PIN and a newline to {from}, or allow more time with --timeout");
    let error = error.failed(4);
    assert!(error.contains("in time") && error.contains(&hint("the file")), "{error}");
    let mut command = fixture.command(&["sign", "--timeout", "500ms", "--pin-source", "stdin"]);
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    command.stdin(std::os::fd::OwnedFd::from(reader)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.spawn().unwrap().finish();
    drop(writer);
    let error = Run::from_output(output).failed(4);
    assert!(error.contains("in time") && error.contains(&hint("standard input")), "{error}");
}

#[test]
fn everything_that_needs_no_pin_is_checked_before_one_is_sent() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    fixture.write("wrong", MARKER);
    let source = format!("file:{}", fixture.file("wrong"));
    for (flags, code) in [
        (&["--policy-payload-versions", "v1"][..], 5),
        (&["--policy-token-serials", "00"], 5),
        (&["--policy-mechanism", "rsa-pkcs"], 5),
        (&["--certificate-file", "/nonexistent"], 2),
        (&["--certificate-file", &fixture.file("cert.pem")], 5),
    ] {
        let all: Vec<&str> = ["sign", "--pin-source", &source].into_iter().chain(flags.iter().copied()).collect();
        fixture.run(&all).failed(code);
    }
    fixture.set("CBA_AGENT_PAYLOAD_VERSION", "v1");
    fixture.sign_with(&source).failed(5);
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn an_own_descriptor_of_the_agent_is_not_a_pin_source() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    for number in 3..12 {
        let source = format!("fd:{number}");
        fixture.run(&["sign", "--pin-source", &source]).failed(4);
        assert_eq!(fixture.calls("C_Login"), 0, "{source}");
    }
}
