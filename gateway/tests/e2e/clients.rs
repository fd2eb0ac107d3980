//! Unmodified tools of other authors log in; only their URL is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, PASSWORD};
use crate::gateway_process::Gateway;
use crate::token::{install, run};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

/// A virtual environment with the tools from PyPI. A changed list of tools creates it again.
fn python() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let requirements = format!("{CLIENTS}/requirements.txt");
        let wanted = fs::read_to_string(&requirements).unwrap();
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gateway-clients");
        let made = directory.join("made");
        if fs::read_to_string(&made).ok().as_deref() != Some(&wanted) {
            let _ = fs::remove_dir_all(&directory);
            install(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&directory));
            let pip = directory.join("bin/pip");
            install(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", "-r", &requirements]));
            fs::write(&made, wanted).unwrap();
        }
        directory.join("bin/python")
    })
}

fn client(gateway: &Gateway, script: &str, arguments: &[&str]) -> String {
    let url = format!("http://localhost:{}", gateway.port);
    let mut command = Command::new(python());
    command
        .arg(format!("{CLIENTS}/{script}"))
        .arg(&url)
        .args(arguments)
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy");
    let output = command.finish();
    assert!(output.status.success(), "{output:?} {}", gateway.log());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn password() -> String {
    format!("finance-{PASSWORD}")
}

/// Listens on IPv4 and IPv6 with one port, as the packaged socket does: `localhost` resolves to either.
fn both_families(fixture: &mut Fixture) {
    let free = std::net::TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().port();
    fixture.top_keys = format!("listen = [\"127.0.0.1:{free}\", \"[::1]:{free}\"]\n");
}

#[test]
fn anaplan_connector_of_pypi_logs_in_with_v1_and_basic() {
    let mut fixture = Fixture::new();
    both_families(&mut fixture);
    let gateway = fixture.serve();
    let (certificate, key) = (fixture.file("tool.pem"), fixture.file("tool.key"));
    let tokens = client(&gateway, "anaplan_connector.py", &[&certificate, &key, "finance", &password()]);
    assert_eq!(tokens.lines().filter(|line| line.starts_with("MARKER-TOKEN")).count(), 2, "{tokens}");
    gateway.wait_for_log("v1 in, v2 out, 201, ok");
    gateway.wait_for_log("password in, v2 out, 201, ok");
}

#[test]
fn anaplan_orm_of_pypi_logs_in_with_v1_and_basic() {
    let mut fixture = Fixture::new();
    both_families(&mut fixture);
    let gateway = fixture.serve();
    let both = [fs::read(fixture.path().join("tool.key")).unwrap(), fs::read(fixture.path().join("tool.pem")).unwrap()]
        .concat();
    let both = fixture.write("both.pem", both);
    let tokens = client(&gateway, "anaplan_orm_login.py", &[&both, "finance", &password()]);
    assert_eq!(tokens.lines().filter(|line| line.starts_with("MARKER-TOKEN")).count(), 2, "{tokens}");
}

#[test]
fn apapi_of_pypi_logs_in_refreshes_validates_and_logs_out() {
    let mut fixture = Fixture::new();
    both_families(&mut fixture);
    let gateway = fixture.serve();
    let tokens = client(&gateway, "apapi_login.py", &["finance", &password()]);
    let tokens: Vec<&str> = tokens.lines().collect();
    assert!(tokens.len() == 2 && tokens[0] != tokens[1], "{tokens:?}");
    let paths: Vec<String> = fixture.service.arrived().into_iter().map(|arrived| arrived.line).collect();
    let wanted = ["authenticate", "validate", "refresh", "validate", "logout"];
    assert!(paths.len() == 5 && paths.iter().zip(wanted).all(|(line, path)| line.contains(path)), "{paths:?}");
}

#[test]
fn planapy_of_pypi_logs_in_validates_refreshes_and_logs_out() {
    let mut fixture = Fixture::new();
    both_families(&mut fixture);
    let gateway = fixture.serve();
    let tokens = client(&gateway, "planapy_login.py", &["finance", &password()]);
    let tokens: Vec<&str> = tokens.lines().filter(|line| line.starts_with("MARKER-TOKEN")).collect();
    assert!(tokens.len() == 2 && tokens[0] != tokens[1], "{tokens:?}");
}

/// The recipes of docs/gateway.md: a PKCS#12 file by openssl, a JKS by keytool.
#[test]
fn a_java_client_logs_in_as_anaplan_connect_does_with_both_keystores() {
    let mut fixture = Fixture::new();
    both_families(&mut fixture);
    let gateway = fixture.serve();
    fixture.openssl(&[
        "pkcs12",
        "-export",
        "-inkey",
        "tool.key",
        "-in",
        "tool.pem",
        "-name",
        "anaplan",
        "-out",
        "tool.p12",
        "-passout",
        "pass:changeit",
    ]);
    run(Command::new("keytool").current_dir(fixture.path()).args([
        "-importkeystore",
        "-noprompt",
        "-srckeystore",
        "tool.p12",
        "-srcstoretype",
        "PKCS12",
        "-srcstorepass",
        "changeit",
        "-destkeystore",
        "tool.jks",
        "-deststoretype",
        "JKS",
        "-deststorepass",
        "changeit",
    ]));
    let url = format!("http://localhost:{}", gateway.port);
    for store in ["tool.p12", "tool.jks"] {
        let output = run(Command::new("java").arg(format!("{CLIENTS}/ConnectLogin.java")).args([
            &url,
            &fixture.file(store),
            "anaplan",
            "changeit",
        ]));
        assert!(output.starts_with("201 ") && output.contains("MARKER-TOKEN"), "{output} {}", gateway.log());
    }
    gateway.wait_for_log("v1 in, v2 out, 201, ok");
}

#[test]
fn two_gateways_on_one_agent_serve_each_others_tokens() {
    let (first, second) = (Fixture::new(), Fixture::new());
    let one = first.serve();
    // The second one posts to the same service.
    let mut second = second;
    second.toml_tables = format!("[upstream]\nauth_url = \"{}\"\nca_file = \"DIR/ca.pem\"\n", first.service.url());
    let two = second.serve();
    let token = one.login(&crate::fixture::basic("finance"), "").token();
    assert_eq!(two.with_token("POST /token/refresh", &token).status, 200, "{}", two.log());
}
