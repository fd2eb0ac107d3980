//! Converts the values of the file into a checked configuration.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Group;

use super::client::LocalClient;
use super::file::{RawAdmin, RawConfig, RawTls};
use super::{
    AdminConfig, AgentConfig, FileRules, GatewayConfig, TlsConfig, UpstreamConfig, absolute_path, config_error,
    payload_policy,
};
use crate::library::{AuthUrl, Result, TIMEOUTS, by_name, log, parse_hex};

/// The default addresses for tools. The port is below 1024, so that ordinary users cannot take it over.
const DEFAULT_LISTEN: [&str; 2] = ["127.0.0.1:731", "[::1]:731"];

/// The default socket of the agent, as its package sets it.
const DEFAULT_AGENT_SOCKET: &str = "/run/cba-agent/agent.sock";

/// The default time limit of a login. Tools give up after 15 s.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(14);

/// The default maximum difference between a payload's time and the gateway's clock.
const DEFAULT_MAX_SKEW: Duration = Duration::from_secs(300);

/// Checks all values, fills in the defaults, and reads the files of the clients.
///
/// # Errors
/// When a value is invalid. `path` is the configuration file, for the message.
pub(super) fn resolve(path: &Path, raw: RawConfig, mut files: FileRules) -> Result<GatewayConfig> {
    let invalid = |what: &str| config_error(path, what);
    let sets_listen = raw.listen.is_some();
    let listen = addresses(path, "listen", &raw.listen.unwrap_or_else(|| DEFAULT_LISTEN.map(String::from).into()))?;
    if let Some(address) = listen.iter().find(|address| !address.ip().is_loopback()) {
        return Err(config_error(
            path,
            format_args!("listen: {address} is not a loopback address; plain HTTP is for this host only"),
        )
        .hint("serve other hosts with TLS: [tls] listen"));
    }
    if listen.is_empty() && raw.tls.is_none() {
        return Err(invalid("listen is empty and there is no [tls] table, so nothing would be served"));
    }
    files.warnings.extend(address_family_warning(&listen));
    let tls = raw.tls.map(|tls| resolve_tls(path, tls)).transpose()?;
    let tls_listen = tls.as_ref().map_or(&[][..], |tls| &tls.listen);
    check_addresses_differ(path, &[&listen, tls_listen].concat())?;
    let clients: Vec<Arc<LocalClient>> = raw
        .client
        .into_iter()
        .map(|client| LocalClient::resolve(path, client, &mut files).map(Arc::new))
        .collect::<Result<_>>()?;
    for client in &clients {
        files.warnings.extend(origin_warning(client, !listen.is_empty(), tls.is_some()));
    }
    let agent = AgentConfig {
        sockets: raw
            .agent
            .sockets
            .unwrap_or_else(|| vec![DEFAULT_AGENT_SOCKET.into()])
            .into_iter()
            .map(|text| absolute_path(path, "agent.sockets", text))
            .collect::<Result<_>>()?,
        certificate_sha256: raw
            .agent
            .certificate_sha256
            .iter()
            .map(|text| parse_hex(text).filter(|bytes| bytes.len() == 32))
            .map(|bytes| bytes.ok_or_else(|| invalid("agent.certificate_sha256 must be 64 hexadecimal digits")))
            .collect::<Result<_>>()?,
    };
    if agent.sockets.is_empty() {
        return Err(invalid("agent.sockets must name at least one socket"));
    }
    check_identities(path, &clients, &agent)?;
    let auth_url = raw.upstream.auth_url.map(|text| AuthUrl::parse(&text));
    let auth_url =
        auth_url.transpose().map_err(|error| config_error(path, format_args!("upstream.auth_url: {error}")))?;
    let duration = |text: Option<String>, key: &str, default| {
        let Some(text) = text else { return Ok(default) };
        TIMEOUTS.parse(&text).map_err(|expected| config_error(path, format_args!("{key} {expected}")))
    };
    let auth_url = auth_url.unwrap_or_default();
    if raw.upstream.ca_file.is_some() && !auth_url.to_string().starts_with("https:") {
        files.warn("upstream.ca_file has no effect, since upstream.auth_url is not https");
    }
    if raw.admin.as_ref().is_some_and(|admin| admin.group.is_some() && admin.socket.is_none()) {
        files.warn("admin.group has no effect without admin.socket");
    }
    let optional_path = |key, text: Option<String>| text.map(|text| absolute_path(path, key, text)).transpose();
    // The time of a payload has whole seconds.
    let max_skew = duration(raw.max_skew, "max_skew", DEFAULT_MAX_SKEW)?;
    if max_skew.subsec_nanos() != 0 {
        return Err(config_error(path, "max_skew must be in whole seconds, such as 300s"));
    }
    Ok(GatewayConfig {
        path: path.to_owned(),
        payload_policy: payload_policy(path, &agent.certificate_sha256)?,
        tls,
        upstream: UpstreamConfig {
            auth_url,
            proxy: raw.upstream.proxy,
            proxy_credentials_file: optional_path(
                "upstream.proxy_credentials_file",
                raw.upstream.proxy_credentials_file,
            )?,
            ca_file: optional_path("upstream.ca_file", raw.upstream.ca_file)?,
        },
        admin: raw.admin.map(|admin| resolve_admin(path, admin)).transpose()?,
        deadline: duration(raw.deadline, "deadline", DEFAULT_DEADLINE)?,
        max_skew: max_skew.as_secs(),
        log: log::LogSettings {
            format: lookup_word(path, "log.format", raw.log.format.as_deref(), &log::FORMATS)?.unwrap_or_default(),
            level: lookup_word(path, "log.level", raw.log.level.as_deref(), &log::LEVELS)?
                .unwrap_or(log::DEFAULT_LEVEL),
        },
        state_dir: optional_path("state_dir", raw.state_dir)?,
        listen,
        sets_listen,
        agent,
        clients,
        files,
    })
}

/// Checks that each name, certificate, key and password belongs to one client, and that no client has the agent's
/// certificate.
fn check_identities(path: &Path, clients: &[Arc<LocalClient>], agent: &AgentConfig) -> Result<()> {
    let mut owners: HashMap<Vec<u8>, &str> = HashMap::new();
    for (index, client) in clients.iter().enumerate() {
        if clients[..index].iter().any(|other| other.name == client.name) {
            return Err(config_error(path, format_args!("two clients have the name {}", client.name)));
        }
        let mut identities: Vec<Vec<u8>> = client.passwords.iter().map(|password| password.to_vec()).collect();
        for listed in &client.certificates {
            if agent.certificate_sha256.iter().any(|pinned| *pinned == listed.certificate.sha256()) {
                let what = format!("client {}: {} is the agent's own certificate", client.name, listed.path.display());
                return Err(
                    config_error(path, what).hint("make a new key and certificate for the tool: docs/gateway.md")
                );
            }
            identities.push(listed.certificate.modulus.clone());
        }
        for identity in identities {
            if let Some(other) = owners.insert(identity, &client.name).filter(|other| *other != client.name) {
                let what =
                    format!("the clients {other} and {} have the same certificate, key or password", client.name);
                return Err(config_error(path, what).hint("give each tool its own identity: `cba-gateway enrol NAME`"));
            }
        }
    }
    Ok(())
}

/// Returns a warning if `listen` has only IPv4 or only IPv6 addresses.
fn address_family_warning(listen: &[SocketAddr]) -> Option<String> {
    let has_family = |is_v4: bool| listen.iter().any(|address| address.is_ipv4() == is_v4);
    (!listen.is_empty() && has_family(true) != has_family(false)).then(|| {
        "listen has only IPv4 or only IPv6 addresses; `localhost` may resolve to the other, where another user can listen".into()
    })
}

/// Returns a warning if the client is not served, or one of its origins has no listener.
fn origin_warning(client: &LocalClient, has_plain: bool, has_tls: bool) -> Option<String> {
    let name = &client.name;
    match (client.users.is_empty(), client.from.is_empty()) {
        (true, false) if !has_tls => {
            Some(format!("client {name}: it is not served, since it has no users and there is no [tls] listener"))
        }
        (false, false) if !has_tls => Some(format!("client {name}: from has no effect without a [tls] listener")),
        (false, _) if !has_plain => {
            Some(format!("client {name}: users has an effect only on sockets of systemd, since listen is empty"))
        }
        _ => None,
    }
}

/// Checks that no two addresses have the same port of one host address: the second one could not be bound.
fn check_addresses_differ(path: &Path, addresses: &[SocketAddr]) -> Result<()> {
    for (index, address) in addresses.iter().enumerate().filter(|(_, address)| address.port() != 0) {
        let overlaps = |other: &&SocketAddr| {
            let is_wildcard = address.ip().is_unspecified() || other.ip().is_unspecified();
            let has_same_port = other.port() == address.port() && other.is_ipv4() == address.is_ipv4();
            has_same_port && (is_wildcard || other.ip() == address.ip())
        };
        if let Some(other) = addresses[..index].iter().find(overlaps) {
            let what = if other == address {
                format!("{address} is twice in listen and [tls] listen")
            } else {
                format!("{other} and {address} in listen and [tls] listen overlap")
            };
            return Err(config_error(path, what));
        }
    }
    Ok(())
}

fn addresses(path: &Path, key: &str, texts: &[String]) -> Result<Vec<SocketAddr>> {
    let parse = |text: &String| {
        text.parse().map_err(|_| config_error(path, format_args!("{key}: '{text}' must be an address and a port")))
    };
    texts.iter().map(parse).collect()
}

fn resolve_tls(path: &Path, tls: RawTls) -> Result<TlsConfig> {
    let listen = addresses(path, "tls.listen", &tls.listen)?;
    if listen.is_empty() {
        return Err(config_error(path, "tls.listen must name at least one address"));
    }
    let certificate = absolute_path(path, "tls.certificate", tls.certificate)?;
    Ok(TlsConfig { listen, certificate, key: absolute_path(path, "tls.key", tls.key)? })
}

fn resolve_admin(path: &Path, admin: RawAdmin) -> Result<AdminConfig> {
    let group = admin.group.map(|name| match (name.parse(), Group::from_name(&name)) {
        (Ok(number), _) => Ok(number),
        (_, Ok(Some(group))) => Ok(group.gid.as_raw()),
        _ => Err(config_error(path, format_args!("admin.group: this host has no group '{name}'"))),
    });
    let optional_path = |key, text: Option<String>| text.map(|text| absolute_path(path, key, text)).transpose();
    Ok(AdminConfig {
        socket: optional_path("admin.socket", admin.socket)?,
        group: group.transpose()?,
        metrics_file: optional_path("admin.metrics_file", admin.metrics_file)?,
    })
}

/// Looks up the word of a key in a table of words. Returns `None` if the file does not have the key.
fn lookup_word<T: Copy>(path: &Path, key: &str, text: Option<&str>, names: &[(&str, T)]) -> Result<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    by_name(text, names).map(Some).map_err(|expected| config_error(path, format_args!("{key}: {expected}")))
}
