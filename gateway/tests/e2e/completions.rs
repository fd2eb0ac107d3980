//! The completions of bash, zsh and fish. The shells run the scripts.

use std::collections::BTreeSet;
use std::process::Command;

use crate::fixture::Fixture;
use crate::token::run;

/// The words that a shell offers for the last word of each line.
fn offered(fixture: &Fixture, shell: &str, lines: &[&str]) -> Vec<BTreeSet<String>> {
    let found = Command::new(shell).args(["-c", "exit"]).output();
    assert!(found.is_ok(), "{shell} is not installed: apt-get install {shell} expect");
    let mut command = Command::new(if shell == "fish" { "fish" } else { "expect" });
    if shell == "fish" {
        let each = "source $argv[1]/cba-gateway.fish; for line in $argv[2..]; complete -C $line; echo END; end";
        command.args(["--no-config", "-c", each]);
    } else {
        command.args([concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/completions/complete.exp"), shell]);
    }
    command
        .arg(fixture.path().join("scripts"))
        .args(lines)
        .current_dir(fixture.path().join("run"))
        .env("HOME", fixture.path());
    // fish completes only programs that it finds.
    command.env("PATH", format!("{}:{}", fixture.path().display(), std::env::var("PATH").unwrap()));
    let output = run(&mut command);
    let words: Vec<BTreeSet<String>> = if shell == "fish" {
        // A description follows a tab.
        let word = |line: &str| line.split('\t').next().unwrap().to_owned();
        output.split("END\n").take(lines.len()).map(|words| words.lines().map(word).collect()).collect()
    } else {
        let words = |line: &str| line.trim_matches(['<', '>']).split("><").map(str::to_owned).collect::<Vec<_>>();
        let last = |(all, line): (&str, &&str)| words(all).split_off(line.split(' ').count() - 1).into_iter().collect();
        output.lines().zip(lines).map(last).collect()
    };
    assert_eq!(words.len(), lines.len(), "{shell}: {output}");
    words
}

fn set(words: &str) -> BTreeSet<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn every_shell_offers_the_commands_their_options_and_the_values_of_options() {
    let fixture = Fixture::new();
    for (shell, name) in [("bash", "cba-gateway"), ("zsh", "_cba-gateway"), ("fish", "cba-gateway.fish")] {
        let script = fixture.run(&["completions", shell]);
        assert_eq!(script.code, 0, "{script:?}");
        std::fs::create_dir_all(fixture.path().join("scripts")).unwrap();
        fixture.write(&format!("scripts/{name}"), script.stdout);
    }
    let general = "--config --log-format --verbose --help";
    let cases = [
        ("cba-gateway serve --", format!("--single-user {general}")),
        ("cba-gateway check --", format!("--single-user {general}")),
        ("cba-gateway check --si", "--single-user".into()),
        ("cba-gateway enrol --", format!("--user --from --certificate --transition --password-file {general}")),
        ("cba-gateway clients --", format!("--socket --format {general}")),
        ("cba-gateway health --", format!("--socket --live {general}")),
        ("cba-gateway clients --format j", "json".into()),
        ("cba-gateway --log-format j", "json journald".into()),
        ("cba-gateway --log-format json che", "check".into()),
        ("cba-gateway completions ba", "bash".into()),
    ];
    let lines: Vec<&str> = cases.iter().map(|(line, _)| *line).collect();
    for shell in ["bash", "zsh", "fish"] {
        for ((line, wanted), words) in cases.iter().zip(offered(&fixture, shell, &lines)) {
            assert_eq!(words, set(wanted), "{shell}: {line}");
        }
        let commands = offered(&fixture, shell, &["cba-gateway "]).remove(0);
        assert!(
            commands.is_superset(&set("serve check enrol clients health completions man")),
            "{shell}: {commands:?}"
        );
    }
    let with_equals_sign = offered(&fixture, "bash", &["cba-gateway clients --format=j"]);
    assert_eq!(with_equals_sign, [set("--format=json")]);
}
