//! The configuration: file < environment < flag, resolved once into a valid, owned [`Config`]. Runs in the parent.
//!
//! Every key has all three forms, from one table in [`keys`]. No error repeats a value, since it could be a misplaced PIN.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cba::AuthUrl;
use crate::certificate::HeaderEncoding;
use crate::custody::PolicySources;
use crate::identity::IdentitySelector;
use crate::log;
use crate::modules;
use crate::pin::PinSource;
use crate::policy::{PayloadChoice, Policy};
use crate::sandbox_profile;
use crate::selector::TokenSelector;

mod error;
pub(crate) mod keys;
mod origin;
mod policy;
mod reader;
mod resolve;
mod settings;
mod toml_file;
pub(crate) mod variables;

pub use error::ConfigError;
pub use policy::system_policy;
pub(crate) use settings::{EffectiveSetting, Settings, may_mention};

/// The complete, valid configuration.
#[derive(Debug)]
pub(crate) struct Config {
    /// `module`: a path or a name. Unset: search.
    pub module: Option<String>,
    /// The flag `--module-debug`: whether vendors' debug variables reach the module.
    pub module_debug: bool,
    /// `[token]`: the selectors from the keys and from the URI.
    pub token: Vec<TokenSelector>,
    /// `[identity]`.
    pub identity: IdentitySelector,
    /// `identity.certificate_file`.
    pub certificate_file: Option<PathBuf>,
    /// `pin.source`. Unset: [`PinSource::fallback`].
    pub pin: Option<PinSource>,
    /// Variables that contain a PIN.
    pub pin_variables: Vec<std::ffi::OsString>,
    /// `state_dir`. Unset: see [`crate::fuse`].
    pub state_dir: Option<PathBuf>,
    /// `[sandbox]`.
    pub sandbox: sandbox_profile::SandboxMode,
    /// `[sign]`.
    pub sign: Sign,
    /// `[serve]`.
    pub serve: Serve,
    /// Whether to refuse a module that others can change, instead of a warning. `serve` sets it.
    pub refuse_open_module: bool,
    /// `[policy]`.
    pub policy: Policy,
    /// `audit.path`. Unset: no audit log.
    pub audit: Option<PathBuf>,
    /// The configuration files that were read.
    pub files: Vec<PathBuf>,
    /// Every key that was set, with its source.
    pub effective: Vec<EffectiveSetting>,
    /// `[log]`.
    pub log: log::LogSettings,
}

/// `[sign]`: settings for signing and printing.
#[derive(Debug)]
pub(crate) struct Sign {
    pub choice: PayloadChoice,
    /// The authentication service.
    pub auth_url: AuthUrl,
    /// The certificate's form in the header.
    pub header_encoding: HeaderEncoding,
    /// The total time limit for module and token.
    pub timeout: Duration,
    /// The notice period before the certificate expires.
    pub warn_before: Duration,
    /// Sockets of agents to ask, in this order, instead of a token. Empty: use the token.
    pub sockets: Vec<PathBuf>,
}

/// `[serve]`.
#[derive(Debug)]
pub(crate) struct Serve {
    /// The agent's socket. Unset: in `$RUNTIME_DIRECTORY`, or the socket from systemd.
    pub socket: Option<PathBuf>,
    /// The group whose members may connect and ask.
    pub socket_group: Option<String>,
    /// The number of worker processes.
    pub workers: usize,
    /// The number of requests that may wait, for each worker.
    pub queue: usize,
    /// The time limit of one call of the module.
    pub call_timeout: Duration,
    /// The time limit of a request, from its arrival to its answer.
    pub request_timeout: Duration,
    /// Requests that each user may make in a second.
    pub rate_limit_per_second: NonZeroU32,
    /// Requests that all users together may make in a second.
    pub total_rate_limit_per_second: NonZeroU32,
    /// The users who may ask. Empty: no restriction.
    pub allow_users: Vec<String>,
    /// The groups whose members may ask. Empty: no restriction.
    pub allow_groups: Vec<String>,
    /// The groups whose members may read the state, but not ask for payloads.
    pub monitor_groups: Vec<String>,
    /// The file to which the metrics are also written.
    pub metrics_file: Option<PathBuf>,
}

impl Config {
    /// The sandbox profile of a module, from the table of modules; `None` if it runs without a sandbox.
    #[must_use]
    pub(crate) fn sandbox_profile(&self, module: &Path) -> Option<&'static str> {
        modules::known_by(module)
            .filter(|_| self.sandbox == sandbox_profile::SandboxMode::Module)
            .map(|known| known.name)
    }

    /// The sources of the policy, for a report.
    #[must_use]
    pub(crate) fn policy_sources(&self) -> PolicySources {
        let keys = self.effective.iter().filter_map(|setting| Some((setting.key.strip_prefix("policy.")?, setting)));
        PolicySources {
            files: self.files.iter().map(|file| file.display().to_string()).collect(),
            settings: keys.map(|(key, one)| format!("{key} = {} ({})", one.value, one.origin)).collect(),
        }
    }
}
