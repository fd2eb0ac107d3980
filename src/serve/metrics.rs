//! The agent's metrics, in Prometheus' text format (0.0.4): on the socket, and in a file for node_exporter.
//!
//! Runs in the parent.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::pool::PoolView;
use super::pool::plan::{Logins, Phase};

/// The bounds of the histograms, in seconds. A software token takes about one millisecond, a YubiKey a quarter of a second, a touch many seconds.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

const WORKER_STATES: [&str; 5] = ["ready", "busy", "starting", "waiting", "off"];

const PIN_STATES: [&str; 3] = ["accepted", "refused", "untried"];

#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    payloads: IntCounterVec,
    request_time: Histogram,
    queue_time: Histogram,
    token_time: Histogram,
    queue_depth: IntGauge,
    workers: IntGaugeVec,
    worker_failures: IntCounterVec,
    refused_peers: IntCounterVec,
    pin_state: IntGaugeVec,
    ready: IntGauge,
    audit_writable: IntGauge,
    not_after: Gauge,
    connections: IntGauge,
}

impl Metrics {
    /// Creates the metrics, all at zero.
    ///
    /// # Errors
    /// None that can occur: names and labels are constants.
    pub(super) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("cba_agent".into()), None)?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help)?);
        let seconds = |name: &str, help: &str| {
            registered(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()))?)
        };
        let not_after = Gauge::new(
            "certificate_not_after_timestamp_seconds",
            "End of the certificate in use, seconds of Unix time; 0 while it is unknown",
        )?;
        let build = gauges("build_info", "Always 1; the version is a label", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            payloads: counters(
                "payloads_total",
                "Requests for payloads by version and outcome",
                &["version", "outcome"],
            )?,
            request_time: seconds("request_duration_seconds", "From a request for a payload to its answer")?,
            queue_time: seconds("queue_duration_seconds", "How long a request waited for a worker")?,
            token_time: seconds("token_duration_seconds", "How long the token took for a payload, its check included")?,
            queue_depth: gauge("queue_depth", "Requests that wait for a worker")?,
            workers: gauges("workers", "Workers by state", &["state"])?,
            worker_failures: counters(
                "worker_failures_total",
                "Workers that were lost or could not start, by reason",
                &["reason"],
            )?,
            refused_peers: counters(
                "refused_peers_total",
                "Refused connections and requests of users who are not served",
                &["reason"],
            )?,
            pin_state: gauges("pin_state", "1 for the current state of the PIN", &["state"])?,
            audit_writable: gauge(
                "audit_writable",
                "0 while the audit log cannot be written, and so no payload is handed out",
            )?,
            ready: gauge("ready", "1 while a worker is logged in with a valid certificate and the token answers")?,
            connections: gauge("connections", "Open connections")?,
            not_after: registered(&registry, not_after)?,
            registry,
        };
        for version in ["v1", "v2"] {
            metrics.payloads.with_label_values(&[version, "ok"]);
        }
        for reason in ["not_allowed", "rate_limited", "total_rate_limited", "unknown"] {
            metrics.refused_peers.with_label_values(&[reason]);
        }
        Ok(metrics)
    }

    /// Counts a request for a payload, with the time from its arrival to its answer.
    pub(super) fn count_request(&self, version: &str, outcome: &str, time: Duration) {
        self.payloads.with_label_values(&[version, outcome]).inc();
        self.request_time.observe(time.as_secs_f64());
    }

    pub(super) fn observe_work(&self, queue_time: Duration, token_time: Duration) {
        self.queue_time.observe(queue_time.as_secs_f64());
        self.token_time.observe(token_time.as_secs_f64());
    }

    /// Counts a refused connection or request.
    pub(super) fn count_refusal(&self, reason: &str) {
        self.refused_peers.with_label_values(&[reason]).inc();
    }

    pub(super) fn set_connections(&self, open: usize) {
        self.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Returns all metrics in Prometheus' text format, with the current state of the pool.
    ///
    /// # Errors
    /// None that can occur: it is written to memory.
    pub(super) fn text(&self, view: &PoolView, ready: bool, audit_writable: bool) -> prometheus::Result<Vec<u8>> {
        self.queue_depth.set(i64::try_from(view.queued).unwrap_or(i64::MAX));
        for state in WORKER_STATES {
            let count = view.phases.iter().filter(|phase| state_of(phase) == state).count();
            self.workers.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for (reason, count) in &view.restarts {
            let metric = self.worker_failures.with_label_values(&[*reason]);
            metric.inc_by(count.saturating_sub(metric.get()));
        }
        let pin = match view.logins {
            Logins::Stopped(_) => "refused",
            _ if view.pin_accepted => "accepted",
            _ => "untried",
        };
        for state in PIN_STATES {
            self.pin_state.with_label_values(&[state]).set(i64::from(state == pin));
        }
        self.ready.set(i64::from(ready));
        self.audit_writable.set(i64::from(audit_writable));
        // Seconds of Unix time are far below the 53 bits that a float holds exactly.
        #[allow(clippy::cast_precision_loss)]
        self.not_after.set(view.served.as_ref().map_or(0.0, |served| served.certificate.not_after as f64));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Adds a new metric to the registry.
fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone())).map(|()| metric)
}

fn state_of(phase: &Phase) -> &'static str {
    match phase {
        Phase::Ready { in_flight: 0, .. } => "ready",
        Phase::Ready { .. } => "busy",
        Phase::Starting | Phase::Closing => "starting",
        Phase::Scheduled(_) => "waiting",
        Phase::Empty | Phase::Parked => "off",
    }
}

/// Replaces the file in one step, so that a reader sees either the old or the new text. All users can read the file, since
/// node_exporter runs as another user.
///
/// # Errors
/// When the directory cannot be written.
pub(super) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    // node_exporter reads only names that end in .prom.
    name.push(".new");
    let new = Path::new(&name);
    let _ = fs::remove_file(new);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(new)?;
    // Independent of this process's umask.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text)?;
    fs::rename(new, path)
}
