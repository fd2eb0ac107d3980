//! Checks the form of a request: which resource it names, that it is unambiguous, and that it does not come from a browser
//! or through a proxy.
//!
//! PURE. It looks at method, target and headers, never at a body.

use std::net::SocketAddr;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Version};

/// The resource that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `POST /token/authenticate`.
    Authenticate,
    /// `POST /token/refresh`.
    Refresh,
    /// `GET` or `POST /token/validate`.
    Validate,
    /// `POST /token/logout`.
    Logout,
    /// `GET` or `HEAD /healthz`.
    Health,
    /// `GET` or `HEAD /readyz`.
    Ready,
}

/// The reason why a request is refused because of its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    /// A method or path that the gateway does not serve.
    #[error("there is no such resource; the gateway serves /token/authenticate, refresh, validate and logout")]
    NotFound,
    /// A target with scheme and host, or CONNECT.
    #[error("the request came through a proxy; exclude this host from the tool's proxy (NO_PROXY)")]
    Proxied,
    /// A request from a browser.
    #[error("the gateway does not serve browsers")]
    Browser,
    /// A `Host` header that does not name this listener, as after DNS rebinding.
    #[error("the Host header does not name this listener")]
    Host,
    /// An `Upgrade` to a protocol other than HTTP/2. The gateway ignores an `Upgrade` to HTTP/2.
    #[error("the Upgrade header is not supported")]
    Upgrade,
    /// A transfer coding other than `chunked`.
    #[error("the transfer coding is not supported; send a Content-Length, or chunked")]
    Coding,
    /// Two `Authorization` or `Host` headers, or two lengths.
    #[error("the request is ambiguous: it has two Authorization or Host headers, or two lengths")]
    Ambiguous,
}

/// Returns the resource that a request names. `plain` is the local address of a plain HTTP connection, and `None` over TLS.
pub(crate) fn route(parts: &Parts, plain: Option<SocketAddr>) -> Result<Route, FormError> {
    if parts.method == Method::CONNECT || parts.uri.authority().is_some() {
        return Err(FormError::Proxied);
    }
    let headers = &parts.headers;
    if parts.method == Method::OPTIONS || headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Err(FormError::Browser);
    }
    // Java's HTTP client offers HTTP/2 in this way on every plain connection. A server may ignore it (RFC 9110 section 7.8).
    if headers.get_all(UPGRADE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c")) {
        return Err(FormError::Upgrade);
    }
    let is_repeated = |name| headers.get_all(name).iter().nth(1).is_some();
    // The gateway decodes no other coding.
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    let other_coding = headers.get(TRANSFER_ENCODING).is_some_and(|value| !is_chunked(value));
    let two_lengths = headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH);
    if is_repeated(AUTHORIZATION)
        || is_repeated(HOST)
        || is_repeated(TRANSFER_ENCODING)
        || is_repeated(CONTENT_LENGTH)
        || two_lengths
    {
        return Err(FormError::Ambiguous);
    }
    if other_coding {
        return Err(FormError::Coding);
    }
    if let Some(local) = plain {
        let host = headers.get(HOST).map(|host| host.as_bytes().to_ascii_lowercase());
        // HTTP/1.0 has no Host header, and no browser sends that version.
        let names_listener = host.map_or(parts.version == Version::HTTP_10, |host| names(&host, local));
        if !names_listener {
            return Err(FormError::Host);
        }
    }
    let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    match (parts.method.as_str(), path.as_slice()) {
        ("POST", ["token", "authenticate"]) => Ok(Route::Authenticate),
        ("POST", ["token", "refresh"]) => Ok(Route::Refresh),
        ("GET" | "POST", ["token", "validate"]) => Ok(Route::Validate),
        ("POST", ["token", "logout"]) => Ok(Route::Logout),
        ("GET" | "HEAD", ["healthz"]) if plain.is_none() => Ok(Route::Health),
        ("GET" | "HEAD", ["readyz"]) if plain.is_none() => Ok(Route::Ready),
        _ => Err(FormError::NotFound),
    }
}

/// Whether a `Host` header names this host's loopback, or the local address itself, such as 127.0.0.2. A page in a browser can
/// have none of these names after DNS rebinding.
fn names(host: &[u8], local: SocketAddr) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let (ip, port) = (local.ip().to_canonical().to_string(), local.port());
    ["localhost", "127.0.0.1", "[::1]", &ip].iter().any(|name| match host.strip_prefix(name) {
        Some("") => port == 80,
        Some(rest) => rest.strip_prefix(':') == Some(port.to_string().as_str()),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn with_host(method: &str, target: &str, more: &[(&str, &str)]) -> Result<Route, FormError> {
        let headers: Vec<(&str, &str)> = [("host", "localhost:731")].iter().chain(more).copied().collect();
        route(&parts(method, target, &headers), listener(731))
    }

    fn listener(port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::from(([127, 0, 0, 2], port)))
    }

    #[test]
    fn the_four_paths_are_found_with_slashes_and_queries() {
        for target in ["/token/authenticate", "//token//authenticate/", "/token/authenticate?x=1"] {
            assert_eq!(with_host("POST", target, &[]), Ok(Route::Authenticate), "{target}");
        }
        assert_eq!(with_host("GET", "/token/validate", &[]), Ok(Route::Validate));
        assert_eq!(with_host("POST", "/token/refresh", &[]), Ok(Route::Refresh));
        assert_eq!(with_host("GET", "/readyz", &[]), Err(FormError::NotFound));
        for (method, target) in [("GET", "/token/authenticate"), ("POST", "/"), ("POST", "/sign"), ("GET", "/healthz")]
        {
            assert_eq!(with_host(method, target, &[]), Err(FormError::NotFound), "{method} {target}");
        }
        for method in ["GET", "HEAD"] {
            assert_eq!(route(&parts(method, "/healthz", &[]), None), Ok(Route::Health), "{method}");
            assert_eq!(route(&parts(method, "/readyz", &[]), None), Ok(Route::Ready), "{method}");
        }
    }

    #[test]
    fn browsers_and_proxies_are_refused() {
        let target = "/token/authenticate";
        assert_eq!(with_host("POST", target, &[("origin", "null")]), Err(FormError::Browser));
        assert_eq!(with_host("POST", target, &[("sec-fetch-site", "none")]), Err(FormError::Browser));
        assert_eq!(with_host("OPTIONS", target, &[]), Err(FormError::Browser));
        assert_eq!(with_host("POST", "http://localhost:731/token/authenticate", &[]), Err(FormError::Proxied));
        assert_eq!(with_host("CONNECT", "localhost:731", &[]), Err(FormError::Proxied));
        assert_eq!(with_host("CONNECT", "/token/authenticate", &[]), Err(FormError::Proxied));
        assert_eq!(with_host("POST", "localhost:731", &[]), Err(FormError::Proxied));
        assert_eq!(with_host("POST", target, &[("upgrade", "websocket")]), Err(FormError::Upgrade));
        assert_eq!(with_host("POST", target, &[("upgrade", "h2c")]), Ok(Route::Authenticate));
    }

    #[test]
    fn a_host_header_that_does_not_name_the_listener_is_refused() {
        for (host, is_accepted) in [
            ("localhost:731", true),
            ("LOCALHOST:731", true),
            ("127.0.0.1:731", true),
            ("127.0.0.2:731", true),
            ("127.0.0.3:731", false),
            ("[::1]:731", true),
            ("localhost", false),
            ("localhost:732", false),
            ("localhost.evil.example:731", false),
            ("evil.example:731", false),
            ("127.0.0.1:731:731", false),
            ("", false),
        ] {
            let found = route(&parts("POST", "/token/logout", &[("host", host)]), listener(731));
            assert_eq!(found.is_ok(), is_accepted, "{host}");
        }
        assert_eq!(route(&parts("POST", "/token/logout", &[]), listener(731)), Err(FormError::Host));
        assert_eq!(route(&parts("POST", "/token/logout", &[("host", "localhost")]), listener(80)), Ok(Route::Logout));
    }

    #[test]
    fn an_ambiguous_request_is_refused() {
        for twice in [
            &[("authorization", "a"), ("authorization", "b")][..],
            &[("host", "localhost:731")],
            &[("content-length", "1"), ("transfer-encoding", "chunked")],
            &[("content-length", "1"), ("content-length", "2")],
        ] {
            assert_eq!(with_host("POST", "/token/authenticate", twice), Err(FormError::Ambiguous), "{twice:?}");
        }
        let gzipped = with_host("POST", "/token/authenticate", &[("transfer-encoding", "gzip, chunked")]);
        assert_eq!(gzipped, Err(FormError::Coding));
        assert!(with_host("POST", "/token/authenticate", &[("transfer-encoding", "Chunked")]).is_ok());
    }
}
