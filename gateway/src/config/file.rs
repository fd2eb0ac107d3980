//! The tables and keys of the TOML file. Unknown keys are errors.

use std::path::Path;

use serde::Deserialize;

use super::config_error;
use crate::library::Result;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) listen: Option<Vec<String>>,
    pub(super) deadline: Option<String>,
    pub(super) max_skew: Option<String>,
    pub(super) state_dir: Option<String>,
    pub(super) tls: Option<RawTls>,
    #[serde(default)]
    pub(super) upstream: RawUpstream,
    #[serde(default)]
    pub(super) agent: RawAgent,
    pub(super) admin: Option<RawAdmin>,
    #[serde(default)]
    pub(super) log: RawLog,
    #[serde(default)]
    pub(super) client: Vec<RawClient>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) listen: Vec<String>,
    pub(super) certificate: String,
    pub(super) key: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstream {
    pub(super) auth_url: Option<String>,
    pub(super) proxy: Option<String>,
    pub(super) proxy_credentials_file: Option<String>,
    pub(super) ca_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAgent {
    pub(super) sockets: Option<Vec<String>>,
    #[serde(default)]
    pub(super) certificate_sha256: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAdmin {
    pub(super) socket: Option<String>,
    pub(super) group: Option<String>,
    pub(super) metrics_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) format: Option<String>,
    pub(super) level: Option<String>,
}

/// `[[client]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClient {
    pub(super) name: String,
    #[serde(default)]
    pub(super) password_sha256: Vec<String>,
    #[serde(default)]
    pub(super) certificates: Vec<String>,
    pub(super) payload_versions: Option<Vec<String>>,
    #[serde(default)]
    pub(super) users: Vec<RawUser>,
    #[serde(default)]
    pub(super) from: Vec<String>,
    pub(super) rate_limit_per_minute: Option<u32>,
    #[serde(default)]
    pub(super) disabled: bool,
    #[serde(default)]
    pub(super) transition: bool,
}

/// A user by name or number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawUser {
    Number(u32),
    Name(String),
}

/// Parses the file. The parser's messages can quote a value, which may be a password. So only messages about keys, and the
/// expected type of a value, are passed on.
///
/// # Errors
/// When the file is not TOML, or has unknown keys.
pub(super) fn parse(path: &Path, text: &str) -> Result<RawConfig> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.as_bytes().iter().take(start).filter(|byte| **byte == b'\n').count() + 1;
        config_error(path, format_args!("line {line}: {}", without_values(error.message())))
    })
}

/// Returns a message of the parser without the values that it quotes.
fn without_values(message: &str) -> String {
    let starts_with = |starts: &[&str]| starts.iter().any(|start| message.starts_with(start));
    if starts_with(&["unknown field", "missing field", "duplicate"]) {
        return message.into();
    }
    if !starts_with(&["invalid type: ", "invalid value: ", "data did not match"]) {
        return "this is not TOML".into();
    }
    let expected = match message.rsplit_once(", expected ").map(|(_, expected)| expected) {
        Some("a sequence") => ": it must be a list in brackets; a client begins with [[client]]",
        Some("a string") => ": it must be text in quotation marks",
        Some("a boolean") => ": it must be true or false",
        Some("u32") => ": it must be a whole number",
        _ => "",
    };
    format!("a value has the wrong type{expected}")
}
