//! Which users may ask the agent, for what, and how often.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use crate::agent::{Agent, Client};
use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, needs_root, other_user, tool};

/// A request by another user with these groups. The tests run as root.
fn as_user(agent: &Agent, user: &str, groups: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("setpriv");
    command.args(other_user(user, groups)).args(["curl", "-sS", "--max-time", "20", "--unix-socket", &agent.socket]);
    let output = command.args(arguments).finish();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

/// Gives every user access to the socket, so that only the agent's own rules refuse.
fn open_the_way(fixture: &Fixture, agent: &Agent) {
    fs::set_permissions(&agent.socket, fs::Permissions::from_mode(0o666)).unwrap();
    open_to_all(fixture.path());
}

/// Makes a directory and all its parents searchable for every user.
pub(crate) fn open_to_all(directory: &std::path::Path) {
    for part in directory.ancestors().take_while(|part| part.parent().is_some()) {
        let mode = fs::metadata(part).unwrap().mode();
        fs::set_permissions(part, fs::Permissions::from_mode(mode & 0o7777 | 0o011)).unwrap();
    }
}

const SIGN: [&str; 3] = ["http://localhost/sign", "-d", "{}"];
const READY: [&str; 1] = ["http://localhost/readyz"];

#[test]
fn a_user_without_permission_gets_nothing() {
    needs_root("it acts as other users of the host");
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let agent = Agent::ready(&fixture, &["--socket-group", "4242", "--monitor-groups", "4343"]);
    let (connected, said) = as_user(&agent, "1234", "", &SIGN);
    assert!(!connected, "{said}");
    open_the_way(&fixture, &agent);
    for path in ["/sign", "/certificate", "/custody", "/healthz", "/readyz", "/metrics", "/x"] {
        let (_, said) = as_user(&agent, "1234", "4141", &[&format!("http://localhost{path}"), "-d", "{}"]);
        assert!(said.contains(r#""code":"not_allowed""#) && !said.contains("detail"), "{path}: {said}");
    }
    // The overflow user can be any user of any container: the agent refuses it, whatever its groups.
    let (_, said) = as_user(&agent, "65534", "4242", &SIGN);
    assert!(said.contains("not_allowed"), "{said}");
    assert_eq!(fixture.calls("C_Sign"), 0);
    assert!(agent.log().contains("refused: user 1234"), "{}", agent.log());
    let (_, said) = as_user(&agent, "1234", "4141,4242", &SIGN);
    assert!(said.starts_with(r#"{"method":"POST""#), "{said}");
    let (_, said) = as_user(&agent, "1234", "4343", &READY);
    assert_eq!(said, "ready\n");
    let (_, said) = as_user(&agent, "1234", "4343", &SIGN);
    assert!(said.contains("not_allowed"), "{said}");
    // A monitor must be in the socket's group to connect, but this does not allow it to ask.
    let (_, said) = as_user(&agent, "1234", "4242,4343", &SIGN);
    assert!(said.contains("not_allowed"), "{said}");
    let metrics = agent.ask("GET", "/metrics", "").body;
    assert!(metrics.contains("cba_agent_refused_peers_total{reason=\"not_allowed\"} 10"), "{metrics}");
}

#[test]
fn lists_restrict_which_users_may_ask() {
    needs_root("it acts as other users of the host");
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--socket-group", "4242", "--allow-users", "1234"]);
    open_the_way(&fixture, &agent);
    let (_, said) = as_user(&agent, "1234", "4242", &SIGN);
    assert!(said.starts_with(r#"{"method":"POST""#), "{said}");
    let (_, said) = as_user(&agent, "1235", "4242", &SIGN);
    assert!(said.contains("not_allowed"), "{said}");
    // Root may read the state of its service, but may not ask for payloads.
    assert_eq!(agent.ask("GET", "/readyz", "").status, 200);
    assert_eq!(agent.ask("POST", "/sign", "{}").problem(403), "not_allowed");
}

#[test]
fn names_that_the_system_does_not_know_are_errors() {
    let fixture = Fixture::new();
    for flags in [&["--allow-users", "nosuchuser"][..], &["--socket-group", "nosuchgroup"]] {
        let arguments = Agent::arguments(&fixture, flags);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert!(fixture.run(&arguments).failed(2).contains("on this host"));
    }
    let file = fixture.write("c.toml", "[serve]\nallow_users = []\n");
    let error = fixture.run(&["serve", "--config", &file, "--socket", "/x"]).failed(2);
    assert!(error.contains("allow_users: must name at least one"), "{error}");
}

#[test]
fn each_user_has_a_rate() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--rate-limit-per-second", "5"]);
    let mut client = Client::connect(&agent.socket);
    let replies: Vec<_> = (0..30).map(|_| client.exchange("POST", "/sign", "{}").unwrap()).collect();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert!(refused.len() >= 15, "{}", refused.len());
    assert_eq!(refused[0].header("Retry-After"), Some("1"));
    assert_eq!(refused[0].problem(429), "rate_limited");
    assert_eq!(agent.ask("GET", "/healthz", "").status, 200, "whether it lives may always be asked");
}

/// Connects as user IDs from 300000 on, all in the group 4242. Then all of them ask. Prints the answers.
const MANY_USERS: &str = r#"
import os, socket, sys
path, count = sys.argv[1], int(sys.argv[2])
os.setgroups([4242])
open_sockets = []
for user in range(300000, 300000 + count):
    os.seteuid(user)
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(60)
    one.connect(path)
    os.seteuid(0)
    open_sockets.append(one)
for one in open_sockets:
    one.sendall(b"POST /sign HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
for one in open_sockets:
    answer = b""
    while piece := one.recv(65536):
        answer += piece
    print(answer.split(b" ")[1].decode(), answer.split(b"\r\n\r\n", 1)[1].decode().strip())
"#;

#[test]
fn all_users_together_have_a_rate_that_more_user_ids_do_not_raise() {
    needs_root("it acts as other users of the host");
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--socket-group", "4242", "--total-rate-limit-per-second", "1"]);
    open_to_all(fixture.path());
    let answers = tool(Command::new("/usr/bin/python3").args(["-B", "-c", MANY_USERS, &agent.socket, "40"]));
    let limited = "\"code\":\"rate_limited\",\"detail\":\"total_rate_limit_per_second\"";
    let refused = answers.lines().filter(|line| line.starts_with("429 ") && line.contains(limited)).count();
    assert!(answers.lines().any(|line| line.starts_with("200 ")) && refused >= 20, "{answers}");
    let metrics = agent.ask("GET", "/metrics", "").body;
    let counted = format!("cba_agent_refused_peers_total{{reason=\"total_rate_limited\"}} {refused}");
    assert!(metrics.contains(&counted), "{metrics}");
}

#[test]
fn one_group_member_counts_as_one_user_in_any_user_namespace() {
    needs_root("it acts as other users of the host");
    let fixture = Fixture::new();
    let ranges = fixture.write("subuid", "alice:300000:65536\n");
    fs::set_permissions(&ranges, fs::Permissions::from_mode(0o644)).unwrap();
    // With separate files /etc/subuid and /etc/subgid.
    let (subuid, subgid) = ("/etc/subuid", "/etc/subgid");
    let script = format!(
        "touch {subuid} {subgid} && mount --bind \"$1\" {subuid} && mount --bind \"$1\" {subgid} && shift && exec \"$@\""
    );
    let started = |more: &[&str]| {
        let mut command = fixture.program("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh", &ranges, BINARY]).args(Agent::arguments(&fixture, more));
        let mut agent = Agent::start(&fixture, command);
        agent.wait_for_state("STATUS=ready");
        open_to_all(fixture.path());
        agent
    };
    let agent = started(&["--socket-group", "4242", "--monitor-groups", "4343", "--monitor-groups", "300007"]);
    let answers = tool(Command::new("/usr/bin/python3").args(["-B", "-c", MANY_USERS, &agent.socket, "40"]));
    assert_eq!(answers.lines().filter(|line| line.starts_with("403 ")).count(), 40, "{answers}");
    let (_, said) = as_user(&agent, "300001", "4242,4343", &READY);
    assert!(said.contains("not_allowed"), "{said}");
    let (_, said) = as_user(&agent, "1234", "4242", &SIGN);
    assert!(said.starts_with(r#"{"method":"POST""#), "{said}");
    for line in [
        "refused: user 300000 group 0",
        "a subordinate user ID of alice (/etc/subuid) is served only if allow_users names it",
        "alice can enter the group 300007",
    ] {
        agent.logged(|log| log.contains(line));
    }
    agent.end("-TERM");
    let agent = started(&["--socket-group", "4242", "--allow-users", "300001"]);
    let (_, said) = as_user(&agent, "300001", "4242", &SIGN);
    assert!(said.starts_with(r#"{"method":"POST""#), "{said}");
    let (_, said) = as_user(&agent, "300002", "4242", &SIGN);
    assert!(said.contains("not_allowed"), "{said}");
}

#[test]
fn the_agents_own_user_reads_state_and_asks_only_if_named() {
    needs_root("it acts as other users of the host");
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--socket-group", "4242"]);
    for path in ["/readyz", "/certificate", "/custody", "/metrics"] {
        assert_eq!(agent.ask("GET", path, "").status, 200, "{path}");
    }
    assert_eq!(agent.ask("POST", "/sign", "{}").problem(403), "not_allowed");
    agent.logged(|log| {
        log.contains("the agent's own user may read the state, and may ask only if allow_users names it")
    });
    let error = fixture.run(&["sign", "--socket", &agent.socket]).failed(5);
    assert!(error.contains("allow_users"), "{error}");
    agent.end("-TERM");
    let own = fs::metadata(fixture.path()).unwrap().uid().to_string();
    Agent::ready(&fixture, &["--allow-users", &own]).payload();
}
