//! The state that answers requests: the set that a reload replaces, and the state that survives a reload.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::agents;
use crate::config::GatewayConfig;
use crate::connections::ConnectionTable;
use crate::library::{Error, Kind, Result, file_format::quoted, now};
use crate::logins::RunningLogins;
use crate::metrics::GatewayMetrics;
use crate::pause::Pause;
use crate::rates::{ClientRate, SourceRates};
use crate::server::tls;
use crate::shared_users::SharedUsers;
use crate::spent_file::SpentFile;
use crate::upstream::Upstream;

/// The time limit for the readiness check of one agent.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for which the result of a readiness check is reused.
const PROBE_REUSE: Duration = Duration::from_secs(5);

/// A configuration with everything that belongs to it. A reload replaces all of it.
#[derive(Debug)]
pub(crate) struct ActiveConfig {
    pub config: GatewayConfig,
    /// The HTTP client of Anaplan.
    pub upstream: Upstream,
    /// The certificate and key of the TLS listener.
    pub tls: Option<Arc<ServerConfig>>,
    /// The end of that certificate, in seconds of Unix time.
    pub tls_not_after: Option<u64>,
    rates: HashMap<String, ClientRate>,
}

pub(crate) struct Gateway {
    active: RwLock<Arc<ActiveConfig>>,
    /// The logins in flight, and the spent messages.
    pub logins: Arc<RunningLogins>,
    pub rates: SourceRates,
    /// The pause in which no login is posted.
    pub pause: Pause,
    pub metrics: Arc<GatewayMetrics>,
    pub connections: Arc<ConnectionTable>,
    /// The user IDs that may stand for several users.
    pub shared_users: SharedUsers,
    last_probe: tokio::sync::Mutex<Option<(Instant, std::result::Result<(), String>)>>,
    is_draining: AtomicBool,
}

impl ActiveConfig {
    /// Reads every file that a configuration names.
    ///
    /// # Errors
    /// The first error that is found.
    pub(crate) fn read(mut config: GatewayConfig) -> Result<Self> {
        let upstream = Upstream::new(&config.upstream, &mut config.files)?;
        let (tls, tls_not_after) = match &config.tls {
            Some(keys) => tls::server_config(keys, &mut config.files).map(|(tls, end)| (Some(tls), end))?,
            None => (None, None),
        };
        let rates = config.clients.iter().map(|client| (client.name.clone(), ClientRate::new(client.rate_per_minute)));
        Ok(Self { rates: rates.collect(), upstream, tls, tls_not_after, config })
    }

    #[must_use]
    pub(crate) fn rate(&self, client: &str) -> Option<&ClientRate> {
        self.rates.get(client)
    }
}

impl Gateway {
    /// Creates a gateway with its first configuration.
    ///
    /// # Errors
    /// When the spent messages or the subordinate user IDs of the host cannot be read.
    pub(crate) fn new(active: ActiveConfig) -> Result<Arc<Self>> {
        let metrics = GatewayMetrics::new()
            .map_err(|error| Error::new(Kind::Unexpected, format!("cannot create the metrics: {error}")))?;
        metrics.set_configuration(&active.config, active.tls_not_after);
        let logins = match active.config.spent_path() {
            Some(path) => open_spent_file(&path)?,
            None => {
                tracing::warn!(
                    "no state_dir and no [admin] socket: after a restart, a v2 payload of a tool can be used a second time"
                );
                RunningLogins::default()
            }
        };
        Ok(Arc::new(Self {
            active: RwLock::new(Arc::new(active)),
            logins: Arc::new(logins),
            rates: SourceRates::default(),
            pause: Pause::default(),
            metrics: Arc::new(metrics),
            connections: Arc::default(),
            shared_users: SharedUsers::read()?,
            last_probe: tokio::sync::Mutex::default(),
            is_draining: AtomicBool::new(false),
        }))
    }

    /// Returns the active configuration. Each request reads it anew, also on an open connection.
    #[must_use]
    pub(crate) fn active(&self) -> Arc<ActiveConfig> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the active configuration, and ends a pause. Unchanged rates keep their counts.
    pub(crate) fn swap(&self, mut next: ActiveConfig) {
        let old = self.active();
        for client in &next.config.clients {
            let rate = ClientRate::for_reload(old.rates.get(&client.name), client.rate_per_minute);
            next.rates.insert(client.name.clone(), rate);
        }
        self.metrics.set_configuration(&next.config, next.tls_not_after);
        self.pause.end();
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }

    /// Checks that an agent is ready and logins are not paused.
    pub(crate) async fn check_ready(&self) -> std::result::Result<(), String> {
        self.pause.check().map_err(|failure| failure.message)?;
        // One caller asks the agents. Callers that arrive meanwhile get the same result.
        let mut last_probe = self.last_probe.lock().await;
        if let Some((_, result)) = last_probe.as_ref().filter(|(time, _)| time.elapsed() < PROBE_REUSE) {
            return result.clone();
        }
        let active = self.active();
        let mut result = Err("no agent is configured".to_owned());
        for socket in &active.config.agent.sockets {
            result = agents::check_ready(socket, PROBE_TIMEOUT).await.map_err(|error| error.message);
            if result.is_ok() {
                break;
            }
        }
        *last_probe = Some((Instant::now(), result.clone()));
        result
    }

    /// Whether the shutdown has begun.
    #[must_use]
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Begins the shutdown: from now on, each reply closes its connection.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }
}

fn open_spent_file(path: &Path) -> Result<RunningLogins> {
    let opened = SpentFile::open(path, now()).map_err(|error| spent_file_error(path, &error));
    opened.map(|(file, spent)| RunningLogins::new(file, spent))
}

/// Returns the error for a file of spent messages that cannot be used.
#[must_use]
pub(crate) fn spent_file_error(path: &Path, error: &std::io::Error) -> Error {
    let directory = path.parent().unwrap_or(path).display().to_string();
    Error::new(Kind::Config, format!("cannot keep the spent payloads in {}: {error}", path.display())).hint(format!(
        "state_dir must name a directory that the gateway's user may write, and that no other gateway uses: \
         `install -d -o cba-gateway -g cba-gateway -m 700 {}`",
        quoted(&directory)
    ))
}
