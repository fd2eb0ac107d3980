//! Builds the HTTP replies to callers.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use hyper::body::Bytes;

use super::delivery::{Delivery, ReplyBody};
use crate::failure::LoginFailure;
use crate::logins::{LoginResult, Waiter};
use crate::upstream::UpstreamAnswer;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) type HttpReply = Response<ReplyBody>;

/// Builds the reply to a login. `waiter` learns from `delivery` when the reply was written to the caller.
pub(super) fn of_login(result: &Arc<LoginResult>, waiter: Waiter, delivery: &Delivery) -> HttpReply {
    let id = waiter.id().to_owned();
    let delivery_report = Some((waiter, delivery.clone()));
    match &**result {
        Ok(answer) => of_answer(answer, delivery_report, &id),
        Err(failure) => of_failure(failure, delivery_report, &id),
    }
}

/// Builds the reply from Anaplan's answer, which is already checked.
pub(super) fn of_answer(answer: &UpstreamAnswer, delivery_report: Option<(Waiter, Delivery)>, id: &str) -> HttpReply {
    let content_type = answer.content_type.clone().unwrap_or(JSON);
    let mut reply = build(answer.status, content_type, answer.body.clone(), delivery_report, id);
    if let Some(wait) = answer.bounded_retry_after() {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    reply
}

/// Builds the reply to a request that failed. `delivery_report` is `None` if there was no login.
pub(super) fn of_failure(failure: &LoginFailure, delivery_report: Option<(Waiter, Delivery)>, id: &str) -> HttpReply {
    let mut reply = build(failure.status, JSON, failure.body(id).into(), delivery_report, id);
    if let Some(wait) = failure.retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    reply
}

/// Builds the reply to a health check.
pub(super) fn of_text(status: StatusCode, text: &'static str, id: &str) -> HttpReply {
    build(status, HeaderValue::from_static("text/plain; charset=utf-8"), text.into(), None, id)
}

/// Adds the header that closes the connection after this reply.
pub(super) fn closing(mut reply: HttpReply) -> HttpReply {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn build(
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
    delivery_report: Option<(Waiter, Delivery)>,
    id: &str,
) -> HttpReply {
    let mut reply = Response::new(ReplyBody::new(body, delivery_report));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // invariant: an ID is hexadecimal
    headers.insert(REQUEST_ID, HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("")));
    reply
}
