//! The reply of an agent: parsed, and the errors that it can be. Runs in the parent.

use std::io;

use crate::error::{Explain, Kind};
use crate::problem::{MEDIA_TYPE, Problem};
use crate::text::shell::quoted;

/// The reason why an agent gave no answer, or its refusal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there, or this user may not connect.
    #[error("cannot reach the agent at {path}")]
    Unreachable {
        /// The socket.
        path: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// No agent can ever listen there.
    #[error("cannot ask the agent at {path}: this is {what}, not the socket of an agent")]
    NoSocket {
        /// The path.
        path: String,
        /// The kind of file at this path.
        what: &'static str,
    },
    /// It did not answer in time.
    #[error("the agent at {0} did not answer in time")]
    TimedOut(String),
    /// The process that answers is not an agent.
    #[error("the process that answers at {path} is not a cba-agent: {what}")]
    NotAnAgent {
        /// The socket.
        path: String,
        /// The problem with its answer.
        what: String,
    },
    /// It refused.
    #[error("the agent at {path} refuses: {title} ({code}{})", detail.as_deref().map(|detail| format!(", {detail}")).unwrap_or_default())]
    Refused {
        /// The socket.
        path: String,
        /// The problem's code.
        code: String,
        /// The problem's title.
        title: String,
        /// The problem's detail.
        detail: Option<String>,
        /// The error kind of this code.
        kind: Kind,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
}

impl Explain for ClientError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. } | Self::NotAnAgent { .. } => Kind::AgentUnreachable,
            Self::NoSocket { .. } => Kind::Config,
            Self::TimedOut(_) => Kind::AgentBusy,
            Self::Refused { kind, .. } => *kind,
        }
    }

    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "this user must be in the group that the agent's socket_group names; log in again after a change of groups"
                    .into()
            }
            Self::Unreachable { path, .. } => {
                format!("is it running? `systemctl status cba-agent`, or `cba-agent health --socket {}`", quoted(path))
            }
            Self::TimedOut(_) => "allow more time with --timeout; the token may wait for a touch".into(),
            Self::NotAnAgent { .. } | Self::NoSocket { .. } => "check the path: it must be the socket of `cba-agent serve`".into(),
            Self::Refused { retry_after: Some(seconds), .. } => format!("try again in {seconds} s"),
            Self::Refused { kind: Kind::NotAllowed, .. } => {
                "the agent's socket_group, allow_users and allow_groups say whom it serves; its own user must be in allow_users"
                    .into()
            }
            Self::Refused { kind: Kind::Policy, detail: Some(_), .. } => {
                "use --payload-version v2; only payload_versions in [policy] of the agent's configuration allows v1".into()
            }
            Self::Refused { kind: Kind::PinFuse, .. } => {
                "correct the PIN of the agent; its log says what the token answered and what to do"
                    .into()
            }
            Self::Refused { .. } => "the agent's log says more: `journalctl -u cba-agent`".into(),
        };
        vec![hint]
    }
}

/// A successful answer.
#[derive(Debug)]
pub struct AgentReply {
    /// Its body.
    pub body: Vec<u8>,
}

/// Parses an answer (RFC 9112): a status, a length, and a body of exactly that length.
///
/// # Errors
/// When it is not an agent's answer, or a refusal.
pub fn read(path: &str, received: &[u8]) -> Result<AgentReply, ClientError> {
    let not_an_agent = |what: &str| ClientError::NotAnAgent { path: path.to_owned(), what: what.to_owned() };
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let start = match response.parse(received) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) if received.is_empty() => {
            return Err(not_an_agent("it closed without an answer"));
        }
        _ => return Err(not_an_agent("its answer is not HTTP")),
    };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let length: Option<usize> = header("Content-Length").and_then(|text| text.parse().ok());
    let body = &received[start..];
    if length != Some(body.len()) {
        return Err(not_an_agent("its answer is cut off"));
    }
    let status = response.code.unwrap_or_default();
    if (200..300).contains(&status) {
        return Ok(AgentReply { body: body.to_vec() });
    }
    let problem: Option<Problem> =
        header("Content-Type").filter(|kind| *kind == MEDIA_TYPE).and_then(|_| serde_json::from_slice(body).ok());
    let Some(problem) = problem else { return Err(not_an_agent(&format!("status {status} and no problem document"))) };
    Err(ClientError::Refused {
        path: path.to_owned(),
        kind: problem.kind().unwrap_or_else(|| kind_of(status)),
        retry_after: header("Retry-After").and_then(|text| text.parse().ok()),
        code: problem.code,
        title: problem.title,
        detail: problem.detail,
    })
}

/// The error kind of an unknown refusal from a newer agent, by its status.
fn kind_of(status: u16) -> Kind {
    match status {
        403 => Kind::NotAllowed,
        408 | 429 | 500.. => Kind::AgentUnreachable,
        _ => Kind::Policy,
    }
}
