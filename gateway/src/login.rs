//! One login, from its request to Anaplan's answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use sha2::{Digest as _, Sha256};

use crate::agents;
use crate::credentials::Credentials;
use crate::failure::LoginFailure;
use crate::gateway::{Gateway, Set};
use crate::library::{Version, now};
use crate::login_body::LoginBody;
use crate::logins::record::LoginRecord;
use crate::logins::{LoginEnd, Memory, MessageKey, RunningLogin, Waiter};
use crate::replay::{Spent, capacity};
use crate::source::TcpCaller;
use crate::upstream::UpstreamRequest;
use crate::verify::{CallerIdentity, Verified, verify};

#[derive(Clone)]
pub(crate) struct LoginRequested {
    pub id: String,
    /// The user or address that connected.
    pub caller: TcpCaller,
    /// The time of its arrival.
    pub arrived: Instant,
}

/// Verifies a caller and begins its login, or joins the login with the same message.
pub(crate) fn begin(
    gateway: &Arc<Gateway>,
    request: &LoginRequested,
    (credentials, body): (&Credentials, Option<&LoginBody>),
) -> Result<Waiter, LoginFailure> {
    let set = gateway.set();
    let verified = verify(&set.config.clients, &request.caller, (credentials, body), &gateway.rates);
    let Verified { client, identity } = verified.map_err(|(why, client)| {
        let name = client.map_or_else(String::new, |client| format!("client {}: ", client.name));
        LoginFailure::not_verified(format!("{name}{why}"))
    })?;
    if let CallerIdentity::Payload(version) = identity {
        if !client.versions.contains(&version) {
            let message =
                format!("the client {} may not send {version}; its payload_versions say what it may", client.name);
            return Err(LoginFailure::caller("version", message));
        }
    }
    if let Some(Err(wait)) = set.rate(&client.name).map(crate::rates::ClientRate::count) {
        return Err(LoginFailure::too_many(format!("the client {} logs in too often", client.name), wait));
    }
    let key = body.filter(|body| identity == CallerIdentity::Payload(Version::V2) && body.claimed_time().is_some());
    let key = key.map(|body| message_key(&set, &client.name, body)).transpose()?;
    gateway.pause.check()?;
    let record = LoginRecord {
        id: request.id.clone(),
        client: client.name.clone(),
        caller: Some(request.caller),
        identity: Some(identity),
        metrics: Some(Arc::clone(&gateway.metrics)),
        ..LoginRecord::default()
    };
    let entered = gateway.logins.enter(key, |login| {
        let (gateway, arrived) = (Arc::clone(gateway), request.arrived);
        tokio::spawn(async move { run(gateway, set, login, record, arrived).await });
    });
    entered.map_err(|spent| match spent {
        Spent::Used => LoginFailure::caller("replayed", "this payload was used before; make a new one for each login"),
        Spent::Full => {
            LoginFailure::for_a_while("replay_memory", "too many payloads of this client are remembered", None)
        }
    })
}

/// Checks the time of a v2 message, and returns its key.
fn message_key(set: &Set, client: &str, body: &LoginBody) -> Result<(MessageKey, Memory), LoginFailure> {
    let (now, time) = (now(), body.claimed_time().unwrap_or_default());
    let max_skew = set.config.max_skew;
    if now.abs_diff(time) > max_skew {
        let (seconds, how) = (now.abs_diff(time), if time < now { "behind" } else { "ahead of" });
        let message = format!(
            "the payload's time is {seconds} s {how} the gateway's clock; synchronise the clock of the tool's host"
        );
        return Err(LoginFailure::caller("skew", message));
    }
    let rate = set.config.client(client).map_or(0, |client| client.rate_per_minute.get());
    let memory = Memory { now, until: time + max_skew, capacity: capacity(rate, max_skew) };
    Ok((MessageKey { client: client.to_owned(), message: Sha256::digest(&body.message).into() }, memory))
}

/// Runs a login to its end, and gives the outcome to all its waiters.
async fn run(
    gateway: Arc<Gateway>,
    set: Arc<Set>,
    login: Arc<RunningLogin>,
    mut record: LoginRecord,
    arrived: Instant,
) {
    let deadline = arrived + set.config.deadline;
    let outcome = attempt(&gateway, &set, &login, &mut record, deadline).await;
    record.whole = arrived.elapsed();
    match &outcome {
        Ok(answer) if answer.status.is_success() => record.outcome = "ok",
        Ok(_) => record.outcome = "upstream_refused",
        Err(failure) => {
            record.outcome = failure.outcome;
            record.detail = Some(failure.detail.clone().unwrap_or_else(|| failure.message.clone()));
        }
    }
    gateway.logins.finish(&login, record, outcome);
}

async fn attempt(
    gateway: &Gateway,
    set: &Set,
    login: &RunningLogin,
    record: &mut LoginRecord,
    deadline: Instant,
) -> LoginEnd {
    let abandoned = || LoginFailure::for_a_while("abandoned", "the caller has left", None);
    let start = Instant::now();
    let job = format!("gateway/{}/{}", record.client, record.id);
    let asked = tokio::time::timeout_at(deadline.into(), agents::payload(&set.config, &job, deadline));
    let payload = tokio::select! {
        asked = asked => asked.map_err(|_| LoginFailure::timeout("the agent"))?,
        () = login.abandoned() => return Err(abandoned()),
    };
    record.agent = start.elapsed();
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
    let sent = tokio::time::timeout_at(deadline.into(), set.upstream.send(&request)).await;
    record.upstream = start.elapsed();
    let answer = sent
        .map_err(|_| LoginFailure::timeout("Anaplan"))?
        .map_err(|error| LoginFailure::bad_gateway(chain(&error)))?;
    record.upstream_status = answer.status.as_u16();
    gateway.pause.learn(&answer);
    answer.check(true).map_err(|bad| LoginFailure::bad_gateway(bad.to_string()))?;
    Ok(answer)
}

/// Formats an error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Returns the deadline of a forwarded request.
#[must_use]
pub(crate) fn deadline(set: &Set, arrived: Instant) -> tokio::time::Instant {
    (arrived + set.config.deadline.max(Duration::from_millis(1))).into()
}
