//! The agent at a terminal, controlled by expect(1): the PIN prompt, signals, and processes in the background.

use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run};

/// Runs an expect script in the fixture's environment. In it, `$agent` is the binary, and `must` waits for output that
/// matches a regular expression.
fn expect(fixture: &Fixture, script: &str) -> Run {
    let head = format!(
        "set timeout 20\nset agent {BINARY}\nproc must {{word}} {{ expect -re $word {{}} timeout {{ exit 99 }} eof {{ exit 98 }} }}\n"
    );
    let tail = "\ncatch { expect eof }\nexit [lindex [wait] 3]\n";
    let file = fixture.write("script.exp", format!("{head}{script}{tail}"));
    let mut command = fixture.program("expect");
    command.arg(file);
    Run::from_output(command.finish())
}

#[test]
fn a_prompt_names_the_token_and_echoes_nothing() {
    let fixture = Fixture::new();
    let pin = fixture.pin();
    let run = expect(&fixture, &format!("spawn $agent sign\nmust {{PIN of token 'cba' }}\nsend \"{pin}\\r\""));
    assert!(!run.stdout.contains(&pin), "{run:?}");
    assert!(run.ok().contains(r#"{"method":"POST""#));
}

#[test]
fn the_prompt_does_not_appear_again_after_a_wrong_pin() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let run = expect(&fixture, "spawn $agent sign\nmust {PIN of}\nsend \"wrong\\r\"");
    assert_eq!(run.code, 4, "{run:?}");
    assert_eq!(fixture.calls("C_Login"), 1);
    assert_eq!(run.stdout.matches("PIN of").count(), 1);
}

#[test]
fn ctrl_c_at_a_prompt_ends_the_program_and_restores_the_echo() {
    let fixture = Fixture::new();
    let run = expect(
        &fixture,
        "spawn sh\nsend \"$agent sign\\r\"\nmust {PIN of}\nsend \"\\003\"\nsend \"stty -a\\r\"\nmust {[^-]icanon.* [^-]?echo }\nsend \"exit 0\\r\"",
    );
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn an_empty_answer_is_not_a_pin() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let run = expect(&fixture, "spawn $agent sign\nmust {PIN of}\nsend \"\\r\"");
    assert_eq!(run.code, 4, "{run:?}");
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn an_invalid_answer_at_the_prompt_is_refused_before_any_login() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    for (answer, cause) in
        [("VERIFY_NONE", "ykcs11"), ("1234\\xfc", "set the terminal to UTF-8"), ("1234\\x1b", "control keys")]
    {
        let script = format!(
            "spawn $agent sign\nfconfigure $spawn_id -translation binary -encoding binary\nmust {{PIN of}}\nsend \"{answer}\\r\""
        );
        let run = expect(&fixture, &script);
        assert_eq!(run.code, 4, "{run:?}");
        assert!(run.stdout.contains(cause), "{answer}: {run:?}");
    }
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn the_timeout_does_not_include_typing_at_the_prompt() {
    let fixture = Fixture::new();
    let pin = fixture.pin();
    let run =
        expect(&fixture, &format!("spawn $agent sign --timeout 1s\nmust {{PIN of}}\nafter 1500\nsend \"{pin}\\r\""));
    run.ok();
}

#[test]
fn a_login_at_a_prompt_may_use_the_last_try_and_clears_the_fuse() {
    let mut fixture = Fixture::new();
    let pin = fixture.pin();
    fixture.write("wrong", "not-it");
    let source = format!("file:{}", fixture.file("wrong"));
    for content in ["not-it", "still-not-it"] {
        fixture.write("wrong", content);
        fixture.run(&["sign", "--pin-source", &source]).failed(4);
    }
    // CKF_USER_PIN_FINAL_TRY
    fixture.faulty("flags+CKF_USER_PIN_FINAL_TRY");
    expect(&fixture, &format!("spawn $agent sign\nmust {{PIN of}}\nsend \"{pin}\\r\"")).ok();
    fixture.faulty("");
    fixture.sign(&[]).ok();
}

#[test]
fn a_waiting_token_is_announced_only_on_the_terminal() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=delay:1600");
    let source = fixture.pin_source();
    let run = expect(&fixture, &format!("spawn $agent sign --pin-source {source}\nmust {{it may wait for a touch}}"));
    run.ok();
    assert_eq!(fixture.sign(&[]).stderr, "");
}

#[test]
fn a_signal_at_a_prompt_restores_the_terminal() {
    let fixture = Fixture::new();
    let run = expect(
        &fixture,
        "set shell [spawn sh -c \"$agent sign; stty -a\"]\nmust {PIN of}\n\
         set list [open /proc/$shell/task/$shell/children]\nexec kill -TERM [lindex [gets $list] 0]\n\
         must {[^-]icanon.* [^-]?echo }",
    );
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn a_terminal_as_standard_input_is_refused_as_a_pin_source() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let run = expect(&fixture, "spawn $agent sign --pin-source stdin");
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stdout.contains("--pin-source prompt"), "{run:?}");
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn an_agent_with_a_typed_pin_handles_sighup_and_sigterm() {
    let fixture = Fixture::new();
    let script = format!(
        "set id [spawn $agent serve --slot 0 --pin-source prompt --socket {}]\nmust {{PIN of}}\nsend \"{}\\r\"\nmust {{is ready with}}\n\
         exec kill -HUP $id\nmust {{restarting all workers}}\nmust {{is ready with}}\nexec kill -TERM $id\nmust {{note: ended}}",
        fixture.file("agent.sock"),
        fixture.pin(),
    );
    let run = expect(&fixture, &script);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!fixture.path().join("agent.sock").exists());
}

/// Runs a command line in the background of an interactive shell, with the terminal as its stdin, and waits for its
/// exit code. A process that the terminal stops never ends, so the test fails.
fn in_the_background(fixture: &Fixture, prepare: &str, command: &str) -> Run {
    let script = format!(
        "spawn bash --norc --noprofile -i\nsend \"PS1=; agent=$agent; {prepare}\\r\"\n\
         send \"{command} < /dev/tty & wait \\$!; echo \\$? > code; cat code; exit\\r\""
    );
    let _ = std::fs::remove_file(fixture.file("code"));
    let ran = expect(fixture, &script);
    let code = fixture.read("code").trim().parse();
    Run { code: code.unwrap_or_else(|_| panic!("{ran:?}")), stdout: fixture.read("out"), stderr: fixture.read("err") }
}

#[test]
fn a_background_process_shows_no_prompt_and_is_not_stopped() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    for (command, code) in [
        ("nohup \\$agent sign", 4),
        ("\\$agent sign", 4),
        ("\\$agent sign --pin-source prompt", 4),
        ("\\$agent list --login", 4),
        ("\\$agent custody", 4),
        ("\\$agent doctor --sign --pin-source prompt", 8),
        ("\\$agent serve --pin-source prompt --socket \\$PWD/a.sock", 4),
        ("\\$agent serve --socket \\$PWD/a.sock", 4),
    ] {
        let run = in_the_background(&fixture, "", &format!("{command} > out 2> err"));
        assert_eq!(run.code, code, "{command}: {run:?}");
        let both = format!("{}{}", run.stdout, run.stderr);
        assert!(both.contains("this process is in the background of its terminal"), "{command}: {run:?}");
    }
    // A process without a controlling terminal cannot prompt either.
    let run = in_the_background(&fixture, "", "setsid -w \\$agent sign > out 2> err");
    assert!(run.failed(4).contains("no terminal for a prompt"));
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn a_background_process_reads_no_input_from_its_terminal() {
    let fixture = Fixture::new();
    for command in ["\\$agent verify", "\\$agent audit verify -"] {
        let error = in_the_background(&fixture, "", &format!("{command} > out 2> err")).failed(2);
        assert!(error.contains("this process is in the background of its terminal"), "{error}");
    }
    let error = in_the_background(&fixture, "", "\\$agent sign --pin-source stdin > out 2> err").failed(4);
    assert!(error.contains("standard input is a terminal"), "{error}");
    // Other sources that are the same terminal.
    for source in ["fd:0", "fd:3 3< /dev/tty", "file:/dev/tty", "file:/dev/stdin"] {
        let command = format!("\\$agent sign --pin-source {source} > out 2> err");
        let error = in_the_background(&fixture, "", &command).failed(4);
        assert!(error.contains("is a terminal, which would show the PIN"), "{source}: {error}");
        assert!(error.contains("--pin-source prompt") && !error.contains("chmod"), "{source}: {error}");
    }
}

#[test]
fn a_log_on_a_terminal_that_stops_background_output_does_not_stop_the_process() {
    let mut fixture = Fixture::new();
    // After a second, a notice that the token waits is also written to the terminal.
    fixture.faulty("C_Sign=delay:1100");
    let command = format!("\\$agent sign -vv --pin-source {} > out", fixture.pin_source());
    let run = in_the_background(&fixture, "stty tostop", &command);
    assert!(run.ok().starts_with(r#"{"method":"POST""#));
}

#[test]
fn the_readmes_command_for_a_pin_file_echoes_no_pin() {
    let fixture = Fixture::new();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let command = readme.lines().find(|line| line.contains("/dev/stdin /etc/cba-agent/pin")).unwrap();
    let command = command.split('#').next().unwrap().replace("/etc/cba-agent/pin", "typed").replace('"', "\\\"");
    let pin = fixture.pin();
    // systemd-ask-password turns the echo off shortly after its prompt, so the script waits for that before it types.
    let script = format!(
        "spawn sh -c \"{command}\"\nset tty $spawn_out(slave,name)\nmust {{PIN}}\nset tries 0\n\
         while {{ ![string match {{* -echo *}} [exec stty -a -F $tty]] }} {{ if {{ [incr tries] > 2000 }} {{ exit 97 }} }}\n\
         send \"{pin}\\r\""
    );
    let run = expect(&fixture, &script);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!run.stdout.contains(&pin), "{run:?}");
    fixture.run(&["sign", "--pin-source", &format!("file:{}", fixture.file("typed"))]).ok();
}

#[test]
fn the_hint_rewrites_a_pin_file_without_an_echo() {
    let fixture = Fixture::new();
    let (pin, path) = (fixture.pin(), fixture.write("Jo's pin", "12\u{200b}34"));
    let source = format!("file:{path}");
    let command =
        crate::hints::one_command(&fixture.run(&["sign", "--pin-source", &source]).failed(4), "systemd-ask-password");
    fixture.write("paste.sh", command);
    // As above, the script waits until the echo is off.
    let script = format!(
        "spawn bash paste.sh\nset tty $spawn_out(slave,name)\nmust {{PIN:}}\nset tries 0\n\
         while {{ ![string match {{* -echo *}} [exec stty -a -F $tty]] }} {{ if {{ [incr tries] > 2000 }} {{ exit 97 }} }}\n\
         send \"{pin}\\r\""
    );
    let run = expect(&fixture, &script);
    assert!(run.code == 0 && !run.stdout.contains(&pin), "{run:?}");
    fixture.run(&["sign", "--pin-source", &source]).ok();
}
