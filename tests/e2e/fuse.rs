//! The wrong-PIN fuse: no set-up locks a user's token.

use std::fs;
use std::process::Stdio;

use crate::deadline::{Finish as _, until};
use crate::fixture::{Fixture, Run};

/// A fixture with a wrong PIN in the file `wrong`. Every module call is logged.
pub(crate) fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    fixture.write("wrong", "not-the-pin");
    fixture
}

pub(crate) fn wrong(fixture: &Fixture) -> Run {
    fixture.sign_with(&format!("file:{}", fixture.file("wrong")))
}

/// The output of `pin-fuse`.
pub(crate) fn shown(fixture: &Fixture) -> String {
    fixture.run(&["pin-fuse"]).ok()
}

#[test]
fn ten_parallel_runs_with_a_wrong_pin_spend_one_try() {
    let mut fixture = fixture();
    // On a busy host, the first run would be refused before the second reads the fuse.
    fixture.faulty("C_Login=delay:1000");
    let source = format!("file:{}", fixture.file("wrong"));
    let start = |_| {
        let mut command = fixture.command(&["sign", "--pin-source", &source]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..10).map(start).collect();
    let kinds: Vec<bool> = children
        .into_iter()
        .map(|child| Run::from_output(child.finish()).failed(4).contains("CKR_PIN_INCORRECT"))
        .collect();
    assert_eq!(kinds.iter().filter(|refused| **refused).count(), 1);
    assert_eq!(fixture.calls("C_Login"), 1);
}

#[test]
fn a_corrected_pin_file_gets_one_try() {
    let fixture = fixture();
    wrong(&fixture).failed(4);
    let refused = wrong(&fixture).failed(4);
    assert!(refused.contains("no login is tried") && refused.contains("pin-fuse --reset"), "{refused}");
    assert!(shown(&fixture).contains("blown"));
    fixture.write("wrong", fixture.pin());
    wrong(&fixture).ok();
    assert!(shown(&fixture).contains("intact"));
    wrong(&fixture).ok();
}

#[test]
fn a_blown_fuse_is_one_line_for_programs() {
    let fixture = fixture();
    wrong(&fixture).failed(4);
    let source = format!("file:{}", fixture.file("wrong"));
    let run = fixture.run(&["sign", "--log-format", "json", "--pin-source", &source]);
    let error: serde_json::Value = serde_json::from_str(run.stderr.trim()).unwrap_or_else(|_| panic!("{run:?}"));
    assert_eq!((error["kind"].as_str(), error["code"].as_u64()), (Some("pin_fuse"), Some(4)), "{error}");
}

#[test]
fn a_second_refusal_is_final_until_a_reset() {
    let fixture = fixture();
    wrong(&fixture).failed(4);
    fixture.write("wrong", "still-not-it");
    wrong(&fixture).failed(4);
    for content in ["third", &fixture.pin()] {
        fixture.write("wrong", content);
        assert!(wrong(&fixture).failed(4).contains("no login is tried"));
    }
    assert_eq!(fixture.calls("C_Login"), 2);
    assert!(fixture.run(&["pin-fuse", "--reset", "--token-label", "cba"]).ok().contains("cleared"));
    wrong(&fixture).ok();
}

#[test]
fn other_sources_never_clear_it() {
    let mut fixture = fixture();
    wrong(&fixture).failed(4);
    let pin = fixture.pin();
    fixture.set("MY_PIN", pin.clone());
    let shm = tempfile::Builder::new().prefix("cba-agent-test").tempdir_in("/dev/shm").unwrap();
    let in_memory = shm.path().join("pin");
    fs::write(&in_memory, &pin).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&in_memory, fs::Permissions::from_mode(0o600)).unwrap();
    fixture.set("CREDENTIALS_DIRECTORY", shm.path().display().to_string());
    for source in ["env:MY_PIN", "credential:pin", &format!("file:{}", in_memory.display())] {
        assert!(fixture.sign_with(source).failed(4).contains("no login is tried"), "{source}");
    }
    let piped = fixture.run_with_input(&["sign", "--pin-source", "stdin"], &pin);
    assert!(piped.failed(4).contains("no login is tried"));
    let mut shell = fixture.program("sh");
    shell.args(["-c", &format!("exec {} sign --pin-source fd:5 5< pin", crate::fixture::BINARY)]);
    assert!(Run::from_output(shell.finish()).failed(4).contains("no login is tried"));
    assert_eq!(fixture.calls("C_Login"), 1);
}

#[test]
fn a_worker_killed_inside_the_login_leaves_a_mark_and_the_second_ends_attempts() {
    let mut fixture = fixture();
    fixture.faulty("C_Login=abort");
    for _ in 0..2 {
        fixture.sign(&[]).failed(6);
    }
    assert!(shown(&fixture).contains("refused 0, unknown 2"), "{}", shown(&fixture));
    fixture.faulty("");
    assert!(fixture.sign(&[]).failed(4).contains("2 attempt(s) ended with an unknown result"));
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn one_unknown_end_is_tolerated_and_a_success_clears_it() {
    let mut fixture = fixture();
    fixture.faulty("C_Login=0x30");
    fixture.sign(&[]).failed(6);
    assert!(shown(&fixture).contains("unknown 1"));
    fixture.faulty("");
    fixture.sign(&[]).ok();
    assert!(shown(&fixture).contains("refused 0, unknown 0"));
}

#[test]
fn an_error_that_spends_no_try_does_not_blow_the_fuse() {
    let mut fixture = fixture();
    // PIN_LEN_RANGE, ARGUMENTS_BAD, USER_PIN_NOT_INITIALIZED, USER_ANOTHER_ALREADY_LOGGED_IN, PIN_EXPIRED
    for value in ["0xa2", "0x7", "0x102", "0x104", "0xa3"] {
        fixture.faulty(&format!("C_Login={value}"));
        for _ in 0..3 {
            let error = fixture.sign(&[]).failed(4);
            assert!(error.contains("C_Login: CKR_"), "{value}: {error}");
        }
        assert_eq!(fixture.calls("C_Login"), 3, "{value}");
    }
    fixture.faulty("");
    fixture.sign(&[]).ok();
}

#[test]
fn an_existing_login_does_not_prove_a_pin() {
    let mut fixture = fixture();
    wrong(&fixture).failed(4);
    fixture.write("wrong", "another-wrong-one");
    fixture.faulty("C_Login=0x100");
    let _ = wrong(&fixture);
    assert!(shown(&fixture).contains("refused 1, unknown 0"), "{}", shown(&fixture));
}

#[test]
fn the_state_holds_nothing_derived_from_a_pin() {
    let fixture = fixture();
    wrong(&fixture).failed(4);
    let state = fixture.path().join("home/.local/state/cba-agent");
    for entry in fs::read_dir(&state).unwrap().map(Result::unwrap) {
        let text = fs::read_to_string(entry.path()).unwrap();
        assert!(!text.contains("not-the-pin"), "{text}");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0);
    }
}

#[test]
fn a_second_run_waits_for_the_tokens_lock_and_says_so_when_it_is_too_long() {
    let mut fixture = fixture();
    fixture.faulty("C_Sign=delay:1500");
    let source = fixture.pin_source();
    let mut command = fixture.command(&["sign", "--pin-source", &source]);
    let first = command.stdout(Stdio::piped()).spawn().unwrap();
    fixture.await_calls("C_Sign", 1);
    let error = fixture.sign(&["--timeout", "300ms"]).failed(6);
    assert!(error.contains("another cba-agent holds the token"), "{error}");
    fixture.sign(&[]).ok();
    Run::from_output(first.finish()).ok();
}

#[test]
fn flags_are_read_before_a_login() {
    let mut fixture = fixture();
    for (flag, word) in [
        ("flags+CKF_USER_PIN_LOCKED", "CKF_USER_PIN_LOCKED"),
        ("flags+CKF_USER_PIN_FINAL_TRY", "CKF_USER_PIN_FINAL_TRY"),
        ("flags+CKF_USER_PIN_TO_BE_CHANGED", "CKF_USER_PIN_TO_BE_CHANGED"),
        ("flags-CKF_USER_PIN_INITIALIZED", "CKF_USER_PIN_INITIALIZED"),
    ] {
        fixture.faulty(flag);
        let error = fixture.sign(&[]).failed(4);
        assert!(error.contains(word), "{error}");
        assert_eq!(fixture.calls("C_Login"), 0, "{flag}");
    }
}

#[test]
fn a_pin_pad_without_a_person_obeys_the_fuse_and_keeps_the_last_try() {
    let mut fixture = fixture();
    let alone = |fixture: &Fixture| {
        let mut command = fixture.program("setsid");
        command.args(["--wait", crate::fixture::BINARY, "sign", "--pin-source", "pinpad"]).stdin(Stdio::null());
        Run::from_output(command.finish())
    };
    fixture.faulty("flags+CKF_USER_PIN_FINAL_TRY;flags+CKF_PROTECTED_AUTHENTICATION_PATH");
    assert!(alone(&fixture).failed(4).contains("CKF_USER_PIN_FINAL_TRY"));
    fixture.faulty("flags+CKF_PROTECTED_AUTHENTICATION_PATH;C_Login=0xa0");
    for _ in 0..4 {
        alone(&fixture).failed(4);
    }
    assert_eq!(fixture.calls("C_Login"), 1);
}

#[test]
fn flags_are_read_again_under_the_lock() {
    let mut fixture = fixture();
    fixture.faulty("late+CKF_USER_PIN_FINAL_TRY");
    assert!(fixture.sign(&[]).failed(4).contains("CKF_USER_PIN_FINAL_TRY"));
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn a_token_without_identity_does_not_bypass_a_blown_fuse() {
    let mut fixture = fixture();
    wrong(&fixture).failed(4);
    let list: serde_json::Value = serde_json::from_str(&fixture.run(&["list", "--json"]).ok()).unwrap();
    let id = list["modules"][0]["slots"][0]["slot_id"].to_string();
    fixture.faulty("C_GetTokenInfo=0x30");
    assert!(fixture.sign(&["--slot-id", &id]).failed(4).contains("fuse of a token here is blown"));
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn a_reading_that_failed_once_leads_to_no_second_fuse() {
    let mut fixture = fixture();
    let list: serde_json::Value = serde_json::from_str(&fixture.run(&["list", "--json"]).ok()).unwrap();
    let id = list["modules"][0]["slots"][0]["slot_id"].to_string();
    let source = format!("file:{}", fixture.file("wrong"));
    let wrong_by_id = |fixture: &Fixture| fixture.run(&["sign", "--slot-id", &id, "--pin-source", &source]);
    for rules in ["C_GetTokenInfo#1=0x30", "C_GetTokenInfo=0x30"] {
        fixture.faulty(rules);
        wrong_by_id(&fixture).failed(4);
        assert_eq!(fixture.calls("C_Login"), 1, "{rules}");
        fixture.faulty("");
        assert!(wrong_by_id(&fixture).failed(4).contains("no login is tried"), "{rules}");
        assert_eq!(fixture.calls("C_Login"), 0, "{rules}");
        fs::remove_dir_all(fixture.path().join("home")).unwrap();
    }
}

#[test]
fn a_worker_killed_before_its_login_spends_no_try() {
    let fixture = Fixture::new();
    let (source, state) = (fixture.pin_source(), fixture.file("state"));
    let mut command = fixture.program("strace");
    // The parent waits after the mark of the attempt, and before it sends the PIN.
    command.args(["-qq", "-o", "/dev/null", "-e", "trace=writev", "-e", "inject=writev:delay_enter=5000000:when=1"]);
    command.args([crate::fixture::BINARY, "sign", "--pin-source", &source, "--state-dir", &state]);
    let strace = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let child_of = |process: u32| -> u32 {
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
        children.trim().parse().unwrap()
    };
    let is_marked = || {
        let files = fs::read_dir(&state).into_iter().flatten().filter_map(|file| Some(file.ok()?.path()));
        files
            .filter(|path| path.extension().is_some_and(|name| name == "lock"))
            .any(|path| fs::read(path).is_ok_and(|mark| mark == b"1"))
    };
    until(is_marked);
    let worker = child_of(child_of(strace.id()));
    crate::fixture::tool(std::process::Command::new("kill").args(["-KILL", &worker.to_string()]));
    Run::from_output(strace.finish()).failed(6);
    assert!(!is_marked());
    let fuse = fixture.run(&["pin-fuse", "--state-dir", &state]).ok();
    assert!(fuse.contains("intact") && !fuse.contains("unknown 1"), "{fuse}");
}
