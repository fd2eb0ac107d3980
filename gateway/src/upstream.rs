//! The HTTP client of Anaplan's authentication service, which the code calls "upstream". It sends each request once,
//! follows no redirect and requests no compression.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::config::{FileRules, UpstreamConfig};
use crate::library::{Error, Kind, Result};

pub(crate) mod answer;
mod connect;
mod proxy;
mod roots;

pub(crate) use answer::UpstreamAnswer;
pub(crate) use connect::{Handshake, UpstreamError};
pub(crate) use proxy::Proxy;

/// The maximum length of an answer, in bytes.
const ANSWER_LIMIT: usize = 64 << 10;

/// The time for which an idle connection is kept. Servers usually close idle connections later.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum number of idle connections.
const MAX_IDLE_CONNECTIONS: usize = 16;

const USER_AGENT_VALUE: &str = concat!("cba-gateway/", env!("CARGO_PKG_VERSION"));

/// Anaplan's address, and the connections to it.
pub(crate) struct Upstream {
    host: String,
    port: u16,
    authority: String,
    base_path: String,
    /// `None` for HTTP to a loopback address.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    proxy: Option<Proxy>,
    idle: Mutex<Vec<(SendRequest<Full<Bytes>>, Instant)>>,
}

#[derive(Clone)]
pub(crate) struct UpstreamRequest {
    pub method: Method,
    /// The path below the base URL.
    pub path: &'static str,
    /// The value of the `Authorization` header.
    pub authorization: HeaderValue,
    /// The JSON body; empty for none.
    pub body: String,
}

impl Upstream {
    /// Creates the client: reads the root certificates and the proxy's settings, and does not connect yet.
    ///
    /// # Errors
    /// When a file cannot be read, or there is no root certificate.
    pub(crate) fn new(config: &UpstreamConfig, files: &mut FileRules) -> Result<Self> {
        let url = config.auth_url.to_string();
        let failed = |what: String| Error::new(Kind::Config, format!("cannot use upstream.auth_url: {what}"));
        let uri: Uri = url.parse().map_err(|_| failed("not a URL".into()))?;
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if is_tls {
            let name = ServerName::try_from(host.clone()).map_err(|_| failed("not a host name".into()))?;
            Some((roots::client_config(config.ca_file.as_deref(), files)?, name))
        } else {
            None
        };
        Ok(Self {
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            base_path: uri.path().trim_end_matches('/').to_owned(),
            proxy: Proxy::resolve(config, &host, is_tls, files)?,
            host,
            tls,
            idle: Mutex::default(),
        })
    }

    /// Sends one request and reads the whole answer. This function has no time limit: the caller sets one.
    ///
    /// # Errors
    /// When Anaplan cannot be reached, or its answer cannot be read. No request is sent twice.
    pub(crate) async fn send(&self, request: &UpstreamRequest) -> Result<UpstreamAnswer, UpstreamError> {
        let mut http_request = self.http_request(request);
        if let Some(mut idle) = self.idle_connection() {
            match idle.try_send_request(http_request).await {
                Ok(response) => return self.read_answer(response, idle).await,
                // hyper returns the request only if it has written no byte of it. So a second try is safe.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => http_request = unsent,
                    None => return Err(UpstreamError::Http(error.into_error())),
                },
            }
        }
        let (stream, _) = connect::connect(self).await?;
        let (mut connection, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(UpstreamError::Http)?;
        tokio::spawn(driver);
        let response = connection.send_request(http_request).await.map_err(UpstreamError::Http)?;
        self.read_answer(response, connection).await
    }

    /// Connects without a request, and returns TLS version and certificates, for `check`.
    ///
    /// # Errors
    /// When Anaplan cannot be reached.
    pub(crate) async fn handshake(&self) -> Result<Handshake, UpstreamError> {
        connect::connect(self).await.map(|(_, found)| found)
    }

    /// Returns host and port as in `upstream.auth_url`, for logs.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.authority
    }

    /// Returns the proxy, if one is used.
    #[must_use]
    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    fn http_request(&self, request: &UpstreamRequest) -> Request<Full<Bytes>> {
        let mut http_request = Request::new(Full::from(request.body.clone()));
        *http_request.method_mut() = request.method.clone();
        // invariant: the base path was part of a URL, and the paths are constants
        *http_request.uri_mut() = format!("{}{}", self.base_path, request.path).parse().unwrap_or_default();
        let headers = http_request.headers_mut();
        // invariant: the authority was part of a URL
        headers.insert(HOST, HeaderValue::from_str(&self.authority).unwrap_or(HeaderValue::from_static("")));
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(AUTHORIZATION, request.authorization.clone());
        if !request.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        http_request
    }

    async fn read_answer(
        &self,
        response: http::Response<hyper::body::Incoming>,
        connection: SendRequest<Full<Bytes>>,
    ) -> Result<UpstreamAnswer, UpstreamError> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(UpstreamError::Body)?.to_bytes();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE_CONNECTIONS {
            idle.push((connection, Instant::now()));
        }
        Ok(UpstreamAnswer::new(&parts, body))
    }

    fn idle_connection(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(connection, since)| !connection.is_closed() && since.elapsed() < IDLE_TIMEOUT);
        idle.pop().map(|(connection, _)| connection)
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("authority", &self.authority).finish_non_exhaustive()
    }
}
