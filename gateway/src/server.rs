//! Serves the listeners: accepts connections, identifies callers, serves HTTP, and shuts down after the last reply.
//!
//! `listener` opens the sockets, `routes` replies to the requests, and `admin` serves the admin socket.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
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
pub(crate) mod length_lines;
pub(crate) mod listener;
mod reply;
mod routes;
pub(crate) mod tls;

use delivery::{Delivery, TrackedStream};
use routes::RequestConnection;

/// The time limit for the head of a request, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The maximum length of a head, in bytes.
const HEAD_LIMIT: usize = 16 << 10;

/// The time limit for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time after the start of a shutdown in which the gateway still reads requests. Their callers could not know of the
/// shutdown when they sent them.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// Plain HTTP on a loopback address.
    Plain,
    Tls,
}

/// Accepts connections until `shutdown` is true, then closes the listener and waits until its connections have ended.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    kind: ListenerKind,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let for_connections = shutdown.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(&gateway, stream, kind, &mut tasks, &for_connections),
                Err(error) => log_accept_error(&error).await,
            },
            Some(_) = tasks.join_next() => {}
            () = wait_for_shutdown(&mut shutdown) => break,
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

async fn wait_for_shutdown(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|has_begun| *has_begun).await;
}

/// Logs why `accept` failed, and waits a moment: without a free file descriptor, it fails again at once. If only the
/// caller disconnected, the next connection can be accepted immediately.
async fn log_accept_error(error: &std::io::Error) {
    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
        return;
    }
    tracing::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn admit(
    gateway: &Arc<Gateway>,
    stream: TcpStream,
    kind: ListenerKind,
    tasks: &mut JoinSet<()>,
    shutdown: &watch::Receiver<bool>,
) {
    let Some((caller, local)) = identify(gateway, &stream, kind) else { return };
    let Some(connection) = gateway.connections.admit(caller.source()) else {
        gateway.metrics.count_refusal("connections");
        return;
    };
    let _ = stream.set_nodelay(true);
    let (gateway, shutdown) = (Arc::clone(gateway), shutdown.clone());
    match kind {
        ListenerKind::Plain => {
            tasks.spawn(serve_connection(gateway, caller, Some(local), stream, connection, shutdown))
        }
        ListenerKind::Tls => tasks.spawn(serve_tls(gateway, caller, stream, connection, shutdown)),
    };
}

async fn serve_tls(
    gateway: Arc<Gateway>,
    caller: TcpCaller,
    stream: TcpStream,
    connection: AdmittedConnection,
    shutdown: watch::Receiver<bool>,
) {
    let Some(config) = gateway.active().tls.clone() else { return };
    let handshake = TlsAcceptor::from(config).accept(stream);
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => accepted,
        () = connection.must_close.notified() => return,
    };
    match accepted {
        Ok(Ok(stream)) => serve_connection(gateway, caller, None, stream, connection, shutdown).await,
        Ok(Err(error)) => {
            gateway.metrics.count_refusal("tls");
            // A health check that only connects is no failure.
            let has_left = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
            if !has_left && gateway.rates.may_log(caller.source()) {
                tracing::warn!("TLS with {caller} failed: {error}");
            }
        }
        Err(_) => gateway.metrics.count_refusal("tls"),
    }
}

/// Returns the caller and the local address. For a loopback connection, asks the kernel once which user owns the other end.
/// Returns `None` if the user is unknown.
fn identify(gateway: &Gateway, stream: &TcpStream, kind: ListenerKind) -> Option<(TcpCaller, SocketAddr)> {
    let (Ok(address), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return None };
    let mut caller = TcpCaller { address, user: None };
    if kind == ListenerKind::Plain {
        // A plain listener has a loopback address, so another address is a bug.
        if !caller.ip().is_loopback() {
            return None;
        }
        let reason = match sock_diag::owner(address, local) {
            Ok(Ok(user)) => {
                caller.user = Some(user);
                return Some((caller, local));
            }
            Ok(Err(no_owner)) => no_owner.to_string(),
            Err(error) => error.to_string(),
        };
        gateway.metrics.count_refusal("no_user");
        if gateway.rates.may_log(caller.source()) {
            tracing::warn!("refused the connection from {caller}: cannot determine the user who owns it: {reason}");
        }
        return None;
    }
    Some((caller, local))
}

async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send>(
    gateway: Arc<Gateway>,
    caller: TcpCaller,
    plain: Option<SocketAddr>,
    stream: S,
    connection: AdmittedConnection,
    mut shutdown: watch::Receiver<bool>,
) {
    let delivery = Delivery::default();
    let service = service_fn(|request| {
        let request_connection = RequestConnection { gateway: &gateway, caller, plain, delivery: &delivery };
        let busy = connection.mark_busy();
        async move {
            let reply = routes::reply_to(request_connection, request).await;
            drop(busy);
            Ok::<_, Infallible>(reply)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_LIMIT).max_headers(100);
    let stream = TrackedStream::new(stream, delivery.clone());
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    let report = |served: hyper::Result<()>| served.unwrap_or_else(|error| report_malformed(&gateway, caller, &error));
    tokio::select! {
        result = served.as_mut() => return report(result),
        () = connection.must_close.notified() => return,
        () = wait_for_shutdown(&mut shutdown) => {}
    }
    // These requests are read and answered. Each reply closes its connection.
    tokio::select! {
        biased;
        result = served.as_mut() => return report(result),
        () = tokio::time::sleep(SHUTDOWN_GRACE) => {}
    }
    served.as_mut().graceful_shutdown();
    report(served.await);
}

/// Counts and logs a request that the HTTP library has refused, since it is malformed.
fn report_malformed(gateway: &Gateway, caller: TcpCaller, error: &hyper::Error) {
    if !error.is_parse() {
        return;
    }
    gateway.metrics.count_refusal("bad_request");
    if gateway.rates.may_log(caller.source()) {
        tracing::warn!("refused a request of {caller}: it is not HTTP/1.1: {error}");
    }
}
