//! An authentication service on loopback that behaves like the real one, by its documentation and by observation: both encodings, v1 and
//! v2, a clock window, no replay, and the failures of the service and its edge.
//!
//! It checks with independent code (ring, and openssl's certificate parser), not with the agent's.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::fixture::tool;
use crate::model::Model;

/// The behaviour of the service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behaviour {
    /// Refuses v1.
    pub(crate) refuse_v1: bool,
    /// Answers each request with 429.
    pub(crate) too_many: bool,
    /// Answers each login with 429 and this `Retry-After`.
    pub(crate) retry_after: Option<&'static str>,
    /// Answers this number of logins with 429 and a retry after a second.
    pub(crate) too_many_at_first: usize,
    /// Tokens expire after this number of seconds instead of 35 minutes.
    pub(crate) short_lived: Option<u64>,
    /// The edge answers with an HTML page.
    pub(crate) unavailable: bool,
    /// Its clock differs from this host's by this number of seconds.
    pub(crate) clock_ahead: i64,
}

/// A running service; it stops when dropped.
pub(crate) struct Service {
    pub(crate) url: String,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    behaviour: Mutex<Behaviour>,
    /// The one registered certificate, by its DER.
    registered: Vec<u8>,
    /// Its public key: modulus and exponent, in the form for ring.
    public_key: Vec<u8>,
    seen: Mutex<HashSet<Vec<u8>>>,
    model: Model,
    /// Valid Anaplan tokens, with their ends.
    tokens: Mutex<HashMap<String, u64>>,
    /// The number of requests for each path.
    asked: Mutex<HashMap<String, usize>>,
}

impl Service {
    /// Starts on a free port with one registered certificate (DER) and its public key (PKCS#1 DER).
    pub(crate) fn start(registered: Vec<u8>, public_key: Vec<u8>) -> Self {
        let state = Arc::new(State { registered, public_key, ..State::default() });
        let (ready, port) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                ready.send(listener.local_addr().unwrap().port()).unwrap();
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        let url = format!("http://127.0.0.1:{}", port.recv().unwrap());
        Self { url, state, stop: Some(stop), thread: Some(thread) }
    }

    /// The number of requests for a path, with any result.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.state.asked.lock().unwrap().get(path).copied().unwrap_or_default()
    }

    /// The number of valid Anaplan tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.state.tokens.lock().unwrap().values().filter(|ends| **ends > now()).count()
    }

    /// Ends every token, as an administrator can.
    pub(crate) fn end_tokens(&self) {
        self.state.tokens.lock().unwrap().clear();
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let state = Arc::clone(&state);
                async move {
                    let mut response = answer(request, &state).await;
                    date(&mut response, state.behaviour.lock().unwrap().clock_ahead);
                    Ok::<_, Infallible>(response)
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// The time of a service with another clock. Without it, the server sends this host's time.
fn date(response: &mut Response<Full<Bytes>>, clock_ahead: i64) {
    if clock_ahead != 0 {
        let time = format!("@{}", now().saturating_add_signed(clock_ahead));
        let form = "+%a, %d %b %Y %H:%M:%S GMT";
        let text = tool(std::process::Command::new("date").env("LC_ALL", "C").args(["-u", "-d", &time, form]));
        response.headers_mut().insert("Date", text.trim().parse().unwrap());
    }
}

fn page(status: StatusCode, kind: &str, body: String) -> Response<Full<Bytes>> {
    Response::builder().status(status).header("Content-Type", kind).body(Full::from(body)).unwrap()
}

fn refuse(status: &str, message: &str) -> Response<Full<Bytes>> {
    let body = json!({ "status": status, "statusMessage": message });
    page(StatusCode::UNAUTHORIZED, "application/json", body.to_string())
}

async fn answer(request: Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let behaviour = *state.behaviour.lock().unwrap();
    if behaviour.unavailable {
        let body = "<html><head><title>503 Service Temporarily Unavailable</title></head></html>";
        return page(StatusCode::SERVICE_UNAVAILABLE, "text/html", body.into());
    }
    if behaviour.too_many {
        let mut response = page(StatusCode::TOO_MANY_REQUESTS, "application/json", "{}".into());
        response.headers_mut().insert("Retry-After", "7".parse().unwrap());
        return response;
    }
    let path = request.uri().path().to_owned();
    let count = {
        let mut asked = state.asked.lock().unwrap();
        let count = asked.entry(path.clone()).or_default();
        *count += 1;
        *count
    };
    if path != "/token/authenticate" {
        return with_token(request, &path, state).await;
    }
    if request.method() != Method::POST {
        return page(StatusCode::NOT_FOUND, "text/html", "<html>not found</html>".into());
    }
    if count <= behaviour.too_many_at_first || behaviour.retry_after.is_some() {
        let mut response = page(StatusCode::TOO_MANY_REQUESTS, "application/json", "{}".into());
        response.headers_mut().insert("Retry-After", behaviour.retry_after.unwrap_or("1").parse().unwrap());
        return response;
    }
    let header = request.headers().get("Authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_json = request.headers().get("Content-Type").is_some_and(|value| value == "application/json");
    let body = Limited::new(request.into_body(), 1 << 16).collect().await.map(|body| body.to_bytes());
    let (Some(header), true, Ok(body)) = (header, is_json, body) else {
        return refuse("FAILURE_BAD_HEADER", "missing header or body");
    };
    match check_login(&header, &body, behaviour, state) {
        Ok(()) => page(StatusCode::CREATED, "application/json", success(state)),
        Err((status, message)) => refuse(status, message),
    }
}

/// A request with a token.
async fn with_token(request: Request<Incoming>, path: &str, state: &State) -> Response<Full<Bytes>> {
    let header = request.headers().get("Authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let token =
        header.and_then(|header| header.strip_prefix("AnaplanAuthToken ").map(str::to_owned)).unwrap_or_default();
    if state.tokens.lock().unwrap().get(&token).is_none_or(|ends| *ends <= now()) {
        return refuse("FAILURE_BAD_TOKEN", "the token has ended or never was");
    }
    let json = |status, body: Value| page(status, "application/json", body.to_string());
    match (request.method().as_str(), path) {
        ("POST", "/token/validate") => json(StatusCode::OK, json!({ "status": "SUCCESS" })),
        ("POST", "/token/refresh") => page(StatusCode::OK, "application/json", success(state)),
        ("POST", "/token/logout") => {
            state.tokens.lock().unwrap().remove(&token);
            page(StatusCode::NO_CONTENT, "application/json", String::new())
        }
        (method, path) => {
            let method = method.to_owned();
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            match state.model.answer(&method, path, &body) {
                Some((status, kind, body)) => page(StatusCode::from_u16(status).unwrap(), kind, body),
                None => page(StatusCode::NOT_FOUND, "text/html", "<html>not found</html>".into()),
            }
        }
    }
}

fn success(state: &State) -> String {
    let lifetime = state.behaviour.lock().unwrap().short_lived.unwrap_or(35 * 60);
    let expires = (now() + lifetime) * 1000;
    let mut tokens = state.tokens.lock().unwrap();
    // Like real ones: base64, with characters that a shell must not change.
    let token = STANDARD.encode(format!("?>{}-{}", tokens.len(), state.seen.lock().unwrap().len()).repeat(3));
    tokens.insert(token.clone(), now() + lifetime);
    json!({
        "meta": { "validationUrl": "http://127.0.0.1/token/validate" },
        "status": "SUCCESS",
        "statusMessage": "Login successful",
        "tokenInfo": { "expiresAt": expires, "tokenId": "id", "tokenValue": token, "refreshTokenId": "refresh" },
    })
    .to_string()
}

type Refusal = (&'static str, &'static str);

const CREDENTIAL: &str = "FAILURE_BAD_CREDENTIAL";

fn check_login(header: &str, body: &[u8], behaviour: Behaviour, state: &State) -> Result<(), Refusal> {
    let bad_header = ("FAILURE_BAD_HEADER", "no certificate in the header");
    let value = header.strip_prefix("CACertificate ").ok_or(bad_header)?;
    let mut der = STANDARD.decode(value).map_err(|_| bad_header)?;
    if der.starts_with(b"-----BEGIN CERTIFICATE-----\n") {
        let text = String::from_utf8(der).map_err(|_| bad_header)?;
        let lines: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        der = STANDARD.decode(lines).map_err(|_| bad_header)?;
    }
    if der != state.registered {
        return Err((CREDENTIAL, "certificate is not registered"));
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| (CREDENTIAL, "body is not JSON"))?;
    let decode = |member: &str| body[member].as_str().and_then(|text| STANDARD.decode(text).ok());
    let message = decode("encodedData").ok_or((CREDENTIAL, "no encodedData"))?;
    let signature = decode("encodedSignedData").ok_or((CREDENTIAL, "no encodedSignedData"))?;
    match body.get("encodedDataFormat").map(|format| format == "v2") {
        None if behaviour.refuse_v1 => return Err((CREDENTIAL, "v1 is retired")),
        None if message.len() < 100 => return Err((CREDENTIAL, "too short")),
        None => {}
        Some(true) => {
            let time = message.first_chunk::<8>().map(|time| u64::from_be_bytes(*time));
            if message.len() != 100
                || time.is_none_or(|time| time.abs_diff(now().saturating_add_signed(behaviour.clock_ahead)) > 300)
            {
                return Err((CREDENTIAL, "not fresh"));
            }
            if !state.seen.lock().unwrap().insert(message.clone()) {
                return Err((CREDENTIAL, "used before"));
            }
        }
        Some(false) => return Err((CREDENTIAL, "unknown format")),
    }
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA512, &state.public_key);
    key.verify(&message, &signature).map_err(|_| (CREDENTIAL, "signature"))
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
