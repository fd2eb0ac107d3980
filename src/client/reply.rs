//! The reply of an agent: parsed, and the errors that it can be. Runs in the parent.

use std::io;

use crate::error::{Class, Explain, Kind};
use crate::problem::{MEDIA_TYPE, Problem};

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
            Self::Unreachable { path, .. } => format!("is it running? `systemctl status {}`", unit(path)),
            Self::TimedOut(_) => "allow more time with --timeout; the token may wait for a touch".into(),
            Self::NotAnAgent { .. } | Self::NoSocket { .. } => "check the path: it must be the socket of `cba-agent serve`".into(),
            Self::Refused { path, kind, detail, retry_after, .. } => {
                refused_hint(&unit(path), *kind, detail.as_deref(), *retry_after)
            }
        };
        vec![hint]
    }
}

/// What helps after a refusal. Waiting alone helps only where the agent is busy; an agent without its token also names a time.
fn refused_hint(unit: &str, kind: Kind, detail: Option<&str>, retry_after: Option<u64>) -> String {
    let reason = format!("`systemctl status {unit}` shows the agent's reason");
    let log = format!("`journalctl -u {unit}` shows the agent's reason");
    match (kind, retry_after) {
        (Kind::NotAllowed, _) => {
            "the agent's socket_group, allow_users and allow_groups say whom it serves; its own user must be in allow_users"
                .into()
        }
        (Kind::Policy, _) if detail.is_some() => {
            "use --payload-version v2; only payload_versions in [policy] of the agent's configuration allows v1".into()
        }
        (Kind::PinFuse, _) if detail == Some(Kind::StateDir.name()) => log,
        (Kind::PinFuse, _) => "correct the PIN of the agent; its log says what the token answered and what to do".into(),
        (Kind::TokenFailed, _) if detail == Some(Kind::NotFound.name()) => {
            format!("{reason}; plug the token in, or correct the agent's configuration")
        }
        (Kind::TokenFailed, _) if [Kind::Ambiguous, Kind::Unsuitable].iter().any(|kind| detail == Some(kind.name())) => {
            format!("{reason}; correct the agent's configuration")
        }
        (Kind::TokenFailed, _) if detail == Some(Kind::TokenRemoved.name()) => {
            format!("plug the token in again; {reason}")
        }
        (Kind::TokenFailed, Some(seconds)) => format!("try again in {seconds} s; {reason}"),
        (Kind::AuditUnavailable, _) => format!("{log}: a full disk, or a log file that the agent may not write"),
        (_, Some(seconds)) if kind.class() == Class::Agent => format!("try again in {seconds} s"),
        _ => log,
    }
}

/// The systemd unit of the agent on a socket: the packages give each tenant a directory.
fn unit(socket: &str) -> String {
    let tenant = socket.strip_prefix("/run/cba-agent-").and_then(|rest| rest.strip_suffix("/agent.sock"));
    tenant.filter(|name| is_tenant(name)).map_or_else(|| "cba-agent".into(), |name| format!("cba-agent@{name}"))
}

/// Whether a tenant can have this name: the rule of `deploy/systemd/prepare-tenant`, without which no unit of a tenant starts.
fn is_tenant(name: &str) -> bool {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    is_plain && (1..=21).contains(&name.len()) && !["config", "policy"].contains(&name)
}

/// Parses an answer (RFC 9112): a status, a length, and a body of exactly that length. Returns the body.
///
/// # Errors
/// When it is not an agent's answer, or a refusal.
pub fn read(path: &str, received: &[u8]) -> Result<Vec<u8>, ClientError> {
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
        return Ok(body.to_vec());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(path: &str, kind: Kind, detail: Option<&str>, retry_after: Option<u64>) -> String {
        let (path, detail) = (path.to_owned(), detail.map(str::to_owned));
        let error = ClientError::Refused { path, code: "c".into(), title: "t".into(), detail, kind, retry_after };
        error.hints().concat()
    }

    #[test]
    fn only_a_busy_agent_is_just_asked_again() {
        let socket = "/run/cba-agent/agent.sock";
        let status = "`systemctl status cba-agent` shows the agent's reason";
        for kind in [Kind::AgentBusy, Kind::AgentUnreachable] {
            assert_eq!(hint(socket, kind, None, Some(7)), "try again in 7 s");
        }
        for (detail, words) in [
            (Kind::NotFound, "plug the token in, or correct the agent's configuration"),
            (Kind::Ambiguous, "correct the agent's configuration"),
            (Kind::Unsuitable, "correct the agent's configuration"),
            (Kind::TokenRemoved, "plug the token in again"),
            (Kind::TokenFailed, "try again in 7 s; "),
        ] {
            let hint = hint(socket, Kind::TokenFailed, Some(detail.name()), Some(7));
            assert!(hint.contains(words) && hint.contains(status), "{detail:?}: {hint}");
            assert_eq!(hint.contains("try again"), detail == Kind::TokenFailed, "{detail:?}: {hint}");
        }
        let pin = |detail: Kind| hint(socket, Kind::PinFuse, Some(detail.name()), Some(7));
        assert!(pin(Kind::PinIncorrect).starts_with("correct the PIN of the agent"));
        assert!(pin(Kind::StateDir).starts_with("`journalctl -u cba-agent`"));
        let audit = hint(socket, Kind::AuditUnavailable, None, Some(7));
        assert!(audit.starts_with("`journalctl -u cba-agent` shows") && audit.contains("a full disk"), "{audit}");
        assert_eq!(hint(socket, Kind::Unexpected, None, None), "`journalctl -u cba-agent` shows the agent's reason");
    }

    #[test]
    fn the_unit_of_a_tenants_socket_is_named() {
        for (socket, name) in [
            ("/run/cba-agent/agent.sock", "cba-agent"),
            ("/run/cba-agent-emea/agent.sock", "cba-agent@emea"),
            ("/run/cba-agent-/agent.sock", "cba-agent"),
            ("/run/cba-agent-a b/agent.sock", "cba-agent"),
            ("/run/cba-agent-a/b/agent.sock", "cba-agent"),
            ("/srv/a.sock", "cba-agent"),
        ] {
            assert_eq!(unit(socket), name);
            let source = io::ErrorKind::NotFound.into();
            let hint = ClientError::Unreachable { path: socket.into(), source }.hints().concat();
            assert!(hint.contains(&format!("`systemctl status {name}`")), "{hint}");
        }
    }
}
