//! The listening sockets: those that systemd passes, or those of the configuration.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;

use super::ListenerKind;
use crate::config::GatewayConfig;
use crate::library::{Error, Kind, Result, take_descriptor};

/// The maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A listening socket whose connections are not accepted yet.
#[derive(Debug)]
pub(crate) struct BoundListener {
    pub listener: StdListener,
    pub kind: ListenerKind,
}

impl BoundListener {
    /// Converts the socket into a listener of tokio.
    pub(crate) fn into_tokio(self) -> std::io::Result<TcpListener> {
        self.listener.set_nonblocking(true)?;
        TcpListener::from_std(self.listener)
    }
}

/// Takes the plain HTTP sockets that systemd passes, or binds each address of `listen` if there are none. In both cases, also
/// binds each address of `[tls] listen`.
///
/// # Errors
/// When an address cannot be bound, or an inherited socket is not a loopback listener.
pub(crate) fn open(config: &GatewayConfig) -> Result<Vec<BoundListener>> {
    let mut listeners = inherited()?;
    if listeners.is_empty() {
        for address in &config.listen {
            listeners.push(BoundListener { listener: bind(*address)?, kind: ListenerKind::Plain });
        }
    } else if config.sets_listen && !has_addresses(&listeners, &config.listen) {
        tracing::warn!(
            "listen has no effect: the sockets of systemd replace it; `systemctl edit cba-gateway.socket` changes them"
        );
    }
    for address in config.tls.iter().flat_map(|tls| &tls.listen) {
        listeners.push(BoundListener { listener: bind(*address)?, kind: ListenerKind::Tls });
    }
    Ok(listeners)
}

/// Whether the listeners have exactly these addresses.
fn has_addresses(listeners: &[BoundListener], addresses: &[SocketAddr]) -> bool {
    let has_address =
        |bound: &BoundListener| bound.listener.local_addr().is_ok_and(|address| addresses.contains(&address));
    listeners.len() == addresses.len() && listeners.iter().all(has_address)
}

fn inherited() -> Result<Vec<BoundListener>> {
    let socket_error = |what: String| Error::new(Kind::Config, format!("cannot use the socket of systemd: {what}"));
    let descriptors = sd_notify::listen_fds().map_err(|error| socket_error(error.to_string()))?;
    let mut listeners = Vec::new();
    for descriptor in descriptors {
        let file = take_descriptor(descriptor).map_err(|error| socket_error(error.to_string()))?;
        let is_tcp = sockopt::socket_acceptconn(&file).unwrap_or(false)
            && sockopt::socket_domain(&file)
                .is_ok_and(|domain| domain == AddressFamily::INET || domain == AddressFamily::INET6);
        if !is_tcp {
            return Err(socket_error("it is not a listening TCP socket".into())
                .hint("ListenStream= must name an address and a port"));
        }
        if sockopt::socket_reuseport(&file).unwrap_or(true) {
            return Err(socket_error("it has SO_REUSEPORT, so another process could take its connections".into())
                .hint("ReusePort=no in the .socket unit"));
        }
        let listener = StdListener::from(OwnedFd::from(file));
        let address = listener.local_addr().map_err(|error| socket_error(error.to_string()))?;
        if !address.ip().to_canonical().is_loopback() {
            return Err(socket_error(format!("{address} is not a loopback address; plain HTTP is for this host only"))
                .hint("ListenStream=127.0.0.1:731 and ListenStream=[::1]:731 in the .socket unit; other hosts use [tls] listen"));
        }
        listeners.push(BoundListener { listener, kind: ListenerKind::Plain });
    }
    Ok(listeners)
}

/// Checks that this host has the address of a listener. It does not check whether the port is free: a running gateway has it.
///
/// # Errors
/// When `open` could not bind the address.
pub(crate) fn check_address(address: SocketAddr) -> Result<()> {
    let mut any_port = address;
    any_port.set_port(0);
    listening_socket(any_port).map(drop).map_err(|error| bind_error(address, error))
}

fn bind(address: SocketAddr) -> Result<StdListener> {
    listening_socket(address).map_err(|error| bind_error(address, error))
}

/// Binds one address. SO_REUSEADDR lets a restarted gateway bind the port while old connections linger. SO_REUSEPORT stays
/// unset, so that no other process can take connections.
fn listening_socket(address: SocketAddr) -> rustix::io::Result<StdListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(socket.as_fd(), &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(StdListener::from(socket))
}

fn bind_error(address: SocketAddr, error: rustix::io::Errno) -> Error {
    let hint = match error {
        rustix::io::Errno::ACCESS => {
            "a port below 1024 needs systemd's socket (cba-gateway.socket) or CAP_NET_BIND_SERVICE".into()
        }
        rustix::io::Errno::ADDRINUSE => {
            format!("`ss -ltnp 'sport = :{}'` shows which process has it", address.port())
        }
        _ => "`ip -brief address` shows the addresses for listen and [tls] listen".to_owned(),
    };
    Error::new(Kind::Config, format!("cannot listen on {address}: {error}")).hint(hint)
}
