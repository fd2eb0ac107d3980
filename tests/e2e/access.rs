//! Who may ask the agent, for what, and how often.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use crate::agent::{Agent, Client};
use crate::deadline::Finish as _;
use crate::stand::Stand;

/// A request by another user, with these groups, of whoever runs the tests as root.
fn as_user(agent: &Agent, user: &str, groups: &str, arguments: &[&str]) -> (bool, String) {
    let groups = if groups.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={groups}") };
    let output = Command::new("setpriv")
        .args([
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            &groups,
            "--",
            "curl",
            "-sS",
            "--max-time",
            "20",
        ])
        .args(["--unix-socket", &agent.socket])
        .args(arguments)
        .finish();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

/// Lets everybody through to the socket, so that only the agent's own judgement is left.
fn open_the_way(stand: &Stand, agent: &Agent) {
    fs::set_permissions(&agent.socket, fs::Permissions::from_mode(0o666)).unwrap();
    open_to_all(stand.path());
}

/// Lets everybody pass through a directory and all above it.
pub(crate) fn open_to_all(directory: &std::path::Path) {
    for part in directory.ancestors().take_while(|part| part.parent().is_some()) {
        let mode = fs::metadata(part).unwrap().mode();
        fs::set_permissions(part, fs::Permissions::from_mode(mode & 0o7777 | 0o011)).unwrap();
    }
}

const SIGN: [&str; 3] = ["http://localhost/sign", "-d", "{}"];
const READY: [&str; 1] = ["http://localhost/readyz"];

#[test]
fn a_stranger_gets_nothing() {
    let mut stand = Stand::new();
    stand.faulty("");
    let agent = Agent::ready(&stand, &["--socket-group", "4242", "--monitor-groups", "4343"]);
    let (connected, said) = as_user(&agent, "1234", "", &SIGN);
    assert!(!connected, "{said}");
    open_the_way(&stand, &agent);
    for path in ["/sign", "/certificate", "/custody", "/healthz", "/readyz", "/metrics", "/x"] {
        let (_, said) = as_user(&agent, "1234", "4141", &[&format!("http://localhost{path}"), "-d", "{}"]);
        assert!(said.contains(r#""code":"not_allowed""#), "{path}: {said}");
    }
    // The overflow user is everybody of every container: nobody, whatever its groups.
    let (_, said) = as_user(&agent, "65534", "4242", &SIGN);
    assert!(said.contains("not_allowed"), "{said}");
    assert_eq!(stand.calls("C_Sign"), 0);
    assert!(agent.log().contains("refused: user 1234"), "{}", agent.log());
    let (_, said) = as_user(&agent, "1234", "4141,4242", &SIGN);
    assert!(said.starts_with(r#"{"method":"POST""#), "{said}");
    let (_, said) = as_user(&agent, "1234", "4343", &READY);
    assert_eq!(said, "ready\n");
    let (_, said) = as_user(&agent, "1234", "4343", &SIGN);
    assert!(said.contains("not_allowed"), "{said}");
    // A monitor must be in the socket's group to connect at all, and may not ask for that.
    let (_, said) = as_user(&agent, "1234", "4242,4343", &SIGN);
    assert!(said.contains("not_allowed"), "{said}");
    let metrics = agent.ask("GET", "/metrics", "").body;
    assert!(metrics.contains("cba_agent_refused_peers_total{reason=\"not_allowed\"} 10"), "{metrics}");
}

#[test]
fn lists_narrow_who_may_ask() {
    let stand = Stand::new();
    let agent = Agent::ready(&stand, &["--socket-group", "4242", "--allow-users", "1234"]);
    open_the_way(&stand, &agent);
    let (_, said) = as_user(&agent, "1234", "4242", &SIGN);
    assert!(said.starts_with(r#"{"method":"POST""#), "{said}");
    let (_, said) = as_user(&agent, "1235", "4242", &SIGN);
    assert!(said.contains("not_allowed"), "{said}");
    // Root may look after its service, and ask for nothing.
    assert_eq!(agent.ask("GET", "/readyz", "").status, 200);
    assert_eq!(agent.ask("POST", "/sign", "{}").problem(403), "not_allowed");
}

#[test]
fn names_that_the_system_does_not_know_are_errors() {
    let stand = Stand::new();
    for flags in [&["--allow-users", "nosuchuser"][..], &["--socket-group", "nosuchgroup"]] {
        let arguments = Agent::arguments(&stand, flags);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert!(stand.run(&arguments).failed(2).contains("on this host"));
    }
    let file = stand.write("c.toml", "[serve]\nallow_users = []\n");
    let error = stand.run(&["serve", "--config", &file, "--socket", "/x"]).failed(2);
    assert!(error.contains("allow_users: must name at least one"), "{error}");
}

#[test]
fn each_user_has_a_rate() {
    let stand = Stand::new();
    let agent = Agent::ready(&stand, &["--rate-limit-per-second", "5"]);
    let mut client = Client::connect(&agent.socket);
    let replies: Vec<_> = (0..30).map(|_| client.exchange("POST", "/sign", "{}").unwrap()).collect();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert!(refused.len() >= 15, "{}", refused.len());
    assert_eq!(refused[0].header("Retry-After"), Some("1"));
    assert_eq!(refused[0].problem(429), "rate_limited");
    assert_eq!(agent.ask("GET", "/healthz", "").status, 200, "whether it lives may always be asked");
}
