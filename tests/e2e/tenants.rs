//! Several agents on one host: a separate user for each, files from an earlier version, and the rest after a purge.

use std::fs;
use std::process::Command;

use crate::deadline::Finish as _;
use crate::deploy::{DEPLOY, unit, units};
use crate::fixture::{Fixture, needs_root, tool};

#[test]
fn each_tenant_has_a_separate_user_and_separate_directories() {
    for name in units().into_iter().filter(|name| name.contains('@') && name.ends_with(".service")) {
        let text = unit(&name);
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().to_owned();
        if name == "cba-agent-tenant@.service" {
            assert_eq!(
                (value("User="), value("ExecStart=")),
                (String::new(), "/usr/lib/cba-agent/prepare-tenant %i".into())
            );
            continue;
        }
        for key in ["User=", "Group=", "StateDirectory=", "LogsDirectory="] {
            assert_eq!(value(key), "cba-agent-%i", "{name}: {key}");
        }
        assert!(value("After=").contains("cba-agent-tenant@%i.service"), "{name}");
        assert_eq!(value("Requires="), "cba-agent-tenant@%i.service", "{name}");
        assert!(text.contains("Environment=CBA_AGENT_AUDIT_PATH=%L/cba-agent-%i/audit.jsonl\n"), "{name}");
    }
    let agent = unit("cba-agent@.service");
    for line in [
        "RuntimeDirectory=cba-agent-%i",
        "SupplementaryGroups=cba-fuse",
        "LoadCredential=cba-agent-pin:/etc/cba-agent/%i.pin",
    ] {
        assert!(agent.lines().any(|own| own == line), "{line}");
    }
}

#[test]
fn a_hint_names_the_unit_of_exactly_the_tenants_that_can_exist() {
    let fixture = Fixture::empty();
    // The script creates nothing here.
    fs::create_dir(fixture.path().join("programs")).unwrap();
    for program in ["systemd-sysusers", "install"] {
        std::os::unix::fs::symlink("/bin/true", fixture.path().join("programs").join(program)).unwrap();
    }
    let long = "a".repeat(22);
    for name in [
        "a",
        "a-b",
        "a_b",
        "-a",
        "B1",
        &long[1..],
        &long,
        "a.b",
        "a b",
        "a@b",
        "a:b",
        "a\\x2db",
        "é",
        "config",
        "policy",
        "pin",
        "*",
    ] {
        let mut script = Command::new("/bin/sh");
        script.arg(format!("{DEPLOY}/systemd/prepare-tenant")).arg(name);
        let script = script.env("PATH", fixture.path().join("programs")).env("LC_ALL", "en_US.UTF-8").finish();
        let exists = script.status.success();
        let socket = format!("/run/cba-agent-{name}/agent.sock");
        let said = fixture.run(&["sign", "--socket", &socket]).failed(9);
        assert_eq!(said.contains(&format!("`systemctl status cba-agent@{name}`")), exists, "{name}: {said}");
        assert_eq!(exists, !said.contains("`systemctl status cba-agent`"), "{name}: {said}");
    }
}

/// A script on a simulated host: `/etc` is a copy, and `/run`, `/var/lib` and `/var/log` are empty. `$deploy` is this
/// project's directory of that name.
#[track_caller]
fn on_a_host_of_its_own(script: &str) -> String {
    let fixture = Fixture::empty();
    let script = format!(
        "set -eu; cp -a /etc etc; mount --bind etc /etc; for place in /run /var/lib /var/log; do mount -t tmpfs tmpfs \"$place\"; done\n\
         deploy={DEPLOY}\n{script}"
    );
    tool(Command::new("unshare").args(["--mount", "sh", "-c", &script]).current_dir(fixture.path()))
}

#[test]
fn a_tenant_gets_its_user_and_the_files_of_an_older_version() {
    needs_root("it makes users");
    let said = on_a_host_of_its_own(
        r#"
        sh "$deploy/package/deb/postinst" configure
        install -d -o cba-agent /var/log/cba-agent/a
        echo record > /var/log/cba-agent/a/audit.jsonl
        echo head > /var/log/cba-agent/a/.audit.jsonl.lock
        echo refused > /var/lib/cba-agent/token.json
        chown cba-agent /var/lib/cba-agent/token.json
        chmod 600 /var/lib/cba-agent/token.json
        # What the user cba-agent could put there for root to read or to move.
        ln -s /etc/shadow /var/lib/cba-agent/link.json
        ln -s /etc /var/log/cba-agent/evil
        for name in a evil a; do sh "$deploy/systemd/prepare-tenant" "$name"; done
        for name in '' .. a/b 'a b' aaaaaaaaaaaaaaaaaaaaaa config; do
            ! sh "$deploy/systemd/prepare-tenant" "$name" 2>&1 || exit 1
        done
        getent passwd cba-agent-a | cut -d: -f1,5-
        cat /var/log/cba-agent-a/audit.jsonl /var/log/cba-agent-a/.audit.jsonl.lock
        ls /var/log
        stat -c '%n %a %U %G' /var/lib/cba-fuse /var/lib/cba-fuse/*
        "#,
    );
    let (refused, rest) = said.split_at(said.find("cba-agent-a:").unwrap());
    assert_eq!(
        refused.lines().filter(|line| line.starts_with("prepare-tenant: the name of a tenant has ")).count(),
        5,
        "{said}"
    );
    assert_eq!(
        rest,
        "cba-agent-a:Anaplan login agent of a:/var/lib/cba-agent-a:/usr/sbin/nologin\nrecord\nhead\ncba-agent\ncba-agent-a\n\
         /var/lib/cba-fuse 2770 root cba-fuse\n/var/lib/cba-fuse/token.json 660 cba-agent cba-fuse\n"
    );
}

#[test]
fn purge_leaves_no_pin_and_keeps_audit_logs_with_their_users() {
    needs_root("it makes users");
    let said = on_a_host_of_its_own(
        r#"
        sh "$deploy/package/deb/postinst" configure
        for name in a b; do
            sh "$deploy/systemd/prepare-tenant" "$name"
            install -m 600 /dev/null "/etc/cba-agent/$name.pin"
            install -d -o "cba-agent-$name" "/var/lib/cba-agent-$name" "/var/log/cba-agent-$name"
        done
        install -m 600 /dev/null /etc/cba-agent/pin
        echo record > /var/log/cba-agent-a/audit.jsonl
        # Somebody else's user, whose name only begins so.
        useradd --system --comment "another program" cba-agent-other
        install -d /var/lib/cba-agent-other
        sh "$deploy/package/deb/postrm" purge 2> /dev/null
        ls -d /etc/cba-agent /var/lib/cba* /var/log/cba* 2> /dev/null || :
        getent passwd | cut -d: -f1 | grep cba- | sort
        getent group | cut -d: -f1 | grep cba- | sort
        "#,
    );
    assert_eq!(
        said,
        "/var/lib/cba-agent-other\n/var/log/cba-agent-a\ncba-agent-a\ncba-agent-other\ncba-agent-a\ncba-agent-other\n"
    );
}

#[test]
fn a_tenant_rotates_its_own_log_and_the_check_continues() {
    let fixture = Fixture::new();
    let path = fixture.file("audit.jsonl");
    fixture.sign(&["--audit-path", &path]).ok();
    let mut script = fs::read_to_string(format!("{DEPLOY}/systemd/rotate-audit-log")).unwrap();
    // As it would do after a month.
    script = script.replace("exec logrotate", "exec logrotate --force");
    let script = fixture.write("rotate", script);
    fixture.tool(
        "env",
        &[
            // As systemd sets it: an ordinary user's path may lack the directory of logrotate.
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            &format!("CBA_AGENT_AUDIT_PATH={path}"),
            &format!("STATE_DIRECTORY={}", fixture.path().display()),
            "sh",
            &script,
        ],
    );
    assert!(!fs::exists(&path).unwrap() && fs::exists(format!("{path}.1")).unwrap());
    for count in ["1 to 1", "1 to 2"] {
        let verified = fixture
            .run(&["audit", "verify", "--config", &fixture.write("c.toml", format!("[audit]\npath = \"{path}\"\n"))])
            .ok();
        assert!(verified.contains(count), "{verified}");
        fixture.sign(&["--audit-path", &path]).ok();
    }
    let none = fixture.run(&["audit", "verify"]).failed(2);
    assert!(none.contains("none is configured"), "{none}");
}
