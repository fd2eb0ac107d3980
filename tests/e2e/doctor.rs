//! `doctor`: what it finds, what it says to do, and that it sends no PIN.

use serde_json::Value;

use crate::agent::Agent;
use crate::stand::{Run, Stand};

/// The line of a check in a report that found something failing.
#[track_caller]
fn failing(run: Run, check: &str) -> String {
    assert_eq!(run.code, 8, "{run:?}");
    let start = format!("failed   {check}");
    let mut lines = run.stdout.lines().skip_while(|line| !line.starts_with(&start));
    let line = lines.next().unwrap_or_else(|| panic!("{run:?}"));
    let remedy = lines.next().unwrap_or_default();
    assert!(remedy.trim_start().starts_with("mend: "), "{run:?}");
    format!("{line} {}", remedy.trim_start())
}

#[test]
fn a_host_that_is_ready_is_told_so_without_a_login() {
    let mut stand = Stand::new();
    stand.faulty("");
    let source = stand.pin_source();
    let mut command = stand.command(&["doctor", "--pin-source", &source, "--slot", "0"]);
    // What cargo sets for its tests is what is warned of.
    let report = Run::from_output(command.env_remove("LD_LIBRARY_PATH").output().unwrap()).ok();
    assert!(report.lines().all(|line| line.starts_with("ok ")), "{report}");
    assert_eq!(stand.calls("C_Login"), 0);
    let report = stand.run(&["doctor", "--pin-source", &source, "--sign", "--json"]).ok();
    let report: Value = serde_json::from_str(&report).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["check"] == "trial payload" && check["verdict"] == "ok"), "{report}");
    assert_eq!((stand.calls("C_Login"), stand.calls("C_Sign")), (1, 1));
}

#[test]
fn each_thing_that_fails_names_what_mends_it() {
    let mut stand = Stand::new();
    let source = stand.pin_source();
    let doctor = |stand: &Stand, more: &[&str]| stand.run(&[&["doctor", "--pin-source", &source][..], more].concat());
    let open = stand.write("open", "1");
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let run = stand.run(&["doctor", "--pin-source", &format!("file:{open}")]);
    assert!(failing(run, "PIN source").contains("chmod o-rwx"));
    assert!(failing(doctor(&stand, &["--module", "/nonexistent.so"]), "module").contains("check the path"));
    assert!(failing(doctor(&stand, &["--token-label", "x"]), "token").contains("there is --uri"));
    let gone = failing(doctor(&stand, &["--socket", "/nonexistent/s"]), "agent");
    assert!(gone.contains("systemctl status cba-agent"), "{gone}");
    stand.faulty("flags+40000");
    assert!(failing(doctor(&stand, &[]), "PIN state").contains("unblock"));
    stand.faulty("flags+20000");
    assert!(failing(doctor(&stand, &[]), "PIN state").contains("one try is left"));
}

#[test]
fn it_says_where_each_value_came_from_and_what_changes_what_is_loaded() {
    let mut stand = Stand::new();
    let config = stand.write("config.toml", "[token]\nslot = 0\n\n[policy]\nmin_rsa_bits = 2048\n");
    stand.set("LD_AUDIT", "");
    stand.set("OPENSSL_CONF", "/dev/null");
    let source = stand.pin_source();
    let report = stand.run(&["doctor", "--config", &config, "--pin-source", &source]).ok();
    for line in [
        format!("configuration    token.slot = 0 ({config} line 2)"),
        format!("configuration    policy.min_rsa_bits = 2048 ({config} line 5)"),
        "configuration    module = softhsm2 (CBA_AGENT_MODULE)".to_owned(),
        format!("configuration    pin.source = {source} (--pin-source)"),
    ] {
        assert!(report.contains(&line), "{line}: {report}");
    }
    let warned = report.lines().find(|line| line.starts_with("warning  environment")).unwrap();
    assert!(warned.contains("LD_AUDIT") && warned.contains("OPENSSL_CONF"), "{report}");
}

#[test]
fn an_audit_log_that_cannot_be_gone_on_with_is_named() {
    let stand = Stand::new();
    let (source, path) = (stand.pin_source(), stand.file("audit.jsonl"));
    let doctor = |path: &str| stand.run(&["doctor", "--pin-source", &source, "--audit-path", path]);
    assert!(doctor(&path).ok().contains("no records yet"));
    assert!(!stand.path().join("audit.jsonl").exists() && !stand.path().join(".audit.jsonl.lock").exists());
    stand.sign(&["--audit-path", &path]).ok();
    assert!(doctor(&path).ok().contains("audit.jsonl, 1 records"));
    let damaged = stand.write("damaged", "x\n");
    assert!(failing(doctor(&damaged), "audit log").contains("audit verify"));
    assert!(failing(doctor("/dev/null"), "audit log").contains("no plain file"));
    assert!(failing(doctor(&stand.file("missing/audit.jsonl")), "audit log").contains("chown"));
}

#[test]
fn whoever_is_allowed_and_cannot_come_to_the_socket_is_named() {
    let stand = Stand::new();
    let agent = Agent::ready(&stand, &["--socket-group", "games"]);
    let source = stand.pin_source();
    let doctor = |more: &[&str]| {
        let own = ["doctor", "--pin-source", &source, "--socket", &agent.socket];
        stand.run(&[&own[..], more].concat())
    };
    let line = failing(doctor(&["--socket-group", "games", "--allow-users", "daemon"]), "who may ask");
    assert!(line.contains("daemon is allowed") && line.contains("usermod -aG games daemon"), "{line}");
    let line = failing(doctor(&["--socket-group", "daemon", "--allow-users", "daemon"]), "who may ask");
    assert!(line.contains("may not"), "{line}");
    let line = failing(doctor(&["--allow-users", "nosuchuser"]), "who may ask");
    assert!(line.contains("there is no such user"), "{line}");
    doctor(&["--socket-group", "games", "--allow-users", "root"]).ok();
}
