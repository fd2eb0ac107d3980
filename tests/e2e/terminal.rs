//! What a person at a terminal sees and types, driven by expect.

use std::process::Command;

use crate::deadline::Finish as _;
use crate::stand::{BINARY, Run, Stand, same_environment};

/// Runs an expect script with the stand's environment; `$agent` is the binary.
fn expect(stand: &Stand, script: &str) -> Run {
    let head = format!(
        "set timeout 20\nset agent {BINARY}\nproc must {{word}} {{ expect -re $word {{}} timeout {{ exit 99 }} eof {{ exit 98 }} }}\n"
    );
    let tail = "\ncatch { expect eof }\nexit [lindex [wait] 3]\n";
    let file = stand.write("script.exp", format!("{head}{script}{tail}"));
    let base = stand.command(&[]);
    let mut command = Command::new("expect");
    command.arg(file).current_dir(stand.path());
    same_environment(&mut command, &base);
    Run::from_output(command.finish())
}

#[test]
fn a_prompt_names_the_token_and_echoes_nothing() {
    let stand = Stand::new();
    let pin = stand.pin();
    let run = expect(&stand, &format!("spawn $agent sign\nmust {{PIN of token 'cba' }}\nsend \"{pin}\\r\""));
    assert!(!run.stdout.contains(&pin), "{run:?}");
    assert!(run.ok().contains(r#"{"method":"POST""#));
}

#[test]
fn a_wrong_pin_at_a_prompt_is_not_asked_for_again() {
    let mut stand = Stand::new();
    stand.faulty("");
    let run = expect(&stand, "spawn $agent sign\nmust {PIN of}\nsend \"wrong\\r\"");
    assert_eq!(run.code, 4, "{run:?}");
    assert_eq!(stand.calls("C_Login"), 1);
    assert_eq!(run.stdout.matches("PIN of").count(), 1);
}

#[test]
fn ctrl_c_at_a_prompt_ends_it_and_the_terminal_echoes_again() {
    let stand = Stand::new();
    let run = expect(
        &stand,
        "spawn sh\nsend \"$agent sign\\r\"\nmust {PIN of}\nsend \"\\003\"\nsend \"stty -a\\r\"\nmust {[^-]icanon.* [^-]?echo }\nsend \"exit 0\\r\"",
    );
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn an_empty_answer_is_no_pin() {
    let mut stand = Stand::new();
    stand.faulty("");
    let run = expect(&stand, "spawn $agent sign\nmust {PIN of}\nsend \"\\r\"");
    assert_eq!(run.code, 4, "{run:?}");
    assert_eq!(stand.calls("C_Login"), 0);
}

#[test]
fn an_answer_that_is_no_pin_is_refused_before_any_login() {
    let mut stand = Stand::new();
    stand.faulty("");
    for (answer, cause) in
        [("VERIFY_NONE", "ykcs11"), ("1234\\xfc", "set the terminal to UTF-8"), ("1234\\x1b", "control keys")]
    {
        let script = format!(
            "spawn $agent sign\nfconfigure $spawn_id -translation binary -encoding binary\nmust {{PIN of}}\nsend \"{answer}\\r\""
        );
        let run = expect(&stand, &script);
        assert_eq!(run.code, 4, "{run:?}");
        assert!(run.stdout.contains(cause), "{answer}: {run:?}");
    }
    assert_eq!(stand.calls("C_Login"), 0);
}

#[test]
fn the_clock_stops_while_a_person_types() {
    let stand = Stand::new();
    let pin = stand.pin();
    let run =
        expect(&stand, &format!("spawn $agent sign --timeout 1s\nmust {{PIN of}}\nafter 1500\nsend \"{pin}\\r\""));
    run.ok();
}

#[test]
fn a_person_may_spend_the_last_try_and_clears_the_fuse() {
    let mut stand = Stand::new();
    let pin = stand.pin();
    stand.write("wrong", "not-it");
    let source = format!("file:{}", stand.file("wrong"));
    for content in ["not-it", "still-not-it"] {
        stand.write("wrong", content);
        stand.run(&["sign", "--pin-source", &source]).failed(4);
    }
    stand.faulty("flags+20000");
    expect(&stand, &format!("spawn $agent sign\nmust {{PIN of}}\nsend \"{pin}\\r\"")).ok();
    stand.faulty("");
    stand.sign(&[]).ok();
}

#[test]
fn a_waiting_token_is_said_on_the_terminal_alone() {
    let mut stand = Stand::new();
    stand.faulty("C_Sign=delay:1600");
    let source = stand.pin_source();
    let run = expect(&stand, &format!("spawn $agent sign --pin-source {source}\nmust {{waits, perhaps for a touch}}"));
    run.ok();
    assert_eq!(stand.sign(&[]).stderr, "");
}

#[test]
fn a_signal_at_a_prompt_gives_the_terminal_back() {
    let stand = Stand::new();
    let run = expect(
        &stand,
        "set shell [spawn sh -c \"$agent sign; stty -a\"]\nmust {PIN of}\n\
         set list [open /proc/$shell/task/$shell/children]\nexec kill -TERM [lindex [gets $list] 0]\n\
         must {[^-]icanon.* [^-]?echo }",
    );
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn a_terminal_as_standard_input_is_no_silent_source() {
    let mut stand = Stand::new();
    stand.faulty("");
    let run = expect(&stand, "spawn $agent sign --pin-source stdin");
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stdout.contains("--pin-source prompt"), "{run:?}");
    assert_eq!(stand.calls("C_Login"), 0);
}

#[test]
fn an_agent_that_asked_for_its_pin_handles_its_own_signals() {
    let stand = Stand::new();
    let script = format!(
        "set id [spawn $agent serve --slot 0 --pin-source prompt --socket {}]\nmust {{PIN of}}\nsend \"{}\\r\"\nmust {{is ready with}}\n\
         exec kill -HUP $id\nmust {{renewing all workers}}\nmust {{is ready with}}\nexec kill -TERM $id\nmust {{note: ended}}",
        stand.file("agent.sock"),
        stand.pin(),
    );
    let run = expect(&stand, &script);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!stand.path().join("agent.sock").exists());
}
