//! A proxy between the gateway and Anaplan: a CONNECT tunnel (RFC 9110 section 9.3.6), in which the proxy sees no token.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::connect::{UpstreamError, authority, open_tcp};
use crate::config::{FileRules, UpstreamConfig};
use crate::library::{Error, Kind, Result};

/// The maximum length of the head of a proxy's answer, in bytes.
const HEAD_LIMIT: usize = 16 << 10;

/// The address of the proxy, and the credentials for it.
pub(crate) struct Proxy {
    host: String,
    port: u16,
    authorization: Option<String>,
}

impl Proxy {
    /// Returns the proxy of the configuration, otherwise that of the environment, unless `NO_PROXY` names the host.
    ///
    /// # Errors
    /// When the value is not `http://HOST:PORT`, or the file of credentials cannot be read.
    pub(crate) fn resolve(
        config: &UpstreamConfig,
        host: &str,
        is_tls: bool,
        files: &mut FileRules,
    ) -> Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let variable_in_any_case = |name: &str| variable(name).or_else(|| variable(&name.to_lowercase()));
        let from_environment = || {
            let is_excluded = variable_in_any_case("NO_PROXY").is_some_and(|list| is_in_no_proxy(host, &list));
            variable_in_any_case("HTTPS_PROXY").filter(|_| is_tls && !is_excluded)
        };
        let Some(text) = config.proxy.clone().or_else(from_environment) else {
            if config.proxy_credentials_file.is_some() {
                files.warn("upstream.proxy_credentials_file has no effect: upstream.proxy is not set, and HTTPS_PROXY in this process's environment names no proxy for Anaplan");
            }
            return Ok(None);
        };
        let (host, port) = parse_proxy_url(&text)?;
        let authorization = match &config.proxy_credentials_file {
            Some(path) => Some(credentials(path, files)?),
            None => None,
        };
        Ok(Some(Self { host, port, authorization }))
    }

    /// Returns the name of the proxy for logs.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

/// Opens a tunnel to a host through the proxy.
pub(super) async fn tunnel(proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream, UpstreamError> {
    let mut stream = open_tcp(&proxy.host, proxy.port).await?;
    let target = authority(host, port);
    let authorization =
        proxy.authorization.as_ref().map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
    let failed = |error: std::io::Error| UpstreamError::Connect(proxy.name(), error.into());
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut head = Vec::new();
    // Reads byte by byte, because the bytes after the head belong to TLS.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_LIMIT {
            return Err(failed(std::io::Error::other("its answer to CONNECT is too long")));
        }
        head.push(stream.read_u8().await.map_err(failed)?);
    }
    match status(&head) {
        Some(200..=299) => Ok(stream),
        Some(status) => Err(UpstreamError::Proxy { proxy: proxy.name(), status }),
        None => Err(failed(std::io::Error::other("its answer to CONNECT is not HTTP"))),
    }
}

/// Parses the status of an HTTP/1 answer.
fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

fn parse_proxy_url(text: &str) -> Result<(String, u16)> {
    let invalid = |what: &str| {
        Error::new(Kind::Config, format!("cannot use the proxy: {what}"))
            .hint("upstream.proxy is http://HOST:PORT; put user and password into upstream.proxy_credentials_file")
    };
    let uri: Uri = text.parse().map_err(|_| invalid("it is not a URL"))?;
    if uri.scheme_str().is_some_and(|scheme| scheme != "http") {
        return Err(invalid("only http:// is supported"));
    }
    let authority = uri.authority().ok_or_else(|| invalid("it has no host"))?;
    if authority.as_str().contains('@') {
        return Err(invalid("a user or password in the URL is not accepted"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().ok_or_else(|| invalid("it has no port"))?;
    Ok((host, port))
}

fn credentials(path: &Path, files: &mut FileRules) -> Result<String> {
    let bytes = files.read_secret(path)?;
    let line = bytes.trim_ascii_end();
    if !line.contains(&b':') || line.iter().any(u8::is_ascii_control) {
        let message = format!("cannot use the proxy's credentials: {} is not one line user:password", path.display());
        return Err(Error::new(Kind::Config, message).hint("write one line: user:password"));
    }
    Ok(format!("Basic {}", STANDARD.encode(line)))
}

/// Whether `NO_PROXY` names a host: its own name, one of its parent domains, or `*`.
fn is_in_no_proxy(host: &str, list: &str) -> bool {
    list.split(',').map(|entry| entry.trim().trim_start_matches('.')).filter(|entry| !entry.is_empty()).any(|entry| {
        entry == "*" || host.eq_ignore_ascii_case(entry) || {
            let (host, entry) = (host.to_ascii_lowercase(), entry.to_ascii_lowercase());
            host.strip_suffix(&entry).is_some_and(|rest| rest.ends_with('.'))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_a_port_without_credentials() {
        assert_eq!(parse_proxy_url("http://proxy.example:3128").unwrap(), ("proxy.example".into(), 3128));
        assert_eq!(parse_proxy_url("proxy.example:3128").unwrap(), ("proxy.example".into(), 3128));
        for text in ["http://user:SECRET@proxy:1", "https://proxy:1", "socks5://proxy:1", "http://proxy", ""] {
            let error = parse_proxy_url(text).unwrap_err().to_string();
            assert!(!error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn no_proxy_excludes_hosts_and_domains() {
        for (list, excluded) in
            [("auth.anaplan.com", true), (".anaplan.com, x", true), ("*", true), ("plan.com", false), ("", false)]
        {
            assert_eq!(is_in_no_proxy("auth.anaplan.com", list), excluded, "{list}");
        }
    }

    #[test]
    fn the_status_of_an_answer_is_read() {
        assert_eq!(status(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), Some(407));
        assert_eq!(status(b"SSH-2.0\r\n\r\n"), None);
    }
}
