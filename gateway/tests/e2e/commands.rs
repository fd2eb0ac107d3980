//! The commands other than `serve`, and the admin socket.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, basic};
use crate::token::{run, token};

#[test]
fn enrol_prints_a_working_client_table_and_writes_the_password_to_a_private_file() {
    let mut fixture = Fixture::new();
    let file = fixture.file("run/new.password");
    let enrolled = fixture.run(&["enrol", "new", "--user", "0", "--from", "10.0.0.0/8", "--password-file", &file]);
    assert_eq!(enrolled.code, 0, "{enrolled:?}");
    let password = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(password.trim().len() == 43 && !enrolled.stdout.contains(password.trim()), "{enrolled:?}");
    fixture.clients.push_str(&enrolled.stdout);
    let gateway = fixture.serve();
    let credentials = format!("new:{}", password.trim());
    let header = format!("Basic {}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, credentials));
    assert_eq!(gateway.login(&header, "").status, 201, "{}", gateway.log());
    // An existing file is not overwritten.
    let again = fixture.run(&["enrol", "new", "--user", "0", "--password-file", &file]);
    assert!(again.code == 2 && again.stdout.is_empty() && again.stderr.contains("hint: "), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), password);
    let without_origin = fixture.run(&["enrol", "new"]);
    assert!(without_origin.code == 2 && without_origin.stderr.contains("--user"), "{without_origin:?}");
}

#[test]
fn enrol_needs_transition_for_a_certificate_that_anaplan_may_accept() {
    let fixture = Fixture::new();
    fixture.copy(token().path.join("cert.pem"), "registered.pem");
    let file = fixture.file("registered.pem");
    let refused = fixture.run(&["enrol", "old", "--user", "0", "--certificate", &file]);
    assert!(refused.code == 2 && refused.stderr.contains("transition"), "{refused:?}");
    let accepted = fixture.run(&["enrol", "old", "--user", "0", "--certificate", &file, "--transition"]);
    assert!(accepted.code == 0 && accepted.stdout.contains("transition = true"), "{accepted:?}");
    let own = fixture.run(&["enrol", "own", "--user", "0", "--certificate", &fixture.file("tool.pem")]);
    assert!(own.code == 0 && own.stdout.contains("payload_versions = [\"v1\", \"v2\"]"), "{own:?}");
}

#[test]
fn check_names_what_each_client_may_send_and_what_is_wrong() {
    let mut fixture = Fixture::new();
    fixture.top_keys = "listen = [\"127.0.0.1:731\", \"[::1]:8731\"]\n".into();
    let config = fixture.configure();
    let good = fixture.run(&["check", "--config", &config]);
    assert_eq!(good.code, 0, "{good:?}");
    for wanted in [
        "client finance: sends a password or a certificate with v1 or v2, from loopback and TLS",
        "is ready",
        "issued by CN=cba-gateway-test-CA",
        "TLSv1_3 with localhost",
        "127.0.0.1:731: only root can bind this port",
        "[::1]:8731: every user can bind this port",
    ] {
        assert!(good.stdout.contains(wanted), "{wanted}: {good:?}");
    }
    fixture.agents = vec![fixture.path().join("nowhere.sock")];
    let config = fixture.configure();
    let bad = fixture.run(&["check", "--config", &config]);
    assert!(bad.code == 8 && bad.stdout.contains("FAIL") && bad.stdout.contains("hint: "), "{bad:?}");
}

#[test]
fn invalid_configurations_are_refused_with_a_hint() {
    let fixture = Fixture::new();
    let good = std::fs::read_to_string(fixture.configure()).unwrap();
    let pem = fixture.file("tool.pem");
    fixture.openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:1024",
        "-nodes",
        "-keyout",
        "s.key",
        "-out",
        "small.pem",
        "-subj",
        "/CN=s",
    ]);
    fixture.openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "m.key",
        "-out",
        "mail.pem",
        "-subj",
        "/CN=m/emailAddress=a@example.com",
    ]);
    let (small, mail) = (fixture.file("small.pem"), fixture.file("mail.pem"));
    for (cause, text) in [
        ("unknown field", format!("{good}surprise = 1\n")),
        ("letters, digits", good.replace("name = \"finance\"", "name = \"fi nance\"")),
        ("needs users", good.replace("users =", "# users =").replace("from =", "# from =")),
        ("the same certificate", format!("{good}[[client]]\nname = \"b\"\ncertificates = [\"{pem}\"]\nusers = [0]\n")),
        (
            "two clients have the name",
            format!("{good}[[client]]\nname = \"finance\"\npassword_sha256 = [\"{}\"]\nusers = [0]\n", "ab".repeat(32)),
        ),
        ("1024 bits", good.replace(&pem, &small)),
        ("an e-mail address", good.replace(&pem, &mail)),
        (
            "64 hexadecimal digits",
            good.replacen("password_sha256 = [\"", "password_sha256 = [\"MARKER-PASSWORD\", \"", 1),
        ),
        ("wrong type", good.replacen("rate_limit_per_minute = ", "rate_limit_per_minute = \"MARKER-PASSWORD\" # ", 1)),
        ("wrong type: it must be a list in brackets", good.replace("users = [0]", "users = \"MARKER-PASSWORD\"")),
        ("it must be a list in brackets; a client begins with [[client]]", good.replace("[[client]]", "[client]")),
        ("wrong type: it must be text in quotation marks", format!("deadline = 14\n{good}")),
        ("wrong type: it must be true or false", format!("{good}disabled = \"MARKER, expected MARKER\"\n")),
        (
            "wrong type: it must be a whole number",
            format!("{good}rate_limit_per_minute = -1\n").replacen("rate_limit_per_minute", "# ", 1),
        ),
        ("this is not TOML", format!("{good}MARKER-PASSWORD\n")),
        ("payload_versions is empty", good.replace("payload_versions = [\"v1\", \"v2\"]", "payload_versions = []")),
        ("nothing would be served", good.replace("listen = [\"127.0.0.1:0\", \"[::1]:0\"]", "listen = []")),
        ("no such user", good.replace("users = [0]", "users = [\"nobody-at-all\"]")),
        ("deadline must be a duration from 1ms to 1d", format!("deadline = \"18446744073709551615s\"\n{good}")),
        ("max_skew must be a duration from 1ms to 1d", format!("max_skew = \"0s\"\n{good}")),
        ("max_skew must be in whole seconds", format!("max_skew = \"500ms\"\n{good}")),
        ("https", good.replace("https://localhost", "http://example.com")),
        ("finance: certificates must be an absolute path", good.replace(&pem, "tool.pem")),
        ("upstream.ca_file must be an absolute path", good.replace("ca_file = \"/", "ca_file = \"")),
        ("agent.sockets must be an absolute path", good.replace("sockets = [\"/", "sockets = [\"~/")),
        ("admin.socket must be an absolute path", good.replace("socket = \"/", "socket = \"")),
        ("state_dir must be an absolute path", format!("state_dir = \"\"\n{good}")),
        (
            "tls.key must be an absolute path",
            format!("{good}[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"/c\"\nkey = \"k\"\n"),
        ),
    ] {
        let path = fixture.write("config.toml", &text);
        let run = fixture.run(&["serve", "--config", &path]);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{cause} {run:?}");
        assert!(run.stderr.contains(cause) && run.stderr.contains("\nhint: "), "{cause}: {run:?}");
        assert!(!run.stderr.contains("MARKER"), "{run:?}");
    }
    let path = fixture.write("config.toml", &good);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let run = fixture.run(&["serve", "--config", &path]);
    assert!(run.code == 2 && run.stderr.contains("users other than root can change it"), "{run:?}");
}

#[test]
fn files_that_do_not_belong_to_root_are_refused() {
    use crate::token::GATEWAY_USER;
    assert!(crate::token::is_root(), "this test must run as root, to give files away");
    let fixture = Fixture::new();
    let config = fixture.configure();
    let certificate = fixture.file("tool.pem");
    for (file, owner) in [(&config, 61234), (&config, GATEWAY_USER), (&certificate, GATEWAY_USER)] {
        std::os::unix::fs::chown(file, Some(owner), None).unwrap();
        let run = fixture.run(&["serve", "--config", &config]);
        assert!(run.code == 2 && run.stderr.contains(&format!("cannot use {file}: users other than root")), "{run:?}");
        assert!(run.stderr.contains("hint: chown root"), "{run:?}");
        assert_eq!(run.stderr.contains("--single-user"), owner == GATEWAY_USER, "{run:?}");
        std::os::unix::fs::chown(file, Some(0), None).unwrap();
    }
    std::os::unix::fs::chown(&certificate, Some(GATEWAY_USER), None).unwrap();
    let gateway = fixture.start(fixture.command(&["serve", "--single-user", "--config", &config]));
    gateway.wait_for_log("belongs to the gateway's own user");
}

#[test]
fn a_clients_certificate_is_read_in_each_format_but_not_with_a_private_key() {
    let mut fixture = Fixture::new();
    let pem = std::fs::read_to_string(fixture.path().join("tool.pem")).unwrap();
    let key = std::fs::read_to_string(fixture.path().join("tool.key")).unwrap();
    fixture.openssl(&["x509", "-in", "tool.pem", "-outform", "DER", "-out", "tool.der"]);
    fixture.openssl(&["x509", "-in", "tool.pem", "-trustout", "-addtrust", "clientAuth", "-out", "trusted.pem"]);
    fixture.openssl(&["crl2pkcs7", "-nocrl", "-certfile", "tool.pem", "-out", "tool.p7b"]);
    fixture.openssl(&["crl2pkcs7", "-nocrl", "-certfile", "tool.pem", "-outform", "DER", "-out", "binary.p7b"]);
    let pkcs12 = "pkcs12 -export -inkey tool.key -in tool.pem -out tool.p12 -passout pass:x";
    fixture.openssl(&pkcs12.split(' ').collect::<Vec<_>>());
    let der = std::fs::read(fixture.path().join("tool.der")).unwrap();
    fixture.write("bom.pem", format!("\u{feff}{pem}"));
    fixture.write("crlf.pem", format!("Bag Attributes\r\n{}", pem.replace('\n', "\r\n")));
    fixture.write("newline.der", [&der[..], b"\n"].concat());
    fixture.write("beside.pem", format!("{key}{pem}"));
    run(Command::new("mkfifo").arg(fixture.file("pipe.pem")));
    let enrol = |name: &str| fixture.run(&["enrol", "other", "--user", "0", "--certificate", &fixture.file(name)]);
    for name in ["tool.pem", "tool.der", "trusted.pem", "tool.p7b", "binary.p7b", "bom.pem", "crlf.pem", "newline.der"]
    {
        std::fs::set_permissions(fixture.path().join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
        let run = enrol(name);
        assert!(run.code == 0 && run.stdout.contains(name), "{name}: {run:?}");
    }
    for (name, wanted) in [
        ("beside.pem", "contains a private key"),
        ("tool.key", "private key and no certificate"),
        ("tool.p12", "PKCS#12"),
        ("config.toml", "not a certificate"),
        ("nowhere.pem", "cannot read"),
        ("pipe.pem", "not a regular file"),
    ] {
        fixture.configure();
        if name != "nowhere.pem" {
            std::fs::set_permissions(fixture.path().join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let run = enrol(name);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{name}: {run:?}");
        assert!(run.stderr.contains(wanted) && run.stderr.contains("\nhint: "), "{name}: {run:?}");
    }
    for name in ["trusted.pem", "binary.p7b", "bom.pem", "newline.der"] {
        fixture.clients = fixture.clients.replace("tool.pem", name);
        let gateway = fixture.serve();
        let (header, body) = fixture.certificate_login("tool", "v1", &[7; 150]);
        let reply = gateway.login(&header, &body);
        assert_eq!(reply.status, 201, "{name}: {reply:?} {}", gateway.log());
        fixture.clients = fixture.clients.replace(name, "tool.pem");
    }
}

#[test]
fn the_admin_socket_gives_health_metrics_and_clients_and_has_mode_0660() {
    let fixture = Fixture::new();
    let gateway = fixture.serve();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201);
    gateway.wait_for_log("client finance");
    let config = fixture.file("config.toml");
    let socket = fixture.file("run/admin.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let health = fixture.run(&["health", "--socket", &socket]);
    assert_eq!((health.code, health.stdout.as_str()), (0, "ready\n"), "{health:?}");
    assert_eq!(fixture.run(&["health", "--live", "--config", &config]).stdout, "alive\n");
    let clients = fixture.run(&["clients", "--config", &config]);
    assert!(clients.stdout.contains("finance") && clients.stdout.contains("password    ok (201)"), "{clients:?}");
    let metrics = gateway.admin("/metrics");
    for wanted in [
        "cba_gateway_logins_total{client=\"finance\",identity=\"password\",outcome=\"ok\"} 1",
        "cba_gateway_ready 1",
        "cba_gateway_client_certificate_not_after_timestamp_seconds{client=\"finance\"",
        "cba_gateway_client_in_transition{client=\"finance\"} 0",
    ] {
        assert!(metrics.contains(wanted), "{wanted}: {metrics}");
    }
    drop(gateway);
    let stopped = fixture.run(&["health", "--socket", &socket]);
    assert!(stopped.code == 9 && stopped.stderr.contains("hint: "), "{stopped:?}");
    // `serve` replaces the socket file that a killed gateway left behind.
    let gateway = fixture.serve();
    assert_eq!(fixture.run(&["health", "--live", "--socket", &socket]).code, 0, "{}", gateway.log());
}

#[test]
fn metrics_are_written_for_node_exporter() {
    let mut fixture = Fixture::new();
    fixture.toml_tables = "[admin]\nmetrics_file = \"DIR/run/gateway.prom\"\n".into();
    let _gateway = fixture.serve();
    let file = fixture.path().join("run/gateway.prom");
    let time_limit = std::time::Instant::now() + crate::gateway_process::TIME_LIMIT;
    while !std::fs::read_to_string(&file).unwrap_or_default().contains("cba_gateway_ready 1") {
        assert!(std::time::Instant::now() < time_limit);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn completions_and_manual_pages_name_each_command() {
    let fixture = Fixture::new();
    let bash = fixture.run(&["completions", "bash"]);
    assert!(bash.code == 0 && bash.stdout.contains("enrol"), "{bash:?}");
    let man = fixture.run(&["man", &fixture.file("run")]);
    assert_eq!(man.code, 0, "{man:?}");
    assert!(fixture.path().join("run/cba-gateway-enrol.1").exists());
    for (arguments, wanted) in [
        (&["enrol"][..], "error: <NAME> is needed"),
        (&["enrol", "x", "--user", "0", "MARKER-PASSWORD"], "it may be a password"),
        (&["enrol", "x", "--password=MARKER-PASSWORD"], "there is no option --password\n"),
        (&["clients", "--format", "yaml"], "--format <FORMAT> must be one of text, json"),
        (&[], "a command is needed"),
    ] {
        let run = fixture.run(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
        assert!(run.stderr.contains(wanted) && run.stderr.contains("\nhint: "), "{wanted}: {run:?}");
        assert!(!run.stderr.contains("MARKER"), "{run:?}");
    }
    let unknown = fixture.run(&["enroll"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("enrol"), "{unknown:?}");
}

#[test]
fn a_program_with_more_rights_than_its_caller_refuses_every_command() {
    let fixture = Fixture::new();
    let program = fixture.file("cba-gateway");
    std::fs::copy(crate::fixture::BINARY, &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::set_permissions(fixture.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for arguments in [&["serve"][..], &["check"], &["clients"], &["enrol"], &["health"], &["man"], &["--help"], &[]] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &program]).args(arguments);
        let output = command.env_clear().env("PATH", "/usr/bin:/bin").finish();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{arguments:?}: {error}");
        assert!(error.contains("refused to run set-user-ID"), "{arguments:?}: {error}");
    }
}

#[test]
fn a_closed_stdout_is_an_error_before_a_password_is_written() {
    let fixture = Fixture::new();
    let file = fixture.file("run/new.password");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" >&-", "sh", crate::fixture::BINARY, "enrol", "new", "--user", "0"]);
    let output = command.args(["--password-file", &file]).finish();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("stdout is closed"), "{output:?}");
    assert!(!std::path::Path::new(&file).exists());
}
