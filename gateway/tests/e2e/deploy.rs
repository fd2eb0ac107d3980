//! Checks the files of `gateway/deploy` with systemd, Prometheus and the gateway.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::fixture::{BINARY, Fixture, basic};
use crate::token::run;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");

fn read(name: &str) -> String {
    fs::read_to_string(format!("{DEPLOY}/{name}")).unwrap()
}

#[test]
fn systemd_accepts_the_units_and_rates_them_as_safe() {
    let fixture = Fixture::new();
    let units = ["cba-gateway.socket", "cba-gateway.service", "cba-gateway@.service"];
    for name in units {
        fixture.write(name, read(&format!("systemd/{name}")).replace("/usr/bin/cba-gateway", BINARY));
    }
    for name in units {
        let path = fixture.file(name);
        run(Command::new("systemd-analyze").args(["verify", "--man=no", &path]));
        if name.ends_with(".service") {
            run(Command::new("systemd-analyze").args(["security", "--offline=yes", "--threshold=25", &path]));
        }
    }
    for name in ["cba-gateway.service", "cba-gateway@.service"] {
        let unit = read(&format!("systemd/{name}"));
        for line in ["User=cba-gateway", "SupplementaryGroups=cba-agent", "MemorySwapMax=0", "LimitCORE=0"] {
            assert!(unit.lines().any(|own| own == line), "{name} {line}");
        }
        assert!(
            !unit.contains("PrivateUsers=") && !unit.contains("PrivateNetwork="),
            "a caller's user would not be known"
        );
    }
    let socket = read("systemd/cba-gateway.socket");
    assert!(socket.contains("ListenStream=127.0.0.1:731\nListenStream=[::1]:731\n"));
}

#[test]
fn the_alerts_are_rules_of_prometheus_over_metrics_that_exist() {
    run(Command::new("promtool").args(["check", "rules"]).arg(format!("{DEPLOY}/alerts.yml")));
    let metrics = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics.rs")).unwrap();
    let alerts = read("alerts.yml");
    let names = alerts
        .split("cba_gateway_")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>());
    for name in names {
        assert!(metrics.contains(&format!("\"{name}\"")), "no metric cba_gateway_{name}");
    }
}

/// Each metric has a row in docs/gateway.md with exactly its labels.
#[test]
fn the_documented_metrics_are_those_of_a_running_gateway() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    let token = gateway.login(&basic("finance"), "").token();
    assert_eq!(gateway.with_token("GET /token/validate", &token).status, 200);
    assert_eq!(gateway.login("Basic YTpi", "").status, 401);
    gateway.wait_for_log("login ");
    let emitted: BTreeSet<String> = gateway
        .admin("/metrics")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, labels) = line.rsplit_once(' ').unwrap().0.split_once('{').unwrap_or((line, ""));
            let name = name.split(' ').next().unwrap();
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let labels =
                labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)).filter(|name| *name != "le");
            format!("{name} {}", labels.collect::<Vec<_>>().join(" "))
        })
        .collect();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/gateway.md")).unwrap();
    let documented: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with("| `cba_gateway_"))
        .map(|line| {
            let cells: Vec<String> =
                line.split('|').map(|cell| cell.replace(['`', ','], "").trim().to_owned()).collect();
            format!("{} {}", cells[1], cells[2])
        })
        .collect();
    assert_eq!(emitted, documented);
}

#[test]
fn the_packaged_and_the_documented_configurations_are_valid() {
    let fixture = Fixture::new();
    let path = fixture.write("packaged.toml", read("config.toml"));
    let check = fixture.run(&["check", "--config", &path]);
    assert!(check.stdout.contains("ok    configuration"), "{check:?}");
    let kubernetes = read("kubernetes.yaml");
    let start = kubernetes.find("config.toml: |\n").unwrap() + 15;
    let end = kubernetes[start..].find("\n---").unwrap() + start;
    let inner: String = kubernetes[start..end].lines().map(|line| format!("{}\n", line.trim())).collect();
    let path = fixture.write("kubernetes.toml", inner);
    let check = fixture.run(&["check", "--config", &path]);
    assert!(check.stdout.contains("ok    configuration"), "{check:?}");
}
