//! Opens a connection to Anaplan: TCP, directly or through a proxy, and then TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::service::Service as _;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Upstream, proxy};

/// The time limit for TCP to all IPv4 addresses of a host, and to all its IPv6 addresses. Each address has an equal part of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The cause of a failed connection or transfer.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The reason why the gateway has no answer from Anaplan. No variant contains a part of the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// TCP failed.
    #[error("cannot connect to {0}")]
    Connect(String, #[source] Cause),
    #[error("the proxy {proxy} answers {status} to CONNECT")]
    Proxy {
        /// The proxy's address.
        proxy: String,
        /// The status of the proxy's answer.
        status: u16,
    },
    #[error("TLS with {0} failed")]
    Tls(String, #[source] io::Error),
    #[error("the HTTP exchange with Anaplan failed")]
    Http(#[source] hyper::Error),
    /// The answer is too long or incomplete.
    #[error("Anaplan's answer is longer than 64 KiB or incomplete")]
    Body(#[source] Cause),
}

/// The TLS version and certificates of a connection. Both are empty for HTTP.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    /// The TLS version.
    pub version: Option<String>,
    /// Anaplan's certificates, the leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// A connection in plain text (to a loopback address) or over TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to Anaplan, and completes the TLS handshake.
pub(super) async fn connect(upstream: &Upstream) -> Result<(Stream, Handshake), UpstreamError> {
    let tcp = match &upstream.proxy {
        Some(proxy) => proxy::tunnel(proxy, &upstream.host, upstream.port).await?,
        None => open_tcp(&upstream.host, upstream.port).await?,
    };
    let Some((config, name)) = &upstream.tls else { return Ok((Stream::Plain(tcp), Handshake::default())) };
    let failed = |error| UpstreamError::Tls(upstream.authority.clone(), error);
    let stream = TlsConnector::from(config.clone()).connect(name.clone(), tcp).await.map_err(failed)?;
    let (_, session) = stream.get_ref();
    let handshake = Handshake {
        version: session.protocol_version().and_then(|version| version.as_str().map(str::to_owned)),
        certificates: session
            .peer_certificates()
            .map(|chain| chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
            .unwrap_or_default(),
    };
    Ok((Stream::Tls(Box::new(stream)), handshake))
}

/// Opens a TCP connection to a host. If the addresses of one family (IPv4 or IPv6) do not answer within 300 ms, tries those of
/// the other at the same time (RFC 8305).
pub(super) async fn open_tcp(host: &str, port: u16) -> Result<TcpStream, UpstreamError> {
    let failed = |cause: Cause| UpstreamError::Connect(format!("{host}:{port}"), cause);
    let uri: Uri = format!("http://{}", authority(host, port))
        .parse()
        .map_err(|error: http::uri::InvalidUri| failed(error.into()))?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connected = TowerToHyperService::new(connector).call(uri).await;
    connected.map(TokioIo::into_inner).map_err(|error| failed(error.into()))
}

/// Returns the host and port as in a URL, an IPv6 address in brackets.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
