//! The examples, each run as users run it, against the tests' authentication service.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use crate::agent::Agent;
use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run, tool};
use crate::service::{Behaviour, Service};

pub(crate) const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// The service with the fixture's certificate registered.
pub(crate) fn service(fixture: &Fixture) -> Service {
    fixture.tool(
        "openssl",
        &["rsa", "-pubin", "-in", "pub.pem", "-RSAPublicKey_out", "-outform", "DER", "-out", "pkcs1.der"],
    );
    let read = |name: &str| std::fs::read(fixture.path().join(name)).unwrap();
    Service::start(read("cert.der"), read("pkcs1.der"))
}

/// A program in the fixture's environment, with our binary in its PATH and the PIN source in the configuration.
pub(crate) fn example(fixture: &Fixture, program: &str, arguments: &[&str]) -> Command {
    let mut command = fixture.program(program);
    command.args(arguments);
    let directory = Path::new(BINARY).parent().unwrap().display().to_string();
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap());
    command.env("PATH", path).env("CBA_AGENT_PIN_SOURCE", fixture.pin_source());
    command
}

fn anaplan_token(fixture: &Fixture, service: &Service, more: &[&str]) -> Run {
    let script = format!("{EXAMPLES}/shell/anaplan-token");
    let arguments = [&[script.as_str(), "--slot", "0", "--auth-url", &service.url][..], more].concat();
    Run::from_output(example(fixture, "dash", &arguments).finish())
}

/// The service's answer for a token.
fn validate(fixture: &Fixture, service: &Service, token: &str) -> String {
    let (url, header) = (format!("{}/token/validate", service.url), format!("Authorization: AnaplanAuthToken {token}"));
    fixture.tool("curl", &["-sS", "-o", "/dev/null", "--write-out", "%{http_code}", "-X", "POST", "-H", &header, &url])
}

#[test]
fn anaplan_token_prints_a_token_and_caches_it_until_logout() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    let token = anaplan_token(&fixture, &service, &[]).ok();
    assert_eq!((token.lines().count(), validate(&fixture, &service, token.trim()).as_str()), (1, "200"));
    let cache = fixture.file("cached token");
    let first = anaplan_token(&fixture, &service, &["--cache", &cache]).ok();
    for shell in ["dash", "bash", "busybox"] {
        let script = format!("{EXAMPLES}/shell/anaplan-token");
        let sh: &[&str] = if shell == "busybox" { &["sh"] } else { &[] };
        let arguments = [sh, &[&script, "--slot", "0", "--auth-url", &service.url, "--cache", &cache]].concat();
        let again = Run::from_output(example(&fixture, shell, &arguments).finish());
        assert_eq!(again.ok(), first, "{shell}");
    }
    assert_eq!(service.asked("/token/authenticate"), 2);
    assert_eq!(fixture.tool("stat", &["-c", "%a", &cache]).trim(), "600");
    assert_eq!(anaplan_token(&fixture, &service, &["--cache", &cache, "--logout"]).ok(), "");
    assert_eq!(validate(&fixture, &service, first.trim()), "401");
    assert!(!Path::new(&cache).exists());
    // A token that has almost expired is not returned.
    service.behave(Behaviour { short_lived: Some(30), ..Behaviour::default() });
    let short = anaplan_token(&fixture, &service, &["--cache", &cache]).ok();
    assert_ne!(anaplan_token(&fixture, &service, &["--cache", &cache]).ok(), short);
}

#[test]
fn a_cache_that_others_can_read_is_refused() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    let cache = fixture.write("cache", "stolen\n9999999999\nhttp://x\n");
    let set = |mode| {
        std::fs::set_permissions(&cache, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        anaplan_token(&fixture, &service, &["--cache", &cache])
    };
    let refused = set(0o644);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(refused.stderr.contains("chmod 600"), "{refused:?}");
    assert_eq!(set(0o600).ok(), "stolen\n");
}

#[test]
fn exit_codes_are_kept_and_retry_after_is_respected() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    service.behave(Behaviour { too_many_at_first: 2, ..Behaviour::default() });
    let waited = anaplan_token(&fixture, &service, &[]);
    assert_eq!(waited.stderr.matches("trying again in 1 s").count(), 2, "{waited:?}");
    waited.ok();
    assert_eq!(service.asked("/token/authenticate"), 3);
    let fails = |behaviour, patience: &str| {
        service.behave(behaviour);
        let script = format!("{EXAMPLES}/shell/anaplan-token");
        let mut command = example(&fixture, "dash", &[&script, "--slot", "0", "--auth-url", &service.url]);
        let run = Run::from_output(command.env("ANAPLAN_PATIENCE", patience).finish());
        assert_eq!(run.stdout, "", "{run:?}");
        (run.code, run.stderr)
    };
    let (code, said) = fails(Behaviour { too_many: true, ..Behaviour::default() }, "5");
    assert!(code == 9 && said.contains("try again in 7 s"), "{code} {said}");
    assert_eq!(fails(Behaviour { unavailable: true, ..Behaviour::default() }, "0").0, 9);
    for (odd, said) in [("0", "try again in 1 s"), ("009", "try again in 9 s")] {
        let (code, why) = fails(Behaviour { retry_after: Some(odd), ..Behaviour::default() }, "1");
        assert!(code == 9 && why.contains(said), "{odd}: {code} {why}");
    }
    service.behave(Behaviour { refuse_v1: true, ..Behaviour::default() });
    let refused = anaplan_token(&fixture, &service, &["--payload-version", "v1"]);
    assert!(refused.code == 5 && refused.stderr.contains("FAILURE_BAD_CREDENTIAL v1 is retired"), "{refused:?}");
    let gone = anaplan_token(&fixture, &service, &["--auth-url", "http://127.0.0.1:1"]);
    assert_eq!(gone.code, 2, "an option twice is a usage error: {gone:?}");
    fixture.write("pin", "wrong-one");
    let wrong = anaplan_token(&fixture, &service, &[]);
    assert!(wrong.code == 4 && wrong.stderr.contains("CKR_PIN_INCORRECT") && wrong.stdout.is_empty(), "{wrong:?}");
}

#[test]
fn a_token_comes_from_an_agent_too() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    let agent = Agent::ready(&fixture, &[]);
    let script = format!("{EXAMPLES}/shell/anaplan-token");
    let arguments = [&script, "--auth-url", &service.url, "--socket", &agent.socket];
    let token = Run::from_output(example(&fixture, "dash", &arguments).finish()).ok();
    assert_eq!(validate(&fixture, &service, token.trim()), "200");
    let line = format!("printf '%s\\n' \"$1\" | {script} --logout --auth-url {}", service.url);
    Run::from_output(example(&fixture, "dash", &["-c", &line, "x", token.trim()]).finish()).ok();
    assert_eq!(service.tokens(), 0);
}

/// A Python with clients of other projects, installed once from `tests/clients/requirements.txt`.
pub(crate) fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let requirements = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/requirements.txt");
        let digest = tool(Command::new("sha256sum").arg(requirements));
        let home = format!("{}/python-{}", env!("CARGO_TARGET_TMPDIR"), &digest[..12]);
        if !Path::new(&home).exists() {
            // Installed under another name first, so that an interrupted installation is never used.
            let new = format!("{home}.{}", std::process::id());
            tool(Command::new("/usr/bin/python3").args(["-m", "venv", &new]));
            let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements];
            tool(Command::new(format!("{new}/bin/python")).args(install));
            std::fs::rename(new, &home).unwrap();
        }
        format!("{home}/bin/python")
    })
}

/// The SDK in use; see `tests/clients/sdk.py`.
struct Sdk {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Sdk {
    fn start(fixture: &Fixture, service: &Service, socket: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sdk.py");
        let mut command = example(fixture, python(), &["-B", script, &service.url, socket]);
        command.env("PYTHONPATH", format!("{EXAMPLES}/python")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// The list that the SDK returns by one of the script's methods.
    fn list(&mut self, how: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{how}").unwrap();
        self.said.next().expect("the SDK ended; its reason is above").unwrap()
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn the_unmodified_anaplan_sdk_logs_in_once_and_again_only_when_it_must() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    let agent = Agent::ready(&fixture, &[]);
    let logins = || service.asked("/token/authenticate");
    for (socket, count) in [("-", 0), (agent.socket.as_str(), 2)] {
        let mut sdk = Sdk::start(&fixture, &service, socket);
        assert_eq!(logins(), count, "nothing is signed before something is asked for");
        for how in ["plain", "threads", "plain"] {
            assert_eq!(sdk.list(how), "ws1 Planning");
        }
        assert_eq!(logins(), count + 1);
        // An administrator ended the token: all threads share one new login.
        service.end_tokens();
        assert_eq!(sdk.list("threads"), "ws1 Planning");
        assert_eq!(logins(), count + 2);
    }
    let mut sdk = Sdk::start(&fixture, &service, &agent.socket);
    assert_eq!((sdk.list("async").as_str(), logins()), ("ws1 Planning", 5));
}

#[test]
fn the_sdk_exchanges_a_token_that_is_about_to_end_without_a_signature() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    // Inside the period before its end in which a token is exchanged.
    service.behave(Behaviour { short_lived: Some(200), ..Behaviour::default() });
    let mut sdk = Sdk::start(&fixture, &service, "-");
    for _ in 0..3 {
        sdk.list("plain");
    }
    assert_eq!((service.asked("/token/authenticate"), service.asked("/token/refresh")), (1, 2));
}

#[test]
fn python_requests_lists_workspaces_and_keeps_our_exit_code() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    let script = format!("{EXAMPLES}/python/anaplan_requests.py");
    let run = || {
        let mut command = example(&fixture, python(), &["-B", &script, "--slot", "0", "--auth-url", &service.url]);
        Run::from_output(command.env("ANAPLAN_API_URL", &service.url).finish())
    };
    assert_eq!(run().ok(), "ws1 Planning\n");
    assert_eq!(service.tokens(), 0, "it logs out");
    fixture.write("pin", "wrong-one");
    let wrong = run();
    assert!(wrong.code == 4 && wrong.stderr.contains("CKR_PIN_INCORRECT"), "{wrong:?}");
}

#[test]
fn java_logs_in_and_keeps_our_exit_code() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    let source = format!("{EXAMPLES}/java/AnaplanLogin.java");
    let run = || {
        let mut java = example(&fixture, "java", &[&source, "--slot", "0", "--auth-url", &service.url]);
        Run::from_output(java.finish())
    };
    assert_eq!(validate(&fixture, &service, run().ok().trim()), "200");
    fixture.write("pin", "wrong-one");
    let wrong = run();
    assert!(wrong.code == 4 && wrong.stderr.contains("CKR_PIN_INCORRECT"), "{wrong:?}");
}

#[test]
fn actions_run_with_one_login_and_leave_no_token_behind() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    let run = |steps: &[&str]| {
        let script = format!("{EXAMPLES}/shell/anaplan-run");
        let mut command = example(&fixture, "dash", &[&[script.as_str(), "ws1", "m1"], steps].concat());
        let path = command.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap().to_owned();
        command.env("PATH", format!("{EXAMPLES}/shell:{}", path.to_str().unwrap()));
        command.env("ANAPLAN_API_URL", &service.url).env("ANAPLAN_POLL_SECONDS", "0");
        command.env("ANAPLAN_PIECE_BYTES", "100");
        command.env("CBA_AGENT_AUTH_URL", &service.url).env("CBA_AGENT_SLOT", "0");
        Run::from_output(command.finish())
    };
    let costs = fixture.write("costs \"2026\".csv", "a,b\n3,4\n");
    let (uploaded, exported) = (fixture.file("back.csv"), fixture.file("result.csv"));
    let steps = [
        &["put", "113000000001", &costs, "import", "112000000007", "process", "118000000002"][..],
        &["export", "116000000003", "get", "116000000003", &exported, "get", "113000000001", &uploaded],
    ]
    .concat();
    let done = run(&steps);
    assert!(done.stderr.contains("imports 112000000007: 0.3 of 1"), "{done:?}");
    done.ok();
    assert_eq!((fixture.read("result.csv"), fixture.read("back.csv")), ("a,b\n1,2\n".into(), "a,b\n3,4\n".into()));
    assert_eq!((service.asked("/token/authenticate"), service.tokens()), (1, 0));
    let (large, large_again) = (fixture.write("large.csv", "0123456789".repeat(25)), fixture.file("large-again.csv"));
    let pieces = run(&["put", "113000000009", &large, "get", "113000000009", &large_again]);
    assert!(pieces.stderr.contains("large.csv: 3 of 3"), "{pieces:?}");
    assert_eq!(fixture.read("large-again.csv"), fixture.read("large.csv"));
    let failed = run(&["process", "118000000666"]);
    assert!(failed.code == 8 && failed.stderr.contains("ended without success"), "{failed:?}");
    assert_eq!(run(&["import"]).code, 2);
    assert_eq!(service.tokens(), 0);
}

#[test]
fn the_airflow_hook_fails_permanently_where_a_retry_does_not_help() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    let agent = Agent::ready(&fixture, &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/airflow_hook.py");
    let hook = |socket: &str| {
        let mut command = example(&fixture, python(), &["-B", script, socket, &service.url]);
        command.env("PYTHONPATH", format!("{EXAMPLES}/airflow:{EXAMPLES}/python"));
        command.env("AIRFLOW_HOME", fixture.file("airflow")).env("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR");
        Run::from_output(command.finish()).ok()
    };
    assert_eq!(hook(&agent.socket), "True\n");
    assert!(hook("/nonexistent/socket").starts_with("later: no agent answers"));
    service.behave(Behaviour { unavailable: true, ..Behaviour::default() });
    assert!(hook(&agent.socket).starts_with("later: Anaplan answered 503"));
    service.behave(Behaviour::default());
    let other = Fixture::with(&["--label", "other"]);
    let stranger = Agent::ready(&other, &[]);
    assert!(hook(&stranger.socket).starts_with("for good: Anaplan refused the login (401)"));
    drop(stranger);
    let broken = Agent::ready(&fixture, &["--socket", &fixture.file("b.sock"), "--policy-payload-versions", "v1"]);
    assert!(hook(&broken.socket).starts_with("for good: the agent at"));
}

/// The lines of all files for users: README, docs, deploy, examples.
fn lines_for_users() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = ["docs", "deploy", "examples"].map(|name| root.join(name)).to_vec();
    let mut files = vec![root.join("README.md")];
    while let Some(directory) = open.pop() {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    let lines = |path: std::path::PathBuf| {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        text.lines().map(|line| (name.clone(), line.to_owned())).collect::<Vec<_>>()
    };
    files.into_iter().flat_map(lines).collect()
}

#[test]
fn no_example_puts_the_anaplan_token_into_an_argument_of_a_program() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    std::fs::write(file("curl"), "#!/bin/sh\necho \"$@\" >> arguments\ncat >> stdin\n").unwrap();
    tool(Command::new("chmod").arg("755").arg(file("curl")));
    let mut tried = 0;
    for (name, line) in lines_for_users() {
        let in_ci = name.starts_with("examples/ci/") && line.contains("curl") && !line.contains("apt-get");
        if !in_ci {
            let is_shown = line.contains("curl") && line.contains("Authorization") && line.contains("-H");
            assert!(!is_shown, "{name}: {line}");
            continue;
        }
        for shell in ["dash", "bash"] {
            let path = format!("{}:/usr/bin:/bin", directory.path().display());
            let mut command = Command::new(shell);
            command.args(["-c", line.trim()]).env_clear().env("PATH", path).env("token", "T0KEN");
            tool(command.current_dir(directory.path()));
        }
        tried += 1;
    }
    assert_eq!(tried, 2);
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    assert!(!read("arguments").contains("T0KEN"), "{}", read("arguments"));
    assert_eq!(read("stdin"), "header = \"Authorization: AnaplanAuthToken T0KEN\"\n".repeat(4));
}

#[test]
fn no_example_shows_a_pin_while_it_is_typed() {
    for (name, line) in lines_for_users() {
        // A PIN typed at a terminal comes from another program, which does not echo.
        let before = line.split("/dev/stdin").next().unwrap_or_default();
        assert!(!line.contains("/dev/stdin") || before.contains('|'), "{name}: {line}");
        for shown in ["printf '%s' PIN", "printf %s PIN", "echo PIN", "cat > /etc/cba-agent/pin"] {
            assert!(!line.contains(shown), "{name}: {line}");
        }
    }
}
