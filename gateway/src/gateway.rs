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
use crate::library::{Error, Kind, Result, now};
use crate::logins::RunningLogins;
use crate::metrics::GatewayMetrics;
use crate::pause::Pause;
use crate::rates::{ClientRate, SourceRates};
use crate::server::tls;
use crate::shared_users::SharedUsers;
use crate::spent_file::SpentFile;
use crate::upstream::Upstream;

/// The time limit for an agent's readiness.
const PROBE: Duration = Duration::from_secs(5);

/// The time for which this result is reused.
const PROBE_HOLDS: Duration = Duration::from_secs(5);

/// One configuration with everything that belongs to it.
#[derive(Debug)]
pub(crate) struct Set {
    pub config: GatewayConfig,
    /// The client of Anaplan's service.
    pub upstream: Upstream,
    /// The certificate and key of the TLS listener.
    pub tls: Option<Arc<ServerConfig>>,
    /// The end of its certificate, in seconds of Unix time.
    pub tls_end: Option<u64>,
    rates: HashMap<String, ClientRate>,
}

pub(crate) struct Gateway {
    set: RwLock<Arc<Set>>,
    /// The logins in flight, and the spent messages.
    pub logins: Arc<RunningLogins>,
    pub rates: SourceRates,
    /// The pauses in which no login is posted.
    pub pause: Pause,
    pub metrics: Arc<GatewayMetrics>,
    pub connections: Arc<ConnectionTable>,
    /// The user IDs that may stand for several users.
    pub shared_users: SharedUsers,
    probed: tokio::sync::Mutex<Option<(Instant, std::result::Result<(), String>)>>,
    is_draining: AtomicBool,
}

impl Set {
    /// Reads every file that a configuration names.
    ///
    /// # Errors
    /// The first error that is found.
    pub(crate) fn read(mut config: GatewayConfig) -> Result<Self> {
        let upstream = Upstream::new(&config.upstream, &mut config.files)?;
        let (tls, tls_end) = match &config.tls {
            Some(keys) => tls::server_config(keys, &mut config.files).map(|(tls, end)| (Some(tls), end))?,
            None => (None, None),
        };
        let rates = config.clients.iter().map(|client| (client.name.clone(), ClientRate::new(client.rate_per_minute)));
        Ok(Self { rates: rates.collect(), upstream, tls, tls_end, config })
    }

    /// Returns the rate of a client.
    #[must_use]
    pub(crate) fn rate(&self, client: &str) -> Option<&ClientRate> {
        self.rates.get(client)
    }
}

impl Gateway {
    /// Creates a gateway with its first set.
    ///
    /// # Errors
    /// When the spent messages or the subordinate user IDs of the host cannot be read.
    pub(crate) fn new(set: Set) -> Result<Arc<Self>> {
        let metrics =
            GatewayMetrics::new().map_err(|error| Error::new(Kind::Unexpected, format!("cannot count: {error}")))?;
        metrics.show(&set.config, set.tls_end);
        let logins = match set.config.spent_path() {
            Some(path) => open_spent(&path)?,
            None => {
                tracing::warn!(
                    "no state_dir and no [admin] socket: after a restart, a v2 payload of a tool can be used a second time"
                );
                RunningLogins::default()
            }
        };
        Ok(Arc::new(Self {
            set: RwLock::new(Arc::new(set)),
            logins: Arc::new(logins),
            rates: SourceRates::default(),
            pause: Pause::default(),
            metrics: Arc::new(metrics),
            connections: Arc::default(),
            shared_users: SharedUsers::read()?,
            probed: tokio::sync::Mutex::default(),
            is_draining: AtomicBool::new(false),
        }))
    }

    /// Returns the current set. Every request is judged by it.
    #[must_use]
    pub(crate) fn set(&self) -> Arc<Set> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Installs a new set. Unchanged rates keep their counts.
    pub(crate) fn swap(&self, mut next: Set) {
        let old = self.set();
        for client in &next.config.clients {
            let rate = ClientRate::renewed(old.rates.get(&client.name), client.rate_per_minute);
            next.rates.insert(client.name.clone(), rate);
        }
        self.metrics.show(&next.config, next.tls_end);
        self.pause.end();
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }

    /// Checks that an agent is ready and logins are not paused.
    pub(crate) async fn ready(&self) -> std::result::Result<(), String> {
        self.pause.check().map_err(|failure| failure.message)?;
        // One caller asks the agents. Callers that arrive meanwhile get the same result.
        let mut probed = self.probed.lock().await;
        if let Some((when, found)) = probed.as_ref().filter(|(when, _)| when.elapsed() < PROBE_HOLDS) {
            let _ = when;
            return found.clone();
        }
        let set = self.set();
        let mut found = Err("no agent is configured".to_owned());
        for socket in &set.config.agent.sockets {
            found = agents::ready(socket, PROBE).await.map_err(|error| error.message);
            if found.is_ok() {
                break;
            }
        }
        *probed = Some((Instant::now(), found.clone()));
        found
    }

    /// Whether the shutdown has begun.
    #[must_use]
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Begins the shutdown: from now on, each answer closes its connection.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }
}

fn open_spent(path: &Path) -> Result<RunningLogins> {
    let opened = SpentFile::open(path, now()).map_err(|error| {
        let what = format!("cannot keep the spent payloads in {}: {error}", path.display());
        Error::new(Kind::Config, what)
            .hint("state_dir must name a directory that the gateway's user may write, and that no other gateway uses")
    });
    opened.map(|(file, spent)| RunningLogins::new(file, spent))
}
