//! A test double of Anaplan's authentication service, over real TLS. It accepts only v2 and no replay, verifies signatures
//! with ring, and can fail as the real service or its proxies fail.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cba_agent::Certificate;
use ring::signature::{RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

/// How the service behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(dead_code)] // The example uses only the first variant.
pub(crate) enum Behaviour {
    #[default]
    Normal,
    /// This status, these header lines and this body.
    Answer(u16, &'static str, &'static str),
    /// A body without end.
    Endless,
    /// No answer.
    Silent,
    /// Waits for [`Service::release`].
    Held,
    /// Closes after the request.
    Closes,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) line: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A running service; its threads end with the process.
pub(crate) struct Service {
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    registered: Vec<u8>,
    behaviour: Mutex<Behaviour>,
    arrived: Mutex<Vec<Arrived>>,
    changed: Condvar,
    seen: Mutex<HashSet<Vec<u8>>>,
    tokens: Mutex<Vec<String>>,
    released: AtomicBool,
}

#[allow(dead_code)] // The example does not use all of it.
impl Service {
    /// Starts on a port (0: a free one) with a TLS certificate and key (PEM) and one registered certificate (PEM).
    pub(crate) fn start(port: u16, chain: &[u8], key: &[u8], registered: &[u8]) -> Self {
        let registered = Certificate::from_pem(registered).unwrap().der().to_vec();
        let state = Arc::new(State { registered, ..State::default() });
        let chain = CertificateDer::pem_slice_iter(chain).map(Result::unwrap).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key).unwrap())
            .unwrap();
        let tls = Arc::new(tls);
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let service = Self { port: listener.local_addr().unwrap().port(), state: Arc::clone(&state) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, tls) = (Arc::clone(&state), Arc::clone(&tls));
                std::thread::spawn(move || connection(stream, tls, &state));
            }
        });
        service
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// Sends the answers that [`Behaviour::Held`] holds back.
    pub(crate) fn release(&self) {
        self.state.released.store(true, Ordering::SeqCst);
        let _guard = self.state.arrived.lock().unwrap();
        self.state.changed.notify_all();
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.state.arrived.lock().unwrap().clone()
    }

    /// Waits until this many requests have arrived.
    pub(crate) fn wait_for(&self, count: usize) {
        let arrived = self.state.arrived.lock().unwrap();
        let (arrived, _) =
            self.state.changed.wait_timeout_while(arrived, Duration::from_secs(60), |all| all.len() < count).unwrap();
        assert!(arrived.len() >= count, "only {} requests arrived", arrived.len());
    }
}

fn connection(stream: TcpStream, tls: Arc<rustls::ServerConfig>, state: &State) {
    let Ok(session) = rustls::ServerConnection::new(tls) else { return };
    let mut stream = rustls::StreamOwned::new(session, stream);
    while let Ok(arrived) = read_request(&mut stream) {
        if answer(&mut stream, &arrived, state).is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut impl Read) -> io::Result<Arrived> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut body = vec![0; header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body)?;
    let line = head.lines().next().unwrap_or_default().to_owned();
    Ok(Arrived { line, head, body: String::from_utf8_lossy(&body).into_owned() })
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn answer(stream: &mut impl Write, arrived: &Arrived, state: &State) -> io::Result<()> {
    {
        let mut all = state.arrived.lock().unwrap();
        all.push(arrived.clone());
        state.changed.notify_all();
        if *state.behaviour.lock().unwrap() == Behaviour::Held {
            let released = |_: &mut Vec<Arrived>| !state.released.load(Ordering::SeqCst);
            let _all = state.changed.wait_timeout_while(all, Duration::from_secs(60), released).unwrap();
        }
    }
    let behaviour = state.behaviour.lock().unwrap().clone();
    match behaviour {
        Behaviour::Normal | Behaviour::Held => {
            let (status, body) = respond(arrived, state);
            write(stream, status, "Content-Type: application/json\r\n", &body)
        }
        Behaviour::Answer(status, headers, body) => write(stream, status, headers, body),
        Behaviour::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 4096])?;
            }
        }
        Behaviour::Silent => {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        Behaviour::Closes => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

fn write(stream: &mut impl Write, status: u16, headers: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    stream.write_all(format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}").as_bytes())?;
    stream.flush()
}

fn respond(arrived: &Arrived, state: &State) -> (u16, String) {
    let authorization = header(&arrived.head, "authorization").unwrap_or_default();
    let mut tokens = state.tokens.lock().unwrap();
    let refuse = |what: &str| (401, json!({ "status": "FAILURE_BAD_CREDENTIAL", "statusMessage": what }).to_string());
    if arrived.line.starts_with("POST /token/authenticate ") {
        return match judge(authorization, &arrived.body, state) {
            Ok(()) => {
                let next = format!("MARKER-TOKEN-{}==", tokens.len());
                tokens.push(next);
                (201, success(tokens.last().unwrap()))
            }
            Err(what) => refuse(what),
        };
    }
    let token = authorization.strip_prefix("AnaplanAuthToken ").unwrap_or_default().to_owned();
    let Some(at) = tokens.iter().position(|known| *known == token) else { return refuse("unknown token") };
    match arrived.line.as_str() {
        "POST /token/refresh HTTP/1.1" => {
            let next = format!("MARKER-TOKEN-{}==", tokens.len());
            tokens.push(next);
            (200, success(tokens.last().unwrap()))
        }
        "POST /token/logout HTTP/1.1" => {
            tokens[at] = String::new();
            (204, String::new())
        }
        "GET /token/validate HTTP/1.1" | "POST /token/validate HTTP/1.1" => (200, success(&token)),
        _ => (404, "{}".into()),
    }
}

fn success(token: &str) -> String {
    json!({
        "meta": { "validationUrl": "https://localhost/token/validate" },
        "status": "SUCCESS",
        "statusMessage": "Login successful",
        "tokenInfo": { "expiresAt": (now() + 2100) * 1000, "tokenId": "id", "tokenValue": token, "refreshTokenId": "refresh" },
    })
    .to_string()
}

fn judge(authorization: &str, body: &str, state: &State) -> Result<(), &'static str> {
    let value = authorization.strip_prefix("CACertificate ").ok_or("no certificate")?;
    if STANDARD.decode(value).ok().as_deref() != Some(&state.registered[..]) {
        return Err("certificate is not registered");
    }
    let body: Value = serde_json::from_str(body).map_err(|_| "body is not JSON")?;
    let decode = |member: &str| body[member].as_str().and_then(|text| STANDARD.decode(text).ok()).ok_or("no payload");
    let (message, signature) = (decode("encodedData")?, decode("encodedSignedData")?);
    if body["encodedDataFormat"] != "v2" {
        return Err("v1 is retired");
    }
    let time = message.first_chunk::<8>().map(|time| u64::from_be_bytes(*time));
    if message.len() != 100 || time.is_none_or(|time| time.abs_diff(now()) > 300) {
        return Err("not fresh");
    }
    if !state.seen.lock().unwrap().insert(message.clone()) {
        return Err("used before");
    }
    let certificate = Certificate::from_der(&state.registered).unwrap();
    let key = RsaPublicKeyComponents { n: &certificate.modulus, e: &certificate.exponent };
    key.verify(&RSA_PKCS1_2048_8192_SHA512, &message, &signature).map_err(|_| "signature")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
