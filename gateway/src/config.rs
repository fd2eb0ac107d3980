//! The configuration: one TOML file. It is read and checked as a whole, so that a reload takes all of it or nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::library::{AuthUrl, Error, Kind, Policy, Result, file_format::quoted, log, system_policy};

mod client;
mod file;
mod owned_file;
mod resolve;

#[cfg(test)]
pub(crate) use client::ClientCertificate;
pub(crate) use client::{LocalClient, is_client_name, network, read_client_certificate};
pub(crate) use owned_file::{FileRules, is_own_user, read_regular};

/// The default path of the configuration.
pub(crate) const DEFAULT_PATH: &str = "/etc/cba-gateway/config.toml";

/// The whole configuration, checked.
#[derive(Debug)]
pub(crate) struct GatewayConfig {
    /// The path that it was read from.
    pub path: PathBuf,
    /// The addresses of the plain listeners.
    pub listen: Vec<SocketAddr>,
    /// Whether the file has the key `listen`.
    pub sets_listen: bool,
    /// `[tls]`.
    pub tls: Option<TlsConfig>,
    /// `[upstream]`.
    pub upstream: UpstreamConfig,
    /// `[agent]`.
    pub agent: AgentConfig,
    /// `[admin]`; unset: no admin socket.
    pub admin: Option<AdminConfig>,
    /// `state_dir`; unset: `$STATE_DIRECTORY`, which systemd sets.
    pub state_dir: Option<PathBuf>,
    /// `[[client]]`.
    pub clients: Vec<Arc<LocalClient>>,
    /// The time limit of a login: agent and upstream together.
    pub deadline: Duration,
    /// The maximum difference between the time of a v2 message and this host's time, in seconds.
    pub max_skew: u64,
    /// `[log]`.
    pub log: log::LogSettings,
    /// The rules for payloads of an agent: root's policy file, and the pins of `[agent]`.
    pub payload_policy: Policy,
    /// The rules for owners of files, and the warnings about files.
    pub files: FileRules,
}

/// `[tls]`: the listener for other hosts.
#[derive(Debug)]
pub(crate) struct TlsConfig {
    pub listen: Vec<SocketAddr>,
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// `[upstream]`: Anaplan's authentication service.
#[derive(Debug)]
pub(crate) struct UpstreamConfig {
    /// The base URL.
    pub auth_url: AuthUrl,
    /// `http://HOST:PORT` of a proxy that supports CONNECT.
    pub proxy: Option<String>,
    /// A file with `user:password` for that proxy.
    pub proxy_credentials_file: Option<PathBuf>,
    /// PEM certificates that are trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

/// `[agent]`: the agents that sign the payloads.
#[derive(Debug)]
pub(crate) struct AgentConfig {
    /// The paths of their sockets, in the order in which they are tried.
    pub sockets: Vec<PathBuf>,
    /// The certificates that a payload may have; empty: all.
    pub certificate_sha256: Vec<Vec<u8>>,
}

/// `[admin]`: health, metrics and the list of clients.
#[derive(Debug)]
pub(crate) struct AdminConfig {
    /// The Unix socket; unset: only the metrics file.
    pub socket: Option<PathBuf>,
    /// The group that may connect.
    pub group: Option<u32>,
    pub metrics_file: Option<PathBuf>,
}

impl GatewayConfig {
    /// Reads and checks a configuration file and each file that it names.
    ///
    /// # Errors
    /// The first error that is found. No message repeats a value that could be a secret.
    pub(crate) fn read(path: &Path, mut files: FileRules) -> Result<Self> {
        let bytes = files.read(path)?;
        let text = String::from_utf8(bytes).map_err(|_| config_error(path, "is not UTF-8"))?;
        // A program that rewrites the file may have emptied it a moment ago. The defaults would serve nobody.
        if text.trim().is_empty() {
            return Err(config_error(path, "is empty"));
        }
        let raw = file::parse(path, &text)?;
        resolve::resolve(path, raw, files)
    }

    /// Returns the path of the file that remembers the spent messages across restarts: in the state directory, otherwise
    /// next to the admin socket.
    #[must_use]
    pub(crate) fn spent_path(&self) -> Option<PathBuf> {
        let from_systemd = || std::env::var_os("STATE_DIRECTORY").filter(|value| !value.is_empty()).map(PathBuf::from);
        let directory = self.state_dir.clone().or_else(from_systemd);
        let beside_admin_socket = || {
            let mut path = self.admin.as_ref()?.socket.clone()?.into_os_string();
            path.push(".spent");
            Some(PathBuf::from(path))
        };
        directory.map(|directory| directory.join("spent")).or_else(beside_admin_socket)
    }

    #[must_use]
    pub(crate) fn client(&self, name: &str) -> Option<&Arc<LocalClient>> {
        self.clients.iter().find(|client| client.name == name)
    }
}

/// Returns root's policy (`/etc/cba-agent/policy.toml`), narrowed by the pins of `[agent]`.
fn payload_policy(path: &Path, pins: &[Vec<u8>]) -> Result<Policy> {
    let mut policy = system_policy()?;
    if !pins.is_empty() {
        let allowed = |pin: &&Vec<u8>| policy.certificate_sha256.as_ref().is_none_or(|roots| roots.contains(pin));
        let common: Vec<Vec<u8>> = pins.iter().filter(allowed).cloned().collect();
        if common.is_empty() {
            return Err(config_error(
                path,
                "agent.certificate_sha256 has no certificate that /etc/cba-agent/policy.toml allows",
            ));
        }
        policy.certificate_sha256 = Some(common);
    }
    Ok(policy)
}

/// Parses the path of a key. Where the gateway runs decides what a relative path means, so it must be absolute.
fn absolute_path(file: &Path, key: &str, text: String) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(config_error(file, format_args!("{key} must be an absolute path"))) }
}

/// Creates an error about the configuration file.
fn config_error(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Config, format!("cannot use the configuration {}: {what}", path.display()))
        .hint(format!("edit the file, then run `cba-gateway check --config {}`", quoted(&path.display().to_string())))
}
