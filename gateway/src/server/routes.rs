//! Replies to each request: logs in, forwards a request with an Anaplan token, or reports health.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};

use super::delivery::Delivery;
use super::reply::{self, HttpReply};
use crate::credentials::{Credentials, CredentialsError};
use crate::failure::LoginFailure;
use crate::gateway::Gateway;
use crate::library::{hex, with_causes};
use crate::login::{self, IncomingLogin};
use crate::login_body::LoginBody;
use crate::request_form::{FormError, Route, route};
use crate::source::TcpCaller;
use crate::upstream::UpstreamRequest;

/// The maximum length of a request's body, in bytes.
const BODY_LIMIT: usize = 16 << 10;

/// The time limit for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection on which a request arrived, with the state that its reply needs.
#[derive(Clone, Copy)]
pub(super) struct RequestConnection<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) caller: TcpCaller,
    /// The local address of a plain connection, for the check of the `Host` header; `None` over TLS.
    pub(super) plain: Option<SocketAddr>,
    pub(super) delivery: &'a Delivery,
}

pub(super) async fn reply_to(connection: RequestConnection<'_>, request: Request<Incoming>) -> HttpReply {
    let arrived = Instant::now();
    let id = request_id();
    let (parts, body) = request.into_parts();
    // These futures are boxed, so that an idle connection reserves no memory for a request.
    let forwarded = |path| Box::pin(forward(connection, &id, arrived, &parts, path));
    let form = if connection.delivery.lengths().take_is_ambiguous() {
        Err(FormError::Ambiguous)
    } else {
        route(&parts, connection.plain)
    };
    let reply = match form {
        Ok(Route::Authenticate) => Box::pin(authenticate(connection, &id, arrived, &parts, body)).await,
        Ok(Route::Refresh) => forwarded("/token/refresh").await,
        Ok(Route::Validate) => forwarded("/token/validate").await,
        Ok(Route::Logout) => forwarded("/token/logout").await,
        Ok(Route::Health) => Ok(reply::of_text(StatusCode::OK, "alive\n", &id)),
        Ok(Route::Ready) => Ok(match connection.gateway.check_ready().await {
            Ok(()) => reply::of_text(StatusCode::OK, "ready\n", &id),
            Err(_) => reply::of_text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n", &id),
        }),
        Err(error) => Err(form_failure(error)),
    };
    let is_draining = connection.gateway.is_draining();
    match reply {
        Ok(reply) if is_draining => reply::closing(reply),
        Ok(reply) => reply,
        Err(failure) => {
            log_refusal(connection, &id, &failure);
            let reply = reply::of_failure(&failure, None, &id);
            // The bytes after a request of invalid form may belong to it.
            if is_draining || failure.outcome == "bad_request" { reply::closing(reply) } else { reply }
        }
    }
}

/// Logs in, and waits for the result.
async fn authenticate(
    connection: RequestConnection<'_>,
    id: &str,
    arrived: Instant,
    parts: &Parts,
    body: Incoming,
) -> Result<HttpReply, LoginFailure> {
    let body = read_body(body).await?;
    let credentials = credentials(connection, id, parts)?;
    let body = match credentials {
        Credentials::Certificate(_) => {
            let read = LoginBody::read(&body);
            Some(read.map_err(|error| LoginFailure::not_verified(with_causes(&error)))?)
        }
        Credentials::Password { .. } => None,
        Credentials::Token(_) => return Err(LoginFailure::not_verified("an Anaplan token cannot log in")),
    };
    let incoming = IncomingLogin { id: id.to_owned(), caller: connection.caller, arrived };
    let waiter = login::begin(connection.gateway, &incoming, (&credentials, body.as_ref()))?;
    let result = waiter.result().await;
    let result =
        result.ok_or_else(|| LoginFailure::until_repaired("unexpected", "the login ended without a result"))?;
    Ok(reply::of_login(&result, waiter, connection.delivery))
}

/// Forwards a request with an Anaplan token. It checks only that some client may connect from this source: the holder of a
/// token could use it at Anaplan directly.
async fn forward(
    connection: RequestConnection<'_>,
    id: &str,
    arrived: Instant,
    parts: &Parts,
    path: &'static str,
) -> Result<HttpReply, LoginFailure> {
    let gateway = connection.gateway;
    let active = gateway.active();
    let clients = || active.config.clients.iter().map(Arc::as_ref);
    let caller = connection.caller;
    match caller.user {
        Some(user) if gateway.shared_users.refuses(user, clients()) => {
            return Err(LoginFailure::not_verified(
                "this user ID may be shared by several users, and no client lists it",
            ));
        }
        None if !clients().any(|client| !client.disabled && client.admits_address(caller.ip())) => {
            return Err(LoginFailure::not_verified("no client is served from this address"));
        }
        _ => {}
    }
    let Credentials::Token(token) = credentials(connection, id, parts)? else {
        return Err(LoginFailure::not_verified("the request needs an AnaplanAuthToken"));
    };
    gateway
        .rates
        .count_token_request(caller.source())
        .map_err(|wait| LoginFailure::rate_limited("too many requests with Anaplan tokens", wait))?;
    let mut authorization = HeaderValue::from_str(&format!("AnaplanAuthToken {token}"))
        .map_err(|_| LoginFailure::not_verified("the Anaplan token is malformed"))?;
    authorization.set_sensitive(true);
    let method = if parts.method == Method::GET { Method::GET } else { Method::POST };
    let request = UpstreamRequest { method, path, authorization, body: String::new() };
    let answer = login::send(&active, &request, arrived + active.config.deadline).await?;
    gateway.metrics.count_token_request(path, answer.status.as_u16());
    answer.check(false).map_err(|bad| LoginFailure::bad_gateway(bad.to_string()))?;
    Ok(reply::of_answer(&answer, None, id))
}

/// Parses the `Authorization` header. Raises an alarm if it contains a private key.
fn credentials(connection: RequestConnection<'_>, id: &str, parts: &Parts) -> Result<Credentials, LoginFailure> {
    let value =
        parts.headers.get(AUTHORIZATION).ok_or_else(|| LoginFailure::not_verified("no Authorization header"))?;
    Credentials::read(value.as_bytes()).map_err(|error| {
        if error == CredentialsError::PrivateKey {
            connection.gateway.metrics.count_refusal("private_key");
            tracing::error!(
                "ALARM: request {id} of {} sent a private key in its Authorization header; replace that key and its certificate",
                connection.caller
            );
        }
        LoginFailure::not_verified(error.to_string())
    })
}

async fn read_body(body: Incoming) -> Result<Bytes, LoginFailure> {
    let too_long = || LoginFailure::bad_request(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long");
    if body.size_hint().lower() > u64::try_from(BODY_LIMIT).unwrap_or(u64::MAX) {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(LoginFailure::bad_request(StatusCode::BAD_REQUEST, "the body cannot be read")),
        Err(_) => Err(LoginFailure::bad_request(StatusCode::BAD_REQUEST, "the body did not arrive in time")),
    }
}

fn form_failure(error: FormError) -> LoginFailure {
    let status = match error {
        FormError::NotFound => StatusCode::NOT_FOUND,
        FormError::Browser | FormError::Host => StatusCode::FORBIDDEN,
        FormError::Proxied | FormError::Upgrade | FormError::Ambiguous => StatusCode::BAD_REQUEST,
        FormError::Coding => StatusCode::NOT_IMPLEMENTED,
    };
    LoginFailure::bad_request(status, error.to_string())
}

/// Counts and logs a refused request.
fn log_refusal(connection: RequestConnection<'_>, id: &str, failure: &LoginFailure) {
    connection.gateway.metrics.count_refusal(failure.outcome);
    if connection.gateway.rates.may_log(connection.caller.source()) {
        let reason = failure.detail.as_ref().unwrap_or(&failure.message);
        tracing::warn!("refused {id}: {}, {}: {reason}", connection.caller, failure.status.as_u16());
    }
}

/// Returns a random ID of eight hexadecimal digits.
fn request_id() -> String {
    let mut bytes = [0; 4];
    // The ID is not secret, so zeros are acceptable. Without a random source, the agent does not sign.
    let _ = getrandom::fill(&mut bytes);
    hex(&bytes)
}
