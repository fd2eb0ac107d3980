//! The examples with unusual configurations of the user's tools, with cron's PATH, and with a wrong clock.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::agent::Agent;
use crate::deadline::Finish as _;
use crate::examples::{EXAMPLES, example, python, service};
use crate::fixture::{BINARY, Fixture, Run};
use crate::service::{Behaviour, Service};

/// Starts an example so that it logs in through `sign`.
type Client = fn(&Fixture, &Service) -> Command;

/// Every example that runs `cba-agent`, by name.
const CLIENTS: [(&str, Client); 4] = [
    ("anaplan-token", |fixture, service| {
        example(
            fixture,
            "dash",
            &[&format!("{EXAMPLES}/shell/anaplan-token"), "--slot", "0", "--auth-url", &service.url],
        )
    }),
    ("anaplan-run", |fixture, service| {
        let script = format!("{EXAMPLES}/shell/anaplan-run");
        let mut command =
            example(fixture, "dash", &[&script, "ws1", "m1", "get", "113000000001", &fixture.file("got")]);
        command.env("CBA_AGENT_AUTH_URL", &service.url).env("CBA_AGENT_SLOT", "0");
        command
    }),
    ("anaplan_requests.py", |fixture, service| {
        let script = format!("{EXAMPLES}/python/anaplan_requests.py");
        example(fixture, python(), &["-B", &script, "--slot", "0", "--auth-url", &service.url])
    }),
    ("AnaplanLogin.java", |fixture, service| {
        let source = format!("{EXAMPLES}/java/AnaplanLogin.java");
        example(fixture, "java", &[&source, "--slot", "0", "--auth-url", &service.url])
    }),
];

/// Runs an example in an environment that `odd` changes.
fn run(fixture: &Fixture, service: &Service, client: Client, odd: impl Fn(&mut Command)) -> Run {
    let mut command = client(fixture, service);
    command.env("ANAPLAN_API_URL", &service.url);
    odd(&mut command);
    Run::from_output(command.finish())
}

#[test]
fn no_configuration_of_the_users_own_tools_changes_what_the_examples_do() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    let home = fixture.file("odd-home");
    fs::create_dir_all(format!("{home}/.config")).unwrap();
    let curlrc = "output = /dev/null\nproxy = http://127.0.0.1:1\nheader = \"Authorization: other\"\nfail\nhead\n\
        write-out = odd\nnetrc\nuser-agent = odd\nlocation\n";
    for file in [".curlrc", ".config/curlrc", "curlrc"] {
        fs::write(format!("{home}/{file}"), curlrc).unwrap();
    }
    // requests and curl replace an Authorization header by an entry of this file.
    fixture.write("odd-home/.netrc", "default login somebody password else\n");
    for (name, client) in CLIENTS {
        let odd = |command: &mut Command| {
            command.envs([
                ("HOME", home.as_str()),
                ("CURL_HOME", &home),
                ("XDG_CONFIG_HOME", &format!("{home}/.config")),
            ]);
            command.envs([("LC_ALL", "C"), ("CDPATH", "/"), ("POSIXLY_CORRECT", "1"), ("BASH_ENV", "/nonexistent")]);
            command.envs([
                ("PYTHONSAFEPATH", "1"),
                ("PYTHONUTF8", "0"),
                ("PYTHONWARNDEFAULTENCODING", "1"),
                ("PYTHONOPTIMIZE", "2"),
            ]);
            command.env(
                "JAVA_TOOL_OPTIONS",
                "-Dstdout.encoding=UTF-16 -Dfile.encoding=UTF-16 -Djava.util.logging.config.file=/dev/null",
            );
            command.env("JDK_JAVA_OPTIONS", "-Dfile.encoding=COMPAT -Dsun.stdout.encoding=UTF-16");
        };
        let odd = run(&fixture, &service, client, odd);
        // The model has no such file. anaplan-run asks for it last.
        let (code, lines) = if name == "anaplan-run" { (8, 0) } else { (0, 1) };
        assert_eq!((odd.code, odd.stdout.lines().count()), (code, lines), "{name}: {odd:?}");
        assert!(odd.stdout.is_ascii() && !odd.stdout.contains('\0'), "{name}: {odd:?}");
    }
}

#[test]
fn cba_agent_is_found_outside_crons_path() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    // Without the directories of cba-agent and of the scripts.
    let path = std::env::var("PATH").unwrap();
    for (name, client) in CLIENTS {
        let code = if name == "anaplan-run" { 8 } else { 0 };
        let found = run(&fixture, &service, client, |command| {
            command.env("PATH", &path).env("CBA_AGENT", BINARY);
        });
        assert_eq!(found.code, code, "{name}: {found:?}");
        let missing = run(&fixture, &service, client, |command| {
            command.env("PATH", &path);
        });
        assert_eq!((missing.code, missing.stdout.as_str()), (2, ""), "{name}: {missing:?}");
        assert!(missing.stderr.contains("CBA_AGENT=/path/to/cba-agent"), "{name}: {missing:?}");
    }
}

#[test]
fn a_missing_curl_is_named_before_a_payload_is_made() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    // A PATH with the shell's tools and without curl.
    fs::create_dir(fixture.file("tools")).unwrap();
    for tool in ["dash", "sh", "cat", "date", "find", "id", "rm", "sed", "tr", "wc", "dirname", "readlink", "mktemp"] {
        std::os::unix::fs::symlink(format!("/usr/bin/{tool}"), fixture.file(&format!("tools/{tool}"))).unwrap();
    }
    for (name, client) in CLIENTS.into_iter().filter(|(name, _)| name.starts_with("anaplan-")) {
        let run = run(&fixture, &service, client, |command| {
            command.env("PATH", fixture.file("tools")).env("CBA_AGENT", BINARY);
            // This would fail with another exit code.
            command.env("CBA_AGENT_TOKEN_LABEL", "absent");
        });
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{name}: {run:?}");
        assert!(run.stderr.contains("cannot find curl: install it"), "{name}: {run:?}");
    }
}

#[test]
fn a_refused_login_says_how_this_hosts_clock_compares_with_the_services() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    let refused = |(name, client): (&str, Client), said: &str, odd: &dyn Fn(&mut Command)| {
        let refused = run(&fixture, &service, client, odd);
        assert_eq!((refused.code, refused.stdout.as_str()), (5, ""), "{name}: {refused:?}");
        assert!(refused.stderr.contains(said), "{name}: {refused:?}");
        refused.stderr
    };
    service.behave(Behaviour { clock_ahead: 1000, ..Behaviour::default() });
    for client in CLIENTS {
        let said = refused(client, " s behind the service's, and a login carries the time", &|_| {});
        assert!(said.contains("timedatectl set-ntp true (for a container, on its host)"), "{said}");
    }
    service.behave(Behaviour { clock_ahead: -1000, ..Behaviour::default() });
    refused(CLIENTS[0], " s ahead of the service's", &|_| {});
    // Refused for another reason.
    service.behave(Behaviour { refuse_v1: true, ..Behaviour::default() });
    refused(CLIENTS[0], "this host's clock agrees with the service's", &|command| {
        command.args(["--payload-version", "v1"]);
    });
    service.behave(Behaviour { clock_ahead: 1000, ..Behaviour::default() });
    let agent = Agent::ready(&fixture, &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/airflow_hook.py");
    let mut hook = example(&fixture, python(), &["-B", script, &agent.socket, &service.url]);
    hook.env("PYTHONPATH", format!("{EXAMPLES}/airflow:{EXAMPLES}/python"));
    hook.env("AIRFLOW_HOME", fixture.file("airflow")).env("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR");
    let said = Run::from_output(hook.finish()).ok();
    assert!(said.starts_with("for good: ") && said.contains("s behind the service's"), "{said}");
}

#[test]
fn no_example_puts_a_token_or_payload_into_an_argument() {
    let mut places = vec![Path::new(EXAMPLES).to_owned()];
    let mut read = 0;
    while let Some(place) = places.pop() {
        if place.is_dir() {
            places.extend(fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(&place).unwrap();
        for line in text.lines().filter(|line| line.contains("curl ") && !line.trim_start().starts_with(['#', '*'])) {
            assert!(!line.contains("$token\" http") && !line.contains("-H "), "{}: {line}", place.display());
        }
        read += 1;
    }
    assert!(read >= 9, "{read}");
}
