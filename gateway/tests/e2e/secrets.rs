//! Secrets are not in the log, the metrics or a memory dump.

use std::fs;
use std::process::Command;

use crate::fixture::{Fixture, PASSWORD, basic, message};

#[test]
fn no_marker_is_in_log_metrics_or_clients() {
    let fixture = Fixture::new();
    let mut command = {
        let config = fixture.configure();
        fixture.command(&["serve", "-vv", "--config", &config])
    };
    command.env("RUST_BACKTRACE", "1");
    let gateway = fixture.start(command);
    let token = gateway.login(&basic("finance"), "").token();
    gateway.with_token("POST /token/validate", &token);
    let (header, body) = fixture.certificate_login("tool", "v2", &message(0));
    gateway.login(&header, &body);
    gateway.login(&header, &body);
    // A tool that encodes its body too often.
    let twice = (0..2).fold(body.clone(), |text, _| serde_json::to_string(&text).unwrap());
    assert_eq!(gateway.login(&header, &twice).status, 401);
    gateway.wait_for_log("not a payload in JSON");
    gateway.login("Basic somebody:MARKER-REAL-PASSWORD", "");
    gateway.wait_for_log("v2 in, v2 out, 201");
    let everything = [gateway.log(), gateway.admin("/metrics"), gateway.admin("/clients")].join("\n");
    let payload: serde_json::Value = serde_json::from_str(&fixture.service.arrived()[0].body).unwrap();
    let local: serde_json::Value = serde_json::from_str(&body).unwrap();
    let mut secrets = vec![token, PASSWORD.to_owned(), "MARKER".to_owned()];
    for payload in [payload, local] {
        for member in ["encodedData", "encodedSignedData"] {
            secrets.push(payload[member].as_str().unwrap()[..40].to_owned());
        }
    }
    for secret in secrets {
        assert!(!everything.contains(&secret), "{secret} in {everything}");
    }
}

#[test]
fn the_process_is_undumpable_and_leaves_no_core() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // The files of an undumpable process belong to root.
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{}/mem", gateway.id())).unwrap());
    assert_eq!(owner, 0);
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn a_gateway_that_crashes_after_logins_leaves_no_core() {
    use std::os::unix::process::ExitStatusExt as _;
    let fixture = Fixture::new();
    let mut command = {
        let config = fixture.configure();
        fixture.command(&["serve", "--config", &config])
    };
    // The kernel would write a core into this directory.
    command.current_dir(fixture.path().join("run"));
    let mut gateway = fixture.start(command);
    let token = gateway.login(&basic("finance"), "").token();
    gateway.with_token("POST /token/validate", &token);
    // The gateway's own user cannot read its memory, which contains copies of a token.
    if crate::token::is_root() {
        let user = crate::token::GATEWAY_USER.to_string();
        let memory = format!("/proc/{}/mem", gateway.id());
        let mut command = Command::new("setpriv");
        let output = command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "cat", &memory]).output();
        let errors = String::from_utf8(output.unwrap().stderr).unwrap();
        assert!(errors.contains("Permission denied"), "{errors}");
    }
    gateway.signal(rustix::process::Signal::ABORT);
    let status = gateway.wait();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false), "{status:?}");
    let left: Vec<_> =
        fs::read_dir(fixture.path().join("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("core")), "{left:?}");
}

#[test]
fn the_agents_own_tree_has_no_tls_and_no_http_client() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "tree",
        "--locked",
        "--offline",
        "-p",
        "cba-agent",
        "-e",
        "normal,features",
        "--manifest-path",
        manifest,
    ]);
    let tree = crate::token::run(&mut command);
    for banned in [
        "rustls v",
        "tokio-rustls",
        "rustls-native-certs",
        "native-tls",
        "openssl",
        "reqwest",
        "hyper feature \"client\"",
        "ipnet",
    ] {
        assert!(!tree.contains(banned), "cba-agent depends on {banned}");
    }
    assert!(tree.contains("hyper feature \"server\""));
}
