//! The server on the socket: accepts connections, checks their users, and ends on request.
//!
//! Runs in the parent.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Service;
use super::client_stream::ClientStream;
use super::connections::Connection;
use super::routes::{self, Client};
use crate::serve::access::{Access, Peer};
use crate::serve::listener::ListeningSocket;

/// The time limit of a request's header, and of an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest header of a request, in bytes.
const HEADER_LIMIT: usize = 16 << 10;

/// The time for requests that were sent before the end, and are not read yet.
const LAST_REQUESTS_GRACE: Duration = Duration::from_millis(100);

/// The time for the last bytes of an answer to a slow client.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `end`, and then until every request in progress is answered.
pub(in crate::serve) async fn run(
    agent: &Arc<Service>,
    listening_socket: &ListeningSocket,
    mut end: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = listening_socket.listener.try_clone()?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let mut tasks = JoinSet::new();
    let ended = end.clone();
    loop {
        let take_one = async {
            agent.connections.room().await;
            listener.accept().await
        };
        tokio::select! {
            taken = take_one => match taken {
                Ok((stream, _)) => take(agent, stream, &mut tasks, &ended),
                Err(error) => cannot_take(&error).await,
            },
            Some(_) = tasks.join_next() => {}
            _ = end.wait_for(|ended| *ended) => break,
        }
    }
    agent.draining.store(true, Ordering::Relaxed);
    let listener = listener.into_std()?;
    // Our path is removed by now. Earlier connections are in the kernel's queue, and are served. A socket from systemd
    // stays, and its queue is the next agent's.
    while let (true, Ok((stream, _))) = (listening_socket.is_own(), listener.accept()) {
        stream.set_nonblocking(true)?;
        take(agent, UnixStream::from_std(stream)?, &mut tasks, &ended);
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// The system has no free descriptor, or the client has already closed. Against the former, only waiting helps.
async fn cannot_take(error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
        return;
    }
    tracing::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn take(agent: &Arc<Service>, stream: UnixStream, tasks: &mut JoinSet<()>, end: &watch::Receiver<bool>) {
    let peer = match Peer::of(&stream) {
        Ok(peer) => peer,
        Err(error) => {
            agent.metrics.count_refusal("unknown");
            tracing::warn!("refused: cannot read the user of a connection: {error}");
            return;
        }
    };
    let access = agent.rules.judge(&peer);
    let connection = agent.connections.enter(peer.uid, access);
    agent.metrics.set_connections(agent.connections.count());
    let (agent, end) = (Arc::clone(agent), end.clone());
    tasks.spawn(async move {
        let service = Arc::clone(&agent);
        serve(agent, peer, access, stream, connection, end).await;
        service.metrics.set_connections(service.connections.count());
    });
}

async fn serve(
    agent: Arc<Service>,
    peer: Peer,
    access: Access,
    stream: UnixStream,
    connection: Connection,
    mut end: watch::Receiver<bool>,
) {
    let stream = ClientStream::new(stream);
    let service = service_fn(|request| {
        let (agent, peer, client) = (&agent, &peer, Client { connection: &connection, stream: &stream });
        async move { Ok::<_, Infallible>(routes::answer(agent, (peer, access), client, request).await) }
    });
    let mut http = http1::Builder::new();
    // A client may close its sending side, as `nc -N` does, and wait for its answer.
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_LIMIT).half_close(true);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream.clone()), service));
    tokio::select! {
        _ = served.as_mut() => return,
        () = connection.leave.notified() => return,
        _ = end.wait_for(|ended| *ended) => {}
    }
    if !connection.is_busy() {
        // Requests that were sent before the end are read and answered now. The answer closes the connection.
        tokio::select! {
            biased;
            _ = served.as_mut() => return,
            () = tokio::time::sleep(LAST_REQUESTS_GRACE) => {}
        }
    }
    served.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        _ = served.as_mut() => return,
        () = connection.idle() => {}
    }
    // Answered, or never complete: the end does not wait for clients that do not read or do not continue.
    let _ = tokio::time::timeout(LAST_ANSWER_TIMEOUT, served).await;
}
