//! Requests payloads from `cba-agent` as `cba-agent sign --socket` does. It checks each one, and tries the next agent
//! if one is unavailable.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::config::{GatewayConfig, LocalClient, is_own_user};
use crate::failure::LoginFailure;
use crate::library::{
    CLOCK_TOLERANCE, Certificate, ClientError, Deadline, Error, Format, Freshness, HeaderEncoding, Kind, LoginRequest,
    PayloadChoice, Received, Result, Version, agent_client, check_received, now,
};

/// The time limit for an agent's certificate when the gateway starts or reloads.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(2);

/// A checked v2 payload.
pub(crate) struct AgentPayload {
    /// The value of the `Authorization` header.
    pub authorization: HeaderValue,
    /// The JSON body.
    pub body: String,
    /// The SHA-256 of the message. It identifies the payload in the agent's audit log.
    pub message_sha256: String,
}

/// Requests a payload from the first agent. It tries the next agent only if the last one was unavailable, busy or without
/// its token.
///
/// # Errors
/// The failure of the last agent.
pub(crate) async fn request_payload(
    config: &GatewayConfig,
    job: &str,
    deadline: Instant,
) -> Result<AgentPayload, LoginFailure> {
    let mut sockets = config.agent.sockets.iter().peekable();
    let mut failure = LoginFailure::from_agent(Kind::AgentUnreachable, "no agent is configured", None);
    while let Some(socket) = sockets.next() {
        let is_last = sockets.peek().is_none();
        let left = deadline.saturating_duration_since(Instant::now());
        // If this agent does not answer, time is left for the next one.
        let time_limit = if is_last { left } else { left / 2 };
        match tokio::time::timeout(time_limit, request_from(config, socket, job)).await {
            Ok(Ok(payload)) => return Ok(payload),
            Ok(Err((error, retry_after))) => {
                let tries_next = error.kind.retryable() && !is_last;
                if tries_next {
                    tracing::warn!("{}; trying the next agent", error.message);
                }
                failure = LoginFailure::from_agent(error.kind, error.message, retry_after);
                if !tries_next {
                    break;
                }
            }
            Err(_) => {
                let detail = format!("the agent at {} did not answer in time", socket.display());
                if !is_last {
                    tracing::warn!("{detail}; trying the next agent");
                }
                failure = LoginFailure::timeout("the agent").with_detail(detail);
            }
        }
    }
    Err(failure)
}

/// An error of an agent, and its `Retry-After` in seconds.
type AgentError = (Error, Option<u64>);

async fn request_from(config: &GatewayConfig, socket: &Path, job: &str) -> Result<AgentPayload, AgentError> {
    let since = now();
    let agent_error = |error: ClientError| {
        let retry_after = match &error {
            ClientError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        };
        (Error::from(error), retry_after)
    };
    let stream = connect(socket).await.map_err(agent_error)?;
    let is_own = stream.peer_cred().is_ok_and(|peer| is_own_user(peer.uid()));
    if is_own && !config.files.single_user {
        return Err((runs_as_own_user(socket), None));
    }
    let answer =
        exchange(stream, socket, &agent_client::sign_request(Version::V2, Some(job))).await.map_err(agent_error)?;
    check_payload(config, &answer, since).map_err(|error| {
        (error.context(format_args!("cannot use the payload of the agent at {}", socket.display())), None)
    })
}

/// Checks a payload as the agent's own client does, and checks that its certificate is an expected one.
fn check_payload(config: &GatewayConfig, answer: &[u8], since: u64) -> Result<AgentPayload> {
    let forged = |what: &str| Error::new(Kind::SignatureInvalid, what);
    let received = Received::from_agent(answer).map_err(|error| forged(&error.to_string()))?;
    let certificate = &received.certificate;
    let max_age = now().saturating_sub(since) + CLOCK_TOLERANCE;
    let freshness = Freshness { now: now(), max_age, max_ahead: CLOCK_TOLERANCE };
    let choice = PayloadChoice { version: Version::V2, by_flag: false };
    let (payload, _) = check_received(&received, choice, &config.payload_policy, freshness)?;
    if let Some(client) = client_with_key(&config.clients, certificate) {
        let what = format!("the client {} has the agent's own key", client.name);
        return Err(Error::new(Kind::Policy, what).hint("give the tool its own key: docs/gateway.md"));
    }
    let request = LoginRequest::new(&config.upstream.auth_url, (certificate, HeaderEncoding::Der), &payload);
    let render = |format| request.render(format).map_err(|error| Error::new(Kind::Unexpected, error.to_string()));
    let header = render(Format::Header)?;
    let value = header.strip_prefix("Authorization: ").unwrap_or(&header);
    let mut authorization = HeaderValue::from_str(value).map_err(|error| forged(&error.to_string()))?;
    authorization.set_sensitive(true);
    Ok(AgentPayload { authorization, body: render(Format::Body)?, message_sha256: request.message_sha256() })
}

/// Returns the client that has the key of this certificate.
#[must_use]
pub(crate) fn client_with_key<'a>(
    clients: &'a [Arc<LocalClient>],
    certificate: &Certificate,
) -> Option<&'a Arc<LocalClient>> {
    let has_key = |client: &&Arc<LocalClient>| {
        client.certificates.iter().any(|listed| listed.certificate.modulus == certificate.modulus)
    };
    clients.iter().find(has_key)
}

/// Checks the available agents: none may run as the gateway's user, and none may have the key of a client. For an
/// unavailable agent, each of its payloads is checked later.
///
/// # Errors
/// When an agent breaks one of these rules.
pub(crate) fn check_separation(config: &GatewayConfig) -> Result<()> {
    for socket in &config.agent.sockets {
        let owner = std::fs::metadata(socket).ok().map(|found| found.uid());
        if !config.files.single_user && owner.is_some_and(is_own_user) {
            return Err(runs_as_own_user(socket));
        }
        let Ok(answer) = agent_client::get(socket, "/certificate", &Deadline::after(CERTIFICATE_TIMEOUT)) else {
            continue;
        };
        let Ok(certificate) = Certificate::from_pem(&answer) else { continue };
        if let Some(client) = client_with_key(&config.clients, &certificate) {
            let shown = socket.display();
            let what = format!("cannot use the client {}: it has the key of the agent at {shown}", client.name);
            return Err(
                Error::new(Kind::Config, what).hint("make a new key and certificate for the tool: docs/gateway.md")
            );
        }
    }
    Ok(())
}

fn runs_as_own_user(socket: &Path) -> Error {
    let what = format!("cannot use the agent at {}: it runs as the gateway's own user", socket.display());
    Error::new(Kind::NotAllowed, what)
        .hint("run the gateway as a separate user who is a member of the agent's socket_group")
        .hint("--single-user accepts it, for a demonstration")
}

/// Checks that an agent is ready.
pub(crate) async fn check_ready(socket: &Path, time_limit: Duration) -> Result<()> {
    get(socket, "/readyz", time_limit).await.map(drop)
}

/// Returns the certificate of an agent, as PEM.
pub(crate) async fn get_certificate(socket: &Path, time_limit: Duration) -> Result<Vec<u8>> {
    get(socket, "/certificate", time_limit).await
}

async fn get(socket: &Path, resource: &str, time_limit: Duration) -> Result<Vec<u8>> {
    let answer = async { exchange(connect(socket).await?, socket, &agent_client::get_request(resource)).await };
    match tokio::time::timeout(time_limit, answer).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ClientError::TimedOut(socket.display().to_string()).into()),
    }
}

async fn connect(path: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(path).await.map_err(|source| unreachable(path, source))
}

fn unreachable(path: &Path, source: std::io::Error) -> ClientError {
    ClientError::Unreachable { path: path.display().to_string(), source }
}

/// Sends one request, and reads the answer to its end. Dropping the future closes the connection, so that the agent does
/// not sign for a caller that has left.
async fn exchange(mut stream: UnixStream, path: &Path, request: &str) -> Result<Vec<u8>, ClientError> {
    let failed = |source| unreachable(path, source);
    // An agent that refuses at once may have closed its end. Its answer can still be read.
    let written = stream.write_all(request.as_bytes()).await;
    let mut received = Vec::new();
    let read = (&mut stream).take(agent_client::ANSWER_LIMIT as u64).read_to_end(&mut received).await;
    if received.is_empty() {
        written.and(read).map_err(failed)?;
    }
    agent_client::read(&path.display().to_string(), &received)
}
