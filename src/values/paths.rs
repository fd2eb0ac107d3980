//! Parses values that are paths. No error message repeats the value.
//!
//! PURE.

use std::path::PathBuf;

use crate::text::shell::unexpanded;

/// The longest path of a Unix socket: `sun_path` has 108 bytes, including the final zero (unix(7)).
pub(crate) const LONGEST_SOCKET: usize = 107;

/// Parses an absolute path.
pub(crate) fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') {
        return Err("must not contain a NUL character".into());
    }
    match (PathBuf::from(text), unexpanded(text)) {
        (path, _) if path.is_absolute() => Ok(path),
        (_, Some(character)) => Err(format!("must be an absolute path; {character} is not expanded here")),
        _ => Err("must be an absolute path".into()),
    }
}

/// Parses a path that may be relative to the working directory.
pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    match unexpanded(text) {
        _ if text.is_empty() => Err("must not be empty".into()),
        _ if text.contains('\0') => Err("must not contain a NUL character".into()),
        Some(character) => Err(format!("must be a full path; {character} is not expanded here")),
        None => Ok(PathBuf::from(text)),
    }
}

/// Parses the path of a Unix socket. The error names what the text is instead, such as a URL.
pub(crate) fn socket(text: &str) -> Result<PathBuf, String> {
    const EXPECTED: &str = "must be the path of a Unix socket, such as /run/cba-agent/agent.sock";
    let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    let is_address = || {
        let port = text.rsplit_once(':').map(|(_, port)| port);
        !text.contains('/')
            && port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let what = if text.is_empty() {
        "an empty text"
    } else if text.contains("://") || matches!(scheme.as_deref(), Some("unix" | "http" | "https" | "tcp")) {
        "a URL"
    } else if is_address() {
        "a network address"
    } else if text.starts_with('@') {
        "an abstract socket"
    } else if text.contains('\0') {
        "a text with a NUL character"
    } else if text.ends_with('/') {
        "a directory"
    } else if text.len() > LONGEST_SOCKET {
        return Err(format!("{EXPECTED}, of at most {LONGEST_SOCKET} bytes; this one has {}", text.len()));
    } else if let Some(character) = unexpanded(text) {
        return Err(format!("{EXPECTED}; {character} is not expanded here"));
    } else {
        return Ok(PathBuf::from(text));
    };
    Err(format!("{EXPECTED}, not {what}"))
}

/// Parses the path of a socket to listen on. It must be absolute.
pub(crate) fn own_socket(text: &str) -> Result<PathBuf, String> {
    socket(text).and_then(|_| absolute(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_socket_path_is_refused_and_the_error_names_the_cause() {
        let long = format!("/run/{}", "a".repeat(103));
        for (text, cause) in [
            ("", "empty"),
            ("http://localhost/sign", "URL"),
            ("unix:/run/agent.sock", "URL"),
            ("UNIX:///run/agent.sock", "URL"),
            ("tcp:127.0.0.1", "URL"),
            ("localhost:8080", "network address"),
            ("[::1]:80", "network address"),
            ("@agent", "abstract"),
            ("/run/a\0b", "NUL"),
            ("/run/cba-agent/", "directory"),
            ("~/agent.sock", "~ is not expanded"),
            ("$XDG_RUNTIME_DIR/agent.sock", "$ is not expanded"),
            (long.as_str(), "at most 107 bytes; this one has 108"),
        ] {
            let error = socket(text).unwrap_err();
            assert!(error.contains(cause), "{text}: {error}");
        }
        for text in ["/run/a", "agent.sock", "./a:b/c", &long[..107]] {
            assert_eq!(socket(text), Ok(PathBuf::from(text)));
        }
    }

    #[test]
    fn a_path_is_accepted_or_the_error_names_the_cause() {
        let path_or_error = |result: Result<PathBuf, String>| result.map(|path| path.display().to_string());
        for (text, from_absolute, from_path) in [
            ("/a/b", "/a/b", "/a/b"),
            ("a/b", "must be an absolute path", "a/b"),
            ("~/a", "must be an absolute path; ~ is not expanded here", "must be a full path; ~ is not expanded here"),
            ("", "must be an absolute path", "must not be empty"),
            ("/a\0b", "must not contain a NUL character", "must not contain a NUL character"),
        ] {
            for (parsed, expected) in [(absolute(text), from_absolute), (path(text), from_path)] {
                assert_eq!(path_or_error(parsed).unwrap_or_else(|error| error), expected, "{text:?}");
            }
        }
        assert_eq!(path_or_error(own_socket("/run/a.sock")), Ok("/run/a.sock".into()));
        assert!(own_socket("a.sock").unwrap_err().contains("absolute") && socket("a.sock").is_ok());
        assert!(own_socket("http://x/y").unwrap_err().contains("a URL"));
        for (text, is_valid) in [("a:", true), ("a:b", true), ("a/b:80", true), ("a:80", false)] {
            assert_eq!(socket(text).is_ok(), is_valid, "{text}");
        }
    }
}
