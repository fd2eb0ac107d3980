//! The completions of bash, zsh and fish at TAB. The shells run the scripts.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run};

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// A directory with the scripts under their package names, and files to complete.
fn fixture() -> Fixture {
    let fixture = Fixture::empty();
    for (shell, name) in [("bash", "cba-agent"), ("zsh", "_cba-agent"), ("fish", "cba-agent.fish")] {
        fs::create_dir_all(fixture.path().join("scripts")).unwrap();
        fixture.write(&format!("scripts/{name}"), fixture.run(&["completions", shell]).ok());
    }
    fixture.write("request.json", "");
    fs::create_dir(fixture.path().join("requests")).unwrap();
    fixture
}

/// The words that a shell offers for the last word of each line.
fn commands_in(fixture: &Fixture, shell: &str, lines: &[&str]) -> Vec<BTreeSet<String>> {
    for needed in [shell, "expect"] {
        let found = Command::new(needed).arg("-c").arg("exit").output();
        assert!(found.is_ok(), "{needed} is not installed: apt-get install {needed}");
    }
    let scripts = fixture.file("scripts");
    let mut command = match shell {
        "fish" => {
            let mut fish = Command::new("fish");
            let each = "source $argv[1]/cba-agent.fish; for line in $argv[2..]; complete -C $line; echo END; end";
            fish.args(["--no-config", "-c", each]);
            fish
        }
        _ => {
            let mut expect = Command::new("expect");
            expect.args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/completions/complete.exp"), shell]);
            expect
        }
    };
    let path = std::path::Path::new(BINARY).parent().unwrap().display().to_string();
    command.arg(&scripts).args(lines).current_dir(fixture.path()).env_clear();
    command.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap())).env("HOME", fixture.path());
    let output = Run::from_output((&mut command).finish()).ok();
    let answers: Vec<BTreeSet<String>> = if shell == "fish" {
        // A description follows a tab.
        let word = |line: &str| line.split('\t').next().unwrap().to_owned();
        output.split("END\n").map(|answer| answer.lines().map(word).collect()).take(lines.len()).collect()
    } else {
        let words = |line: &str| line.trim_matches(['<', '>']).split("><").map(str::to_owned).collect::<Vec<_>>();
        let own =
            |(answer, line): (&str, &&str)| words(answer).split_off(line.split(' ').count() - 1).into_iter().collect();
        output.lines().zip(lines).map(own).collect()
    };
    assert_eq!(answers.len(), lines.len(), "{shell}: {output}");
    answers
}

fn set(words: &str) -> BTreeSet<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

/// The long options in the help of a command.
fn options(fixture: &Fixture, command: &str) -> BTreeSet<String> {
    let help = fixture.run(&[command.split(' ').collect::<Vec<_>>(), vec!["--help"]].concat()).ok();
    let option = |line: &str| {
        let name = line.trim_start().trim_start_matches("-h, ").trim_start_matches("-v, ").trim_start_matches("-V, ");
        let name = name.strip_prefix("--")?.split([' ', '.']).next()?;
        Some(format!("--{name}"))
    };
    help.lines().filter_map(option).collect()
}

#[test]
fn every_shell_offers_every_command_and_every_option_of_it() {
    let fixture = fixture();
    let commands = "sign serve health doctor custody list certificate verify audit pin-fuse completions man help";
    let with_options: Vec<String> = commands
        .split(' ')
        .filter(|command| !["audit", "help"].contains(command))
        .map(str::to_owned)
        .chain(["audit verify".into(), "audit head".into()])
        .collect();
    let lines: Vec<String> = with_options.iter().map(|command| format!("cba-agent {command} --")).collect();
    let lines: Vec<&str> =
        ["cba-agent ", "cba-agent audit "].into_iter().chain(lines.iter().map(String::as_str)).collect();
    for shell in SHELLS {
        let answers = commands_in(&fixture, shell, &lines);
        assert!(answers[0].is_superset(&set(commands)), "{shell}: {:?}", answers[0]);
        assert!(answers[1].is_superset(&set("verify head")), "{shell}: {:?}", answers[1]);
        for (command, answer) in with_options.iter().zip(&answers[2..]) {
            assert_eq!(*answer, options(&fixture, command), "{shell}: {command}");
        }
    }
}

#[test]
fn every_shell_offers_the_values_of_an_option() {
    let fixture = fixture();
    let modules = "softhsm2 opensc ykcs11 tpm2 opencryptoki kryoptic yubihsm cloudhsm luna ncipher utimaco gcp-kms p11-kit \
                   p11-kit-client";
    let cases = [
        ("cba-agent sign --format ", "json body header curl env html"),
        ("cba-agent sign --format h", "header html"),
        ("cba-agent custody --format ", "text json html"),
        ("cba-agent certificate --format ", "pem der text header json"),
        ("cba-agent sign --payload-version ", "v2 v1"),
        ("cba-agent sign --header-encoding ", "der pem"),
        ("cba-agent sign --log-format ", "text json journald"),
        ("cba-agent --log-format ", "text json journald"),
        ("cba-agent serve --log-level ", "error warn info debug trace"),
        ("cba-agent sign --sandbox ", "module off"),
        ("cba-agent sign --policy-certificate-source ", "token token-or-file"),
        ("cba-agent sign --policy-require n", "non-extractable never-extractable"),
        ("cba-agent sign --policy-extended-key-usage client", "clientAuth"),
        ("cba-agent sign --pin-source ", "file: env: fd: stdin credential: prompt pinpad"),
        ("cba-agent sign --pin-source fi", "file:"),
        ("cba-agent sign --module s", "softhsm2 scripts/"),
        ("cba-agent completions b", "bash"),
        ("cba-agent help ver", "verify"),
        // Files and directories.
        ("cba-agent verify --header ./request.", "./request.json"),
        ("cba-agent --config ./request.", "./request.json"),
        ("cba-agent sign --module ./request.", "./request.json"),
        ("cba-agent audit verify ./request.", "./request.json"),
        ("cba-agent sign --state-dir ./req", "./requests/"),
        ("cba-agent man ./req", "./requests/"),
        // After global options.
        ("cba-agent --config request.json sign --payload-v", "--payload-version"),
        ("cba-agent -v --log-format json sign --payload-version ", "v2 v1"),
        ("cba-agent --config request.json audit verify --expect", "--expect-head"),
        ("cba-agent --config request.json cust", "custody"),
        // A label is not completed with file names.
        ("cba-agent sign --token-label req", ""),
    ];
    let lines = cases.map(|(line, _)| line);
    for shell in SHELLS {
        for ((line, wanted), answer) in cases.into_iter().zip(commands_in(&fixture, shell, &lines)) {
            // A line without completions stays the same. Directories end in a slash if the shell writes one.
            let typed = line.rsplit(' ').next().unwrap();
            let plain = |word: &str| word.trim_end_matches('/').to_owned();
            let answer: BTreeSet<String> =
                answer.iter().filter(|word| *word != typed).map(|word| plain(word)).collect();
            let mut wanted: BTreeSet<String> = set(wanted).iter().map(|word| plain(word)).collect();
            // bash offers files only if no name matches.
            if line == "cba-agent sign --module s" && shell == "bash" {
                wanted.remove("scripts");
            }
            // bash adds options to an empty word, and files to the argument of a command.
            let adds_more = shell == "bash" && (line.ends_with(' ') || line.starts_with("cba-agent man "));
            if !adds_more {
                assert_eq!(answer, wanted, "{shell}: {line}");
            } else {
                assert!(answer.is_superset(&wanted), "{shell}: {line}: {answer:?}");
            }
        }
        let names = commands_in(&fixture, shell, &["cba-agent sign --module "]).remove(0);
        assert!(names.is_superset(&set(modules)), "{shell}: {names:?}");
    }
    // Readline splits a word at `=` and `:`.
    let lines =
        ["cba-agent sign --format=j", "cba-agent sign --format=", "cba-agent sign --pin-source file:./request."];
    let answers = commands_in(&fixture, "bash", &lines);
    assert_eq!(answers[0], set("--format=json"));
    assert_eq!(answers[1], set("--format=json body header curl env html"));
    assert_eq!(answers[2], set("file:./request.json"));
    let answers = commands_in(&fixture, "zsh", &lines);
    assert_eq!((&answers[0], &answers[2]), (&set("--format=json"), &set("file:./request.json")));
}
