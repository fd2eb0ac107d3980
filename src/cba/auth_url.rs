//! The base URL of the authentication service.
//!
//! PURE. The URL is used in curl configurations and shell strings, so only plain URLs are accepted: https, or http to a loopback address;
//! no user, query or fragment; no character with a meaning for a shell or curl.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

const PATH: &str = "/token/authenticate";

/// A base URL for login requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthUrl {
    base: String,
}

/// The reason why a text is not such a URL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthUrlError {
    /// Not a URL with scheme and host.
    #[error("not a URL of the form https://HOST")]
    Syntax,
    /// http to another host, or another scheme.
    #[error("only https is accepted, or http to a loopback address")]
    Scheme,
    /// The URL contains a user or password.
    #[error("a user or password in the URL is not accepted")]
    User,
    /// The URL contains a query or fragment.
    #[error("a query or fragment is not accepted")]
    Query,
}

impl AuthUrl {
    /// Parses a base URL. `/token/authenticate` at its end is ignored.
    ///
    /// # Errors
    /// See [`AuthUrlError`].
    pub fn parse(text: &str) -> Result<Self, AuthUrlError> {
        if text.contains(['?', '#']) {
            return Err(AuthUrlError::Query);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c);
        let uri: Uri = text.parse().map_err(|_| AuthUrlError::Syntax)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(AuthUrlError::Syntax);
        };
        if authority.as_str().contains('@') {
            return Err(AuthUrlError::User);
        }
        let host = authority.host();
        let port = authority.as_str().strip_prefix(host).unwrap_or("?");
        let port_is_fine = port.is_empty()
            || port.strip_prefix(':').and_then(|port| port.parse().ok()).is_some_and(|port: u16| port != 0);
        // Only IPv6 addresses may have brackets: curl would treat others as a pattern.
        let path_is_fine = !uri.path().contains(['[', ']']);
        if !text.chars().all(plain) || !path_is_fine || !is_host(host) || !port_is_fine {
            return Err(AuthUrlError::Syntax);
        }
        if scheme != "https" && !(scheme == "http" && is_loopback(host)) {
            return Err(AuthUrlError::Scheme);
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix(PATH).unwrap_or(path).trim_end_matches('/');
        Ok(Self { base: format!("{scheme}://{}{path}", authority.as_str().to_ascii_lowercase()) })
    }

    /// The URL for a login.
    #[must_use]
    pub(crate) fn authenticate(&self) -> String {
        format!("{}{PATH}", self.base)
    }
}

/// The service of most regions.
impl Default for AuthUrl {
    fn default() -> Self {
        Self { base: "https://auth.anaplan.com".into() }
    }
}

impl fmt::Display for AuthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && !host.starts_with(['-', '.'])
                && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_base_urls_with_or_without_the_path() {
        for (text, authenticate) in [
            ("https://auth.anaplan.com", "https://auth.anaplan.com/token/authenticate"),
            ("https://auth.anaplan.com/", "https://auth.anaplan.com/token/authenticate"),
            ("https://US9.auth.anaplan.com/token/authenticate", "https://us9.auth.anaplan.com/token/authenticate"),
            (
                "https://proxy.example:8443/anaplan/token/authenticate/",
                "https://proxy.example:8443/anaplan/token/authenticate",
            ),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/token/authenticate"),
            ("http://[::1]:80", "http://[::1]:80/token/authenticate"),
            ("http://localhost", "http://localhost/token/authenticate"),
        ] {
            assert_eq!(AuthUrl::parse(text).unwrap().authenticate(), authenticate, "{text}");
        }
    }

    #[test]
    fn refuses_what_would_leak_or_confuse() {
        for text in [
            "http://auth.anaplan.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "ftp://auth.anaplan.com",
            "https://user:password@auth.anaplan.com",
            "http://127.0.0.1@evil.example",
            "https://auth.anaplan.com/?a=b",
            "https://auth.anaplan.com/#a",
            "https://auth.anaplan.com/\n",
            "https://auth.anaplan.com/'$(id)'",
            "https://auth.anaplan.com/\"",
            "https://auth.anaplan.com/@",
            "https://auth.anaplan.com/[1-3]",
            "https://auth.anaplan.com:",
            "https://auth.anaplan.com:0",
            "https://auth.anaplan.com:99999",
            "https://",
            "https:/auth.anaplan.com",
            "auth.anaplan.com",
            "//auth.anaplan.com",
            "https://auth anaplan.com",
            "https://aüth.anaplan.com",
            "",
        ] {
            assert!(AuthUrl::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_host_is_an_address_or_plain_labels() {
        for (host, wanted) in [
            ("a", true),
            ("a-b.example", true),
            ("127.0.0.1", true),
            ("[::1]", true),
            ("[::g]", false),
            ("[::1", false),
            ("-a", false),
            (".a", false),
            ("", false),
            ("a_b", false),
            ("a,b", false),
            ("a b", false),
        ] {
            assert_eq!(is_host(host), wanted, "{host:?}");
        }
        for (host, wanted) in [
            ("localhost", true),
            ("LOCALHOST", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("[::2]", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(host), wanted, "{host:?}");
        }
    }

    #[test]
    fn each_refusal_has_its_reason_and_the_base_is_shown() {
        for (text, error) in [
            ("https://a.example/?x", AuthUrlError::Query),
            ("https://a.example/#x", AuthUrlError::Query),
            ("https://u:p@a.example", AuthUrlError::User),
            ("http://a.example", AuthUrlError::Scheme),
            ("ftp://127.0.0.1", AuthUrlError::Scheme),
            ("/path", AuthUrlError::Syntax),
            ("https://a.example:0", AuthUrlError::Syntax),
            ("https://a.example/[a]", AuthUrlError::Syntax),
            ("https://a.example/!", AuthUrlError::Syntax),
            ("https://-a.example", AuthUrlError::Syntax),
        ] {
            assert_eq!(AuthUrl::parse(text), Err(error), "{text}");
        }
        assert_eq!(AuthUrl::parse("https://A.example:8/x/").unwrap().to_string(), "https://a.example:8/x");
        assert_eq!(AuthUrl::default().to_string(), "https://auth.anaplan.com");
    }

    proptest! {
        #[test]
        fn an_accepted_url_is_safe_in_a_shell_and_in_curl(text in "\\PC*", path in "\\PC*") {
            for text in [text, format!("https://auth.anaplan.com/{path}")] {
                if let Ok(url) = AuthUrl::parse(&text) {
                    let safe = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c);
                    prop_assert!(url.authenticate().chars().all(safe));
                }
            }
        }
    }
}
