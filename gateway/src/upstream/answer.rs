//! Checks Anaplan's answer, and selects the parts that the caller receives.
//!
//! PURE. The caller receives only status, `Content-Type`, `Retry-After` and body.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use hyper::body::Bytes;
use serde_json::Value;

/// The bounds of `Retry-After` for callers, in seconds. Clients retry at once after 0, and give up instead of waiting too long.
const RETRY_AFTER_BOUNDS: std::ops::RangeInclusive<u64> = 5..=120;

#[derive(Clone, Debug)]
pub(crate) struct UpstreamAnswer {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    /// Its `Retry-After` in seconds, without bounds.
    pub retry_after: Option<u64>,
    pub body: Bytes,
    is_encoded: bool,
}

/// The reason why an answer is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAnswer {
    /// A redirect (3xx).
    #[error("Anaplan's answer is a redirect ({0}); set upstream.auth_url to the URL of the authentication service")]
    Redirect(u16),
    /// A status that must not reach the caller: 1xx, 407, 408, or above 599.
    #[error("Anaplan's answer has the status {0}")]
    Status(u16),
    /// A compressed answer, although the gateway requests `identity`.
    #[error("Anaplan's answer is compressed")]
    Encoded,
    /// A success (2xx) whose body is not JSON.
    #[error("Anaplan's answer is not JSON; a proxy or login page may have answered")]
    NotJson,
    /// An answer to a login without a token.
    #[error("Anaplan's answer to the login contains no token")]
    NoToken,
}

impl UpstreamAnswer {
    pub(crate) fn new(parts: &Parts, body: Bytes) -> Self {
        let encoding = parts.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        Self {
            status: parts.status,
            content_type: parts.headers.get(CONTENT_TYPE).cloned(),
            retry_after: retry_after(&parts.headers),
            is_encoded: encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")),
            body,
        }
    }

    /// Checks the answer. `is_login` says that it answers a login. An error status needs no JSON.
    pub(crate) fn check(&self, is_login: bool) -> Result<(), BadAnswer> {
        match self.status.as_u16() {
            300..=399 => return Err(BadAnswer::Redirect(self.status.as_u16())),
            407 | 408 => return Err(BadAnswer::Status(self.status.as_u16())),
            200..=599 => {}
            status => return Err(BadAnswer::Status(status)),
        }
        if self.is_encoded {
            return Err(BadAnswer::Encoded);
        }
        if !self.status.is_success() {
            return Ok(());
        }
        if !is_login && self.body.is_empty() {
            return Ok(());
        }
        let json: Value = serde_json::from_slice(&self.body).map_err(|_| BadAnswer::NotJson)?;
        let token = json["tokenInfo"]["tokenValue"].as_str().filter(|token| !token.is_empty());
        if is_login && token.is_none() { Err(BadAnswer::NoToken) } else { Ok(()) }
    }

    /// Returns `Retry-After` for the caller, within its bounds: always for 429, 502, 503 and 504, and for another 5xx if
    /// Anaplan sent one.
    #[must_use]
    pub(crate) fn bounded_retry_after(&self) -> Option<Duration> {
        let helps = matches!(self.status.as_u16(), 429 | 502 | 503 | 504);
        let given = self.retry_after.filter(|_| helps || self.status.is_server_error());
        given.or(helps.then_some(0)).map(|seconds| bounded(Duration::from_secs(seconds)))
    }
}

/// Limits a time to the bounds of `Retry-After`.
#[must_use]
pub(crate) fn bounded(wait: Duration) -> Duration {
    wait.clamp(Duration::from_secs(*RETRY_AFTER_BOUNDS.start()), Duration::from_secs(*RETRY_AFTER_BOUNDS.end()))
}

/// Returns the seconds of the header. A date counts from the answer's `Date`, so that the host's clock does not matter.
/// Anything else counts as the shortest wait.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let from_date = || {
        let until = httpdate::parse_http_date(text).ok()?;
        let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok()?;
        Some(until.duration_since(date).ok()?.as_secs())
    };
    Some(text.parse().ok().or_else(from_date).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> UpstreamAnswer {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let (parts, ()) = response.body(()).unwrap().into_parts();
        UpstreamAnswer::new(&parts, Bytes::copy_from_slice(body.as_bytes()))
    }

    const TOKEN: &str = r#"{"tokenInfo":{"tokenValue":"x"}}"#;

    #[test]
    fn a_success_needs_a_token_in_json_and_an_error_is_passed_on() {
        let check = |status, headers: &[(&str, &str)], body| answer(status, headers, body).check(true).err();
        assert_eq!(check(201, &[], TOKEN), None);
        assert_eq!(check(307, &[("location", "https://evil.example")], ""), Some(BadAnswer::Redirect(307)));
        assert_eq!(check(200, &[], "<html>"), Some(BadAnswer::NotJson));
        assert_eq!(check(200, &[], "{}"), Some(BadAnswer::NoToken));
        assert_eq!(check(201, &[("content-encoding", "gzip")], TOKEN), Some(BadAnswer::Encoded));
        assert_eq!(check(408, &[], ""), Some(BadAnswer::Status(408)));
        assert_eq!(check(503, &[], "<html>"), None);
        assert_eq!(check(201, &[], ""), Some(BadAnswer::NotJson));
        assert_eq!(answer(204, &[], "").check(false), Ok(()));
        assert_eq!(answer(200, &[], "<html>").check(false), Err(BadAnswer::NotJson));
    }

    #[test]
    fn retry_after_is_bounded_and_sent_only_where_a_retry_helps() {
        let wait = |status, headers: &[(&str, &str)]| {
            answer(status, headers, "").bounded_retry_after().map(|wait| wait.as_secs())
        };
        assert_eq!(wait(429, &[("retry-after", "0")]), Some(5));
        assert_eq!(wait(429, &[("retry-after", "7")]), Some(7));
        assert_eq!(wait(503, &[("retry-after", "86400")]), Some(120));
        let date = ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT");
        assert_eq!(wait(503, &[date]), Some(5));
        assert_eq!(wait(503, &[date, ("date", "Wed, 21 Oct 2026 07:27:15 GMT")]), Some(45));
        assert_eq!(wait(503, &[date, ("date", "Wed, 21 Oct 2026 07:29:00 GMT")]), Some(5));
        assert_eq!(wait(429, &[("retry-after", "-1")]), Some(5));
        assert_eq!(wait(503, &[]), Some(5));
        assert_eq!(wait(500, &[]), None);
        assert_eq!(wait(401, &[("retry-after", "7")]), None);
    }
}
