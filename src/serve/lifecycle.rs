//! The life of the service: signals, a reload, and an orderly end.
//!
//! Runs in the parent.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::http;
use super::http::Service;
use super::listener::ListeningSocket;
use super::pool::plan::Logins;
use super::status::{SOCKET_CHECK_INTERVAL, tell, write_metrics};
use super::systemd::Systemd;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::os::limits;
use crate::pin::credential::can_be_read_again;
use crate::pin::{Credential, PinError, PinSource, leave_signals};

/// The time limit for reading the PIN's source again. The event loop waits for it.
const PIN_READ_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn run(
    agent: &Arc<Service>,
    listening_socket: &ListeningSocket,
    source: Option<PinSource>,
    reset: String,
) -> Result<()> {
    let failed = |error: std::io::Error| unexpected("serve the socket", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    // The program that started the agent may have blocked them, and only SIGKILL would end it.
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect::<SigSet>()
        .thread_unblock()
        .map_err(|error| failed(error.into()))?;
    leave_signals();
    let (stop, stopped) = watch::channel(false);
    let systemd = Systemd::start().map_err(failed)?;
    let systemds_socket = listening_socket.file.clone().filter(|_| !listening_socket.is_own());
    let watching = [
        tokio::spawn(tell(Arc::clone(agent), systemd.clone(), systemds_socket)),
        tokio::spawn(write_metrics(Arc::clone(agent))),
    ];
    let mut serving = std::pin::pin!(http::run(agent, listening_socket, stopped));
    systemd.ready();
    let mut changed = agent.pool.watch();
    let mut lost = std::pin::pin!(loss_of_own_socket(listening_socket));
    let mut reason = Ok(());
    loop {
        tokio::select! {
            _ = changed.changed() => {
                if agent.pool.view().logins == Logins::Stopped(Kind::PinMissing) && !agent.pool.has_credential() {
                    // Only a restart can provide one.
                    return Err(PinError::NoSource.into());
                }
            }
            result = serving.as_mut() => return result.map_err(failed),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            error = lost.as_mut() => {
                reason = Err(error);
                break;
            }
            _ = hangup.recv() => {
                systemd.reloading();
                renew(agent, source.as_ref(), &reset);
                systemd.ready();
            }
        }
    }
    tracing::info!("stopping: no new connections are accepted, and requests in progress are answered");
    systemd.stopping();
    listening_socket.close_door();
    let _ = stop.send(true);
    let result = tokio::select! {
        result = serving => result.map_err(failed),
        // A second Ctrl-C ends at once.
        _ = interrupt.recv() => Ok(()),
    };
    for task in watching {
        task.abort();
        let _ = task.await;
    }
    result.and(reason)
}

/// Waits until no client can connect any more, since the agent's socket was removed or replaced. Only a new agent can make it again.
async fn loss_of_own_socket(listening_socket: &ListeningSocket) -> Error {
    let Some(file) = listening_socket.file.as_ref().filter(|_| listening_socket.is_own()) else {
        return std::future::pending().await;
    };
    while !file.is_lost() {
        tokio::time::sleep(SOCKET_CHECK_INTERVAL).await;
    }
    let message = format!("the socket {} was removed or replaced, so no client can connect", file.path.display());
    Error::new(Kind::Unexpected, message)
        .hint("start the agent again; if a program cleans that directory, name a path below /run: --socket PATH")
}

/// SIGHUP: reads the PIN's source again, and replaces every worker.
fn renew(agent: &Arc<Service>, source: Option<&PinSource>, reset: &str) {
    let again = source.cloned().or_else(|| PinSource::fallback().ok()).filter(can_be_read_again);
    match again
        .map(|source| Credential::read(source.prepare(), "the agent's token", &mut Deadline::after(PIN_READ_TIMEOUT)))
    {
        Some(Ok(credential)) => {
            tracing::info!("restarting all workers with the PIN that its source contains now");
            agent.pool.renew(Some(credential));
        }
        Some(Err(error)) => {
            tracing::error!(
                "no worker is restarted, since the PIN cannot be read from its source: {}",
                Error::from(error).message
            );
        }
        None if agent.pool.has_credential() || source.is_none() => {
            tracing::info!("restarting all workers with the same PIN: its source is read only when the agent starts");
            agent.pool.renew(None);
        }
        None => {
            tracing::error!("the PIN was refused, and its source is read only when the agent starts");
            tracing::error!("hint: correct the PIN, clear the fuse, and start the agent again: {reset}");
        }
    }
}

pub(super) fn unexpected(what: &str, error: &std::io::Error) -> Error {
    limits::hint(error).into_iter().fold(Error::new(Kind::Unexpected, format!("cannot {what}: {error}")), Error::hint)
}
