//! The admin socket: health, readiness, metrics and the clients' last logins. Only root and one group may connect.

use std::convert::Infallible;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use crate::config::AdminConfig;
use crate::gateway::Gateway;
use crate::library::{Error, Kind, Result, file_format::quoted};
use crate::metrics::LastLogin;

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The listening socket. Dropping it removes its path.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: StdListener,
    path: PathBuf,
    inode: u64,
}

/// A client as `cba-gateway clients` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClientStatus {
    pub name: String,
    pub disabled: bool,
    pub transition: bool,
    /// Its last login since the start of the gateway.
    pub last: Option<LastLogin>,
}

impl AdminSocket {
    /// Converts the socket into a listener for tokio.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates the socket with mode 0660 and its group. Other users cannot connect at any moment.
///
/// # Errors
/// When its directory is not writable, or its path is in use by something else.
pub(crate) fn open(admin: &AdminConfig) -> Result<Option<AdminSocket>> {
    let Some(path) = &admin.socket else { return Ok(None) };
    let failed = |error| socket_error(path, &error);
    remove_stale_socket(path).map_err(failed)?;
    let listener = bind_private(path, admin.group, |inside| fs::rename(inside, path)).map_err(failed)?;
    let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
    Ok(Some(AdminSocket { listener, path: path.clone(), inode }))
}

/// Checks that this user can create the socket with its group. A running gateway keeps its socket.
///
/// # Errors
/// When [`open`] would fail.
pub(crate) fn check(path: &Path, group: Option<u32>) -> Result<()> {
    let failed = |error| socket_error(path, &error);
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(failed(other_kind_of_file()));
    }
    bind_private(path, group, |_| Ok(())).map(drop).map_err(failed)
}

fn socket_error(path: &Path, error: &io::Error) -> Error {
    let directory = path.parent().unwrap_or(path).display().to_string();
    Error::new(Kind::Config, format!("cannot create the admin socket {}: {error}", path.display())).hint(format!(
        "the gateway's user must be a member of admin.group, and able to write the directory: \
         `install -d -o cba-gateway -g cba-gateway {}`",
        quoted(&directory)
    ))
}

fn other_kind_of_file() -> io::Error {
    io::Error::other("another kind of file has this path")
}

/// Removes the socket of a gateway that has ended.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(other_kind_of_file()),
        Ok(_) if UnixStream::connect(path).is_ok() => Err(io::Error::other("another gateway serves this socket")),
        Ok(_) => fs::remove_file(path),
    }
}

/// Binds the socket in a directory that other users cannot enter, sets mode and group there, and lets `publish` move it to its
/// path.
fn bind_private(
    path: &Path,
    group: Option<u32>,
    publish: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<StdListener> {
    let directory = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let private = directory.join(format!(".cba-gateway.{}", std::process::id()));
    let inside = private.join("s");
    let _ = fs::remove_file(&inside);
    let _ = fs::remove_dir(&private);
    DirBuilder::new().mode(0o700).create(&private)?;
    let bound = || -> io::Result<StdListener> {
        let listener = StdListener::bind(&inside)?;
        if group.is_some() {
            std::os::unix::fs::chown(&inside, None, group)?;
        }
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o660))?;
        publish(&inside)?;
        Ok(listener)
    };
    let listener = bound();
    let _ = fs::remove_file(&inside);
    fs::remove_dir(&private)?;
    listener
}

/// Serves the socket until the task is aborted.
pub(crate) async fn serve(gateway: Arc<Gateway>, listener: UnixListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let gateway = &gateway;
                async move { Ok::<_, Infallible>(reply_to(gateway, &request).await) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(15)).max_buf_size(16 << 10);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn reply_to(gateway: &Arc<Gateway>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "only GET is served");
    }
    match request.uri().path() {
        "/healthz" => reply(StatusCode::OK, TEXT, "alive\n".into()),
        "/readyz" => match gateway.check_ready().await {
            Ok(()) => reply(StatusCode::OK, TEXT, "ready\n".into()),
            Err(why) => problem(StatusCode::SERVICE_UNAVAILABLE, "busy", &format!("the gateway is not ready: {why}")),
        },
        "/metrics" => {
            let is_ready = gateway.check_ready().await.is_ok();
            let text = gateway.metrics.text(gateway.connections.count(), is_ready).unwrap_or_default();
            reply(StatusCode::OK, PROMETHEUS_TEXT, text)
        }
        "/clients" => {
            // invariant: strings and numbers always serialise
            reply(StatusCode::OK, JSON, serde_json::to_string(&client_statuses(gateway)).unwrap_or_default())
        }
        _ => problem(StatusCode::NOT_FOUND, "not_found", "there is no such resource"),
    }
}

fn client_statuses(gateway: &Gateway) -> Vec<ClientStatus> {
    let mut last = gateway.metrics.last_logins();
    let active = gateway.active();
    let clients = active.config.clients.iter().map(|client| ClientStatus {
        last: last.remove(&client.name),
        name: client.name.clone(),
        disabled: client.disabled,
        transition: client.transition,
    });
    clients.collect()
}

/// A problem document (RFC 9457) in the form of the agent's, so that one client reads both.
fn problem(status: StatusCode, code: &str, title: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "title": title, "status": status.as_u16(), "code": code });
    reply(status, PROBLEM, body.to_string())
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::from(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}
