//! Problem documents (RFC 9457) with stable codes, and their meaning for a client.
//!
//! PURE.

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::error::{Class, Kind};

pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// The body of an answer that is not a success.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Problem {
    /// One sentence, the same for each code.
    pub(super) title: String,
    pub(super) status: u16,
    /// The stable name.
    pub(super) code: String,
    /// A cause that the caller can correct, or the kind of the error.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) detail: Option<String>,
    /// When a retry may succeed; a header of the answer.
    #[serde(skip)]
    pub(super) retry_after: Option<Duration>,
}

/// Every code with its status, its title, and the error kind for a client.
const CODES: [(&str, u16, &str, Kind); 15] = [
    ("bad_request", 400, "the request is malformed", Kind::Usage),
    ("not_allowed", 403, "this user is not served", Kind::NotAllowed),
    ("not_found", 404, "there is no such resource", Kind::Usage),
    ("method_not_allowed", 405, "this resource does not support that method", Kind::Usage),
    ("request_timeout", 408, "the request did not arrive in time", Kind::AgentBusy),
    ("too_large", 413, "the request's body is too long", Kind::Usage),
    ("policy", 422, "the policy refuses it", Kind::Policy),
    ("rate_limited", 429, "too many requests in a second", Kind::AgentBusy),
    ("unexpected", 500, "the agent failed", Kind::Unexpected),
    ("signature_invalid", 500, "the token's result did not verify and was discarded", Kind::SignatureInvalid),
    ("busy", 503, "too many requests are waiting", Kind::AgentBusy),
    ("token_unavailable", 503, "the token cannot be used now", Kind::TokenFailed),
    ("audit_unavailable", 503, "the agent cannot write its audit log", Kind::AuditUnavailable),
    ("pin_refused", 503, "the agent does not log in until an administrator acts", Kind::PinFuse),
    ("timeout", 504, "the token did not answer in time", Kind::TokenTimeout),
];

impl Problem {
    pub(super) fn new(code: &str) -> Self {
        let known = CODES.iter().find(|(name, ..)| *name == code);
        let (code, status, title, _) =
            known.copied().unwrap_or(("unexpected", 500, "the agent failed", Kind::Unexpected));
        Self { title: title.into(), status, code: code.into(), detail: None, retry_after: None }
    }

    pub(super) fn of(kind: Kind, retry_after: Option<Duration>) -> Self {
        let code = match kind {
            Kind::AgentBusy => "busy",
            Kind::Policy => "policy",
            Kind::SignatureInvalid => "signature_invalid",
            Kind::TokenTimeout => "timeout",
            Kind::NotAllowed => "not_allowed",
            Kind::AuditUnavailable => "audit_unavailable",
            kind if kind.class() == Class::Pin => "pin_refused",
            kind if matches!(kind.class(), Class::Selection | Class::Token) => "token_unavailable",
            _ => "unexpected",
        };
        let detail = matches!(code, "token_unavailable" | "pin_refused").then(|| kind.name().to_owned());
        Self { retry_after, detail, ..Self::new(code) }
    }

    /// The same with a detail.
    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a time after which a retry may succeed.
    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same for a request about the agent's own state: the request itself is not wrong.
    pub(super) fn unavailable(mut self) -> Self {
        self.status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// `Retry-After` in whole seconds, at least one (RFC 9110 section 10.2.3).
    pub(super) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).map(|seconds| seconds.max(1))
    }

    /// The error kind for the caller; `None` for an unknown code.
    pub(super) fn kind(&self) -> Option<Kind> {
        CODES.iter().find(|(code, ..)| *code == self.code).map(|(.., kind)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_keeps_its_exit_code_through_the_socket() {
        for kind in [Kind::PinIncorrect, Kind::Policy, Kind::TokenRemoved, Kind::TokenTimeout, Kind::SignatureInvalid] {
            assert_eq!(Problem::of(kind, None).kind().unwrap().exit_code(), kind.exit_code(), "{kind:?}");
        }
        assert_eq!(Problem::of(Kind::AgentBusy, None).kind(), Some(Kind::AgentBusy));
        assert_eq!(Problem::of(Kind::Ambiguous, None).code, "token_unavailable");
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let seconds = |millis| Problem::new("busy").retry_after(Duration::from_millis(millis)).retry_after_seconds();
        assert_eq!((seconds(0), seconds(250), seconds(1001), seconds(2000)), (Some(1), Some(1), Some(2), Some(2)));
    }

    #[test]
    fn each_kind_has_its_code_and_shows_its_name_where_that_helps() {
        for (kind, code, status, detail) in [
            (Kind::AgentBusy, "busy", 503, None),
            (Kind::Policy, "policy", 422, None),
            (Kind::SignatureInvalid, "signature_invalid", 500, None),
            (Kind::TokenTimeout, "timeout", 504, None),
            (Kind::NotAllowed, "not_allowed", 403, None),
            (Kind::AuditUnavailable, "audit_unavailable", 503, None),
            (Kind::PinIncorrect, "pin_refused", 503, Some(Kind::PinIncorrect.name())),
            (Kind::NotFound, "token_unavailable", 503, Some(Kind::NotFound.name())),
            (Kind::TokenRemoved, "token_unavailable", 503, Some(Kind::TokenRemoved.name())),
            (Kind::Unexpected, "unexpected", 500, None),
            (Kind::Usage, "unexpected", 500, None),
        ] {
            let problem = Problem::of(kind, Some(Duration::from_secs(3)));
            assert_eq!((problem.code.as_str(), problem.status), (code, status), "{kind:?}");
            assert_eq!((problem.detail.as_deref(), problem.retry_after_seconds()), (detail, Some(3)), "{kind:?}");
            assert_eq!(problem.status().as_u16(), status);
        }
    }

    #[test]
    fn an_unknown_code_is_unexpected_for_the_agent_and_nothing_for_a_client() {
        let unknown = Problem::new("no such code");
        assert_eq!(
            (unknown.code.as_str(), unknown.status, unknown.kind()),
            ("unexpected", 500, Some(Kind::Unexpected))
        );
        let foreign = Problem { code: "other".into(), ..unknown.clone() };
        assert_eq!(foreign.kind(), None);
        assert_eq!(Problem { status: 9, ..unknown.clone() }.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let state = unknown.detail("why").unavailable();
        assert_eq!((state.status, state.detail.as_deref(), state.retry_after_seconds()), (503, Some("why"), None));
        assert_eq!(Problem::new("not_found").unavailable().code, "not_found");
    }
}
