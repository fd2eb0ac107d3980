//! `check` finds what `serve` would refuse, and names keys without effect.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, basic};
use crate::token::{GATEWAY_USER, is_root};

/// Each configuration is valid TOML with known keys.
#[test]
fn check_fails_where_serve_would_fail() {
    assert!(is_root(), "this test must run as root, whose files the gateway may not change");
    let mut fixture = Fixture::new();
    let tls = crate::fixture::tls_files();
    fixture.copy(tls.join("leaf.pem"), "leaf.pem");
    fixture.copy(tls.join("leaf.key"), "leaf.key");
    fixture.write("run/file", "");
    let keys = "certificate = \"DIR/leaf.pem\"\nkey = \"DIR/leaf.key\"";
    let tls = |listen: &str| format!("[tls]\nlisten = [{listen}]\n{keys}\n");
    let long = "x".repeat(100);
    for (top_keys, tables, cause) in [
        ("state_dir = \"/nowhere\"", String::new(), "cannot keep the spent payloads in /nowhere/spent"),
        ("state_dir = \"DIR\"", String::new(), "Permission denied"),
        ("listen = [\"127.0.0.1:8731\", \"127.0.0.1:8731\"]", String::new(), "127.0.0.1:8731 is twice in listen"),
        ("listen = [\"127.0.0.1:8731\"]", tls("\"127.0.0.1:8731\""), "127.0.0.1:8731 is twice in listen"),
        ("listen = [\"127.0.0.1:8731\"]", tls("\"0.0.0.0:8731\""), "127.0.0.1:8731 and 0.0.0.0:8731 in listen"),
        ("", tls("\"192.0.2.1:8743\""), "cannot listen on 192.0.2.1:8743"),
        ("", tls("\"[::ffff:127.0.0.1]:8743\""), "cannot listen on [::ffff:127.0.0.1]:8743"),
        (
            "",
            "[admin]\nsocket = \"/nowhere/admin.sock\"\n".into(),
            "cannot create the admin socket /nowhere/admin.sock",
        ),
        ("", "[admin]\nsocket = \"DIR/run/file\"\n".into(), "another kind of file has this path"),
        ("", "[admin]\nsocket = \"DIR/run/a\"\ngroup = \"0\"\n".into(), "Operation not permitted"),
        ("", format!("[admin]\nsocket = \"/{long}/admin.sock\"\n"), "cannot create the admin socket"),
    ] {
        fixture.top_keys = format!("{}\n", top_keys.replace("DIR", &fixture.path().display().to_string()));
        fixture.toml_tables = tables;
        let config = fixture.configure();
        let served = fixture.run(&["serve", "--config", &config]);
        assert!(served.code == 2 && served.stderr.contains(cause), "{cause}: {served:?}");
        let checked = fixture.run(&["check", "--config", &config]);
        assert!(checked.code == 8 && checked.stdout.contains(cause), "{cause}: {checked:?}");
        assert!(checked.stdout.contains("FAIL") && checked.stdout.contains("hint: "), "{cause}: {checked:?}");
    }
}

#[test]
fn check_and_the_metrics_show_keys_without_effect() {
    let mut fixture = Fixture::new();
    fixture.write("proxy-credentials", "user:password\n");
    fixture.clients.clear();
    fixture.add_client("finance", "transition = true\npayload_versions = [\"v1\"]");
    fixture.add_client("planning", "users = []");
    fixture.toml_tables = format!(
        "[upstream]\nauth_url = \"http://localhost:{}\"\nca_file = \"DIR/ca.pem\"\nproxy_credentials_file = \
         \"DIR/proxy-credentials\"\n[admin]\ngroup = \"{GATEWAY_USER}\"\nmetrics_file = \"DIR/nowhere/x.prom\"\n",
        fixture.service.port
    );
    let checked = fixture.run(&["check", "--config", &fixture.configure()]);
    assert_eq!(checked.code, 0, "{checked:?}");
    for wanted in [
        "warn  client finance: transition has no effect without certificates",
        "warn  client finance: payload_versions has no effect without certificates",
        "warn  client finance: from has no effect without a [tls] listener",
        "warn  client planning: it is not served, since it has no users and there is no [tls] listener",
        "warn  upstream.ca_file has no effect",
        "warn  upstream.proxy_credentials_file has no effect",
        "warn  admin.group has no effect without admin.socket",
        "warn  cannot write the metrics into",
    ] {
        assert!(checked.stdout.contains(wanted), "{wanted}: {checked:?}");
    }
    fixture.toml_tables.clear();
    let gateway = fixture.serve();
    gateway.wait_for_log("client finance: transition has no effect without certificates");
    assert!(gateway.admin("/metrics").contains("cba_gateway_client_in_transition{client=\"finance\"} 0"));
    assert_eq!(gateway.login(&basic("finance"), "").status, 201);
}

/// Root may read each file. The user of the units may not.
#[test]
fn check_by_root_continues_as_the_gateways_user() {
    assert!(is_root(), "this test must run as root");
    let mut fixture = Fixture::new();
    let tls = crate::fixture::tls_files();
    fixture.copy(tls.join("leaf.pem"), "leaf.pem");
    let key = fixture.write("leaf.key", fs::read(tls.join("leaf.key")).unwrap());
    fixture.toml_tables =
        "[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"DIR/leaf.pem\"\nkey = \"DIR/leaf.key\"\n".into();
    let config = fixture.configure();
    let users = format!("root:x:0:0::/root:/bin/sh\ncba-gateway:x:{GATEWAY_USER}:{GATEWAY_USER}::/:/bin/sh\n");
    let users = fixture.write("passwd", users);
    let check = |prefix: &[&str]| {
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).args(["check", "--config", &config]).env_clear();
        let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").finish();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mount = "mount --bind \"$1\" /etc/passwd && shift && exec \"$@\"";
    let with_user = ["unshare", "--mount", "sh", "-c", mount, "sh", &users, BINARY];
    let (code, findings) = check(&with_user);
    assert!(code == Some(0) && findings.contains("ok    checked as the user cba-gateway of the package"), "{findings}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let (code, findings) = check(&with_user);
    assert!(code == Some(8) && findings.contains(&format!("FAIL  cannot read {key}: Permission denied")), "{findings}");
    // Without this user, and in a container that does not let root change its user.
    let without_rights = [&with_user[..7], &["setpriv", "--bounding-set", "-setuid,-setgid", BINARY]].concat();
    for command in [&[BINARY][..], &without_rights] {
        let (code, findings) = check(command);
        assert!(code == Some(0) && findings.contains("warn  checked as root"), "{findings}");
    }
}
