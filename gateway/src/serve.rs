//! `serve`: set-up, signals, reload and shutdown.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{FileRules, GatewayConfig};
use crate::gateway::{ActiveConfig, Gateway};
use crate::library::{Error, Kind, Result};
use crate::metrics::write_file;
use crate::server::listener::{self, BoundListener};
use crate::{admin, agents, connections, server};

/// The time between two writes of the metrics file.
const METRICS_PERIOD: Duration = Duration::from_secs(15);

/// The time limit for the threads to end after the last reply.
const THREADS_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of open files in addition to the callers' connections: sockets to agents and to Anaplan, and files.
const RESERVED_FILES: u64 = 1024;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration is invalid, or a socket cannot be bound.
pub(crate) fn serve(config: GatewayConfig) -> Result<()> {
    refuse_root()?;
    let path = config.path.clone();
    let active = ActiveConfig::read(config)?;
    agents::check_separation(&active.config)?;
    active.config.files.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let listening = listener::open(&active.config)?;
    raise_open_files();
    let admin = active.config.admin.as_ref().map(admin::open).transpose()?.flatten();
    let gateway = Gateway::new(active)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| unexpected("start the threads", &error))?;
    let served = runtime.block_on(run(&gateway, listening, admin, &path));
    // A thread can wait for DNS much longer than the login for which it asks.
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    tracing::info!("stopped");
    served
}

/// Refuses to run as root: root can read every key and use every socket of the host, and the gateway parses untrusted
/// bytes.
fn refuse_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Err(Error::new(Kind::NotAllowed, "cannot serve as root: the gateway must not run with root's rights")
            .hint("systemctl start cba-gateway, or setpriv --reuid cba-gateway --regid cba-gateway --init-groups cba-gateway serve"));
    }
    Ok(())
}

fn unexpected(what: &str, error: &std::io::Error) -> Error {
    Error::new(Kind::Unexpected, format!("cannot {what}: {error}"))
}

/// Raises the limit of open files to the maximum number of connections: each connection is an open file.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(connections::MAX_CONNECTIONS).unwrap_or(0) + RESERVED_FILES;
    let wanted = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < wanted) {
        let result = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
        if let Err(error) = result {
            tracing::warn!("cannot raise the limit of open files: {error}");
        }
    }
}

async fn run(
    gateway: &Arc<Gateway>,
    listening: Vec<BoundListener>,
    admin: Option<admin::AdminSocket>,
    path: &Path,
) -> Result<()> {
    let failed = |error: std::io::Error| unexpected("serve", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let (shutdown_sender, shutdown) = watch::channel(false);
    let mut servers = JoinSet::new();
    for bound in listening {
        let (address, kind) = (bound.listener.local_addr().map_err(failed)?, bound.kind);
        let listener = bound.into_tokio().map_err(failed)?;
        let protocol = if kind == server::ListenerKind::Tls { "TLS" } else { "plain HTTP" };
        tracing::info!("serving {protocol} on {address}");
        servers.spawn(server::serve(Arc::clone(gateway), listener, kind, shutdown.clone()));
    }
    let _background = start_background(gateway, admin.as_ref())?;
    let at_start = gateway.active();
    tracing::info!("ready: {}", status(gateway));
    notify_systemd(&[NotifyState::Ready, NotifyState::Status(&status(gateway))]);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                let monotonic = NotifyState::monotonic_usec_now();
                let mut states = vec![NotifyState::Reloading];
                states.extend(monotonic);
                notify_systemd(&states);
                reload(gateway, path, &at_start.config);
                notify_systemd(&[NotifyState::Ready, NotifyState::Status(&status(gateway))]);
            }
        }
    }
    tracing::info!("stopping: the gateway accepts no further connections, and answers the logins in flight");
    gateway.drain();
    notify_systemd(&[NotifyState::Stopping]);
    let _ = shutdown_sender.send(true);
    // A second signal ends the wait at once. The deadline of a login limits the wait. The gateway does not wait for a
    // caller that does not read its reply.
    let time_limit = gateway.active().config.deadline + Duration::from_secs(5);
    let drained = async {
        while servers.join_next().await.is_some() {}
        gateway.logins.all_ended().await;
    };
    tokio::select! {
        _ = tokio::time::timeout(time_limit, drained) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Serves the admin socket, writes the metrics file and notifies the watchdog, until the result is dropped.
fn start_background(gateway: &Arc<Gateway>, admin: Option<&admin::AdminSocket>) -> Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    if let Some(admin) = admin {
        let listener = admin.listener().map_err(|error| unexpected("serve the admin socket", &error))?;
        tasks.spawn(admin::serve(Arc::clone(gateway), listener));
    }
    tasks.spawn(write_metrics(Arc::clone(gateway)));
    if let Some(timeout) = sd_notify::watchdog_enabled() {
        tasks.spawn(async move {
            loop {
                notify_systemd(&[NotifyState::Watchdog]);
                tokio::time::sleep(timeout / 2).await;
            }
        });
    }
    Ok(tasks)
}

/// Reads the configuration and the files that it names. Installs all of it, or keeps the old configuration if anything is
/// wrong. Warns about settings that are no longer those of the start and that only a restart applies.
fn reload(gateway: &Arc<Gateway>, path: &Path, at_start: &GatewayConfig) {
    let old = gateway.active();
    let files = FileRules::new(old.config.files.single_user);
    let next = GatewayConfig::read(path, files).and_then(ActiveConfig::read);
    match next.and_then(|next| agents::check_separation(&next.config).map(|()| next)) {
        Ok(next) => {
            let changed = changed_until_restart(at_start, &next.config);
            if !changed.is_empty() {
                let keys = changed.join(", ");
                tracing::warn!("changed since the start: {keys}; `systemctl restart cba-gateway` applies it");
            }
            next.config.files.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            gateway.swap(next);
            tracing::info!("the new configuration is active: {}", status(gateway));
        }
        Err(error) => {
            tracing::error!("the new configuration is invalid; the gateway keeps the old one: {}", error.message);
            error.hints.iter().for_each(|hint| tracing::error!("hint: {hint}"));
        }
    }
}

/// Returns the keys with another value than at the start that a reload does not apply.
fn changed_until_restart(at_start: &GatewayConfig, new: &GatewayConfig) -> Vec<&'static str> {
    let tls = |config: &GatewayConfig| config.tls.as_ref().map(|tls| tls.listen.clone());
    let admin = |config: &GatewayConfig| config.admin.as_ref().map(|admin| (admin.socket.clone(), admin.group));
    let keys = [
        ("listen", at_start.listen != new.listen),
        ("[tls] listen", tls(at_start) != tls(new)),
        ("[admin] socket or group", admin(at_start) != admin(new)),
        ("state_dir", at_start.spent_path() != new.spent_path()),
        ("[log]", at_start.log != new.log),
    ];
    keys.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
}

async fn write_metrics(gateway: Arc<Gateway>) {
    loop {
        let active = gateway.active();
        if let Some(file) = active.config.admin.as_ref().and_then(|admin| admin.metrics_file.as_ref()) {
            let is_ready = gateway.check_ready().await.is_ok();
            let text = gateway.metrics.text(gateway.connections.count(), is_ready).unwrap_or_default();
            if let Err(error) = write_file(file, &text) {
                tracing::warn!("cannot write the metrics to {}: {error}", file.display());
            }
        }
        tokio::time::sleep(METRICS_PERIOD).await;
    }
}

fn status(gateway: &Gateway) -> String {
    let active = gateway.active();
    let enabled = active.config.clients.iter().filter(|client| !client.disabled).count();
    format!("{enabled} clients, Anaplan at {}", active.upstream.name())
}

fn notify_systemd(states: &[NotifyState<'_>]) {
    // The gateway also runs without systemd.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("cannot notify systemd: {error}");
    }
}
