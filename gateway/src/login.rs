//! One login, from the caller's request to Anaplan's answer.

use std::sync::Arc;
use std::time::Instant;

use http::Method;
use sha2::{Digest as _, Sha256};

use crate::agents;
use crate::credentials::Credentials;
use crate::failure::LoginFailure;
use crate::gateway::{ActiveConfig, Gateway};
use crate::library::{now, with_causes};
use crate::login_body::LoginBody;
use crate::logins::record::LoginRecord;
use crate::logins::{LoginResult, MessageKey, MessageRetention, RunningLogin, Waiter};
use crate::replay::{ReplayError, capacity};
use crate::source::TcpCaller;
use crate::upstream::{UpstreamAnswer, UpstreamRequest};
use crate::verify::{CredentialsKind, Verified, verify};

/// A request to log in, without its credentials.
#[derive(Clone)]
pub(crate) struct IncomingLogin {
    pub id: String,
    /// The user or address that connected.
    pub caller: TcpCaller,
    /// The time of the request's arrival.
    pub arrived: Instant,
}

/// Verifies a caller and begins its login, or joins the login with the same message. The login of a verified caller that is
/// refused has its result at once.
///
/// # Errors
/// When the caller is not verified.
pub(crate) fn begin(
    gateway: &Arc<Gateway>,
    request: &IncomingLogin,
    (credentials, body): (&Credentials, Option<&LoginBody>),
) -> Result<Waiter, LoginFailure> {
    let active = gateway.active();
    let verified = verify(&active.config.clients, &request.caller, (credentials, body), &gateway.rates);
    let verified = verified.map_err(|(reason, client)| {
        let name = client.map_or_else(String::new, |client| format!("client {}: ", client.name));
        LoginFailure::not_verified(format!("{name}{reason}"))
    })?;
    let record = LoginRecord {
        id: request.id.clone(),
        client: verified.client.name.clone(),
        caller: Some(request.caller),
        credentials_kind: Some(verified.credentials_kind),
        metrics: Some(Arc::clone(&gateway.metrics)),
        ..LoginRecord::default()
    };
    let joined = admit(gateway, &active, &verified, body).and_then(|key| {
        let started = record.clone();
        let joined = gateway.logins.join_or_start(&request.id, key, |login| {
            let (gateway, arrived) = (Arc::clone(gateway), request.arrived);
            tokio::spawn(async move { run(gateway, active, login, started, arrived).await });
        });
        joined.map_err(replay_failure)
    });
    Ok(joined.unwrap_or_else(|failure| {
        let is_logged = gateway.rates.may_log(request.caller.source());
        gateway.logins.refused(LoginRecord { is_unlogged: !is_logged, ..record }, failure)
    }))
}

/// Checks what a verified client may send, its rate, the time of its message, and the pause. Returns the key of a message that
/// may log in only once.
fn admit(
    gateway: &Gateway,
    active: &ActiveConfig,
    Verified { client, credentials_kind }: &Verified,
    body: Option<&LoginBody>,
) -> Result<Option<(MessageKey, MessageRetention)>, LoginFailure> {
    if let CredentialsKind::Payload(version) = credentials_kind {
        if !client.versions.contains(version) {
            let message = format!(
                "the client {} may not send {version}: payload_versions of the gateway does not list it",
                client.name
            );
            return Err(LoginFailure::caller_fault("version", message));
        }
    }
    if let Some(Err(wait)) = active.rate(&client.name).map(crate::rates::ClientRate::count) {
        return Err(LoginFailure::rate_limited(format!("the client {} logs in too often", client.name), wait));
    }
    let proof = body.filter(|_| matches!(credentials_kind, CredentialsKind::Payload(_)));
    let timed = proof.and_then(|body| body.claimed_time().map(|time| (body, time)));
    let key = timed.map(|(body, time)| message_key(active, &client.name, body, time)).transpose()?;
    gateway.pause.check()?;
    Ok(key)
}

fn replay_failure(error: ReplayError) -> LoginFailure {
    match error {
        ReplayError::Used => {
            LoginFailure::caller_fault("replayed", "this payload was used before; make a new one for each login")
        }
        ReplayError::Full => {
            LoginFailure::temporary("replay_memory", "too many payloads of this client are remembered", None)
        }
    }
}

/// Checks the time of a message. Returns the key under which the gateway remembers the message, and for how long.
fn message_key(
    active: &ActiveConfig,
    client: &str,
    body: &LoginBody,
    time: u64,
) -> Result<(MessageKey, MessageRetention), LoginFailure> {
    let (now, max_skew) = (now(), active.config.max_skew);
    if now.abs_diff(time) > max_skew {
        let (seconds, how) = (now.abs_diff(time), if time < now { "behind" } else { "ahead of" });
        let message = format!(
            "the payload's time is {seconds} s {how} the gateway's clock; synchronise the clock of the tool's host"
        );
        return Err(LoginFailure::caller_fault("skew", message));
    }
    let rate = active.config.client(client).map_or(0, |client| client.rate_per_minute.get());
    let retention = MessageRetention { now, until: time + max_skew, capacity: capacity(rate, max_skew) };
    Ok((MessageKey { client: client.to_owned(), message: Sha256::digest(&body.message).into() }, retention))
}

/// Runs a login to its end, and gives the result to all its waiters.
async fn run(
    gateway: Arc<Gateway>,
    active: Arc<ActiveConfig>,
    login: Arc<RunningLogin>,
    mut record: LoginRecord,
    arrived: Instant,
) {
    let deadline = arrived + active.config.deadline;
    let result = post_payload(&gateway, &active, &login, &mut record, deadline).await;
    record.total_time = arrived.elapsed();
    match &result {
        Ok(answer) if answer.status.is_success() => record.outcome = "ok",
        Ok(_) => record.outcome = "upstream_refused",
        Err(failure) => record.set_failure(failure),
    }
    gateway.logins.finish(&login, record, result);
}

/// Requests a payload from the agents and posts it to Anaplan.
async fn post_payload(
    gateway: &Gateway,
    active: &ActiveConfig,
    login: &RunningLogin,
    record: &mut LoginRecord,
    deadline: Instant,
) -> LoginResult {
    let abandoned = || LoginFailure::temporary("abandoned", "the caller closed its connection", None);
    let start = Instant::now();
    let job = format!("gateway/{}/{}", record.client, record.id);
    let requested = tokio::time::timeout_at(deadline.into(), agents::request_payload(&active.config, &job, deadline));
    let payload = tokio::select! {
        requested = requested => requested.map_err(|_| LoginFailure::timeout("the agent"))?,
        () = login.wait_until_abandoned() => return Err(abandoned()),
    };
    record.agent_time = start.elapsed();
    let payload = payload?;
    record.message_sha256 = Some(payload.message_sha256);
    gateway.pause.check()?;
    if !login.begin_post() {
        return Err(abandoned());
    }
    let start = Instant::now();
    let request = UpstreamRequest {
        method: Method::POST,
        path: "/token/authenticate",
        authorization: payload.authorization,
        body: payload.body,
    };
    let answer = send(active, &request, deadline).await;
    record.upstream_time = start.elapsed();
    let answer = answer?;
    record.upstream_status = answer.status.as_u16();
    gateway.pause.observe(&answer);
    answer.check(true).map_err(|bad| LoginFailure::bad_gateway(bad.to_string()))?;
    Ok(answer)
}

/// Sends a request to Anaplan, and waits for the answer until the deadline.
pub(crate) async fn send(
    active: &ActiveConfig,
    request: &UpstreamRequest,
    deadline: Instant,
) -> Result<UpstreamAnswer, LoginFailure> {
    tokio::time::timeout_at(deadline.into(), active.upstream.send(request))
        .await
        .map_err(|_| LoginFailure::timeout("Anaplan"))?
        .map_err(|error| LoginFailure::bad_gateway(with_causes(&error)))
}
