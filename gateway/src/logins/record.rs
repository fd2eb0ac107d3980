//! The line of the log for one login.

use std::sync::Arc;
use std::time::Duration;

use crate::library::{Version, printable};
use crate::metrics::GatewayMetrics;
use crate::source::TcpCaller;
use crate::verify::CallerIdentity;

/// What is logged and counted of a login.
#[derive(Clone, Debug, Default)]
pub struct LoginRecord {
    /// The request's id.
    pub id: String,
    /// The client.
    pub client: String,
    /// Who connected.
    pub caller: Option<TcpCaller>,
    /// How the caller identified itself.
    pub identity: Option<CallerIdentity>,
    /// One word.
    pub outcome: &'static str,
    /// Why it failed.
    pub detail: Option<String>,
    /// The status of Anaplan's answer; 0 where there is none.
    pub upstream_status: u16,
    /// How long the agent took.
    pub agent: Duration,
    /// How long the service took.
    pub upstream: Duration,
    /// From the request's arrival to the outcome.
    pub whole: Duration,
    /// Names the payload in the agent's audit log.
    pub message_sha256: Option<String>,
    /// Where it is counted.
    pub metrics: Option<Arc<GatewayMetrics>>,
}

impl LoginRecord {
    /// Writes the line and counts the login.
    pub fn log(self, is_delivered: bool) {
        let outcome = if self.outcome == "ok" && !is_delivered { "undelivered" } else { self.outcome };
        if let Some(metrics) = &self.metrics {
            metrics.login(&self, outcome);
        }
        let line = self.line(outcome);
        if outcome == "ok" {
            tracing::info!("{line}");
        } else {
            tracing::warn!("{line}");
        }
    }

    /// The version or kind of identity that came in.
    #[must_use]
    pub fn version_in(&self) -> &'static str {
        match self.identity {
            Some(CallerIdentity::Password) => "password",
            Some(CallerIdentity::Payload(Version::V1)) => "v1",
            Some(CallerIdentity::Payload(Version::V2)) => "v2",
            None => "none",
        }
    }

    fn line(&self, outcome: &str) -> String {
        let mut line = format!("login {}: client {}, ", self.id, self.client);
        if let Some(caller) = &self.caller {
            line.push_str(&format!("{caller}, "));
        }
        line.push_str(&format!("{} in, ", self.version_in()));
        match self.upstream_status {
            0 => line.push_str(outcome),
            status => line.push_str(&format!("v2 out, {status}, {outcome}")),
        }
        line.push_str(&format!(", agent {} ms, upstream {} ms", self.agent.as_millis(), self.upstream.as_millis()));
        if let Some(message) = &self.message_sha256 {
            line.push_str(&format!(", message_sha256 {message}"));
        }
        if let Some(detail) = &self.detail {
            line.push_str(&format!(": {}", printable(detail)));
        }
        line
    }
}
