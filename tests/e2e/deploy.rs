//! The files of `deploy/`, checked with systemd, Prometheus and the agent itself.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::agent::{Agent, Client};
use crate::deadline::{Finish as _, PATIENCE, status, until};
use crate::fixture::{BINARY, Fixture, Run, needs_root, other_user, own_user, tool};

pub(crate) const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");

pub(crate) fn unit(name: &str) -> String {
    fs::read_to_string(format!("{DEPLOY}/systemd/{name}")).unwrap()
}

/// All systemd unit files, by name.
pub(crate) fn units() -> Vec<String> {
    let names = fs::read_dir(format!("{DEPLOY}/systemd")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names.filter(|name| [".service", ".socket", ".timer"].iter().any(|end| name.ends_with(end))).collect()
}

#[test]
fn systemd_accepts_the_units_and_rates_them_as_safe() {
    let fixture = Fixture::empty();
    // Write all of them first: systemd looks for each beside those that name it.
    let write = |name: String| {
        let text = unit(&name).replace("/usr/bin/cba-agent", BINARY);
        fixture.write(&name, text.replace("/usr/lib/cba-agent", &format!("{DEPLOY}/systemd")));
        name
    };
    for name in units().into_iter().map(write).collect::<Vec<_>>() {
        let path = fixture.file(&name);
        tool(Command::new("systemd-analyze").args(["verify", "--man=no", &path]));
        if name.ends_with(".service") {
            // Of 10, in tenths. One unit creates users, and needs capabilities for it.
            let threshold = if name == "cba-agent-tenant@.service" { 25 } else { 15 };
            let safe = ["security", "--offline=yes", &format!("--threshold={threshold}"), &path];
            tool(Command::new("systemd-analyze").args(safe));
        }
    }
    let both = ["cba-agent.service", "cba-agent@.service"].map(unit);
    for line in ["Type=notify", "RestartPreventExitStatus=2 3 4 5 7", "KillMode=mixed"] {
        assert!(both.iter().all(|unit| unit.lines().any(|own| own == line)), "{line}");
    }
    assert!(both.iter().all(|unit| !unit.contains("PrivateUsers")), "a peer's user would not be known");
}

#[test]
fn the_units_call_only_programs_of_a_minimal_system() {
    let mut count = 0;
    for name in units() {
        for line in unit(&name).lines().filter(|line| line.starts_with("Exec")) {
            let (_, command) = line.split_once('=').unwrap();
            let (program, arguments) = command.split_once(' ').unwrap_or((command, ""));
            match program {
                // Every system has a shell with a built-in kill. Neither /bin/kill nor procps is needed.
                "/bin/sh" => assert_eq!(arguments, "-c 'kill -HUP \"$MAINPID\"'", "{name}"),
                "/usr/bin/cba-agent" => {}
                script => {
                    let script = script.strip_prefix("/usr/lib/cba-agent/").unwrap_or_else(|| panic!("{name}: {line}"));
                    assert!(fs::exists(format!("{DEPLOY}/systemd/{script}")).unwrap(), "{name}: {line}");
                }
            }
            count += 1;
        }
    }
    assert!(count >= 10, "{count}");
    // The unit's command, tried on a process.
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    tool(
        Command::new("/bin/sh")
            .args(["-c", "kill -HUP \"$MAINPID\""])
            .env("MAINPID", child.id().to_string())
            .env("PATH", "/nonexistent"),
    );
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(1));
}

#[test]
fn the_service_of_the_unit_file_answers_curl() {
    let mut fixture = Fixture::new();
    for directory in ["run", "state", "credentials"] {
        fs::create_dir(fixture.file(directory)).unwrap();
    }
    fixture.set("RUNTIME_DIRECTORY", fixture.file("run"));
    fixture.set("STATE_DIRECTORY", fixture.file("state"));
    fixture.set("CREDENTIALS_DIRECTORY", fixture.file("credentials"));
    fixture.write("credentials/cba-agent-pin", fixture.pin());
    let config = fixture.write(
        "config.toml",
        "module = \"softhsm2\"\n[token]\nslot = 0\n[serve]\nallow_users = [\"{USER}\"]\n"
            .replace("{USER}", &own_user().to_string()),
    );
    let unit = unit("cba-agent.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/cba-agent ")).unwrap();
    let line = line.replace("/etc/cba-agent/config.toml", &config);
    let audit =
        unit.lines().find_map(|line| line.strip_prefix("Environment=CBA_AGENT_AUDIT_PATH=%L/cba-agent/")).unwrap();
    fixture.set("CBA_AGENT_AUDIT_PATH", fixture.file(audit));
    let mut agent = Agent::start(&fixture, fixture.command(&line.split(' ').collect::<Vec<_>>()));
    agent.wait_for_state("STATUS=ready");
    let socket = fixture.file("run/agent.sock");
    let request =
        tool(Command::new("curl").args(["-sS", "--unix-socket", &socket, "http://localhost/sign", "-d", "{}"]));
    assert!(fixture.run_with_input(&["verify"], request).ok().starts_with("valid: v2"));
    assert!(agent.log().starts_with("<6>serving on "), "{}", agent.log());
    assert_eq!(fs::read_dir(fixture.file("state")).unwrap().count(), 2, "the fuse is in the state directory");
}

#[test]
fn an_activated_socket_is_served_and_left_to_systemd() {
    needs_root("it reads the environment of a process that forbids it to other users");
    let fixture = Fixture::new();
    let socket = fixture.file("activated.sock");
    let mut command = Command::new("systemd-socket-activate");
    for (name, value) in fixture.command(&[]).get_envs() {
        command.args(["-E", &format!("{}={}", name.to_str().unwrap(), value.unwrap_or_default().to_str().unwrap())]);
    }
    let notify = std::os::unix::net::UnixDatagram::bind(fixture.path().join("notify")).unwrap();
    command.args(["-E", &format!("NOTIFY_SOCKET={}", fixture.file("notify"))]);
    command.args(["--listen", &socket, BINARY, "serve", "--pin-source", &fixture.pin_source(), "--allow-users"]);
    command.arg(own_user().to_string());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let give_up = std::time::Instant::now() + PATIENCE;
    // The socket exists before the agent, and the first connection starts the agent.
    let mut client = loop {
        match Client::try_connect(&socket) {
            Ok(client) => break client,
            Err(error) => assert!(std::time::Instant::now() < give_up, "{error}"),
        }
    };
    assert_eq!(client.exchange("POST", "/sign", "{}").unwrap().status, 200);
    // Only systemd can make its socket again, so the agent stays, and says what is wrong.
    let moved = fixture.file("moved.sock");
    fs::rename(&socket, &moved).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut message = [0; 4096];
    until(|| {
        let read = notify.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..read]).contains("STATUS=not ready: the socket")
    });
    fs::rename(&moved, &socket).unwrap();
    let worker = crate::agent::children(child.id())[0];
    let environment = fs::read(format!("/proc/{worker}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"));
    tool(Command::new("kill").args(["-TERM", &child.id().to_string()]));
    assert_eq!(status(&mut child).code(), Some(0));
    assert!(fs::symlink_metadata(&socket).is_ok(), "the socket is not the agent's to remove");
}

#[test]
fn the_watchdog_depends_on_progress_and_not_on_the_token() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=hang");
    fixture.set("WATCHDOG_USEC", "400000");
    let mut agent = Agent::ready(&fixture, &["--call-timeout", "120s", "--request-timeout", "150s"]);
    let mut client = Client::connect(&agent.socket);
    client.send_sign_request();
    fixture.await_calls("C_Sign", 1);
    agent.forget_messages();
    for _ in 0..6 {
        agent.wait_for_state("WATCHDOG=1");
    }
}

/// The system calls in a systemd set, including the sets in it.
fn calls_of(set: &str) -> BTreeSet<String> {
    let text = tool(Command::new("systemd-analyze").args(["--no-pager", "syscall-filter", set]));
    let names =
        text.lines().filter(|line| line.starts_with("    ") && !line.trim_start().starts_with('#')).map(str::trim);
    names.flat_map(|name| if name.starts_with('@') { calls_of(name) } else { [name.to_owned()].into() }).collect()
}

/// The calls that the unit's filter allows: its first line allows, and later lines remove or add.
fn allowed_calls() -> BTreeSet<String> {
    let unit = unit("cba-agent.service");
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (names, takes_away) = line.strip_prefix('~').map_or((line, false), |names| (names, true));
        for name in names.split(' ') {
            let calls = if name.starts_with('@') { calls_of(name) } else { [name.to_owned()].into() };
            if takes_away {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    assert!(allowed.len() > 200 && allowed.contains("openat") && !allowed.contains("mount"), "{allowed:?}");
    allowed
}

#[test]
fn the_agent_makes_no_call_that_the_units_filter_refuses() {
    needs_root("it acts as other users of the host");
    let fixture = Fixture::new();
    // Not as root: the state directory would belong to another user. Everything below the fixture belongs to this user.
    let user = rustix::process::geteuid().is_root().then_some("12345");
    if let Some(user) = user {
        tool(Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(fixture.path()));
        crate::access::open_to_all(fixture.path());
    }
    let trace = fixture.file("trace");
    let mut command = fixture.program("setpriv");
    command
        .args(user.map(|user| other_user(user, user)).into_iter().flatten())
        .args(["strace", "-f", "-qq", "-o", &trace, BINARY]);
    command.args(Agent::arguments(&fixture, &["--socket-group", user.unwrap_or("0"), "--workers", "2"]));
    let mut agent = Agent::start_in(&fixture, command, 0o777);
    agent.wait_for_state("STATUS=ready");
    agent.payload();
    let traced = crate::agent::children(agent.id())[0];
    tool(Command::new("kill").args(["-HUP", &traced.to_string()]));
    agent.wait_for_state("RELOADING=1");
    agent.payload();
    tool(Command::new("kill").args(["-TERM", &traced.to_string()]));
    agent.wait_for_state("STOPPING=1");
    let (status, log) = agent.end("-0");
    assert_eq!(status.code(), Some(0), "{log}");
    let allowed = allowed_calls();
    let trace = fs::read_to_string(trace).unwrap();
    let calls = trace.lines().filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('));
    let calls: BTreeSet<&str> = calls.map(|(name, _)| name).filter(|name| !name.contains(' ')).collect();
    assert!(calls.contains("accept4") && calls.contains("execve"), "{calls:?}");
    let refused: Vec<&&str> = calls.iter().filter(|call| !allowed.contains(**call)).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// Prometheus' own parser and linter.
fn promtool_takes(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("apt-get install prometheus");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.finish();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn prometheus_reads_the_metrics_and_knows_the_alerts_of_them() {
    let fixture = Fixture::new();
    let file = fixture.file("cba_agent.prom");
    let agent = Agent::ready(&fixture, &["--metrics-file", &file]);
    agent.payload();
    let text = agent.ask("GET", "/metrics", "").body;
    promtool_takes(&text);
    until(|| fs::read_to_string(&file).unwrap_or_default().contains("cba_agent_ready 1"));
    promtool_takes(&fs::read_to_string(&file).unwrap());
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let alerts = format!("{DEPLOY}/prometheus/alerts.yml");
    tool(Command::new("promtool").args(["check", "rules", &alerts]));
    let alerts = fs::read_to_string(&alerts).unwrap();
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).flat_map(|expression| {
        expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("cba_agent_"))
    });
    for name in names {
        assert!(text.contains(&format!("\n{name}")), "{name}");
    }
}

#[test]
fn logrotate_renames_the_audit_log_and_the_daily_check_reads_it() {
    needs_root("logrotate changes its user");
    let fixture = Fixture::new();
    let path = fixture.file("audit.jsonl");
    let agent = Agent::ready(&fixture, &["--audit-path", &path]);
    let rules = fs::read_to_string(format!("{DEPLOY}/logrotate/cba-agent")).unwrap();
    let here = rules
        .replace("/var/log/cba-agent", fixture.path().to_str().unwrap())
        .replace("su cba-agent cba-agent", "su root root");
    let rules = fixture.write("logrotate.conf", here);
    for _ in 0..3 {
        agent.payload();
        fixture.tool("logrotate", &["--force", "--state", "logrotate.state", &rules]);
    }
    agent.payload();
    agent.end("-TERM");
    // The last two are compressed by now.
    let all = fixture.tool("sh", &["-c", "zcat -f audit.jsonl.3.gz audit.jsonl.2.gz audit.jsonl.1 audit.jsonl"]);
    let said = fixture.run_with_input(&["audit", "verify", "-"], all).ok();
    assert!(said.starts_with("valid: 4 records, 1 to 4\n"), "{said}");
    let config = fixture.write("config.toml", "");
    let mut checks = 0;
    for unit in ["cba-agent-audit.service", "cba-agent-audit@.service"].map(unit) {
        for line in unit.lines().filter_map(|line| line.strip_prefix("ExecStart=/usr/bin/cba-agent ")) {
            let line = line.replace("/etc/cba-agent/config.toml", &config).replace("/etc/cba-agent/%i.toml", &config);
            let mut command = fixture.command(&line.split(' ').collect::<Vec<_>>());
            Run::from_output(command.env("CBA_AGENT_AUDIT_PATH", &path).finish()).ok();
            checks += 1;
        }
    }
    assert_eq!(checks, 4);
}

#[test]
fn a_client_in_another_pid_namespace_is_served() {
    needs_root("it mounts file systems of its own");
    let fixture = Fixture::new();
    let mut command = fixture.program("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", BINARY]).args(Agent::arguments(&fixture, &[]));
    let mut agent = Agent::start(&fixture, command);
    agent.wait_for_state("STATUS=ready");
    agent.payload();
    agent.logged(|log| log.contains("(process 0, job -)"));
}

#[test]
fn the_cluster_configuration_has_only_known_keys() {
    let fixture = Fixture::with(&["--label", "anaplan"]);
    let yaml = fs::read_to_string(format!("{DEPLOY}/kubernetes/cba-agent.yaml")).unwrap();
    let block = yaml.split("config.toml: |\n").nth(1).unwrap();
    let lines = block.lines().take_while(|line| line.starts_with("    ")).map(str::trim);
    let config = fixture.write("config.toml", lines.collect::<Vec<_>>().join("\n"));
    fixture.run(&["list", "--config", &config, "--module", "softhsm2"]).ok();
    // Its probes are commands of this program.
    for line in yaml.lines().filter_map(|line| line.trim().strip_prefix("command: ")) {
        let command: Vec<String> = serde_json::from_str(line).unwrap();
        let arguments: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        assert_eq!(command[0], "/usr/bin/cba-agent");
        fixture.run(&arguments).failed(9);
    }
}
