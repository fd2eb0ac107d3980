//! Clients of an agent's socket: `sign --socket` and `health`. Runs in the parent. It uses neither a module nor a PIN
//! nor an async runtime.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use crate::cba::Version;
use crate::deadline::Deadline;
use crate::error::{Explain, Kind};
use crate::problem::{MEDIA_TYPE, Problem};
use crate::text::shell::quoted;

/// Longer than any answer of an agent.
const LIMIT: usize = 1 << 20;

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

/// Asks an agent for one payload. The answer's body is the `json` form of a request.
pub(crate) fn sign(
    path: &Path,
    version: Version,
    job: Option<&str>,
    deadline: &Deadline,
) -> Result<AgentReply, ClientError> {
    let mut order = serde_json::Map::from_iter([("payload_version".to_owned(), json!(version.to_string()))]);
    order.extend(job.map(|job| ("job".to_owned(), json!(job))));
    let body = Value::Object(order).to_string();
    let head = format!("POST /sign HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    exchange(path, &head, &body, deadline)
}

/// Asks an agent whether it is ready, or only whether it is alive.
///
/// # Errors
/// See [`ClientError`].
pub fn health(path: &Path, live: bool, deadline: &Deadline) -> Result<AgentReply, ClientError> {
    get(path, if live { "/healthz" } else { "/readyz" }, deadline)
}

/// Sends a GET request for an absolute path to a server on a Unix socket.
///
/// # Errors
/// See [`ClientError`].
pub fn get(path: &Path, resource: &str, deadline: &Deadline) -> Result<AgentReply, ClientError> {
    exchange(path, &format!("GET {resource} HTTP/1.1\r\n"), "", deadline)
}

fn exchange(path: &Path, head: &str, body: &str, deadline: &Deadline) -> Result<AgentReply, ClientError> {
    let shown = path.display().to_string();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut(shown.clone()),
        _ => ClientError::Unreachable { path: shown.clone(), source: error },
    };
    let mut stream =
        left(deadline).and_then(|left| connect(path, left)).map_err(|error| match no_socket(path, &error) {
            Some(what) => ClientError::NoSocket { path: shown.clone(), what },
            None => failed(error),
        })?;
    let request = format!("{head}Host: localhost\r\nConnection: close\r\n\r\n{body}");
    stream.set_write_timeout(Some(left(deadline).map_err(failed)?)).map_err(failed)?;
    // An agent that refuses at once may have closed its end already. Its answer can still be read.
    let written = stream.write_all(request.as_bytes());
    let received = receive(&mut stream, deadline).map_err(failed)?;
    if let (Err(error), true) = (written, received.is_empty()) {
        return Err(failed(error));
    }
    read(&shown, &received)
}

/// Connects within a time limit: if a server does not accept connections, its queue fills up, and the kernel makes the
/// next client wait.
pub(super) fn connect(path: &Path, most: Duration) -> io::Result<UnixStream> {
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(most.max(Duration::from_millis(1))))?;
    let address = SocketAddrUnix::new(path)?;
    // A read with a time limit is interrupted by a stop and continue of the process (signal(7)).
    rustix::io::retry_on_intr(|| net::connect(&socket, &address))?;
    Ok(UnixStream::from(socket))
}

/// The kind of file at a path where no agent can ever listen; `None` if an agent may still appear.
fn no_socket(path: &Path, error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        // The kernel's error for every file that is not a socket.
        Errno::CONNREFUSED => match std::fs::metadata(path).ok()?.file_type() {
            kind if kind.is_dir() => Some("a directory"),
            kind if kind.is_socket() => None,
            _ => Some("a file"),
        },
        Errno::PROTOTYPE => Some("a socket of another type"),
        Errno::NOTDIR => Some("a path through a file"),
        Errno::LOOP => Some("a loop of symbolic links"),
        _ => None,
    }
}

fn left(deadline: &Deadline) -> io::Result<Duration> {
    deadline.left().ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// Reads until the agent closes the connection, as requested.
fn receive(stream: &mut UnixStream, deadline: &Deadline) -> io::Result<Vec<u8>> {
    let (mut received, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(received),
            Ok(read) => received.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !received.is_empty() => {
                return Ok(received);
            }
            Err(error) => return Err(error),
        }
        if received.len() > LIMIT {
            return Err(io::Error::other("the answer is too long"));
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(answer: &str) -> Kind {
        read("/s", answer.as_bytes()).map_or_else(|error| error.kind(), |_| panic!("{answer:?} was taken"))
    }

    #[test]
    fn an_answer_that_is_not_an_agents_is_refused() {
        for answer in [
            "",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 503 x\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}",
        ] {
            assert_eq!(kind(answer), Kind::AgentUnreachable, "{answer:?}");
        }
        let body = r#"{"title":"t","status":503,"code":"pin_refused"}"#;
        let head = "HTTP/1.1 503 x\r\nContent-Type: application/problem+json\r\nContent-Length:";
        assert_eq!(kind(&format!("{head} {}\r\n\r\n{body}", body.len())), Kind::PinFuse);
    }

    proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(bytes: Vec<u8>, rest: String) {
            let _ = read("/s", &bytes);
            let _ = read("/s", format!("HTTP/1.1 200 OK\r\n{rest}").as_bytes());
        }
    }
}
