//! Answers each request: logs in, forwards a request with an Anaplan token, or reports health.

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
use crate::library::hex;
use crate::login::{self, LoginRequested, chain};
use crate::login_body::LoginBody;
use crate::request_form::{FormError, Route, route};
use crate::source::TcpCaller;
use crate::upstream::UpstreamRequest;

/// The maximum length of a request's body, in bytes.
const BODY_LIMIT: usize = 16 << 10;

/// The time limit for a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The connection on which a request arrived. Unlike a `LocalClient`, it is not a client of the configuration.
#[derive(Clone, Copy)]
pub(super) struct ClientConnection<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) caller: TcpCaller,
    /// The local port of a plain listener, for the check of the `Host` header; `None` over TLS.
    pub(super) port: Option<u16>,
    pub(super) delivery: &'a Delivery,
}

pub(super) async fn answer(client: ClientConnection<'_>, request: Request<Incoming>) -> HttpReply {
    let arrived = Instant::now();
    let id = request_id();
    let (parts, body) = request.into_parts();
    // These futures are boxed, so that an idle connection reserves no memory for a request.
    let forwarded = |path| Box::pin(forward(client, &id, arrived, &parts, path));
    let form =
        if client.delivery.lengths().are_ambiguous() { Err(FormError::Ambiguous) } else { route(&parts, client.port) };
    let reply = match form {
        Ok(Route::Authenticate) => Box::pin(authenticate(client, &id, arrived, &parts, body)).await,
        Ok(Route::Refresh) => forwarded("/token/refresh").await,
        Ok(Route::Validate) => forwarded("/token/validate").await,
        Ok(Route::Logout) => forwarded("/token/logout").await,
        Ok(Route::Health) => Ok(reply::of_text(StatusCode::OK, "alive\n", &id)),
        Ok(Route::Ready) => Ok(match client.gateway.ready().await {
            Ok(()) => reply::of_text(StatusCode::OK, "ready\n", &id),
            Err(_) => reply::of_text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n", &id),
        }),
        Err(error) => Err(form_failure(error)),
    };
    client.delivery.lengths().begin_next();
    let is_draining = client.gateway.is_draining();
    match reply {
        Ok(reply) if is_draining => reply::closing(reply),
        Ok(reply) => reply,
        Err(failure) => {
            refuse(client, &id, &failure);
            let reply = reply::of_failure(&failure, &id);
            // The bytes after a request of invalid form may belong to it.
            if is_draining || failure.outcome == "bad_request" { reply::closing(reply) } else { reply }
        }
    }
}

/// Logs in, and waits for Anaplan's answer.
async fn authenticate(
    client: ClientConnection<'_>,
    id: &str,
    arrived: Instant,
    parts: &Parts,
    body: Incoming,
) -> Result<HttpReply, LoginFailure> {
    let body = read_body(body).await?;
    let credentials = credentials(client, id, parts)?;
    let body = match credentials {
        Credentials::Certificate(_) => {
            let read = LoginBody::read(&body);
            Some(read.map_err(|error| LoginFailure::not_verified(chain(&error)))?)
        }
        Credentials::Password { .. } => None,
        Credentials::Token(_) => return Err(LoginFailure::not_verified("an Anaplan token cannot log in")),
    };
    let requested = LoginRequested { id: id.to_owned(), caller: client.caller, arrived };
    let waiter = login::begin(client.gateway, &requested, (&credentials, body.as_ref()))?;
    let outcome =
        waiter.outcome().await.ok_or_else(|| LoginFailure::until_repaired("unexpected", "the login was lost"))?;
    Ok(reply::of_login(&outcome, waiter, client.delivery, id))
}

/// Forwards a request with an Anaplan token. It checks that some client may connect from this source, but not which client
/// sent the request: the holder of a token could use it at Anaplan directly.
async fn forward(
    client: ClientConnection<'_>,
    id: &str,
    arrived: Instant,
    parts: &Parts,
    path: &'static str,
) -> Result<HttpReply, LoginFailure> {
    let gateway = client.gateway;
    let set = gateway.set();
    let clients = || set.config.clients.iter().map(Arc::as_ref);
    let caller = client.caller;
    match caller.user {
        Some(user) if gateway.shared_users.refuses(user, clients()) => {
            return Err(LoginFailure::not_verified("this user may stand for others, and no client lists it"));
        }
        None if !clients().any(|client| !client.disabled && client.admits_address(caller.ip())) => {
            return Err(LoginFailure::not_verified("no client is served from this address"));
        }
        _ => {}
    }
    let Credentials::Token(token) = credentials(client, id, parts)? else {
        return Err(LoginFailure::not_verified("the request needs an AnaplanAuthToken"));
    };
    gateway
        .rates
        .count_token_request(caller.source())
        .map_err(|wait| LoginFailure::too_many("too many requests with Anaplan tokens", wait))?;
    let mut authorization = HeaderValue::from_str(&format!("AnaplanAuthToken {token}"))
        .map_err(|_| LoginFailure::not_verified("the Anaplan token is malformed"))?;
    authorization.set_sensitive(true);
    let method = if parts.method == Method::GET { Method::GET } else { Method::POST };
    let request = UpstreamRequest { method, path, authorization, body: String::new() };
    let result = tokio::time::timeout_at(login::deadline(&set, arrived), set.upstream.send(&request)).await;
    let answer = result
        .map_err(|_| LoginFailure::timeout("Anaplan"))?
        .map_err(|error| LoginFailure::bad_gateway(chain(&error)))?;
    gateway.metrics.token_request(path, answer.status.as_u16());
    answer.check(false).map_err(|bad| LoginFailure::bad_gateway(bad.to_string()))?;
    Ok(reply::of_answer(&answer, None, id))
}

/// Parses the `Authorization` header. Raises an alarm if it holds a private key.
fn credentials(client: ClientConnection<'_>, id: &str, parts: &Parts) -> Result<Credentials, LoginFailure> {
    let value =
        parts.headers.get(AUTHORIZATION).ok_or_else(|| LoginFailure::not_verified("no Authorization header"))?;
    Credentials::read(value.as_bytes()).map_err(|error| {
        if error == CredentialsError::PrivateKey {
            client.gateway.metrics.refused("private_key");
            tracing::error!(
                "ALARM: request {id} of {} sent a private key in its Authorization header; replace that key and its certificate",
                client.caller
            );
        }
        LoginFailure::not_verified(error.to_string())
    })
}

async fn read_body(body: Incoming) -> Result<Bytes, LoginFailure> {
    let too_long = || LoginFailure::form(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long");
    if body.size_hint().lower() > u64::try_from(BODY_LIMIT).unwrap_or(u64::MAX) {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(LoginFailure::form(StatusCode::BAD_REQUEST, "the body cannot be read")),
        Err(_) => Err(LoginFailure::form(StatusCode::BAD_REQUEST, "the body did not arrive in time")),
    }
}

fn form_failure(error: FormError) -> LoginFailure {
    let status = match error {
        FormError::NotFound => StatusCode::NOT_FOUND,
        FormError::Browser | FormError::Host => StatusCode::FORBIDDEN,
        FormError::Proxied | FormError::Upgrade | FormError::Ambiguous => StatusCode::BAD_REQUEST,
        FormError::Coding => StatusCode::NOT_IMPLEMENTED,
    };
    LoginFailure::form(status, error.to_string())
}

/// Counts and logs a refused request.
fn refuse(client: ClientConnection<'_>, id: &str, failure: &LoginFailure) {
    client.gateway.metrics.refused(failure.outcome);
    if client.gateway.rates.may_log(client.caller.source()) {
        let reason = failure.detail.as_ref().unwrap_or(&failure.message);
        tracing::warn!("refused {id}: {}, {}: {reason}", client.caller, failure.status.as_u16());
    }
}

/// Returns a random ID of eight hexadecimal digits.
fn request_id() -> String {
    let mut bytes = [0; 4];
    // The ID is not secret, so zeros are acceptable. Without a random source, the agent does not sign.
    let _ = getrandom::fill(&mut bytes);
    hex(&bytes)
}
