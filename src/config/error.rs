//! Why a configuration is refused, and what helps.
//!
//! Runs in the parent.

use std::path::Path;

use crate::error::{Explain, Kind};
use crate::files::unreadable_hint;

/// The reason why a configuration is refused. No message contains a value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file cannot be read.
    #[error("cannot read the configuration {0}")]
    File(String, #[source] std::io::Error),
    /// A file at one of the usual paths exists and cannot be read.
    #[error("cannot read the configuration {0}")]
    UsualFile(String, #[source] std::io::Error),
    /// The system policy exists and cannot be read.
    #[error("cannot read the policy {0}")]
    Policy(String, #[source] std::io::Error),
    /// The file is not TOML.
    #[error("{path} line {line}: {what}")]
    Syntax {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The parser's message, without quoted text.
        what: String,
    },
    /// The file contains an unknown key.
    #[error("{path} line {line}: there is no key '{key}'")]
    UnknownKey {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The key with its tables.
        key: String,
    },
    /// A value has the wrong form.
    #[error("{origin}: {wanted}")]
    Value {
        /// Whether the value came from a flag.
        by_flag: bool,
        /// The flag, the variable, or file, line and key.
        origin: String,
        /// The expected form.
        wanted: String,
    },
    /// Another user could have written the system policy.
    #[error("the policy {0} must belong to root and be writable by nobody else")]
    NotRoots(String),
    /// An empty name.
    #[error("--config must name a file")]
    NoFile,
}

impl Explain for ConfigError {
    fn kind(&self) -> Kind {
        match self {
            Self::Value { by_flag: true, .. } => Kind::Usage,
            _ => Kind::Config,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::UnknownKey { key, .. } if key.starts_with("pin") => {
                vec!["there is no key for a PIN; [pin] source names its source: \"file:PATH\"".into()]
            }
            Self::UnknownKey { .. } => vec!["docs/configuration.md lists every key".into()],
            Self::Value { origin, .. } if origin.contains("pin") || origin.contains("PIN") => {
                vec![crate::pin::source::SOURCES.into(), "the value is not shown, since it may be a PIN".into()]
            }
            Self::Value { .. } => vec!["`cba-agent help COMMAND` describes each option".into()],
            Self::UsualFile(_, error) | Self::File(_, error) | Self::Policy(_, error)
                if error.kind() == std::io::ErrorKind::InvalidData =>
            {
                vec!["save the file as UTF-8 text".into()]
            }
            Self::UsualFile(path, _) => vec![
                "let this user read it, or name another file with --config; HOME and XDG_CONFIG_HOME set its directory"
                    .into(),
                unreadable_hint(Path::new(path)),
            ],
            Self::File(path, _) => {
                vec!["check the path that --config or CBA_AGENT_CONFIG names".into(), unreadable_hint(Path::new(path))]
            }
            Self::Policy(path, _) => vec![
                "root's policy applies to every user, and must be a file that every user may read".into(),
                unreadable_hint(Path::new(path)),
            ],
            Self::NoFile => vec!["check the path that --config or CBA_AGENT_CONFIG names".into()],
            Self::NotRoots(path) => vec![format!("as root: `chown root:root {path} && chmod 644 {path}`")],
            Self::Syntax { .. } => Vec::new(),
        }
    }
}
