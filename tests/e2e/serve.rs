//! The agent seen by its clients: curl, `sign --socket`, `health`, and attackers.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::Value;

use crate::agent::{Agent, Client, PayloadVerifier};
use crate::deadline::{Finish as _, until};
use crate::fixture::{BINARY, Fixture, Run, needs_root, own_user, tool};

/// Runs curl on the agent's socket.
fn curl(agent: &Agent, arguments: &[&str]) -> String {
    tool(Command::new("curl").args(["-sS", "--max-time", "60", "--unix-socket", &agent.socket]).args(arguments))
}

#[test]
fn curl_gets_a_payload_that_verifies() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--slot", "0"]);
    let request = curl(&agent, &["http://localhost/sign", "-d", "{}"]);
    let said = fixture.run_with_input(&["verify", "--roots", "ca.pem"], &request).ok();
    assert!(said.starts_with("valid: v2"), "{said}");
    let labelled = curl(&agent, &["http://localhost/sign", "-d", r#"{"payload_version":"v2","job":"etl/nightly"}"#]);
    assert_ne!(request, labelled);
    agent.logged(|log| log.contains("job etl/nightly"));
    let (status, _) = agent.end("-TERM");
    assert_eq!(status.code(), Some(0));
    assert!(!fixture.path().join("agent.sock").exists());
}

#[test]
fn no_part_of_a_request_reaches_the_token() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let agent = Agent::ready(&fixture, &[]);
    for body in [
        r#"{"message":"AAAA"}"#,
        r#"{"payload_version":"v2","encodedData":"AAAA"}"#,
        r#"{"payload_version":"v3"}"#,
        r#"{"payload_version":null}"#,
        r#"{"payload_version":["v2"]}"#,
        r#"{"payload_version":"v2","payload_version":"v2"}"#,
        r#"{"job":"a b"}"#,
        r#"{"job":""}"#,
        r#"{"slot":1}"#,
        r#"{} {}"#,
        "[]",
        "null",
        "\"v2\"",
        "{",
        "",
        "\u{0}",
    ] {
        assert_eq!(agent.ask("POST", "/sign", body).problem(400), "bad_request", "{body}");
    }
    assert_eq!(agent.ask("POST", "/sign", &"x".repeat(5000)).problem(413), "too_large");
    assert_eq!(agent.ask("POST", "/sign", r#"{"payload_version":"v1"}"#).problem(422), "policy");
    assert_eq!(fixture.calls("C_Sign") + fixture.calls("C_SignInit"), 0);
}

#[test]
fn every_route_takes_its_own_methods() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    for path in ["/certificate", "/custody", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(agent.ask("GET", path, "").status, 200, "{path}");
        let head = agent.ask("HEAD", path, "");
        assert!(head.status == 200 && head.header("Content-Length").is_some_and(|length| length != "0"), "{head:?}");
        let refused = agent.ask("DELETE", path, "");
        assert_eq!(refused.header("Allow"), Some("GET, HEAD"));
        assert_eq!(refused.problem(405), "method_not_allowed");
    }
    for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
        let refused = agent.ask(method, "/sign", "");
        assert_eq!((refused.status, refused.header("Allow")), (405, Some("POST")));
    }
    assert_eq!(agent.ask("GET", "/", "").problem(404), "not_found");
    assert_eq!(agent.ask("GET", "/certificate", "").body, fixture.read("cert.pem"));
}

#[test]
fn one_connection_carries_many_requests() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let mut client = Client::connect(&agent.socket);
    let first = client.exchange("POST", "/sign", "{}").unwrap();
    let verifier = PayloadVerifier::of(&fixture, &serde_json::from_str(&first.body).unwrap());
    for _ in 0..20 {
        verifier.accept(&serde_json::from_str(&client.exchange("POST", "/sign", "{}").unwrap().body).unwrap());
    }
    assert_eq!(agent.workers().len(), 1);
}

#[test]
fn sign_by_a_socket_prints_what_sign_prints() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let sign = |more: &[&str]| {
        let all: Vec<&str> = ["sign", "--socket", &agent.socket].into_iter().chain(more.iter().copied()).collect();
        // Without module and PIN.
        let mut command = fixture.command(&all);
        Run::from_output(command.env_remove("CBA_AGENT_MODULE").finish())
    };
    for format in ["json", "body", "header", "curl", "env"] {
        let (own, by_socket) = (fixture.sign(&["--format", format]).ok(), sign(&["--format", format]).ok());
        let shape = |text: &str| text.lines().map(|line| line.len()).collect::<Vec<_>>();
        assert_eq!(shape(&own), shape(&by_socket), "{format}");
    }
    let request = sign(&["--auth-url", "https://eu3.auth.anaplan.com", "--header-encoding", "pem"]).ok();
    assert!(request.contains("https://eu3.auth.anaplan.com/token/authenticate"), "{request}");
    assert!(fixture.run_with_input(&["verify"], &request).ok().contains("in the header as PEM"));
    let error = sign(&["--payload-version", "v1"]).failed(5);
    assert!(error.contains("policy"), "{error}");
}

#[test]
fn a_token_on_the_command_line_overrides_a_configured_agent() {
    let mut fixture = Fixture::new();
    fixture.set("CBA_AGENT_SOCKET", fixture.file("nobody.sock"));
    fixture.run(&["sign"]).failed(9);
    let source = fixture.pin_source();
    fixture.run(&["sign", "--slot", "0", "--pin-source", &source]).ok();
    for flags in [&["--slot", "0"][..], &["--module", "softhsm2"], &["--pin-source", "stdin"], &["--key-id", "01"]] {
        let error = fixture.run(&[&["sign", "--socket", "/x"][..], flags].concat()).failed(2);
        assert!(error.contains("--socket"), "{error}");
    }
}

#[test]
fn the_next_agent_is_asked_only_if_one_is_unavailable() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let away = fixture.file("away.sock");
    let both = ["sign", "--socket", &away, "--socket", &agent.socket];
    let run = fixture.run(&both);
    assert!(run.stderr.contains("warning: cannot reach the agent"), "{}", run.stderr);
    run.ok();
    let error = fixture.run(&["sign", "--socket", &away, "--timeout", "1s"]).failed(9);
    assert!(error.contains("cannot reach the agent"), "{error}");
    // The client asks no second agent after a refusal.
    let error =
        fixture.run(&["sign", "--socket", &agent.socket, "--socket", &away, "--payload-version", "v1"]).failed(5);
    assert!(!error.contains("cannot reach"), "{error}");
    // A process with another answer, or without an answer, is not an agent either.
    let _mute = UnixListener::bind(fixture.file("mute.sock")).unwrap();
    let error = fixture.run(&["sign", "--socket", &fixture.file("mute.sock"), "--timeout", "300ms"]).failed(9);
    assert!(error.contains("did not answer in time"), "{error}");
}

#[test]
fn health_tells_ready_from_alive() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    fixture.set("FAULTY_GONE", fixture.file("gone"));
    let mut agent = Agent::ready(&fixture, &[]);
    let health = |more: &[&str]| fixture.run(&[&["health", "--socket", &agent.socket][..], more].concat());
    assert_eq!(health(&[]).ok(), "ready\n");
    fixture.write("gone", "");
    fixture.run(&["sign", "--socket", &agent.socket, "--timeout", "30s"]).failed(6);
    assert!(health(&[]).failed(6).contains("token_unavailable"));
    assert_eq!(health(&["--live"]).ok(), "alive\n");
    fs::remove_file(fixture.file("gone")).unwrap();
    agent.wait_for_state("STATUS=ready");
    assert_eq!(fixture.run(&["health", "--socket", &agent.socket]).ok(), "ready\n");
    agent.end("-INT");
    fixture.run(&["health", "--live", "--socket", &fixture.file("agent.sock")]).failed(9);
    assert!(fixture.run(&["health"]).failed(2).contains("error: no socket is named\n"));
}

#[test]
fn the_socket_is_for_owner_and_group_alone_and_nothing_else_is_left() {
    needs_root("it acts as other users of the host");
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--socket-group", "4242", "--socket", &fixture.file("run/agent.sock")]);
    let made = fs::symlink_metadata(fixture.file("run/agent.sock")).unwrap();
    assert_eq!((made.mode() & 0o777, made.gid()), (0o660, 4242));
    let mut names: Vec<_> =
        fs::read_dir(fixture.file("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["agent.sock", "agent.sock.lock"]);
    agent.end("-TERM");
}

#[test]
fn a_socket_is_replaced_only_if_its_agent_has_ended() {
    let fixture = Fixture::new();
    let serve = |fixture: &Fixture| {
        let arguments = Agent::arguments(fixture, &[]);
        Run::from_output(fixture.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).finish())
    };
    // A user's file, a link, and a process that answers.
    let socket = fixture.write("agent.sock", "precious");
    let error = serve(&fixture).failed(2);
    assert!(
        error.contains("is not a socket") && error.contains("hint: move it away, or choose another path"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink("elsewhere", &socket).unwrap();
    serve(&fixture).failed(2);
    fs::remove_file(&socket).unwrap();
    let other = UnixListener::bind(&socket).unwrap();
    assert!(serve(&fixture).failed(1).contains("another agent serves"));
    // Nothing answers any more.
    drop(other);
    assert!(fs::symlink_metadata(&socket).is_ok());
    let agent = Agent::ready(&fixture, &[]);
    assert!(serve(&fixture).failed(1).contains("another agent serves"));
    agent.payload();
    // A killed agent leaves its socket behind, and the next agent replaces it.
    let (status, _) = agent.end("-KILL");
    assert!(!status.success());
    Agent::ready(&fixture, &[]).payload();
}

#[test]
fn a_module_that_others_can_change_is_refused() {
    let mut fixture = Fixture::new();
    let module = fixture.file("module.so");
    fs::copy(crate::fixture::softhsm_module(), &module).unwrap();
    fs::set_permissions(&module, fs::Permissions::from_mode(0o666)).unwrap();
    fixture.use_module(Some(&module));
    let arguments = Agent::arguments(&fixture, &[]);
    let error = fixture.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).failed(5);
    assert!(error.contains("other users can change"), "{error}");
    fixture.sign(&[]).ok();
}

#[test]
fn a_permanent_error_ends_the_agent_at_once_with_its_code() {
    let fixture = Fixture::new();
    let serve = |more: &[&str]| fixture.run(&[&["serve"][..], more].concat());
    serve(&["--pin-source", "file:/nonexistent", "--socket", &fixture.file("s")]).failed(4);
    let source = fixture.pin_source();
    serve(&["--pin-source", &source, "--module", "/nonexistent.so", "--socket", &fixture.file("s")]).failed(3);
    serve(&["--pin-source", &source]).failed(2);
    serve(&["--pin-source", &source, "--socket", "relative.sock"]).failed(2);
    let long = format!("/tmp/{}", "x".repeat(110));
    assert!(serve(&["--pin-source", &source, "--socket", &long]).failed(2).contains("107"));
    serve(&["--pin-source", &source, "--socket", "/nonexistent/deep/s"]).failed(2);
}

#[test]
fn the_parent_and_its_worker_expose_no_secret() {
    needs_root("it reads the memory and descriptors of processes that hide them");
    let mut fixture = Fixture::new();
    fixture.set("LISTEN_FDNAMES", "x");
    let agent = Agent::ready(&fixture, &[]);
    let worker = agent.workers()[0];
    for process in [agent.id(), worker] {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let privileges = status.lines().find_map(|line| line.strip_prefix("NoNewPrivs:")).unwrap();
        assert_eq!(privileges.trim(), "1");
        crate::process::leaves_no_core(process);
    }
    // Its socket, /dev/null, and the pipes to the parent. All others belong to the module.
    let mut kinds: Vec<String> = fs::read_dir(format!("/proc/{worker}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .filter(|target| !target.contains("/tokens/"))
        .map(|target| target.split(':').next().unwrap().to_owned())
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["/dev/null", "pipe", "pipe", "socket"]);
    let environment = fs::read(format!("/proc/{worker}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.contains("SOFTHSM2_CONF") && !environment.contains("NOTIFY_SOCKET"), "{environment}");
    assert!(!environment.contains("LISTEN_"), "{environment}");
}

#[test]
fn an_agent_that_is_killed_takes_its_workers_with_it() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--workers", "3"]);
    until(|| agent.workers().len() >= 3);
    let workers = agent.workers();
    agent.end("-KILL");
    for worker in workers {
        assert!(crate::process::is_gone(worker));
    }
}

#[test]
fn a_request_by_hand_gets_a_readable_error() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let problem: Value = serde_json::from_str(&curl(&agent, &["http://localhost/sign", "-d", "{\"x\":1}"])).unwrap();
    assert_eq!(problem["title"], "the request is malformed");
    assert!(problem["detail"].as_str().unwrap().contains("payload_version"));
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "--unix-socket",
        &agent.socket,
        "http://localhost/sign",
        "-H",
        "Expect: 100-continue",
        "-d",
        "{}",
    ]);
    let output = command.finish();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("{\"method\""));
}

#[test]
fn an_idle_agent_is_small_and_sleeps() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    agent.payload();
    let status = |process: u32, task: &str, name: &str| -> u64 {
        let status = fs::read_to_string(format!("/proc/{process}/task/{task}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let worker = agent.workers()[0];
    // Without the pages of the program file: a test build has larger ones.
    let memory: u64 =
        [agent.id(), worker].into_iter().map(|process| status(process, &process.to_string(), "RssAnon:")).sum();
    assert!(memory < 25 * 1024, "{memory} KiB");
    let wakes = || -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.id())).unwrap();
        let names = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
        names.map(|task| status(agent.id(), &task, "voluntary_ctxt_switches:")).sum()
    };
    // The last connection is closed first. Then nothing happens, and there is no event to wait for.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let before = wakes();
    std::thread::sleep(std::time::Duration::from_secs(3));
    // The kernel may wake a thread for other reasons. An agent that polls wakes many times a second.
    let woken = wakes() - before;
    assert!(woken < 10, "woken {woken} times in three seconds");
}

#[test]
fn a_refused_v1_says_so_to_the_client_and_names_the_user_in_the_log() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &[]);
    let reply = agent.ask("POST", "/sign", r#"{"payload_version":"v1","job":"etl/nightly"}"#);
    assert_eq!(reply.problem(422), "policy");
    assert!(reply.body.contains(r#""detail":"payload version v1 is not allowed""#), "{reply:?}");
    let refused = format!("refused: payload v1 for user {} group ", own_user());
    agent.logged(|log| log.lines().any(|line| line.contains(&refused) && line.contains("job etl/nightly): ")));
    let error = fixture.run(&["sign", "--payload-version", "v1", "--socket", &agent.socket]).failed(5);
    assert!(error.contains("payload version v1 is not allowed") && error.contains("--payload-version v2"), "{error}");
    agent.end("-TERM");
    // An error that only the agent's administrator can correct has no detail.
    let agent = Agent::begun(&fixture, &["--policy-min-rsa-bits", "4096"]);
    let reply = agent.ask("POST", "/sign", "{}");
    assert!(reply.problem(422) == "policy" && !reply.body.contains("detail"), "{reply:?}");
}

#[test]
fn an_agent_whose_policy_refuses_is_not_ready() {
    let fixture = Fixture::new();
    let mut agent = Agent::begun(&fixture, &["--policy-min-rsa-bits", "4096"]);
    assert!(agent.wait_for_state("STATUS=not ready").contains("2048 bits"));
    assert_eq!(agent.ask("GET", "/readyz", "").problem(503), "policy");
    assert_eq!(agent.ask("POST", "/sign", "{}").problem(422), "policy");
    assert!(agent.ask("GET", "/metrics", "").body.contains("cba_agent_ready 0"));
}

#[test]
fn a_token_that_waits_for_a_touch_is_ready() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign#2=delay:12000");
    let agent = Agent::ready(&fixture, &[]);
    agent.payload();
    std::thread::scope(|scope| {
        let touched = scope.spawn(|| agent.payload());
        fixture.await_calls("C_Sign", 2);
        // The first payload proves readiness for five seconds, and a probe waits as long.
        std::thread::sleep(std::time::Duration::from_secs(5));
        assert_eq!(agent.ask("GET", "/readyz", "").status, 200);
        touched.join().unwrap();
    });
}

#[test]
fn without_a_pin_and_a_person_the_agent_ends_with_exit_4() {
    let fixture = Fixture::new();
    let mut command = fixture.program("setsid");
    command.args(["--wait", BINARY, "serve", "--socket", &fixture.file("s")]);
    let error = Run::from_output(command.finish()).failed(4);
    assert!(error.contains("--pin-source takes"), "{error}");
}
