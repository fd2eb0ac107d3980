//! Metrics for Prometheus, and the last login of each client for `cba-gateway clients`.
//!
//! No label contains a token, a payload or a password.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use serde::{Deserialize, Serialize};

use crate::config::{GatewayConfig, LocalClient};
use crate::library::{Result, now};
use crate::logins::record::LoginRecord;

/// The upper bounds of the buckets, in seconds.
const DURATION_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

/// All metrics, and the last login of each client.
#[derive(Debug)]
pub(crate) struct GatewayMetrics {
    registry: Registry,
    logins: IntCounterVec,
    refused: IntCounterVec,
    token_requests: IntCounterVec,
    login_duration: Histogram,
    agent_duration: Histogram,
    upstream_duration: Histogram,
    connections: IntGauge,
    ready: IntGauge,
    transition: IntGaugeVec,
    last_login: GaugeVec,
    certificate_not_after: GaugeVec,
    tls_not_after: Gauge,
    last_logins: Mutex<BTreeMap<String, LastLogin>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LastLogin {
    /// Seconds of Unix time.
    pub time: u64,
    /// The kind of credentials: `password`, or the payload version `v1` or `v2`.
    #[serde(rename = "version_in")]
    pub credentials: String,
    /// One word for the outcome.
    pub outcome: String,
    /// The status of Anaplan's answer; 0 without an answer.
    pub upstream_status: u16,
}

impl GatewayMetrics {
    /// Creates and registers the metrics.
    ///
    /// # Errors
    /// Never, because the names are constants.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("cba_gateway".into()), None)?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help)?);
        let time_gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, GaugeVec::new(Opts::new(name, help), labels)?)
        };
        let duration_histogram = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(DURATION_BUCKETS.to_vec());
            registered(&registry, Histogram::with_opts(options)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let tls_not_after = Gauge::new(
            "tls_certificate_not_after_timestamp_seconds",
            "End of the TLS listener's certificate, seconds of Unix time; 0 without one",
        )?;
        let build = gauges("build_info", "Always 1; the version is a label", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            logins: counters(
                "logins_total",
                "Verified logins by client, identity and outcome",
                &["client", "identity", "outcome"],
            )?,
            refused: counters(
                "refused_total",
                "Connections and requests that were refused before a login, by reason",
                &["reason"],
            )?,
            token_requests: counters(
                "token_requests_total",
                "Forwarded refresh, validate and logout requests by status",
                &["path", "status"],
            )?,
            login_duration: duration_histogram("login_duration_seconds", "From a request for a login to its result")?,
            agent_duration: duration_histogram("agent_duration_seconds", "How long the agent took for a payload")?,
            upstream_duration: duration_histogram("upstream_duration_seconds", "How long Anaplan took for a login")?,
            connections: gauge("connections", "Open connections")?,
            ready: gauge("ready", "1 while an agent is ready and logins are not paused")?,
            last_login: time_gauges(
                "client_last_login_timestamp_seconds",
                "Last successful login, seconds of Unix time; 0 for none since the start",
                &["client"],
            )?,
            certificate_not_after: time_gauges(
                "client_certificate_not_after_timestamp_seconds",
                "End of a client's certificate, seconds of Unix time",
                &["client", "file"],
            )?,
            transition: gauges("client_in_transition", "1 for a client that has transition = true", &["client"])?,
            tls_not_after: registered(&registry, tls_not_after)?,
            last_logins: Mutex::default(),
            registry,
        })
    }

    /// Sets the metrics that depend on the configuration. Removes the metrics of clients that are no longer configured, and last
    /// logins of disabled clients: an alert about silent clients must not name them.
    #[allow(clippy::cast_precision_loss)] // Seconds of Unix time are far below the 53 bits that a float holds exactly.
    pub(crate) fn set_configuration(&self, config: &GatewayConfig, tls_not_after: Option<u64>) {
        self.transition.reset();
        self.certificate_not_after.reset();
        let last_login = |client: &Arc<LocalClient>| self.last_login.with_label_values(&[&client.name]).get();
        let last_logins: Vec<f64> = config.clients.iter().map(last_login).collect();
        self.last_login.reset();
        for (client, last_login) in config.clients.iter().zip(last_logins) {
            self.transition.with_label_values(&[&client.name]).set(i64::from(client.transition && !client.disabled));
            if !client.disabled {
                self.last_login.with_label_values(&[&client.name]).set(last_login);
            }
            for listed in &client.certificates {
                let file = listed.path.display().to_string();
                self.certificate_not_after
                    .with_label_values(&[client.name.as_str(), &file])
                    .set(listed.certificate.not_after as f64);
            }
        }
        self.tls_not_after.set(tls_not_after.unwrap_or_default() as f64);
    }

    #[allow(clippy::cast_precision_loss)] // As in `set_configuration`.
    pub(crate) fn count_login(&self, record: &LoginRecord, outcome: &str) {
        self.logins.with_label_values(&[record.client.as_str(), record.credentials_label(), outcome]).inc();
        // A login that was refused before it started took no time.
        if !record.total_time.is_zero() {
            self.login_duration.observe(record.total_time.as_secs_f64());
            self.agent_duration.observe(record.agent_time.as_secs_f64());
        }
        if record.upstream_status != 0 {
            self.upstream_duration.observe(record.upstream_time.as_secs_f64());
        }
        let time = now();
        if outcome == "ok" {
            self.last_login.with_label_values(&[&record.client]).set(time as f64);
        }
        let last = LastLogin {
            time,
            credentials: record.credentials_label().into(),
            outcome: outcome.into(),
            upstream_status: record.upstream_status,
        };
        self.last_logins.lock().unwrap_or_else(PoisonError::into_inner).insert(record.client.clone(), last);
    }

    /// Counts a refused connection or request.
    pub(crate) fn count_refusal(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Counts a forwarded request with an Anaplan token.
    pub(crate) fn count_token_request(&self, path: &str, status: u16) {
        self.token_requests.with_label_values(&[path, &status.to_string()]).inc();
    }

    /// Returns the last login of each client since the start.
    #[must_use]
    pub(crate) fn last_logins(&self) -> BTreeMap<String, LastLogin> {
        self.last_logins.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the text for Prometheus.
    ///
    /// # Errors
    /// Never, because it is written to memory.
    pub(crate) fn text(&self, connections: usize, is_ready: bool) -> prometheus::Result<String> {
        self.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.ready.set(i64::from(is_ready));
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Replaces the metrics file atomically. All users may read it, because node_exporter runs as another user.
///
/// # Errors
/// When the directory is not writable.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<(), io::Error> {
    let mut name = path.as_os_str().to_owned();
    // node_exporter reads only names that end in .prom, so it ignores this one.
    name.push(".new");
    let new = Path::new(&name);
    let _ = fs::remove_file(new);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(new)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, path)
}

/// Adds a new metric to the registry.
fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone())).map(|()| metric)
}
