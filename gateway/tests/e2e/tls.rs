//! The TLS listener, and TLS and proxies towards Anaplan.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, PASSWORD, basic, tls_files};

/// Adds the TLS listener to a fixture.
fn with_tls(fixture: &mut Fixture) {
    fixture.copy(tls_files().join("leaf.pem"), "server.pem");
    fixture.copy(tls_files().join("leaf.key"), "server.key");
    fixture.toml_tables =
        "[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"DIR/server.pem\"\nkey = \"DIR/server.key\"\n".into();
}

fn curl(fixture: &Fixture, port: u16, name: &str, more: &[&str]) -> String {
    let (ca, user) = (fixture.file("ca.pem"), format!("{name}:{name}-{PASSWORD}"));
    let url = format!("https://localhost:{port}/token/authenticate");
    let mut command = Command::new("curl");
    command.args(["-sS", "--ipv4", "-i", "--cacert", &ca, "-u", &user, "-X", "POST", &url]).args(more);
    String::from_utf8_lossy(&command.finish().stdout).into_owned()
}

#[test]
fn tools_on_other_hosts_log_in_over_tls_from_their_networks() {
    let mut fixture = Fixture::new();
    with_tls(&mut fixture);
    fixture.add_client("far", "from = [\"10.0.0.0/8\"]");
    fixture.add_client("local", "from = []");
    let gateway = fixture.serve();
    let port = gateway.port_of("serving TLS on 127.0.0.1:").unwrap();
    for version in ["--tlsv1.3", "--tls-max"] {
        let more: &[&str] = if version == "--tls-max" { &["--tls-max", "1.2"] } else { &["--tlsv1.3"] };
        assert!(curl(&fixture, port, "finance", more).contains("MARKER-TOKEN"), "{}", gateway.log());
    }
    assert!(curl(&fixture, port, "far", &[]).contains("401"));
    // Forwarding headers are ignored.
    assert!(
        curl(&fixture, port, "far", &["-H", "X-Forwarded-For: 10.1.1.1", "-H", "Forwarded: for=10.1.1.1"])
            .contains("401")
    );
    // A client without `from` is not served there.
    assert!(curl(&fixture, port, "local", &[]).contains("401"));
    assert!(!curl(&fixture, port, "finance", &["--tls-max", "1.1"]).contains("MARKER"));
    let readyz = format!("https://localhost:{port}/readyz");
    let health = |more: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--ipv4", "--cacert", &fixture.file("ca.pem"), &readyz]).args(more);
        String::from_utf8_lossy(&command.finish().stdout).into_owned()
    };
    assert_eq!(health(&[]), "ready\n");
    // Load balancers ask in this way.
    let head = health(&["--head"]);
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn plain_http_on_the_tls_port_gets_nothing() {
    let mut fixture = Fixture::new();
    with_tls(&mut fixture);
    let gateway = fixture.serve();
    let port = gateway.port_of("serving TLS on 127.0.0.1:").unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let text = gateway.request_text("POST /token/authenticate", &[("Authorization", &basic("finance"))], "");
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"));
    gateway.wait_for_log("TLS with address 127.0.0.1:");
    // A handshake that does not begin ends.
    let mut silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    silent.set_read_timeout(Some(crate::gateway_process::TIME_LIMIT)).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
}

/// Some load balancers only connect, and close with FIN or with RST.
#[test]
fn a_health_check_that_only_connects_is_not_logged() {
    let mut fixture = Fixture::new();
    with_tls(&mut fixture);
    let gateway = fixture.serve();
    let port = gateway.port_of("serving TLS on 127.0.0.1:").unwrap();
    for linger in [None, Some(Duration::ZERO)] {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, linger).unwrap();
        gateway.wait_for_connections(1);
        drop(stream);
        gateway.wait_for_connections(0);
        assert!(!gateway.log().contains("TLS with"), "{}", gateway.log());
    }
}

#[test]
fn a_new_certificate_of_the_tls_listener_needs_no_restart() {
    let mut fixture = Fixture::new();
    with_tls(&mut fixture);
    let mut gateway = fixture.serve();
    let port = gateway.port_of("serving TLS on 127.0.0.1:").unwrap();
    // Certificate and key that do not belong together change nothing.
    fixture.tool_identity("server2");
    fixture.copy(fixture.path().join("server2.key"), "server.key");
    gateway.reload();
    gateway.wait_for_log("the gateway keeps the old one");
    assert!(curl(&fixture, port, "finance", &[]).contains("MARKER-TOKEN"));
    fixture.copy(fixture.path().join("server2.pem"), "server.pem");
    gateway.reload();
    assert!(!curl(&fixture, port, "finance", &[]).contains("MARKER-TOKEN"));
    assert!(curl(&fixture, port, "finance", &["--insecure"]).contains("MARKER-TOKEN"), "{}", gateway.log());
}

#[test]
fn a_broken_file_of_the_tls_listener_is_named_with_a_command_for_it() {
    let mut fixture = Fixture::new();
    with_tls(&mut fixture);
    let config = fixture.configure();
    let good = |name: &str| std::fs::read(fixture.path().join(name)).unwrap();
    let (certificate, key, other) = (good("server.pem"), good("server.key"), good("tool.key"));
    let (shown_certificate, shown_key) = (fixture.file("server.pem"), fixture.file("server.key"));
    for (name, content, cause, command) in [
        ("server.pem", &key, format!("{shown_certificate} contains no certificate"), "openssl x509 -noout -subject"),
        ("server.pem", &Vec::new(), format!("{shown_certificate} contains no certificate"), "openssl x509 -noout"),
        ("server.key", &certificate, format!("{shown_key} contains no private key"), "openssl pkey -in"),
        ("server.key", &other, format!("the key in {shown_key} does not belong to"), "openssl pkey -pubout -in"),
    ] {
        fixture.write(name, content);
        let run = fixture.run(&["serve", "--config", &config]);
        assert!(run.code == 2 && run.stderr.contains(&cause), "{cause}: {run:?}");
        assert!(run.stderr.contains("\nhint: `openssl ") && run.stderr.contains(command), "{run:?}");
        fixture.write("server.pem", &certificate);
        fixture.write("server.key", &key);
    }
}

#[test]
fn a_service_with_another_certificate_gets_nothing() {
    let mut fixture = Fixture::new();
    // A CA that the gateway does not know has issued the service's certificate.
    fixture.toml_tables = format!("[upstream]\nauth_url = \"{}\"\n", fixture.service.url());
    let gateway = fixture.serve();
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!(reply.status, 502, "{reply:?}");
    drop(gateway);
    // Its certificate is for another name.
    fixture.toml_tables = format!(
        "[upstream]\nauth_url = \"https://localhost.localdomain:{}\"\nca_file = \"DIR/ca.pem\"\nproxy = \"http://127.0.0.1:{}\"\n",
        fixture.service.port,
        proxy(fixture.service.port, 200).0
    );
    let gateway = fixture.serve();
    assert_eq!(gateway.login(&basic("finance"), "").status, 502);
    assert!(fixture.service.arrived().is_empty());
}

/// A proxy that records what it receives, and tunnels to a port or answers with an error status.
fn proxy(to: u16, status: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, heads) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let recorded = Arc::clone(&heads);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            recorded.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
            client.write_all(format!("HTTP/1.1 {status} X\r\nX: y\r\n\r\n").as_bytes()).unwrap();
            if status == 200 {
                let mut server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let (mut client_in, mut server_in) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let recorded = Arc::clone(&recorded);
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(read) = client_in.read(&mut buffer) {
                        if read == 0 || server_in.write_all(&buffer[..read]).is_err() {
                            return;
                        }
                        recorded.lock().unwrap().push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                    }
                });
                std::thread::spawn(move || std::io::copy(&mut server, &mut client));
            }
        }
    });
    (port, heads)
}

#[test]
fn a_proxy_tunnels_and_sees_neither_payload_nor_token() {
    let mut fixture = Fixture::new();
    let (port, seen) = proxy(fixture.service.port, 200);
    fixture.write("proxy-credentials", "user:MARKER-PROXY\n");
    let upstream = format!("[upstream]\nauth_url = \"{}\"\nca_file = \"DIR/ca.pem\"\n", fixture.service.url());
    fixture.toml_tables =
        format!("{upstream}proxy = \"http://127.0.0.1:{port}\"\nproxy_credentials_file = \"DIR/proxy-credentials\"\n");
    let gateway = fixture.serve();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    let all = seen.lock().unwrap().join("\n");
    assert!(all.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", fixture.service.port)), "{all}");
    assert!(all.contains("Proxy-Authorization: Basic dXNlcjpNQVJLRVItUFJPWFk="), "{all}");
    for secret in ["CACertificate", "encodedData", "MARKER-TOKEN"] {
        assert!(!all.contains(secret), "{secret}");
    }
    drop(gateway);
    // The environment's proxy, as systemd units set it.
    fixture.toml_tables = upstream;
    seen.lock().unwrap().clear();
    fixture.environment = vec![("HTTPS_PROXY".into(), format!("http://127.0.0.1:{port}"))];
    let gateway = fixture.serve();
    assert_eq!(gateway.login(&basic("finance"), "").status, 201, "{}", gateway.log());
    assert!(!seen.lock().unwrap().is_empty());
}

#[test]
fn check_reports_a_proxy_that_requires_credentials() {
    let mut fixture = Fixture::new();
    let (port, _) = proxy(0, 407);
    fixture.toml_tables = format!(
        "[upstream]\nauth_url = \"{}\"\nca_file = \"DIR/ca.pem\"\nproxy = \"http://127.0.0.1:{port}\"\n",
        fixture.service.url()
    );
    let config = fixture.configure();
    let check = fixture.run(&["check", "--config", &config]);
    assert_eq!(check.code, 8, "{check:?}");
    assert!(
        check.stdout.contains("requires credentials (407)") && check.stdout.contains("proxy_credentials_file"),
        "{check:?}"
    );
    let gateway = fixture.serve();
    // 407 would make a client look for its own proxy's credentials.
    assert_eq!(gateway.login(&basic("finance"), "").status, 502);
}
