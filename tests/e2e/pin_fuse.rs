//! `pin-fuse` and the hints that lead to it: which fuse is shown and cleared.

use std::fs;

use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run};
use crate::fuse::{fixture, shown, wrong};
use crate::state_directory::in_memory;

#[test]
fn a_damaged_record_refuses_until_it_is_reset() {
    let fixture = fixture();
    fixture.sign(&[]).ok();
    let state = fixture.path().join("home/.local/state/cba-agent");
    let record = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "json"));
    fs::write(record.unwrap(), "{\"refused\":").unwrap();
    assert!(fixture.sign(&[]).failed(4).contains("is damaged"));
    fixture.run(&["pin-fuse", "--reset"]).ok();
    fixture.sign(&[]).ok();
}

#[test]
fn pin_fuse_shows_and_resets_without_the_token() {
    let mut fixture = fixture();
    assert!(shown(&fixture).contains("intact"));
    wrong(&fixture).failed(4);
    fixture.use_module(Some("/nonexistent.so"));
    assert!(shown(&fixture).contains("token 'cba'"));
    fixture.run(&["pin-fuse", "--reset"]).ok();
    assert!(shown(&fixture).contains("intact"));
}

#[test]
fn the_hint_removes_a_damaged_record_of_an_unknown_token() {
    let fixture = fixture();
    let state = fixture.path().join("home/.local/state/cba-agent");
    fs::create_dir_all(&state).unwrap();
    // It could be the token's record under its label before the renewal.
    fs::write(state.join("0123.json"), "{").unwrap();
    let error = fixture.sign(&[]).failed(4);
    assert!(error.contains("0123.json is damaged") && fixture.calls("C_Login") == 0, "{error}");
    fixture.tool("sh", &["-c", &crate::hints::one_command(&error, "rm ")]);
    fixture.sign(&[]).ok();
}

#[test]
fn a_reset_for_another_token_leaves_a_damaged_record_alone() {
    let fixture = fixture();
    fixture.sign(&[]).ok();
    let state = fixture.path().join("home/.local/state/cba-agent");
    let is_record = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let record = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(is_record).unwrap();
    fs::write(&record, "{").unwrap();
    fixture.run(&["pin-fuse", "--reset", "--token-label", "nosuch"]).failed(3);
    assert_eq!(fs::read_to_string(&record).unwrap(), "{");
}

/// The command in the last hint.
fn hinted_reset(error: &str) -> Vec<String> {
    let hint = error.lines().find_map(|line| line.split("`cba-agent pin-fuse ").nth(1)).unwrap();
    let hint = hint.split('`').next().unwrap();
    hint.replace('\'', "").split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_hinted_command_clears_the_right_fuse_among_several() {
    let fixture = fixture();
    fixture.provision(&["--label", "two"]);
    fixture.sign(&["--token-label", "two"]).ok();
    let source = format!("file:{}", fixture.file("wrong"));
    let sign = || fixture.run(&["sign", "--token-label", "cba", "--pin-source", &source]);
    sign().failed(4);
    let clear = |error: &str| {
        let words = hinted_reset(error);
        let all: Vec<&str> = ["pin-fuse"].into_iter().chain(words.iter().map(String::as_str)).collect();
        assert!(fixture.run(&all).ok().contains("cleared"));
    };
    clear(&sign().failed(4));
    sign().failed(4);
    let state = fixture.path().join("home/.local/state/cba-agent");
    let is_cba = |path: &std::path::PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("\"cba\""));
    let record = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(is_cba).unwrap();
    fs::write(record, "{").unwrap();
    clear(&sign().failed(4));
    assert!(fixture.run(&["pin-fuse", "--reset", "--token-label", "nope"]).failed(3).contains("there is --uri"));
}

/// Pastes a command from a hint into the shell of a user without configuration, and types the answer to its question.
fn run_in_shell(fixture: &Fixture, command: &str, answer: &str) -> Run {
    let _ = std::os::unix::fs::symlink(BINARY, fixture.file("cba-agent"));
    let command = fixture.write("pasted", command);
    let script = fixture.write(
        "paste.exp",
        format!(
            "set timeout 60\nspawn sh {{{command}}}\nexpect {{\n\
             -re {{PIN of}} {{ send {{{answer}}}; send \"\\r\"; exp_continue }}\n\
             timeout {{ exit 99 }}\n\
             eof\n}}\nexit [lindex [wait] 3]\n"
        ),
    );
    let mut expect = std::process::Command::new("expect");
    expect.arg(script).env_clear().env("PATH", format!("{}:/usr/bin:/bin", fixture.path().display()));
    for name in ["FAULTY", "FAULTY_MODULE", "FAULTY_LOG"] {
        let set = fixture
            .command(&[])
            .get_envs()
            .find(|(known, _)| *known == name)
            .and_then(|(_, value)| value.map(Into::into));
        set.map(|value: std::ffi::OsString| expect.env(name, value));
    }
    expect.env("SOFTHSM2_CONF", fixture.file("softhsm2.conf")).current_dir("/");
    Run::from_output(expect.finish())
}

#[test]
fn hints_of_a_refusal_fit_the_pin_source_and_work_when_pasted() {
    let mut fixture = fixture();
    // A second token, so that a command must select one.
    fixture.provision(&["--label", "two"]);
    let (pin, shm) = (fixture.pin(), in_memory());
    fixture.set("CREDENTIALS_DIRECTORY", fixture.path().display().to_string());
    fixture.set("CBA_AGENT_STATE_DIR", fixture.file("a state"));
    let memory = shm.path().join("pin").display().to_string();
    let on_disk = format!("file:{}", fixture.file("wrong"));
    let set = |content: &str| {
        fixture.write("wrong", content);
        fs::copy(fixture.file("wrong"), &memory).unwrap();
    };
    let sign = |source: &str, content: &str| {
        let arguments = ["sign", "--token-label", "cba", "--pin-source", source];
        if source == "stdin" {
            return fixture.run_with_input(&arguments, content);
        }
        let mut shell = fixture.program("sh");
        shell.args(["-c", "exec \"$@\" 7< wrong", "sh", BINARY]).args(arguments).env("MY_PIN", content);
        Run::from_output(shell.finish())
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
            let run = run_in_shell(&fixture, &command, &pin);
            assert_eq!(run.code, 0, "{command}: {run:?}");
            set(&pin);
            sign(source, &pin).ok();
        }
    }
}
