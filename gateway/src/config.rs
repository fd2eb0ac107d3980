//! The configuration: one TOML file, read and checked as a whole, so that a reload takes all of it or nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::library::{AuthUrl, Error, Result, log};

mod client;
mod file;
mod owned_file;
mod resolve;

pub use client::{Client, ClientCertificate, is_name, read_client_certificate};
pub use owned_file::{is_own_user, read_owned};

/// Where the configuration is.
pub const USUAL_PATH: &str = "/etc/cba-gateway/config.toml";

/// Everything that is configured, valid.
#[derive(Debug)]
pub struct Config {
    /// Where it was read from.
    pub path: PathBuf,
    /// Addresses of the plain listeners.
    pub listen: Vec<SocketAddr>,
    /// `[tls]`.
    pub tls: Option<Tls>,
    /// `[upstream]`.
    pub upstream: UpstreamKeys,
    /// `[agent]`.
    pub agent: AgentKeys,
    /// `[admin]`; unset: no admin socket.
    pub admin: Option<Admin>,
    /// `[[client]]`.
    pub clients: Vec<Arc<Client>>,
    /// How long a login may take, agent and upstream together.
    pub deadline: Duration,
    /// How far the time of a v2 message may be from this host's, in seconds.
    pub max_skew: u64,
    /// `[log]`.
    pub log: log::Settings,
    /// What should be known and is no error.
    pub warnings: Vec<String>,
}

/// `[tls]`: the listener for other hosts.
#[derive(Debug)]
pub struct Tls {
    /// Its addresses.
    pub listen: Vec<SocketAddr>,
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// `[upstream]`: Anaplan's authentication service.
#[derive(Debug)]
pub struct UpstreamKeys {
    /// Its base URL.
    pub auth_url: AuthUrl,
    /// `http://HOST:PORT` of a proxy that takes CONNECT.
    pub proxy: Option<String>,
    /// A file with `user:password` for that proxy.
    pub proxy_credentials_file: Option<PathBuf>,
    /// PEM certificates that are trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

/// `[agent]`: the agents that are asked for payloads.
#[derive(Debug)]
pub struct AgentKeys {
    /// Their sockets, in the order in which they are tried.
    pub sockets: Vec<PathBuf>,
    /// The certificates that a payload may have; empty: any.
    pub certificate_sha256: Vec<Vec<u8>>,
}

/// `[admin]`: health, metrics and the list of clients.
#[derive(Debug)]
pub struct Admin {
    /// The Unix socket; unset: only the metrics file.
    pub socket: Option<PathBuf>,
    /// The group that may connect.
    pub group: Option<u32>,
    /// Where the metrics are written, too.
    pub metrics_file: Option<PathBuf>,
}

impl Config {
    /// Reads and checks a configuration file and each file that it names.
    ///
    /// # Errors
    /// The first thing that does not hold; no message repeats a value that could be a secret.
    pub fn read(path: &Path) -> Result<Self> {
        let mut warnings = Vec::new();
        let bytes = read_owned(path, &mut warnings)?;
        let text = String::from_utf8(bytes).map_err(|_| refuse(path, "is not UTF-8"))?;
        let shape = file::parse(path, &text)?;
        resolve::resolve(path, shape, warnings)
    }

    /// The client of this name.
    #[must_use]
    pub fn client(&self, name: &str) -> Option<&Arc<Client>> {
        self.clients.iter().find(|client| client.name == name)
    }
}

/// An error of the configuration file.
fn refuse(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(crate::library::Kind::Config, format!("cannot use the configuration {}: {what}", path.display()))
        .hint(format!("edit the file, then run `cba-gateway check --config {}`", path.display()))
}
