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

mod reply;

pub use reply::{ClientError, read};

/// The maximum length of an agent's answer, in bytes.
pub const ANSWER_LIMIT: usize = 1 << 20;

/// Asks an agent for one payload, in the `json` form of a request.
pub(crate) fn sign(
    path: &Path,
    version: Version,
    job: Option<&str>,
    deadline: &Deadline,
) -> Result<Vec<u8>, ClientError> {
    exchange(path, &sign_request(version, job), deadline)
}

/// Builds the HTTP request for one payload (docs/http-api.md).
#[must_use]
pub fn sign_request(version: Version, job: Option<&str>) -> String {
    let mut members = serde_json::Map::from_iter([("payload_version".to_owned(), json!(version.to_string()))]);
    members.extend(job.map(|job| ("job".to_owned(), json!(job))));
    let body = Value::Object(members).to_string();
    let length = body.len();
    format!("POST /sign HTTP/1.1\r\n{HEADERS}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Builds the HTTP request for a resource, such as `/certificate`.
#[must_use]
pub fn get_request(resource: &str) -> String {
    format!("GET {resource} HTTP/1.1\r\n{HEADERS}\r\n")
}

/// The agent closes the connection after its answer.
const HEADERS: &str = "Host: localhost\r\nConnection: close\r\n";

/// Asks an agent whether it is ready, or only whether it is alive.
///
/// # Errors
/// See [`ClientError`].
pub fn health(path: &Path, live: bool, deadline: &Deadline) -> Result<Vec<u8>, ClientError> {
    get(path, if live { "/healthz" } else { "/readyz" }, deadline)
}

/// Sends a GET request for an absolute path to a server on a Unix socket. Returns the body of the answer.
///
/// # Errors
/// See [`ClientError`].
pub fn get(path: &Path, resource: &str, deadline: &Deadline) -> Result<Vec<u8>, ClientError> {
    exchange(path, &get_request(resource), deadline)
}

fn exchange(path: &Path, request: &str, deadline: &Deadline) -> Result<Vec<u8>, ClientError> {
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
        if received.len() > ANSWER_LIMIT {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::{Explain as _, Kind};

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
