//! The wrong-PIN fuse: no set-up locks a user's token.

use std::fs;
use std::process::Stdio;

use crate::deadline::{Finish as _, until};
use crate::stand::{Run, Stand, needs_root, same_environment};

/// A stand with a wrong PIN in the file `wrong`. Every module call is logged.
fn stand() -> Stand {
    let mut stand = Stand::new();
    stand.faulty("");
    stand.write("wrong", "not-the-pin");
    stand
}

fn sign_with(stand: &Stand, source: &str) -> Run {
    stand.run(&["sign", "--pin-source", source])
}

fn wrong(stand: &Stand) -> Run {
    sign_with(stand, &format!("file:{}", stand.file("wrong")))
}

/// The output of `pin-fuse`.
fn shown(stand: &Stand) -> String {
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
fn a_state_directory_that_cannot_be_written_refuses_before_any_login() {
    let stand = stand();
    stand.write("file", "");
    let inside_a_file = stand.file("file/state");
    let error = stand.sign(&["--state-dir", &inside_a_file]).failed(4);
    assert!(error.contains("wrong-PIN fuse") && error.contains("--state-dir DIR"), "{error}");
    let error = stand.sign(&["--state-dir", "/proc/nonexistent"]).failed(4);
    assert!(error.contains("wrong-PIN fuse"), "{error}");
    assert_eq!(stand.calls("C_Login"), 0);
}

#[test]
fn a_damaged_record_refuses_until_it_is_reset() {
    let stand = stand();
    stand.sign(&[]).ok();
    let state = stand.path().join("home/.local/state/cba-agent");
    let record = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "json"));
    fs::write(record.unwrap(), "{\"refused\":").unwrap();
    assert!(stand.sign(&[]).failed(4).contains("is damaged"));
    stand.run(&["pin-fuse", "--reset"]).ok();
    stand.sign(&[]).ok();
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
fn pin_fuse_shows_and_resets_without_the_token() {
    let mut stand = stand();
    assert!(shown(&stand).contains("intact"));
    wrong(&stand).failed(4);
    stand.use_module(Some("/nonexistent.so"));
    assert!(shown(&stand).contains("token 'cba'"));
    stand.run(&["pin-fuse", "--reset"]).ok();
    assert!(shown(&stand).contains("intact"));
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
fn a_relative_state_directory_is_refused() {
    let mut stand = stand();
    stand.sign(&["--state-dir", "here"]).failed(2);
    stand.set("XDG_STATE_HOME", "here");
    stand.sign(&[]).ok();
    assert!(!stand.path().join("here").exists());
}

#[test]
fn the_hint_removes_a_damaged_record_of_an_unknown_token() {
    let stand = stand();
    let state = stand.path().join("home/.local/state/cba-agent");
    fs::create_dir_all(&state).unwrap();
    // It could be the token's record under its label before the renewal.
    fs::write(state.join("0123.json"), "{").unwrap();
    let error = stand.sign(&[]).failed(4);
    assert!(error.contains("0123.json is damaged") && stand.calls("C_Login") == 0, "{error}");
    stand.tool("sh", &["-c", &crate::hints::one_command(&error, "rm ")]);
    stand.sign(&[]).ok();
}

#[test]
fn a_reset_for_another_token_leaves_a_damaged_record_alone() {
    let stand = stand();
    stand.sign(&[]).ok();
    let state = stand.path().join("home/.local/state/cba-agent");
    let is_record = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let record = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(is_record).unwrap();
    fs::write(&record, "{").unwrap();
    stand.run(&["pin-fuse", "--reset", "--token-label", "nosuch"]).failed(3);
    assert_eq!(fs::read_to_string(&record).unwrap(), "{");
}

#[test]
fn no_link_in_the_state_directory_is_followed() {
    let stand = stand();
    wrong(&stand).failed(4);
    let state = stand.path().join("home/.local/state/cba-agent");
    let victim = stand.write("victim", "precious");
    for extension in ["lock", "new", "json"] {
        stand.run(&["pin-fuse", "--reset"]).ok();
        wrong(&stand).failed(4);
        stand.run(&["pin-fuse", "--reset"]).ok();
        let lock =
            fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some());
        let path = lock.unwrap().with_extension(extension);
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let error = wrong(&stand).failed(4);
        // A planted lock or record is refused. A planted new file is moved aside, and the login continues.
        let refused = if extension == "new" { "CKR_PIN_INCORRECT" } else { "cannot be stored" };
        assert!(error.contains(refused), "{extension}: {error}");
        assert_eq!(stand.read("victim"), "precious", "{extension}");
        let _ = fs::remove_file(&path);
    }
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

/// The command in the last hint.
fn hinted_reset(error: &str) -> Vec<String> {
    let hint = error.lines().find_map(|line| line.split("`cba-agent pin-fuse ").nth(1)).unwrap();
    let hint = hint.split('`').next().unwrap();
    hint.replace('\'', "").split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_hinted_command_clears_the_right_fuse_among_several() {
    let stand = stand();
    stand.provision(&["--label", "two"]);
    stand.sign(&["--token-label", "two"]).ok();
    let source = format!("file:{}", stand.file("wrong"));
    let sign = || stand.run(&["sign", "--token-label", "cba", "--pin-source", &source]);
    sign().failed(4);
    let clear = |error: &str| {
        let words = hinted_reset(error);
        let all: Vec<&str> = ["pin-fuse"].into_iter().chain(words.iter().map(String::as_str)).collect();
        assert!(stand.run(&all).ok().contains("cleared"));
    };
    clear(&sign().failed(4));
    sign().failed(4);
    let state = stand.path().join("home/.local/state/cba-agent");
    let is_cba = |path: &std::path::PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("\"cba\""));
    let record = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(is_cba).unwrap();
    fs::write(record, "{").unwrap();
    clear(&sign().failed(4));
    assert!(stand.run(&["pin-fuse", "--reset", "--token-label", "nope"]).failed(3).contains("there is --uri"));
}

/// A stand with a directory of group 4545, whose token, call log and files every user may use.
fn shared_by_users(mode: &str, owner: &str) -> Stand {
    needs_root("it plays other users of the host");
    let mut stand = stand();
    let shared = stand.file("shared");
    stand.tool("install", &["-d", "-m", mode, "-o", owner, "-g", "4545", &shared]);
    stand.set("CBA_AGENT_STATE_DIR", &shared);
    stand.write("calls", "");
    stand.tool("chmod", &["-R", "a+rwX", &stand.file("tokens"), &stand.file("calls"), &stand.file("softhsm2.conf")]);
    crate::access::open_to_all(stand.path());
    stand
}

/// A run by a user of that group, with the user's own PIN file.
fn as_user(stand: &Stand, user: &str, pin: &str) -> Run {
    let own = stand.write(&format!("pin-{user}"), pin);
    stand.tool("chown", &[user, &own]);
    let sign = stand.command(&["sign", "--pin-source", &format!("file:{own}")]);
    let mut command = std::process::Command::new("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--groups=4545", "--"]);
    // The umask of the unit file.
    command.args(["sh", "-c", "umask 077; exec \"$@\"", "sh"]).arg(sign.get_program()).args(sign.get_args());
    same_environment(&mut command, &sign);
    Run::from_output(command.current_dir(stand.path()).finish())
}

#[test]
fn two_users_of_one_token_share_its_fuse_in_a_directory_of_their_group() {
    needs_root("it plays other users of the host");
    let stand = shared_by_users("2770", "root");
    as_user(&stand, "20001", "not-the-pin").failed(4);
    // A file other than the refused one gets one try, for any user.
    as_user(&stand, "20002", "not-the-pin").failed(4);
    for user in ["20001", "20002", "20003"] {
        let refused = as_user(&stand, user, &stand.pin()).failed(4);
        assert!(refused.contains("no login is tried"), "{refused}");
    }
    assert_eq!(stand.calls("C_Login"), 2);
}

#[test]
fn many_users_at_once_with_a_wrong_pin_spend_two_tries_at_most() {
    needs_root("it plays other users of the host");
    let stand = shared_by_users("2770", "root");
    std::thread::scope(|scope| {
        for user in 20001..20009 {
            let stand = &stand;
            scope.spawn(move || {
                let run = as_user(stand, &user.to_string(), "not-the-pin");
                // SoftHSM2 rewrites its token at a refused PIN. A process that reads it at that moment finds no token.
                assert!([3, 4].contains(&run.code) && run.stdout.is_empty(), "{run:?}");
            });
        }
    });
    assert!([1, 2].contains(&stand.calls("C_Login")), "{}", stand.read("calls"));
}

#[test]
fn a_state_directory_of_another_user_gets_a_warning() {
    needs_root("it plays other users of the host");
    let stand = shared_by_users("2770", "20009");
    let run = as_user(&stand, "20001", &stand.pin());
    assert!(run.stderr.contains("belongs to another user"), "{run:?}");
    run.ok();
}

/// A directory in memory, removed at the end.
fn in_memory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cba-agent-test").tempdir_in("/dev/shm").unwrap()
}

#[test]
fn every_command_refuses_a_state_directory_in_memory() {
    let stand = stand();
    let (shm, source) = (in_memory(), stand.pin_source());
    let state = shm.path().join("made/later").display().to_string();
    let socket = stand.file("agent.sock");
    for command in [
        &["sign"][..],
        &["custody"],
        &["list", "--login"],
        &["certificate", "--login"],
        &["serve", "--socket", &socket, "--allow-users", "0"],
    ] {
        let error = stand.run(&[command, &["--pin-source", &source, "--state-dir", &state]].concat()).failed(4);
        assert!(error.contains("is in memory (tmpfs)") && error.contains("--state-dir DIR"), "{command:?}: {error}");
    }
    for variable in ["STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"] {
        let mut command = stand.command(&["sign", "--pin-source", &source]);
        command.env_remove("HOME").env(variable, shm.path());
        assert!(Run::from_output(command.finish()).failed(4).contains("is in memory (tmpfs)"), "{variable}");
    }
    let doctor = stand.run(&["doctor", "--pin-source", &source, "--state-dir", &state]);
    assert!(doctor.code == 8 && doctor.stdout.contains("is in memory (tmpfs)"), "{doctor:?}");
    stand.run(&["pin-fuse", "--state-dir", &state]).failed(4);
    assert_eq!(stand.calls("C_Login"), 0);
    assert_eq!(fs::read_dir(shm.path()).unwrap().count(), 0, "nothing is made there");
}

#[test]
fn a_state_directory_that_every_user_can_change_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let stand = stand();
    for mode in [0o777, 0o1777, 0o702] {
        let state = stand.file(&format!("state-{mode:o}"));
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        let error = stand.sign(&["--state-dir", &state]).failed(4);
        assert!(error.contains("every user of this host can change"), "{mode:o}: {error}");
        assert_eq!(stand.calls("C_Login"), 0);
        assert!(stand.run(&["doctor", "--state-dir", &state]).stdout.contains("every user of this host can change"));
        // The hint makes this directory for this user only.
        let inside = format!("{state}/cba-agent");
        assert!(error.contains(&format!("--state-dir {inside}")), "{error}");
        let run = stand.sign(&["--state-dir", &inside]);
        assert_eq!(run.stderr.contains("every user can replace"), mode == 0o777 || mode == 0o702, "{mode:o}: {run:?}");
        run.ok();
        assert_eq!(fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
        let chmod = crate::hints::one_command(&error, "chmod ");
        stand.tool("sh", &["-c", &chmod]);
        stand.sign(&["--state-dir", &state]).ok();
        fs::remove_file(stand.file("calls")).unwrap();
    }
}

#[test]
fn a_container_that_would_forget_the_fuse_gets_a_warning() {
    needs_root("it makes a mount namespace");
    let stand = Stand::new();
    for layer in ["lower", "upper", "work", "merged"] {
        fs::create_dir(stand.file(layer)).unwrap();
    }
    let inside = |arguments: &[&str]| {
        let mount = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && exec \"$@\"";
        let run = stand.command(arguments);
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", mount, "sh"]).arg(run.get_program()).args(run.get_args());
        same_environment(&mut command, &run);
        Run::from_output(command.current_dir(stand.path()).finish())
    };
    let (source, state) = (stand.pin_source(), stand.file("merged/state"));
    let run = inside(&["sign", "--pin-source", &source, "--state-dir", &state]);
    assert!(run.stderr.contains("overlay file system") && run.stderr.contains("use a volume"), "{run:?}");
    run.ok();
    let doctor = inside(&["doctor", "--pin-source", &source, "--state-dir", &state]);
    assert!(doctor.stdout.contains("overlay file system"), "{doctor:?}");
    doctor.ok();
}

/// Pastes a command from a hint into the shell of a user without configuration, and types the answer to its question.
fn run_in_shell(stand: &Stand, command: &str, answer: &str) -> Run {
    let _ = std::os::unix::fs::symlink(crate::stand::BINARY, stand.file("cba-agent"));
    let command = stand.write("pasted", command);
    let script = stand.write(
        "paste.exp",
        format!(
            "set timeout 60\nspawn sh {{{command}}}\nexpect {{\n\
             -re {{PIN of}} {{ send {{{answer}}}; send \"\\r\"; exp_continue }}\n\
             timeout {{ exit 99 }}\n\
             eof\n}}\nexit [lindex [wait] 3]\n"
        ),
    );
    let mut expect = std::process::Command::new("expect");
    expect.arg(script).env_clear().env("PATH", format!("{}:/usr/bin:/bin", stand.path().display()));
    for name in ["FAULTY", "FAULTY_MODULE", "FAULTY_LOG"] {
        let set = stand
            .command(&[])
            .get_envs()
            .find(|(known, _)| *known == name)
            .and_then(|(_, value)| value.map(Into::into));
        set.map(|value: std::ffi::OsString| expect.env(name, value));
    }
    expect.env("SOFTHSM2_CONF", stand.file("softhsm2.conf")).current_dir("/");
    Run::from_output(expect.finish())
}

#[test]
fn hints_of_a_refusal_fit_the_pin_source_and_work_when_pasted() {
    let mut stand = stand();
    // A second token, so that a command must select one.
    stand.provision(&["--label", "two"]);
    let (pin, shm) = (stand.pin(), in_memory());
    stand.set("CREDENTIALS_DIRECTORY", stand.path().display().to_string());
    stand.set("CBA_AGENT_STATE_DIR", stand.file("a state"));
    let memory = shm.path().join("pin").display().to_string();
    let on_disk = format!("file:{}", stand.file("wrong"));
    let set = |content: &str| {
        stand.write("wrong", content);
        fs::copy(stand.file("wrong"), &memory).unwrap();
    };
    let sign = |source: &str, content: &str| {
        let mut command = stand.command(&["sign", "--token-label", "cba", "--pin-source", source]);
        command.env("MY_PIN", content);
        if source == "stdin" {
            let arguments = ["sign", "--token-label", "cba", "--pin-source", source];
            return stand.run_with_input(&arguments, content);
        }
        if source == "fd:7" {
            let mut shell = std::process::Command::new("sh");
            let run = "exec \"$@\" 7< wrong";
            shell.args(["-c", run, "sh"]).arg(command.get_program()).args(command.get_args()).current_dir(stand.path());
            same_environment(&mut shell, &command);
            return Run::from_output(shell.finish());
        }
        Run::from_output(command.finish())
    };
    let file = format!("file:{memory}");
    for (source, place) in [
        (on_disk.as_str(), "correct the PIN in "),
        (&file, "a file in memory or a pipe"),
        ("env:MY_PIN", "in its variable"),
        ("credential:wrong", "that LoadCredential= names"),
        ("fd:7", "on its descriptor"),
        ("stdin", "on standard input"),
    ] {
        for by_hand in [false, true] {
            let mut refusals = 0;
            let error = loop {
                set(&format!("not-the-pin-{refusals}"));
                let error = sign(source, "not-the-pin").failed(4);
                assert!(error.contains(place), "{source}: {error}");
                let is_tried = source == on_disk && refusals == 0;
                assert_eq!(error.contains("then tried once"), is_tried, "{source}: {error}");
                refusals += 1;
                if error.contains("no login is tried") {
                    break error;
                }
                assert!(error.contains("C_Login: CKR_PIN_INCORRECT"), "{error}");
            };
            assert_eq!(refusals, if source == on_disk { 3 } else { 2 }, "{source}");
            let wanted = if by_hand { "cba-agent list" } else { "cba-agent pin-fuse" };
            let command = crate::hints::one_command(&error, wanted);
            let run = run_in_shell(&stand, &command, &pin);
            assert_eq!(run.code, 0, "{command}: {run:?}");
            set(&pin);
            sign(source, &pin).ok();
        }
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
