//! `serve`: the service that holds a token and answers requests of clients on a Unix socket.
//!
//! Runs in the parent. One thread runs the loop, the timers and the signals, and decides what happens to each payload.
//! Each worker has a separate thread in `pool` for calls that may block. The loop never waits for a token. Deliberately
//! absent: any network listener, and any way to pass bytes to the signature.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::audit::AuditLog;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::fuse::FuseStore;
use crate::fuse::{remedy, state_directory};
use crate::os::limits::OPEN_FILES;
use crate::pin::{Credential, PinSource};
use crate::session;

mod access;
mod http;
mod lifecycle;
mod listener;
mod metrics;
mod pool;
pub(crate) mod socket_file;
mod status;
mod systemd;

use access::AccessRules;
use http::Service;
use lifecycle::{run, unexpected};
use listener::ListeningSocket;
use metrics::Metrics;
use pool::Pool;

/// Descriptors other than connections: workers, their pipes, the log, the fuse.
const RESERVED: u64 = 64;

/// With fewer descriptors, the agent cannot start its event loop or its workers.
const LEAST_DESCRIPTORS: u64 = 32;

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
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("start the event loop"))?;
    let reset = state_directory::choose(config.state_dir.as_deref())
        .map_or_else(|_| String::new(), |directory| remedy::reset_any(&directory));
    let config = Arc::new(config);
    let metrics = Metrics::new().map_err(|error| Error::new(Kind::Unexpected, format!("metrics: {error}")))?;
    let served = runtime.block_on(async {
        let pool = Pool::start(Arc::clone(&config), credential).map_err(failed("start a worker's thread"))?;
        let agent = Service::new(pool, metrics, rules, config, connections);
        let served = run(&agent, &listening_socket, source, reset).await;
        agent.pool.end().await;
        served
    });
    tracing::info!("ended");
    served
}

/// Reads the PIN once, before there is a token. Without a source and a person there is no PIN, which is enough for a token without login.
///
/// A service logs in again without a person, so its state directory must be persistent.
fn read_credential(source: Option<PinSource>, state_dir: Option<&Path>) -> Result<Option<Credential>> {
    const PIN_READ_TIMEOUT: Duration = Duration::from_secs(30);
    let source = match source.map_or_else(PinSource::fallback, Ok) {
        Ok(source) => source,
        Err(error) => {
            tracing::warn!("{error}; only a token that requires no login can be used");
            return Ok(None);
        }
    };
    FuseStore::open(state_dir)?;
    // Warnings come before the prompt.
    crate::log::flush();
    Ok(Some(Credential::read(source.prepare(), "the agent's token", &mut Deadline::after(PIN_READ_TIMEOUT))?))
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
    let workers = u64::try_from(workers).unwrap_or(RESERVED);
    let least = LEAST_DESCRIPTORS + 8 * workers;
    if wanted < least {
        let message = format!("a process may open only {wanted} files, and the agent needs {least}");
        return Err(Error::new(Kind::Config, message).hint(OPEN_FILES));
    }
    let taken = RESERVED + 8 * workers;
    Ok(usize::try_from(wanted.saturating_sub(taken).clamp(16, CONNECTIONS)).unwrap_or(16))
}

fn listen(config: &Config, rules: &AccessRules) -> Result<ListeningSocket> {
    if let Some(activated) = ListeningSocket::activated()? {
        tracing::info!("serving on the socket from systemd");
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
