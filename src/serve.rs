//! `serve`: the service that holds a token and answers requests of clients on a Unix socket.
//!
//! Runs in the parent. One thread runs the loop, the timers and the signals, and decides what happens to each payload.
//! Each worker has a separate thread in `pool` for calls that may block. The loop never waits for a token. Deliberately
//! absent: any network listener, and any way to pass bytes to the signature.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::audit::AuditLog;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::fuse::FuseStore;
use crate::fuse::{remedy, state_directory};
use crate::pin::credential::can_be_read_again;
use crate::pin::{Credential, PinError, PinSource, leave_signals};
use crate::session;

mod access;
mod http;
mod listener;
mod metrics;
mod pool;
pub(crate) mod socket_file;
mod systemd;

use access::AccessRules;
use http::{Service, ServiceSettings};
use listener::ListeningSocket;
use metrics::Metrics;
use pool::plan::Logins;
use pool::{Pool, PoolView};
use systemd::Systemd;

/// The period of writing the metrics file.
const METRICS_EVERY: Duration = Duration::from_secs(15);

/// The time limit for reading the PIN's source again. The event loop waits for it.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Descriptors other than connections: workers, their pipes, the log, the fuse.
const RESERVED: u64 = 64;

/// The maximum number of connections, even if the system allows more.
const CONNECTIONS: u64 = 8192;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When there is no PIN, the socket cannot be created, or the system does not know a name. A missing token is not an error.
pub(crate) fn serve(config: Config) -> Result<()> {
    // Before any file is opened: the source may be a descriptor.
    let source = config.pin.clone();
    let credential = read_credential(source.clone(), config.state_dir.as_deref())?;
    if let Some(module) = &config.module {
        let path = crate::modules::resolve(module)?;
        session::check_module(&config, &path)?;
        if config.sandbox_profile(&path).is_none() {
            tracing::warn!("the module {} runs without a sandbox; `cba-agent doctor` says why", path.display());
        }
    }
    config.audit.clone().map(AuditLog::new).as_mut().map_or(Ok(()), AuditLog::check)?;
    let rules = AccessRules::resolve(&config.serve)?;
    for group in socket_file::subordinate_groups(&config.serve)? {
        tracing::warn!("{group}");
    }
    let connections = room_for_connections(config.serve.workers)?;
    let listening_socket = listen(&config, &rules)?;
    let failed = |what: &'static str| move |error: std::io::Error| unexpected(what, &error);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("start the loop"))?;
    let reset = state_directory::choose(config.state_dir.as_deref())
        .map_or_else(|_| String::new(), |directory| remedy::reset_any(&directory));
    let answers = ServiceSettings::of(&config);
    let metrics = Metrics::new().map_err(|error| Error::new(Kind::Unexpected, format!("metrics: {error}")))?;
    let served = runtime.block_on(async {
        let pool = Pool::start(config, credential).map_err(failed("start a worker's thread"))?;
        let agent = Service::new(pool, metrics, rules, answers, connections);
        let served = run(&agent, &listening_socket, source, reset).await;
        agent.pool.end().await;
        served
    });
    tracing::info!("ended");
    served
}

fn unexpected(what: &str, error: &std::io::Error) -> Error {
    Error::new(Kind::Unexpected, format!("cannot {what}: {error}"))
}

/// Reads the PIN once, before there is a token. Without a source and a person there is no PIN, which is enough for a token without login.
///
/// A service logs in again without a person, so its state directory must be persistent.
fn read_credential(source: Option<PinSource>, state_dir: Option<&Path>) -> Result<Option<Credential>> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let source = match source.map_or_else(PinSource::fallback, Ok) {
        Ok(source) => source,
        Err(error) => {
            tracing::warn!("{error}; only a token that wants no login can be used");
            return Ok(None);
        }
    };
    FuseStore::open(state_dir)?;
    // Warnings come before the prompt.
    crate::log::flush();
    Ok(Some(Credential::read(source.prepare(), "the agent's token", &mut Deadline::after(PATIENCE))?))
}

/// Raises the limit of open files, and returns how many of them can be connections.
fn room_for_connections(workers: usize) -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).min(CONNECTIONS + 2 * RESERVED);
    let wanted = limit.current.map_or(most, |current| current.max(most));
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
            .map_err(|error| unexpected("raise the number of open files", &error.into()))?;
    }
    let taken = RESERVED + 8 * u64::try_from(workers).unwrap_or(RESERVED);
    Ok(usize::try_from(wanted.saturating_sub(taken).clamp(16, CONNECTIONS)).unwrap_or(16))
}

fn listen(config: &Config, rules: &AccessRules) -> Result<ListeningSocket> {
    if let Some(activated) = ListeningSocket::activated()? {
        tracing::info!("serving on the socket that systemd handed over");
        return Ok(activated);
    }
    let usual = || {
        let directory = std::env::var("RUNTIME_DIRECTORY").ok()?;
        let first = std::path::PathBuf::from(directory.split(':').next()?);
        first.is_absolute().then(|| first.join("agent.sock"))
    };
    let none = || {
        Error::new(Kind::Usage, "no socket is named")
            .hint("--socket PATH, or socket in [serve], as /run/cba-agent/agent.sock")
    };
    let path = config.serve.socket.clone().or_else(usual).ok_or_else(none)?;
    rules.warn();
    let listening_socket = ListeningSocket::bind(&path, rules.socket_group)?;
    tracing::info!("serving on {}", path.display());
    Ok(listening_socket)
}

async fn run(
    agent: &Arc<Service>,
    listening_socket: &ListeningSocket,
    source: Option<PinSource>,
    reset: String,
) -> Result<()> {
    let failed = |error: std::io::Error| unexpected("serve the socket", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    leave_signals();
    let (over, ended) = watch::channel(false);
    let systemd = Systemd::start().map_err(failed)?;
    let watching =
        [tokio::spawn(tell(Arc::clone(agent), systemd.clone())), tokio::spawn(write_metrics(Arc::clone(agent)))];
    let mut serving = std::pin::pin!(http::run(agent, listening_socket, ended));
    systemd.ready();
    let mut changed = agent.pool.watch();
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
            _ = hangup.recv() => {
                systemd.reloading();
                renew(agent, source.as_ref(), &reset);
                systemd.ready();
            }
        }
    }
    tracing::info!("ending: no further connection is taken, and what is in hand is answered");
    systemd.stopping();
    listening_socket.close_door();
    let _ = over.send(true);
    let result = tokio::select! {
        result = serving => result.map_err(failed),
        // A second Ctrl-C ends at once.
        _ = interrupt.recv() => Ok(()),
    };
    for task in watching {
        task.abort();
        let _ = task.await;
    }
    result
}

/// SIGHUP: reads the PIN's source again, and replaces every worker.
fn renew(agent: &Arc<Service>, source: Option<&PinSource>, reset: &str) {
    let again = source.cloned().or_else(|| PinSource::fallback().ok()).filter(can_be_read_again);
    match again.map(|source| Credential::read(source.prepare(), "the agent's token", &mut Deadline::after(READ_AGAIN)))
    {
        Some(Ok(credential)) => {
            tracing::info!("renewing all workers, with the PIN that is in its source now");
            agent.pool.renew(Some(credential));
        }
        Some(Err(error)) => {
            tracing::error!(
                "nothing is renewed, since the PIN's source cannot be used: {}",
                Error::from(error).message
            );
        }
        None if agent.pool.has_credential() || source.is_none() => {
            tracing::info!("renewing all workers, with the same PIN: its source holds nothing new");
            agent.pool.renew(None);
        }
        None => {
            tracing::error!("the PIN was refused, and its source holds nothing new before the agent is started again");
            tracing::error!("hint: correct the PIN, clear the fuse, and start the agent again: {reset}");
        }
    }
}

/// Reports the state to systemd, and that parent and pool make progress.
async fn tell(agent: Arc<Service>, systemd: Systemd) {
    let mut changed = agent.pool.watch();
    let mut watchdog = systemd::watchdog().map(every);
    let mut last = String::new();
    loop {
        let mut status = describe(&agent.pool.view());
        if agent.pool.audit_has_failed() {
            status = "not ready: the audit log cannot be written, so no payload is handed out".into();
        }
        if status != last {
            systemd.status(&status);
            last = status;
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = tick(watchdog.as_mut()) => {
                if agent.pool.makes_progress() {
                    systemd.alive();
                } else {
                    tracing::error!("a worker's thread is stuck; systemd is not told that all is well");
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
async fn write_metrics(agent: Arc<Service>) {
    let Some(path) = &agent.config.metrics_file else { return };
    let mut often = every(METRICS_EVERY);
    loop {
        often.tick().await;
        let Ok(text) = agent.metrics_text().await else { continue };
        if let Err(error) = metrics::write(path, &text) {
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
