//! Tests `doctor --socket`: what a job's user learns about an agent, without access to the module, the token or the PIN.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::access::open_to_all;
use crate::agent::Agent;
use crate::deadline::Finish as _;
use crate::fixture::{Fixture, Run, needs_root};

/// Returns the line of the report about one check.
#[track_caller]
fn line(run: &Run, check: &str) -> String {
    let name = format!(" {check} ");
    let line = run.stdout.lines().find(|line| line.contains(&name));
    line.unwrap_or_else(|| panic!("no line about {check}: {run:?}")).to_owned()
}

/// Starts an agent, and returns it with its fixture, whose other commands have no module. The members of the group 4242 may ask for payloads. The members of the
/// group 4343 may read the state.
fn agent(options: &[&str]) -> (Fixture, Agent) {
    let mut fixture = Fixture::new();
    let agent =
        Agent::begun(&fixture, &[&["--socket-group", "4242", "--monitor-groups", "4343"][..], options].concat());
    fixture.use_module(None);
    open_to_all(fixture.path());
    (fixture, agent)
}

#[test]
fn a_jobs_user_sees_the_agents_state_and_nothing_about_tokens() {
    needs_root("it acts as other users of the host");
    let (fixture, mut agent) = agent(&[]);
    agent.wait_for_state("STATUS=ready");
    let run = fixture.run_as("1234", "4242", &["doctor", "--socket", &agent.socket, "--sign"]);
    for (check, found) in [
        ("user", "without a name (1234), groups 1234, 4242"),
        ("agent", "answers at "),
        ("may ask", "this user may ask for payloads"),
        ("ready", "a worker is logged in"),
        ("identity", "CN=integration cba"),
        ("certificate", "until "),
        ("trial payload", "signed, verified, and discarded"),
        ("clock", "Z"),
    ] {
        assert!(line(&run, check).contains(found), "{check}: {run:?}");
    }
    for absent in ["module", "PIN", "pcscd", "state directory", "slots"] {
        assert!(!run.stdout.contains(absent), "{absent}: {run:?}");
    }
    run.ok();
    // The same without `--socket`, where the environment names the socket. The agent's own user may not ask.
    let mut bare = fixture.command(&["doctor"]);
    bare.env("CBA_AGENT_SOCKET", &agent.socket);
    let run = Run::from_output(bare.finish());
    assert!(line(&run, "may ask").starts_with("failed"), "the agent's own user: {run:?}");
    let error = fixture.run(&["doctor", "--socket", &agent.socket, "--slot", "0"]).failed(2);
    assert!(error.contains("--slot cannot be combined with it"), "{error}");
}

#[test]
fn each_obstacle_for_a_job_is_named_with_its_remedy() {
    needs_root("it acts as other users of the host");
    let (fixture, mut agent) = agent(&[]);
    agent.wait_for_state("STATUS=ready");
    let doctor = |user: &str, groups: &str| {
        let run = fixture.run_as(user, groups, &["doctor", "--socket", &agent.socket]);
        assert_eq!(run.code, 8, "{run:?}");
        run
    };
    let run = doctor("1234", "4141");
    assert!(line(&run, "agent").contains("only the group 4242 may connect, and this process is not in it"), "{run:?}");
    assert!(run.stdout.contains("put it into the group 4242"), "{run:?}");
    let run = doctor("1234", "4242,4343");
    assert!(line(&run, "may ask").contains("may read the state, but not ask"), "{run:?}");
    assert!(line(&run, "ready").starts_with("ok"), "{run:?}");
    fs::set_permissions(&agent.socket, fs::Permissions::from_mode(0o666)).unwrap();
    let run = doctor("1234", "4141");
    assert!(line(&run, "may ask").contains("the agent refuses this user"), "{run:?}");
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let run = doctor("1234", "4242");
    assert!(line(&run, "agent").contains(&format!("may not pass through {}", fixture.path().display())), "{run:?}");
    let missing = fixture.run(&["doctor", "--socket", &fixture.file("none.sock")]);
    assert!(line(&missing, "agent").contains("No such file"), "{missing:?}");
    assert!(missing.stdout.contains("systemctl status"), "{missing:?}");
}

#[test]
fn a_job_sees_that_an_agent_is_not_ready_or_its_certificate_expires() {
    needs_root("it acts as other users of the host");
    let (fixture, mut agent) = agent(&["--token-label", "another"]);
    agent.wait_for_state("STATUS=not ready: the token with label 'another' was not found");
    let run = fixture.run_as("1234", "4242", &["doctor", "--socket", &agent.socket]);
    assert!(line(&run, "ready").starts_with("failed") && line(&run, "may ask").starts_with("ok"), "{run:?}");
    // Waiting alone brings no token.
    let remedy = "fix: `systemctl status cba-agent` shows the agent's reason; plug the token in, or correct the agent's configuration";
    assert!(run.stdout.contains(remedy) && !run.stdout.contains("try again"), "{run:?}");
    assert_eq!(run.code, 8, "{run:?}");
    for command in ["sign", "health"] {
        let error = fixture.run_as("1234", "4242", &[command, "--socket", &agent.socket]).failed(6);
        assert!(error.contains(remedy.trim_start_matches("fix: ")), "{command}: {error}");
    }
    drop(agent);
    let fixture = Fixture::with(&["--days", "9"]);
    let agent = Agent::ready(&fixture, &["--socket-group", "4242"]);
    open_to_all(fixture.path());
    let run = fixture.run_as("1234", "4242", &["doctor", "--socket", &agent.socket]);
    // The report rounds down: it says 9 days only in the second in which the certificate was issued.
    let ends = ["it ends in 8 days", "it ends in 9 days"].iter().any(|words| run.stdout.contains(words));
    assert!(ends && run.stdout.contains("tell the administrators of the agent"), "{run:?}");
    run.ok();
}
