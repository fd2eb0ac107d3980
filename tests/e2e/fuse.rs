//! The wrong-PIN fuse: no set-up locks a user's token.

use std::fs;
use std::process::Stdio;

use crate::deadline::{Finish as _, until};
use crate::stand::{Run, Stand, same_environment};

/// A stand with a wrong PIN in the file `wrong`. Every module call is logged.
pub(crate) fn stand() -> Stand {
    let mut stand = Stand::new();
    stand.faulty("");
    stand.write("wrong", "not-the-pin");
    stand
}

pub(crate) fn sign_with(stand: &Stand, source: &str) -> Run {
    stand.run(&["sign", "--pin-source", source])
}

pub(crate) fn wrong(stand: &Stand) -> Run {
    sign_with(stand, &format!("file:{}", stand.file("wrong")))
}

/// The output of `pin-fuse`.
pub(crate) fn shown(stand: &Stand) -> String {
    stand.run(&["pin-fuse"]).ok()
}

#[test]
fn ten_parallel_runs_with_a_wrong_pin_spend_one_try() {
    let mut stand = stand();
    // On a busy host, the first run would be refused before the second reads the fuse.
    stand.faulty("C_Login=delay:1000");
    let source = format!("file:{}", stand.file("wrong"));
    let start = |_| {
        let mut command = stand.command(&["sign", "--pin-source", &source]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..10).map(start).collect();
    let kinds: Vec<bool> = children
        .into_iter()
        .map(|child| Run::from_output(child.finish()).failed(4).contains("CKR_PIN_INCORRECT"))
        .collect();
    assert_eq!(kinds.iter().filter(|refused| **refused).count(), 1);
    assert_eq!(stand.calls("C_Login"), 1);
}

#[test]
fn a_corrected_pin_file_gets_one_try() {
    let stand = stand();
    wrong(&stand).failed(4);
    let refused = wrong(&stand).failed(4);
    assert!(refused.contains("no login is tried") && refused.contains("pin-fuse --reset"), "{refused}");
    assert!(shown(&stand).contains("blown"));
    stand.write("wrong", stand.pin());
    wrong(&stand).ok();
    assert!(shown(&stand).contains("intact"));
    wrong(&stand).ok();
}

#[test]
fn a_blown_fuse_is_one_line_for_programs() {
    let stand = stand();
    wrong(&stand).failed(4);
    let source = format!("file:{}", stand.file("wrong"));
    let run = stand.run(&["sign", "--log-format", "json", "--pin-source", &source]);
    let error: serde_json::Value = serde_json::from_str(run.stderr.trim()).unwrap_or_else(|_| panic!("{run:?}"));
    assert_eq!((error["kind"].as_str(), error["code"].as_u64()), (Some("pin_fuse"), Some(4)), "{error}");
}

#[test]
fn a_second_refusal_is_final_until_a_reset() {
    let stand = stand();
    wrong(&stand).failed(4);
    stand.write("wrong", "still-not-it");
    wrong(&stand).failed(4);
    for content in ["third", &stand.pin()] {
        stand.write("wrong", content);
        assert!(wrong(&stand).failed(4).contains("no login is tried"));
    }
    assert_eq!(stand.calls("C_Login"), 2);
    assert!(stand.run(&["pin-fuse", "--reset", "--token-label", "cba"]).ok().contains("cleared"));
    wrong(&stand).ok();
}

#[test]
fn other_sources_never_clear_it() {
    let mut stand = stand();
    wrong(&stand).failed(4);
    let pin = stand.pin();
    stand.set("MY_PIN", pin.clone());
    let shm = tempfile::Builder::new().prefix("cba-agent-test").tempdir_in("/dev/shm").unwrap();
    let in_memory = shm.path().join("pin");
    fs::write(&in_memory, &pin).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&in_memory, fs::Permissions::from_mode(0o600)).unwrap();
    stand.set("CREDENTIALS_DIRECTORY", shm.path().display().to_string());
    for source in ["env:MY_PIN", "credential:pin", &format!("file:{}", in_memory.display())] {
        assert!(sign_with(&stand, source).failed(4).contains("no login is tried"), "{source}");
    }
    let piped = stand.run_with_input(&["sign", "--pin-source", "stdin"], &pin);
    assert!(piped.failed(4).contains("no login is tried"));
    let base = stand.command(&[]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("exec {} sign --pin-source fd:5 5< pin", crate::stand::BINARY)]);
    shell.current_dir(stand.path());
    same_environment(&mut shell, &base);
    assert!(Run::from_output(shell.finish()).failed(4).contains("no login is tried"));
    assert_eq!(stand.calls("C_Login"), 1);
}

#[test]
fn a_worker_killed_inside_the_login_leaves_a_mark_and_the_second_ends_attempts() {
    let mut stand = stand();
    stand.faulty("C_Login=abort");
    for _ in 0..2 {
        stand.sign(&[]).failed(6);
    }
    assert!(shown(&stand).contains("refused 0, unknown 2"), "{}", shown(&stand));
    stand.faulty("");
    assert!(stand.sign(&[]).failed(4).contains("2 attempt(s) ended with an unknown result"));
    assert_eq!(stand.calls("C_Login"), 0);
}

#[test]
fn one_unknown_end_is_tolerated_and_a_success_clears_it() {
    let mut stand = stand();
    stand.faulty("C_Login=0x30");
    stand.sign(&[]).failed(6);
    assert!(shown(&stand).contains("unknown 1"));
    stand.faulty("");
    stand.sign(&[]).ok();
    assert!(shown(&stand).contains("refused 0, unknown 0"));
}

#[test]
fn an_error_that_spends_no_try_does_not_blow_the_fuse() {
    let mut stand = stand();
    // PIN_LEN_RANGE, ARGUMENTS_BAD, USER_PIN_NOT_INITIALIZED, USER_ANOTHER_ALREADY_LOGGED_IN, PIN_EXPIRED
    for value in ["0xa2", "0x7", "0x102", "0x104", "0xa3"] {
        stand.faulty(&format!("C_Login={value}"));
        for _ in 0..3 {
            let error = stand.sign(&[]).failed(4);
            assert!(error.contains("C_Login: CKR_"), "{value}: {error}");
        }
        assert_eq!(stand.calls("C_Login"), 3, "{value}");
    }
    stand.faulty("");
    stand.sign(&[]).ok();
}

#[test]
fn an_existing_login_does_not_prove_a_pin() {
    let mut stand = stand();
    wrong(&stand).failed(4);
    stand.write("wrong", "another-wrong-one");
    stand.faulty("C_Login=0x100");
    let _ = wrong(&stand);
    assert!(shown(&stand).contains("refused 1, unknown 0"), "{}", shown(&stand));
}

#[test]
fn the_state_holds_nothing_derived_from_a_pin() {
    let stand = stand();
    wrong(&stand).failed(4);
    let state = stand.path().join("home/.local/state/cba-agent");
    for entry in fs::read_dir(&state).unwrap().map(Result::unwrap) {
        let text = fs::read_to_string(entry.path()).unwrap();
        assert!(!text.contains("not-the-pin"), "{text}");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0);
    }
}

#[test]
fn a_second_run_waits_for_the_tokens_lock_and_says_so_when_it_is_too_long() {
    let mut stand = stand();
    stand.faulty("C_Sign=delay:1500");
    let source = stand.pin_source();
    let mut command = stand.command(&["sign", "--pin-source", &source]);
    let first = command.stdout(Stdio::piped()).spawn().unwrap();
    stand.await_calls("C_Sign", 1);
    let error = stand.sign(&["--timeout", "300ms"]).failed(6);
    assert!(error.contains("another cba-agent holds the token"), "{error}");
    stand.sign(&[]).ok();
    Run::from_output(first.finish()).ok();
}

#[test]
fn flags_are_read_before_a_login() {
    let mut stand = stand();
    for (flag, word) in [
        ("flags+CKF_USER_PIN_LOCKED", "CKF_USER_PIN_LOCKED"),
        ("flags+CKF_USER_PIN_FINAL_TRY", "CKF_USER_PIN_FINAL_TRY"),
        ("flags+CKF_USER_PIN_TO_BE_CHANGED", "CKF_USER_PIN_TO_BE_CHANGED"),
        ("flags-CKF_USER_PIN_INITIALIZED", "CKF_USER_PIN_INITIALIZED"),
    ] {
        stand.faulty(flag);
        let error = stand.sign(&[]).failed(4);
        assert!(error.contains(word), "{error}");
        assert_eq!(stand.calls("C_Login"), 0, "{flag}");
    }
}

#[test]
fn a_pin_pad_without_a_person_obeys_the_fuse_and_keeps_the_last_try() {
    let mut stand = stand();
    let alone = |stand: &Stand| {
        let base = stand.command(&[]);
        let mut command = std::process::Command::new("setsid");
        command.args(["--wait", crate::stand::BINARY, "sign", "--pin-source", "pinpad"]).stdin(Stdio::null());
        same_environment(&mut command, &base);
        Run::from_output(command.finish())
    };
    stand.faulty("flags+CKF_USER_PIN_FINAL_TRY;flags+CKF_PROTECTED_AUTHENTICATION_PATH");
    assert!(alone(&stand).failed(4).contains("CKF_USER_PIN_FINAL_TRY"));
    stand.faulty("flags+CKF_PROTECTED_AUTHENTICATION_PATH;C_Login=0xa0");
    for _ in 0..4 {
        alone(&stand).failed(4);
    }
    assert_eq!(stand.calls("C_Login"), 1);
}

#[test]
fn flags_are_read_again_under_the_lock() {
    let mut stand = stand();
    stand.faulty("late+CKF_USER_PIN_FINAL_TRY");
    assert!(stand.sign(&[]).failed(4).contains("CKF_USER_PIN_FINAL_TRY"));
    assert_eq!(stand.calls("C_Login"), 0);
}

#[test]
fn a_token_without_identity_does_not_bypass_a_blown_fuse() {
    let mut stand = stand();
    wrong(&stand).failed(4);
    let list: serde_json::Value = serde_json::from_str(&stand.run(&["list", "--json"]).ok()).unwrap();
    let id = list["modules"][0]["slots"][0]["slot_id"].to_string();
    stand.faulty("C_GetTokenInfo=0x30");
    assert!(stand.sign(&["--slot-id", &id]).failed(4).contains("fuse of a token here is blown"));
    assert_eq!(stand.calls("C_Login"), 0);
}

#[test]
fn a_reading_that_failed_once_leads_to_no_second_fuse() {
    let mut stand = stand();
    let list: serde_json::Value = serde_json::from_str(&stand.run(&["list", "--json"]).ok()).unwrap();
    let id = list["modules"][0]["slots"][0]["slot_id"].to_string();
    let source = format!("file:{}", stand.file("wrong"));
    let wrong_by_id = |stand: &Stand| stand.run(&["sign", "--slot-id", &id, "--pin-source", &source]);
    for rules in ["C_GetTokenInfo#1=0x30", "C_GetTokenInfo=0x30"] {
        stand.faulty(rules);
        wrong_by_id(&stand).failed(4);
        assert_eq!(stand.calls("C_Login"), 1, "{rules}");
        stand.faulty("");
        assert!(wrong_by_id(&stand).failed(4).contains("no login is tried"), "{rules}");
        assert_eq!(stand.calls("C_Login"), 0, "{rules}");
        fs::remove_dir_all(stand.path().join("home")).unwrap();
    }
}

#[test]
fn a_worker_killed_before_its_login_spends_no_try() {
    let stand = Stand::new();
    let (source, state) = (stand.pin_source(), stand.file("state"));
    let base = stand.command(&["sign", "--pin-source", &source, "--state-dir", &state]);
    let mut command = std::process::Command::new("strace");
    // The parent waits after the mark of the attempt, and before it sends the PIN.
    command.args(["-qq", "-o", "/dev/null", "-e", "trace=writev", "-e", "inject=writev:delay_enter=5000000:when=1"]);
    command.arg(base.get_program()).args(base.get_args()).current_dir(stand.path());
    same_environment(&mut command, &base);
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
    crate::stand::tool(std::process::Command::new("kill").args(["-KILL", &worker.to_string()]));
    Run::from_output(strace.finish()).failed(6);
    assert!(!is_marked());
    let fuse = stand.run(&["pin-fuse", "--state-dir", &state]).ok();
    assert!(fuse.contains("intact") && !fuse.contains("unknown 1"), "{fuse}");
}
