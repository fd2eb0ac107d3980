//! Hosts with several addresses, and a DNS server that does not answer. These tests need root, for a mount namespace.

use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use rustix::process::Signal;

use crate::fixture::{Fixture, basic};
use crate::gateway_process::TIME_LIMIT;
use crate::token::{GATEWAY_USER, is_root};

/// Returns a command that starts the gateway with these files mounted over /etc/hosts and /etc/resolv.conf.
fn serve_with_names(fixture: &Fixture, hosts: &str, resolver: &str) -> Command {
    assert!(is_root(), "this test must run as root, to mount files");
    let mount = "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/resolv.conf && shift 2 && exec \"$@\"";
    let (hosts, resolver) = (fixture.write("hosts", hosts), fixture.write("resolv.conf", resolver));
    let user = GATEWAY_USER.to_string();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", mount, "sh", &hosts, &resolver]);
    command.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
    let served = fixture.command(&["serve", "--config", &fixture.configure()]);
    command.arg(served.get_program()).args(served.get_args());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// A listener on ::1 that drops new connections, and the connections that fill its queue.
fn dropping_listener(port: u16) -> (OwnedFd, Vec<TcpStream>) {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(stream);
        assert!(queued.len() < 100, "the listener drops nothing");
    }
    (socket, queued)
}

#[test]
fn a_login_reaches_anaplan_over_ipv4_if_its_ipv6_address_drops_packets() {
    let fixture = Fixture::new();
    let _dropping = dropping_listener(fixture.service.port);
    let gateway = fixture.start(serve_with_names(&fixture, "::1 localhost\n127.0.0.1 localhost\n", ""));
    let reply = gateway.login(&basic("finance"), "");
    assert_eq!(reply.status, 201, "{reply:?} {}", gateway.log());
}

#[test]
fn a_dns_server_that_does_not_answer_does_not_delay_the_end() {
    let mut fixture = Fixture::new();
    let dns = UdpSocket::bind("127.53.73.1:53").unwrap();
    dns.set_read_timeout(Some(TIME_LIMIT)).unwrap();
    fixture.toml_tables = "[upstream]\nauth_url = \"https://auth.example\"\n".into();
    fixture.top_keys = "deadline = \"2s\"\n".into();
    let resolver = "nameserver 127.53.73.1\noptions timeout:30 attempts:2\n";
    let mut gateway = fixture.start(serve_with_names(&fixture, "127.0.0.1 localhost\n", resolver));
    let mut caller = gateway.connect();
    let request = gateway.request_text("POST /token/authenticate", &[("Authorization", &basic("finance"))], "");
    caller.write_all(request.as_bytes()).unwrap();
    dns.recv(&mut [0; 512]).unwrap();
    let since = Instant::now();
    gateway.signal(Signal::TERM);
    assert!(gateway.wait().success(), "{}", gateway.log());
    assert!(since.elapsed() < Duration::from_secs(20), "the end took {:?}", since.elapsed());
}
