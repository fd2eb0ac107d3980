//! Serves the listeners: accepts connections, identifies callers, serves HTTP, and shuts down after the last answer.
//!
//! `listener` opens the sockets, `routes` answers the requests, and `admin` serves the admin socket.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::connections::AdmittedConnection;
use crate::gateway::Gateway;
use crate::sock_diag;
use crate::source::TcpCaller;

pub(crate) mod delivery;
pub(crate) mod head_lengths;
pub(crate) mod listener;
mod reply;
mod routes;
pub(crate) mod tls;

use delivery::{Delivery, Tracked};
use routes::ClientConnection;

/// The time limit for the head of a request, and for an idle connection.
const HEAD_TIME: Duration = Duration::from_secs(15);

/// The maximum length of a head, in bytes.
const HEAD_LIMIT: usize = 16 << 10;

/// The time limit for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The extra time for requests that were sent before the client could know of the shutdown.
const LINGER: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// Plain HTTP on a loopback address.
    Plain,
    Tls,
}

/// Accepts connections until `end` is true, then closes the listener and waits until its connections have ended.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    kind: ListenerKind,
    mut end: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let for_connections = end.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => take(&gateway, stream, kind, &mut tasks, &for_connections),
                Err(error) => cannot_accept(&error).await,
            },
            Some(_) = tasks.join_next() => {}
            () = ended(&mut end) => break,
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

async fn ended(end: &mut watch::Receiver<bool>) {
    let _ = end.wait_for(|ended| *ended).await;
}

/// Logs why `accept` failed, and waits a moment: without a free file descriptor, it fails again at once. If only the
/// client disconnected, the next connection can be accepted immediately.
async fn cannot_accept(error: &std::io::Error) {
    if matches!(error.kind(), std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::Interrupted) {
        return;
    }
    tracing::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn take(
    gateway: &Arc<Gateway>,
    stream: TcpStream,
    kind: ListenerKind,
    tasks: &mut JoinSet<()>,
    end: &watch::Receiver<bool>,
) {
    let Some((caller, port)) = identify(gateway, &stream, kind) else { return };
    let Some(connection) = gateway.connections.enter(caller.source()) else {
        gateway.metrics.refused("connections");
        return;
    };
    let _ = stream.set_nodelay(true);
    let (gateway, end) = (Arc::clone(gateway), end.clone());
    match kind {
        ListenerKind::Plain => tasks.spawn(serve_connection(gateway, caller, Some(port), stream, connection, end)),
        ListenerKind::Tls => tasks.spawn(serve_tls(gateway, caller, stream, connection, end)),
    };
}

async fn serve_tls(
    gateway: Arc<Gateway>,
    caller: TcpCaller,
    stream: TcpStream,
    connection: AdmittedConnection,
    end: watch::Receiver<bool>,
) {
    let Some(config) = gateway.set().tls.clone() else { return };
    let handshake = TlsAcceptor::from(config).accept(stream);
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HANDSHAKE, handshake) => accepted,
        () = connection.leave.notified() => return,
    };
    match accepted {
        Ok(Ok(stream)) => serve_connection(gateway, caller, None, stream, connection, end).await,
        Ok(Err(error)) => {
            gateway.metrics.refused("tls");
            tracing::debug!("TLS with {caller} failed: {error}");
        }
        Err(_) => gateway.metrics.refused("tls"),
    }
}

/// Returns the caller and the local port. For a loopback connection, asks the kernel once which user owns the other end.
/// Returns `None` if the user is unknown.
fn identify(gateway: &Gateway, stream: &TcpStream, kind: ListenerKind) -> Option<(TcpCaller, u16)> {
    let (Ok(address), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return None };
    let mut caller = TcpCaller { address, user: None };
    if kind == ListenerKind::Plain {
        // A plain listener has a loopback address, so another address is a bug.
        if !caller.ip().is_loopback() {
            return None;
        }
        let found = sock_diag::owner(address, local);
        let why = match found {
            Ok(Ok(user)) => {
                caller.user = Some(user);
                return Some((caller, local.port()));
            }
            Ok(Err(why)) => why.to_string(),
            Err(error) => error.to_string(),
        };
        gateway.metrics.refused("no_user");
        if gateway.rates.may_log(caller.source()) {
            tracing::warn!("refused the connection from {caller}: cannot tell whose it is: {why}");
        }
        return None;
    }
    Some((caller, local.port()))
}

async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send>(
    gateway: Arc<Gateway>,
    caller: TcpCaller,
    port: Option<u16>,
    stream: S,
    connection: AdmittedConnection,
    mut end: watch::Receiver<bool>,
) {
    let delivery = Delivery::default();
    let service = service_fn(|request| {
        let client = ClientConnection { gateway: &gateway, caller, port, delivery: &delivery };
        let busy = connection.begin();
        async move {
            let reply = routes::answer(client, request).await;
            drop(busy);
            Ok::<_, Infallible>(reply)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_LIMIT).max_headers(100);
    let stream = Tracked::new(stream, delivery.clone());
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = served.as_mut() => return,
        () = connection.leave.notified() => return,
        () = ended(&mut end) => {}
    }
    // Requests that were sent before the client could know of the shutdown are read and answered. The answer closes the
    // connection.
    tokio::select! {
        biased;
        _ = served.as_mut() => return,
        () = tokio::time::sleep(LINGER) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}
