//! The next steps that `enrol` prints: each command works in a POSIX shell.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run};

/// A directory whose name a shell would split, expand and unquote.
const DIRECTORY: &str = "a b'c\"d$(touch x)`touch y`\\";

/// The printed command that contains a text, without the mark of a comment.
fn command_with<'a>(enrolled: &'a Run, text: &str) -> &'a str {
    let line = enrolled.stdout.lines().find(|line| line.starts_with("#    ") && line.contains(text));
    let command = line.unwrap_or_else(|| panic!("no command with {text}: {enrolled:?}"))[5..].trim();
    command.strip_prefix("curl ").unwrap_or(command).trim()
}

/// Runs a command with a program `cba-gateway` in PATH.
fn in_shell(fixture: &Fixture, command: &str) -> (bool, String) {
    let path = format!("{}:/usr/bin:/bin", Path::new(BINARY).parent().unwrap().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(fixture.path().join("run")).env_clear().env("PATH", path);
    // The commands must also work where a proxy serves other hosts.
    shell.env("http_proxy", "http://127.0.0.1:9");
    let output = shell.finish();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn each_printed_command_works_for_a_configuration_with_any_path() {
    let mut fixture = Fixture::new();
    let directory = fixture.path().join("run").join(DIRECTORY);
    fs::create_dir(&directory).unwrap();
    let quoted = |name: &str| directory.join(name).display().to_string();
    let (config, file, certificate) = (quoted("config.toml"), quoted("x.password"), quoted("tool.pem"));
    let mut gateway = fixture.serve();
    let listen = format!("listen = [\"127.0.0.1:{}\", \"[::1]:0\"]", gateway.port);
    let text = fs::read_to_string(fixture.file("config.toml")).unwrap();
    fs::write(&config, text.replace("listen = [\"127.0.0.1:0\", \"[::1]:0\"]", &listen)).unwrap();
    let enrol = ["--config", &config, "enrol", "new", "--user", "0"];
    let mut command = Command::new(BINARY);
    let output = command.args(enrol).args(["--password-file", &file]).finish();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let enrolled = Run { code: output.status.code().unwrap(), stdout, stderr: String::new() };
    assert!(enrolled.code == 0 && enrolled.stdout.contains(&format!("table to {config}.")), "{enrolled:?}");
    fixture.clients.push_str(&enrolled.stdout);
    fixture.configure();
    gateway.reload();
    let login = command_with(&enrolled, "curl -K -");
    let (is_success, answer) = in_shell(&fixture, login);
    assert!(is_success && answer.contains("MARKER-TOKEN"), "{login}: {answer}");
    let (is_success, findings) = in_shell(&fixture, command_with(&enrolled, "cba-gateway check"));
    assert!(is_success && findings.contains(&format!("ok    configuration {config}")), "{findings}");
    assert!(in_shell(&fixture, command_with(&enrolled, "rm ")).0 && !Path::new(&file).exists());

    fs::copy(fixture.file("tool.pem"), &certificate).unwrap();
    let output = Command::new(BINARY).args(enrol).args(["--certificate", &certificate]).finish();
    let table = String::from_utf8(output.stdout).unwrap();
    let copied = Run { code: 0, stdout: table.clone(), stderr: String::new() };
    let copy = fixture.file("run/copies/new.pem");
    let install = command_with(&copied, "install ").replace("/etc/cba-gateway/clients/new.pem", &copy);
    assert!(in_shell(&fixture, &install).0 && Path::new(&copy).exists(), "{install}");
    // The table names the certificate, in spite of the characters in its path.
    fixture.clients = table;
    fixture.configure();
    gateway.reload();
    assert!(gateway.admin("/clients").contains("\"new\""), "{}", gateway.log());
    assert_eq!(
        fs::read_dir(fixture.path().join("run"))
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().len() == 1)
            .count(),
        0
    );
}

#[test]
fn the_printed_commands_name_the_unit_of_the_configuration() {
    let fixture = Fixture::new();
    for (config, wanted) in [
        (None, "#    cba-gateway check && systemctl reload-or-restart cba-gateway\n"),
        (
            Some("/etc/cba-gateway/emea.toml"),
            "#    cba-gateway check --config '/etc/cba-gateway/emea.toml' && systemctl reload-or-restart cba-gateway@emea\n",
        ),
        (Some("/srv/x.toml"), "#    cba-gateway check --config '/srv/x.toml'\n# Then send SIGHUP to the gateway.\n"),
    ] {
        let certificate = fixture.file("tool.pem");
        let mut arguments = vec!["enrol", "new", "--user", "etl", "--certificate", &certificate];
        arguments.extend(config.iter().flat_map(|config| ["--config", config]));
        let enrolled = fixture.run(&arguments);
        assert!(enrolled.stdout.contains(wanted), "{enrolled:?}");
        assert!(enrolled.stdout.contains("-auth http://localhost:731"), "{enrolled:?}");
    }
}
