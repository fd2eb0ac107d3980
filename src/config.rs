//! The configuration: file < environment < flag, resolved once into one valid, owned [`Config`].
//!
//! Every key has all three forms, from one table in [`keys`]. No error repeats a value: a PIN may stand in the wrong
//! place.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::cba::{AuthUrl, Version};
use crate::certificate::HeaderEncoding;
use crate::custody::PolicySources;
use crate::error::{Explain, Kind};
use crate::identity::Wanted;
use crate::log;
use crate::pin::Source;
use crate::policy::Policy;
use crate::sandbox_profile;
use crate::selector::TokenSelector;

pub mod keys;
mod policy;
pub(crate) mod resolve;
pub mod variables;

pub use resolve::{by_name, days};

use crate::settings::{Effective, Settings};

/// Everything that is configured, valid.
#[derive(Debug)]
pub struct Config {
    /// `module`: a path or a name; unset: search.
    pub module: Option<String>,
    /// `module_debug` by its flag alone: whether vendors' debug variables reach the module.
    pub module_debug: bool,
    /// `[token]`: what the keys ask for, and what the URI asks for.
    pub token: Vec<TokenSelector>,
    /// `[identity]`.
    pub identity: Wanted,
    /// `identity.certificate_file`.
    pub certificate_file: Option<PathBuf>,
    /// `pin.source`; unset: [`Source::fallback`].
    pub pin: Option<Source>,
    /// Variables in which a PIN was put.
    pub pin_variables: Vec<std::ffi::OsString>,
    /// `state_dir`; unset: see [`crate::fuse`].
    pub state_dir: Option<PathBuf>,
    /// `[sandbox]`.
    pub sandbox: sandbox_profile::Mode,
    /// `[sign]`.
    pub sign: Sign,
    /// `[serve]`.
    pub serve: Serve,
    /// Whether a module that others can change is refused rather than warned about; `serve` refuses it.
    pub refuse_open_module: bool,
    /// `[policy]`.
    pub policy: Policy,
    /// `audit.path`; unset: nothing is recorded.
    pub audit: Option<PathBuf>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// Every key that was set, and where.
    pub effective: Vec<Effective>,
    /// `[log]`.
    pub log: log::Settings,
}

/// `[sign]`: defaults of what is signed and printed.
#[derive(Debug)]
pub struct Sign {
    /// The payload's version.
    pub version: Version,
    /// Whether the version was given by the command's own flag.
    pub version_by_flag: bool,
    /// Where the request goes.
    pub auth_url: AuthUrl,
    /// The certificate's form in the header.
    pub header_encoding: HeaderEncoding,
    /// How long module and token may take in all.
    pub timeout: Duration,
    /// How long before the certificate's end a notice is printed.
    pub warn_before: Duration,
    /// Sockets of running agents to ask instead of a token, in this order; empty: the token itself.
    pub sockets: Vec<PathBuf>,
}

/// `[serve]`.
#[derive(Debug)]
pub struct Serve {
    /// Where the agent listens; unset: in `$RUNTIME_DIRECTORY`, or on what systemd hands over.
    pub socket: Option<PathBuf>,
    /// The group whose members may connect and ask.
    pub socket_group: Option<String>,
    /// Processes that hold the token.
    pub workers: usize,
    /// Requests that may wait, for each worker.
    pub queue: usize,
    /// How long one call of the module may take.
    pub call_timeout: Duration,
    /// How long a request may take from its arrival to its answer.
    pub request_timeout: Duration,
    /// Requests that each user may make in a second.
    pub rate_limit_per_second: NonZeroU32,
    /// Requests that all users together may make in a second.
    pub total_rate_limit_per_second: NonZeroU32,
    /// Who may ask, by users; empty: not narrowed.
    pub allow_users: Vec<String>,
    /// Who may ask, by groups; empty: not narrowed.
    pub allow_groups: Vec<String>,
    /// Who may look and not ask.
    pub monitor_groups: Vec<String>,
    /// Where the metrics are written, too.
    pub metrics_file: Option<PathBuf>,
}

/// The policy that root's file (`/etc/cba-agent/policy.toml`) sets on top of the defaults, for a program that checks the
/// payloads of agents and has no `[policy]` of its own.
///
/// # Errors
/// When the file is there and cannot be used.
pub fn system_policy() -> Result<Policy, ConfigError> {
    policy::resolve(&Settings::default().under_system_policy()?)
}

impl Config {
    /// Where the policy comes from, for a report.
    #[must_use]
    pub fn policy_sources(&self) -> PolicySources {
        let keys = self.effective.iter().filter_map(|one| Some((one.key.strip_prefix("policy.")?, one)));
        PolicySources {
            files: self.files.iter().map(|file| file.display().to_string()).collect(),
            settings: keys.map(|(key, one)| format!("{key} = {} ({})", one.value, one.origin)).collect(),
        }
    }
}

/// Why a configuration is refused. No message holds a value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("cannot read the configuration {0}")]
    File(String, #[source] std::io::Error),
    /// A file in one of the usual places that is there and cannot be read.
    #[error("cannot read the configuration {0}")]
    UsualFile(String, #[source] std::io::Error),
    /// Not TOML.
    #[error("{path} line {line}: {what}")]
    Syntax {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What the parser says; it quotes no text.
        what: String,
    },
    /// A key that does not exist.
    #[error("{path} line {line}: there is no key '{key}'")]
    UnknownKey {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The key with its tables.
        key: String,
    },
    /// A value that is not of its key's kind.
    #[error("{origin}: {wanted}")]
    Value {
        /// Whether it is a flag's.
        by_flag: bool,
        /// The flag, the variable, or file, line and key.
        origin: String,
        /// What is wanted instead.
        wanted: String,
    },
    /// A policy of the system's that others could have written.
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
                vec!["a PIN has no key of its own; [pin] source names where it is: \"file:PATH\"".into()]
            }
            Self::UnknownKey { .. } => vec!["docs/configuration.md lists every key".into()],
            Self::Value { origin, .. } if origin.contains("pin") || origin.contains("PIN") => {
                vec![crate::pin::source::SOURCES.into(), "the value is not shown, since it may be a PIN".into()]
            }
            Self::Value { .. } => vec!["`cba-agent help COMMAND` describes each option".into()],
            Self::UsualFile(_, error) | Self::File(_, error) if error.kind() == std::io::ErrorKind::InvalidData => {
                vec!["save the file as UTF-8 text".into()]
            }
            Self::UsualFile(..) => vec![
                "let this user read it, or name another with --config; HOME and XDG_CONFIG_HOME say where it is looked for".into(),
            ],
            Self::File(..) | Self::NoFile => vec!["check the path that --config or CBA_AGENT_CONFIG names".into()],
            Self::NotRoots(path) => vec![format!("as root: `chown root:root {path} && chmod 644 {path}`")],
            Self::Syntax { .. } => Vec::new(),
        }
    }
}
