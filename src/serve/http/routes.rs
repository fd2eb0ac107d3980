//! The answers to requests.
//!
//! Runs in the parent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};

use super::Service;
use super::client_stream::ClientStream;
use super::connections::Connection;
use crate::audit::record::Caller;
use crate::error::Kind;
use crate::http_api::SignRequest;
use crate::policy::{self, PayloadChoice};
use crate::problem::{self, Problem};
use crate::serve::access::{Access, Peer};
use crate::serve::pool::Work;

/// The longest body of a request, in bytes: its two members need a fraction of that.
const BODY_LIMIT: usize = 4096;

/// The time limit for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PEM: &str = "application/x-pem-file";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

type HttpReply = Response<Full<Bytes>>;

/// The connection of a request.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) connection: &'a Connection,
    pub(super) stream: &'a ClientStream,
}

pub(super) async fn answer(
    agent: &Arc<Service>,
    (peer, access): (&Peer, Access),
    client: Client<'_>,
    request: Request<Incoming>,
) -> HttpReply {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut reply = match (path.as_str(), access) {
        (_, Access::None) | ("/sign", Access::Look) => refuse(agent, peer),
        ("/sign", Access::Ask) if method == Method::POST => sign(agent, peer, client, request).await,
        ("/sign", Access::Ask) => wrong_method("POST"),
        ("/certificate" | "/custody" | "/healthz" | "/readyz" | "/metrics", _)
            if method != Method::GET && method != Method::HEAD =>
        {
            wrong_method("GET, HEAD")
        }
        ("/healthz", _) => plain(TEXT, "alive\n".into()),
        ("/certificate" | "/custody" | "/readyz" | "/metrics", _) => {
            let _busy = client.connection.begin();
            look(agent, peer, &path).await
        }
        _ => failure(&Problem::new("not_found")),
    };
    if access == Access::None || agent.is_draining() {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

async fn look(agent: &Arc<Service>, peer: &Peer, path: &str) -> HttpReply {
    if let Err(problem) = agent.limit(peer.uid, false) {
        return failure(&problem);
    }
    match path {
        "/certificate" => match agent.pool.view().served {
            Some(held) => plain(PEM, held.certificate.pem()),
            None => failure(&agent.why_not_ready()),
        },
        "/custody" => match agent.custody.text(&agent.pool).await {
            Some(report) => reply(StatusCode::OK, JSON, report),
            None => failure(&agent.why_not_ready()),
        },
        "/readyz" => match agent.ready().await {
            Ok(()) => plain(TEXT, "ready\n".into()),
            Err(problem) => failure(&problem),
        },
        _ => match agent.metrics_text().await {
            Ok(text) => reply(StatusCode::OK, METRICS, text),
            Err(_) => failure(&Problem::new("unexpected")),
        },
    }
}

async fn sign(agent: &Arc<Service>, peer: &Peer, client: Client<'_>, request: Request<Incoming>) -> HttpReply {
    let start = Instant::now();
    let deadline = tokio::time::Instant::from_std(start + agent.config.serve.request_timeout);
    if let Err(problem) = agent.limit(peer.uid, true) {
        return failure(&problem);
    }
    let (choice, job) = match read(agent, request).await {
        Ok(read) => read,
        Err(problem) => {
            agent.metrics.count_request("unknown", &problem.code, start.elapsed());
            return failure(&problem);
        }
    };
    let _busy = client.connection.begin();
    let version = choice.version.to_string();
    // Counts as abandoned if the client leaves and this future is dropped.
    let mut counted = CountedRequest { agent, version: &version, outcome: "abandoned".into(), start };
    let caller = Caller { uid: peer.uid, gid: peer.gid, pid: peer.pid, job };
    let outcome = tokio::select! {
        outcome = agent.pool.submit(Work::Sign(choice, caller)).wait(deadline) => outcome,
        // The client has left: do not start a payload for it.
        () = client.stream.is_gone() => return failure(&Problem::new("request_timeout")),
    };
    match outcome {
        Ok(answer) => {
            counted.outcome = "ok".into();
            agent.metrics.observe_work(answer.queue_time, answer.token_time);
            plain(JSON, format!("{}\n", answer.text))
        }
        Err(refusal) => {
            let mut problem = Problem::of(refusal.kind, refusal.retry_after);
            // The client selects the version. All other refusals of the policy concern the agent's side.
            let is_version = policy::decide_version(&agent.config.policy, choice).allowed().is_err();
            if refusal.kind == Kind::Policy && is_version {
                problem = problem.detail(format!("payload version {} is not allowed", choice.version));
            }
            counted.outcome.clone_from(&problem.code);
            failure(&problem)
        }
    }
}

/// A request for a payload, counted when it ends.
struct CountedRequest<'a> {
    agent: &'a Service,
    version: &'a str,
    outcome: String,
    start: Instant,
}

impl Drop for CountedRequest<'_> {
    fn drop(&mut self) {
        self.agent.metrics.count_request(self.version, &self.outcome, self.start.elapsed());
    }
}

async fn read(agent: &Arc<Service>, request: Request<Incoming>) -> Result<(PayloadChoice, Option<String>), Problem> {
    let bad = |detail: &str| Problem::new("bad_request").detail(detail);
    let announced = request.body().size_hint().lower();
    if announced > u64::try_from(BODY_LIMIT).unwrap_or(u64::MAX) {
        return Err(Problem::new("too_large"));
    }
    let body = Limited::new(request.into_body(), BODY_LIMIT).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Err(_) => return Err(Problem::new("request_timeout")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Problem::new("too_large")),
        Ok(Err(_)) => return Err(bad("the body cannot be read")),
        Ok(Ok(body)) => body.to_bytes(),
    };
    let request_body = SignRequest::from_json(&body).map_err(bad)?;
    Ok((
        PayloadChoice { version: request_body.version.unwrap_or(agent.config.sign.choice.version), by_flag: false },
        request_body.job,
    ))
}

fn refuse(agent: &Arc<Service>, peer: &Peer) -> HttpReply {
    agent.metrics.count_refusal("not_allowed");
    agent.pool.refused();
    agent.refusal_log.note(peer, || agent.rules.why_refused(peer));
    failure(&Problem::new("not_allowed"))
}

fn wrong_method(allowed: &'static str) -> HttpReply {
    let mut reply = failure(&Problem::new("method_not_allowed"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

fn failure(problem: &Problem) -> HttpReply {
    // invariant: strings and numbers always serialise
    let body = serde_json::to_string(problem).unwrap_or_default();
    let mut reply = reply(problem.status(), problem::MEDIA_TYPE, format!("{body}\n").into_bytes());
    if let Some(seconds) = problem.retry_after_seconds() {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

fn plain(kind: &'static str, text: String) -> HttpReply {
    reply(StatusCode::OK, kind, text.into_bytes())
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> HttpReply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // A payload is valid once, and a state for a moment.
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
