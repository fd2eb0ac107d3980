//! The base URL of the authentication service.
//!
//! PURE. The URL is used in curl configurations and shell strings, so only plain URLs are accepted: https, or http to a loopback address;
//! no user, query or fragment; no character with a meaning for a shell or curl. Programs must agree about the address, so forms that some
//! of them rewrite are refused: `..` and `%` in the path, a host such as `127.1` or `a.example.`, and a port with leading zeros.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// The path has a part that some programs rewrite.
    #[error("the path must not have `%`, an empty part, `.` or `..`, which programs read differently")]
    Path,
    /// The host is not written plainly.
    #[error("the host must be a name such as auth.anaplan.com, or an IP address in its usual form")]
    Host,
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
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]".contains(c);
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
            || port
                .strip_prefix(':')
                .is_some_and(|port| port.parse().is_ok_and(|n: u16| n != 0) && !port.starts_with('0'));
        let path = uri.path().trim_end_matches('/');
        let path_is_fine = path.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part));
        if path.contains('%') || !path_is_fine {
            return Err(AuthUrlError::Path);
        }
        // Only IPv6 addresses may have brackets: curl would treat others as a pattern.
        if !text.chars().all(plain) || path.contains(['[', ']']) || !port_is_fine {
            return Err(AuthUrlError::Syntax);
        }
        if !is_host(host) {
            return Err(AuthUrlError::Host);
        }
        if scheme != "https" && !(scheme == "http" && is_loopback(host)) {
            return Err(AuthUrlError::Scheme);
        }
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
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_plain && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_name = host.len() <= 253 && host.split('.').all(is_label) && !ends_in_a_number(host);
    is_name || host.parse::<Ipv4Addr>().is_ok()
}

/// Whether some programs read a name as an IPv4 address (inet_aton(3), the URL standard), such as `127.1` or `0x7f000001`.
fn ends_in_a_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let digits = last.strip_prefix("0x").map(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    digits.unwrap_or_else(|| last.bytes().all(|byte| byte.is_ascii_digit()))
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
            "https://a.example/..",
            "https://a.example/./x",
            "https://a.example/x/../token/authenticate",
            "https://a.example/%2e%2e",
            "https://a.example/%2E./x",
            "https://a.example/a%20b",
            "https://a.example//x",
            "https://a.example\\@b.example",
            "https://a.example/x\\y",
            "https://a.example/\tx",
            "\thttps://a.example",
            "https://a.example ",
            "https://:443",
            "https://@a.example",
            "https://a.example:65536",
            "https://a.example:0443",
            "https://a.example:+443",
            "https://a.example:443:443",
            "https://a.example.",
            "http://localhost.",
            "https://[fe80::1%eth0]",
            "https://[fe80::1%25eth0]",
            "https://[127.0.0.1]",
            "https://[::1",
            "https://::1",
            "https://127.1",
            "https://2130706433",
            "https://0x7f000001",
            "https://0177.0.0.1",
            "https://a.0x7f",
            "https://ａ.example",
            "https://a。example",
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
            ("a-", false),
            ("a..b", false),
            ("a.", false),
            ("1.2.3.4.5", false),
            ("1.example", true),
            ("0x", false),
            ("0xg", true),
            ("999.1.1.1", false),
            (&format!("{}.example", "a".repeat(63)), true),
            (&format!("{}.example", "a".repeat(64)), false),
            (&"a.".repeat(126), false),
            (&format!("{}b", "a.".repeat(126)), true),
            (&format!("{}bc", "a.".repeat(126)), false),
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
            ("https://-a.example", AuthUrlError::Host),
            ("https://a.example.", AuthUrlError::Host),
            ("https://127.1", AuthUrlError::Host),
            ("https://a.example/x/..", AuthUrlError::Path),
            ("https://a.example//x", AuthUrlError::Path),
            ("https://a.example/%2e%2e", AuthUrlError::Path),
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
                    let safe = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]".contains(c);
                    prop_assert!(url.authenticate().chars().all(safe));
                }
            }
        }
    }
}
