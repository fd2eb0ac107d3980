//! The record of one login: its log line, and its part in the metrics.

use std::sync::Arc;
use std::time::Duration;

use crate::failure::LoginFailure;
use crate::library::{Version, printable};
use crate::metrics::GatewayMetrics;
use crate::source::TcpCaller;
use crate::verify::CredentialsKind;

/// The facts about a login for the log and the metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoginRecord {
    pub id: String,
    pub client: String,
    /// The user or address that connected.
    pub caller: Option<TcpCaller>,
    /// The kind of credentials that the caller sent.
    pub credentials_kind: Option<CredentialsKind>,
    /// One word for the outcome.
    pub outcome: &'static str,
    /// The reason for a failure.
    pub detail: Option<String>,
    /// The status of Anaplan's answer; 0 without an answer.
    pub upstream_status: u16,
    /// The time that the agent took.
    pub agent_time: Duration,
    /// The time that Anaplan took.
    pub upstream_time: Duration,
    /// The time from the request's arrival to the result.
    pub total_time: Duration,
    /// SHA-256 of the message, which identifies the payload in the agent's audit log.
    pub message_sha256: Option<String>,
    /// The metrics that count this login.
    pub metrics: Option<Arc<GatewayMetrics>>,
    /// Whether the login is only counted: its source has reached the limit of logged refusals.
    pub is_unlogged: bool,
}

impl LoginRecord {
    /// Sets the outcome and the reason of a login that failed.
    pub(crate) fn set_failure(&mut self, failure: &LoginFailure) {
        self.outcome = failure.outcome;
        self.detail = Some(failure.detail.clone().unwrap_or_else(|| failure.message.clone()));
    }

    /// Writes the log line and counts the login. A success that did not reach the caller counts as "undelivered".
    pub(crate) fn log(self, is_delivered: bool) {
        let outcome = if self.outcome == "ok" && !is_delivered { "undelivered" } else { self.outcome };
        if let Some(metrics) = &self.metrics {
            metrics.count_login(&self, outcome);
        }
        if self.is_unlogged {
            return;
        }
        let line = self.line(outcome);
        if outcome == "ok" {
            tracing::info!("{line}");
        } else {
            tracing::warn!("{line}");
        }
    }

    /// Returns the kind of credentials that the caller sent: `password`, or the version of its payload.
    #[must_use]
    pub(crate) fn credentials_label(&self) -> &'static str {
        match self.credentials_kind {
            Some(CredentialsKind::Password) => "password",
            Some(CredentialsKind::Payload(Version::V1)) => "v1",
            Some(CredentialsKind::Payload(Version::V2)) => "v2",
            None => "none",
        }
    }

    fn line(&self, outcome: &str) -> String {
        let mut line = format!("login {}: client {}, ", self.id, self.client);
        if let Some(caller) = &self.caller {
            line.push_str(&format!("{caller}, "));
        }
        line.push_str(&format!("{} in, ", self.credentials_label()));
        match self.upstream_status {
            0 => line.push_str(outcome),
            status => line.push_str(&format!("v2 out, {status}, {outcome}")),
        }
        line.push_str(&format!(
            ", agent {} ms, upstream {} ms",
            self.agent_time.as_millis(),
            self.upstream_time.as_millis()
        ));
        if let Some(message) = &self.message_sha256 {
            line.push_str(&format!(", message_sha256 {message}"));
        }
        if let Some(detail) = &self.detail {
            line.push_str(&format!(": {}", printable(detail)));
        }
        line
    }
}
