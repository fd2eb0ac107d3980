//! What systemd and the metrics file are told about the service.
//!
//! Runs in the parent.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::http::Service;
use super::listener::SocketFile;
use super::metrics::write;
use super::pool::PoolView;
use super::pool::plan::Logins;
use super::systemd::Systemd;
use super::systemd::watchdog;

/// The period of writing the metrics file.
const METRICS_INTERVAL: Duration = Duration::from_secs(15);

/// The time between two checks of the socket's file. A watch on its directory would miss a change of a directory or link above.
pub(super) const SOCKET_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Reports the state to systemd, and that parent and pool make progress. Only systemd can make its own socket again, so its loss is a
/// state as well.
pub(super) async fn tell(agent: Arc<Service>, systemd: Systemd, systemds_socket: Option<SocketFile>) {
    let mut changed = agent.pool.watch();
    let mut watchdog = watchdog().map(every);
    let mut socket_check = every(SOCKET_CHECK_INTERVAL);
    let mut last = String::new();
    loop {
        let mut status = describe(&agent.pool.view());
        if agent.pool.audit_has_failed() {
            status = "not ready: the audit log cannot be written, so no payload is handed out".into();
        }
        if let Some(file) = systemds_socket.as_ref().filter(|file| file.is_lost()) {
            status = format!("not ready: the socket {} was removed or replaced; restart its unit", file.path.display());
        }
        if status != last {
            systemd.status(&status);
            last = status;
        }
        tokio::select! {
            _ = changed.changed() => {}
            _ = socket_check.tick() => {}
            () = tick(watchdog.as_mut()) => {
                if agent.pool.makes_progress() {
                    systemd.alive();
                } else {
                    tracing::error!("a worker's thread is stuck; systemd's watchdog is not notified");
                }
            }
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval_at(Instant::now(), period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn tick(interval: Option<&mut tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Writes the metrics file periodically, if one is configured.
pub(super) async fn write_metrics(agent: Arc<Service>) {
    let Some(path) = &agent.config.serve.metrics_file else { return };
    let mut often = every(METRICS_INTERVAL);
    loop {
        often.tick().await;
        let Ok(text) = agent.metrics_text().await else { continue };
        if let Err(error) = write(path, &text) {
            tracing::warn!("cannot write the metrics to {}: {error}", path.display());
        }
    }
}

/// One line for `systemctl status`.
fn describe(view: &PoolView) -> String {
    match (&view.served, view.is_up, view.logins) {
        (Some(served), true, _) => format!(
            "ready: token '{}' (serial {}), certificate until {}",
            crate::text::printable(&served.token.label),
            crate::text::printable(&served.token.serial),
            crate::certificate::utc(served.certificate.not_after)
        ),
        (_, _, Logins::Stopped(kind)) => {
            format!("not ready: no login is tried ({}); see the log, and `cba-agent pin-fuse`", kind.name())
        }
        (_, _, _) => match &view.last_error {
            Some(error) => format!("not ready: {}", crate::text::printable(error)),
            None => "starting".into(),
        },
    }
}
