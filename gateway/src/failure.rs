//! The reasons why a login fails, and the replies to their callers.
//!
//! PURE. The status 401 means a fault of the caller only. `Retry-After` is set only if a retry can help: clients always
//! follow it.

use std::time::Duration;

use http::StatusCode;

use crate::library::{Class, Kind};
use crate::upstream::answer::bounded;

/// The wait before a retry, if neither the agent nor Anaplan gives one.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The reason why a login or a forwarded request fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginFailure {
    pub status: StatusCode,
    /// One word for metrics and logs.
    pub outcome: &'static str,
    /// One sentence for the caller.
    pub message: String,
    /// More text for the log only.
    pub detail: Option<String>,
    /// The time after which a retry can help; `None` if a retry cannot help.
    pub retry_after: Option<Duration>,
}

impl LoginFailure {
    fn new(status: StatusCode, outcome: &'static str, message: impl Into<String>) -> Self {
        Self { status, outcome, message: message.into(), detail: None, retry_after: None }
    }

    /// Returns the failure for an invalid local identity. All of them get the same reply: the detail is only for the log.
    #[must_use]
    pub(crate) fn not_verified(detail: impl Into<String>) -> Self {
        let message = "the login is refused; the gateway's log names the reason under this id";
        Self::new(StatusCode::UNAUTHORIZED, "not_verified", message).with_detail(detail)
    }

    /// Returns the failure for a fault of a caller whose local identity is valid.
    #[must_use]
    pub(crate) fn caller_fault(outcome: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, outcome, message)
    }

    /// Returns the failure for a request whose form is not supported.
    #[must_use]
    pub(crate) fn bad_request(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, "bad_request", message)
    }

    /// Returns the failure for a caller that has reached a rate limit.
    #[must_use]
    pub(crate) fn rate_limited(message: impl Into<String>, wait: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).with_retry_after(wait)
    }

    /// Returns the failure for a login that cannot succeed before an administrator acts, so a retry does not help.
    #[must_use]
    pub(crate) fn until_repaired(outcome: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, outcome, message)
    }

    /// Returns the failure for something that is temporarily unavailable, so a retry helps after `wait`.
    #[must_use]
    pub(crate) fn temporary(outcome: &'static str, message: impl Into<String>, wait: Option<Duration>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, outcome, message)
            .with_retry_after(wait.unwrap_or(DEFAULT_RETRY_AFTER))
    }

    /// Returns the failure for an agent or Anaplan (`who`) that does not answer within the time limit.
    #[must_use]
    pub(crate) fn timeout(who: &str) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", format!("{who} did not answer in time"))
            .with_retry_after(DEFAULT_RETRY_AFTER)
    }

    /// Returns the failure for Anaplan when it cannot be reached, or its answer cannot be passed on.
    #[must_use]
    pub(crate) fn bad_gateway(detail: impl Into<String>) -> Self {
        let message =
            "Anaplan could not be reached or gave no usable answer; the gateway's log names the reason under this id";
        Self::new(StatusCode::BAD_GATEWAY, "bad_gateway", message)
            .with_detail(detail)
            .with_retry_after(DEFAULT_RETRY_AFTER)
    }

    /// Converts an error of an agent, by its kind.
    #[must_use]
    pub(crate) fn from_agent(kind: Kind, detail: impl Into<String>, retry_after: Option<u64>) -> Self {
        let wait = retry_after.map(Duration::from_secs);
        let failure = match (kind, kind.class()) {
            (Kind::TokenTimeout, _) => Self::timeout("the token"),
            (Kind::SignatureInvalid, _) => Self::until_repaired(
                "agent_forged",
                "the agent's payload is invalid; the gateway's log and metrics report it",
            ),
            (_, Class::Pin) => {
                Self::until_repaired("agent_pin", "the agent cannot log in to its token until its administrator acts")
            }
            (_, Class::Refused) => Self::until_repaired("agent_refused", "the agent's policy refuses this login"),
            (_, Class::Token | Class::Agent) => {
                Self::temporary("agent_unavailable", "the agent cannot sign at the moment", wait)
            }
            _ => Self::until_repaired("agent_failed", "the agent cannot sign until its administrator acts"),
        };
        failure.with_detail(detail)
    }

    /// Adds a detail for the log.
    #[must_use]
    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(bounded(wait));
        self
    }

    /// Returns the body of the reply, in Anaplan's form.
    #[must_use]
    pub(crate) fn body(&self, id: &str) -> String {
        let status = match self.status.as_u16() {
            401 => "FAILURE_BAD_CREDENTIAL",
            429 => "FAILURE_TOO_MANY_REQUESTS",
            502..=504 => "FAILURE_UNAVAILABLE",
            _ => "FAILURE_BAD_REQUEST",
        };
        let message = format!("cba-gateway: {} (id {id})", self.message);
        serde_json::json!({ "status": status, "statusMessage": message }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_set_only_where_a_retry_can_help() {
        for (kind, status, outcome, helps) in [
            (Kind::PinIncorrect, 503, "agent_pin", false),
            (Kind::PinFuse, 503, "agent_pin", false),
            (Kind::Policy, 503, "agent_refused", false),
            (Kind::NotAllowed, 503, "agent_refused", false),
            (Kind::SignatureInvalid, 503, "agent_forged", false),
            (Kind::Unexpected, 503, "agent_failed", false),
            (Kind::TokenRemoved, 503, "agent_unavailable", true),
            (Kind::AgentBusy, 503, "agent_unavailable", true),
            (Kind::AgentUnreachable, 503, "agent_unavailable", true),
            (Kind::TokenTimeout, 504, "timeout", true),
        ] {
            let failure = LoginFailure::from_agent(kind, "", Some(0));
            let found = (failure.status.as_u16(), failure.outcome, failure.retry_after.is_some());
            assert_eq!(found, (status, outcome, helps), "{kind:?}");
            assert!(failure.retry_after.is_none_or(|wait| wait.as_secs() == 5));
        }
        assert_eq!(LoginFailure::not_verified("x").retry_after, None);
    }

    #[test]
    fn a_reply_has_the_word_of_anaplan_for_its_status() {
        for (failure, word) in [
            (LoginFailure::not_verified(""), "FAILURE_BAD_CREDENTIAL"),
            (LoginFailure::rate_limited("", Duration::ZERO), "FAILURE_TOO_MANY_REQUESTS"),
            (LoginFailure::bad_gateway(""), "FAILURE_UNAVAILABLE"),
            (LoginFailure::until_repaired("agent_pin", ""), "FAILURE_UNAVAILABLE"),
            (LoginFailure::timeout("the agent"), "FAILURE_UNAVAILABLE"),
            (LoginFailure::bad_request(StatusCode::NOT_FOUND, ""), "FAILURE_BAD_REQUEST"),
        ] {
            let body: serde_json::Value = serde_json::from_str(&failure.body("1a2b3c4d")).unwrap();
            assert_eq!(body["status"], word, "{failure:?}");
        }
    }

    #[test]
    fn the_detail_is_not_in_the_reply() {
        let body = LoginFailure::not_verified("wrong password").body("1a2b3c4d");
        assert!(body.contains("(id 1a2b3c4d)") && !body.contains("wrong password"), "{body}");
    }
}
