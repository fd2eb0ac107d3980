//! `check`: tests the configuration and everything that a login needs, with a remedy for each finding.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{User, initgroups, setgid, setuid};
use rustix::fs::{Access, access};

use super::print;
use crate::admin;
use crate::agents;
use crate::config::{FileRules, GatewayConfig};
use crate::gateway::{ActiveConfig, spent_file_error};
use crate::library::{
    Certificate, Error, Kind, PayloadChoice, Result, Version, days, decide_payload, now, printable, utc, with_causes,
};
use crate::server::listener;
use crate::shared_users::SharedUsers;
use crate::spent_file::SpentFile;
use crate::upstream::UpstreamError;
use crate::validity::issuer;

/// The time limit of each request to an agent, and of the handshake with Anaplan.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// The user of the package's units.
const GATEWAY_USER: &str = "cba-gateway";

/// `check` warns about a certificate that ends within this time, in seconds.
const EXPIRY_WARNING: u64 = 30 * 86_400;

/// The findings of all checks, as lines.
#[derive(Default)]
struct CheckFindings {
    lines: Vec<String>,
    failed: bool,
}

impl CheckFindings {
    fn ok(&mut self, text: impl AsRef<str>) {
        self.lines.push(format!("ok    {}", printable(text.as_ref())));
    }

    fn warn(&mut self, text: impl AsRef<str>) {
        self.lines.push(format!("warn  {}", printable(text.as_ref())));
    }

    fn fail(&mut self, text: impl AsRef<str>, hint: impl AsRef<str>) {
        self.failed = true;
        self.lines.push(format!("FAIL  {}", printable(text.as_ref())));
        self.lines.push(format!("      hint: {}", printable(hint.as_ref())));
    }

    fn error(&mut self, error: &Error) {
        self.fail(&error.message, error.hints.join("; "));
    }
}

pub(super) fn run(path: &Path, files: FileRules) -> Result<()> {
    let mut findings = CheckFindings::default();
    become_gateway_user(&mut findings);
    match GatewayConfig::read(path, files).and_then(ActiveConfig::read) {
        Ok(loaded) => {
            findings.ok(format!("configuration {}", path.display()));
            loaded.config.files.warnings.iter().for_each(|warning| findings.warn(warning));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Error::new(Kind::Unexpected, format!("cannot start the checks: {error}")))?;
            if let Err(error) = agents::check_separation(&loaded.config) {
                findings.error(&error);
            }
            check_listeners(&loaded, &mut findings);
            check_written_files(&loaded.config, &mut findings);
            if let Err(error) = SharedUsers::read() {
                findings.error(&error);
            }
            check_tls(&loaded, &mut findings);
            check_clients(&loaded, &mut findings);
            runtime.block_on(async {
                check_agents(&loaded, &mut findings).await;
                check_upstream(&loaded, &mut findings).await;
            });
            runtime.shutdown_background();
        }
        Err(error) => findings.error(&error),
    }
    print(&findings.lines.join("\n"))?;
    if findings.failed {
        return Err(
            Error::new(Kind::Invalid, "a check failed").hint("follow the hints below the lines that begin with FAIL")
        );
    }
    Ok(())
}

/// Continues as the user of the package's units if root runs the check: root may read every file and use every socket, but the
/// gateway may not.
fn become_gateway_user(findings: &mut CheckFindings) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let become_user = |user: &User| {
        initgroups(c"cba-gateway", user.gid).and_then(|()| setgid(user.gid)).and_then(|()| setuid(user.uid))
    };
    match User::from_name(GATEWAY_USER) {
        Ok(Some(user)) if become_user(&user).is_ok() => {
            findings.ok(format!("checked as the user {GATEWAY_USER} of the package; if the gateway has another user, run this as that user"));
        }
        _ => findings.warn(format!(
            "checked as root, since root cannot become the user {GATEWAY_USER} here; root may use files that the gateway may not"
        )),
    }
}

/// Checks that this host has the address of each listener. Warns about a port that every user can bind: while the gateway is
/// down, another user could listen on it.
fn check_listeners(loaded: &ActiveConfig, findings: &mut CheckFindings) {
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok();
    let start: u16 = start.and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    let needs_root = |address: &SocketAddr| (1..start).contains(&address.port());
    for address in &loaded.config.listen {
        match listener::check_address(*address) {
            Err(error) => findings.error(&error),
            Ok(()) if needs_root(address) => findings.ok(format!("{address}: only root can bind this port")),
            Ok(()) => findings.warn(format!(
                "{address}: every user can bind this port while the gateway is down, and receive what tools send (ip_unprivileged_port_start is {start})"
            )),
        }
    }
    for address in loaded.config.tls.iter().flat_map(|tls| &tls.listen) {
        match listener::check_address(*address) {
            Err(error) => findings.error(&error),
            Ok(()) if needs_root(address) => findings.warn(format!(
                "{address}, for [tls], needs AmbientCapabilities=CAP_NET_BIND_SERVICE and CapabilityBoundingSet=CAP_NET_BIND_SERVICE, which cba-gateway.service does not have; ports from {start} do not"
            )),
            Ok(()) => findings.ok(format!("{address}, for [tls]")),
        }
    }
}

/// Checks that the gateway can write its files. systemd creates the directory of the package's admin socket.
fn check_written_files(config: &GatewayConfig, findings: &mut CheckFindings) {
    let admin = config.admin.as_ref();
    let mut is_created_later = false;
    if let Some((socket, group)) = admin.and_then(|admin| Some((admin.socket.as_deref()?, admin.group))) {
        let directory = socket.parent().unwrap_or(socket);
        is_created_later = !directory.exists() && directory.to_string_lossy().starts_with("/run/cba-gateway");
        if let Err(error) = if is_created_later { Ok(()) } else { admin::check(socket, group) } {
            findings.error(&error);
        }
    }
    if let Some(path) = config.spent_path().filter(|_| !is_created_later || config.state_dir.is_some()) {
        if let Err(error) = SpentFile::check(&path) {
            findings.error(&spent_file_error(&path, &error));
        }
    }
    if let Some(file) = admin.and_then(|admin| admin.metrics_file.as_deref()) {
        let directory = file.parent().unwrap_or(file);
        if let Err(error) = access(directory, Access::WRITE_OK | Access::EXEC_OK) {
            findings.warn(format!("cannot write the metrics into {}: {error}", directory.display()));
        }
    }
}

fn check_tls(loaded: &ActiveConfig, findings: &mut CheckFindings) {
    let Some(tls) = &loaded.config.tls else { return };
    let shown = tls.certificate.display();
    match loaded.tls_not_after {
        Some(end) if end < now() + EXPIRY_WARNING => {
            findings.warn(format!("{shown}, for [tls], expires on {}", utc(end)))
        }
        Some(end) => findings.ok(format!("{shown}, for [tls], expires on {}", utc(end))),
        None => findings.warn(format!("{shown}, for [tls]: the end of its validity cannot be read")),
    }
}

fn check_clients(loaded: &ActiveConfig, findings: &mut CheckFindings) {
    if loaded.config.clients.is_empty() {
        findings.warn("no client is configured; `cba-gateway enrol NAME` prints the table for one");
    }
    for client in &loaded.config.clients {
        let versions: Vec<String> = client.versions.iter().map(Version::to_string).collect();
        let mut credentials = Vec::new();
        if !client.passwords.is_empty() {
            credentials.push("a password".to_owned());
        }
        if !client.certificates.is_empty() {
            credentials.push(format!("a certificate with {}", versions.join(" or ")));
        }
        let mut origin = Vec::new();
        if !client.users.is_empty() {
            origin.push("loopback");
        }
        if !client.from.is_empty() {
            origin.push("TLS");
        }
        let state = if client.disabled { "disabled, " } else { "" };
        findings.ok(format!(
            "client {}: {state}sends {}, from {}",
            client.name,
            credentials.join(" or "),
            origin.join(" and ")
        ));
        for listed in &client.certificates {
            let left = listed.certificate.not_after.saturating_sub(now());
            let end = utc(listed.certificate.not_after);
            if left < EXPIRY_WARNING {
                findings.warn(format!(
                    "client {}: {} ends in {} ({end})",
                    client.name,
                    listed.path.display(),
                    days(left)
                ));
            } else {
                findings.ok(format!("client {}: {} expires on {end}", client.name, listed.path.display()));
            }
        }
    }
}

async fn check_agents(loaded: &ActiveConfig, findings: &mut CheckFindings) {
    for socket in &loaded.config.agent.sockets {
        let shown = socket.display();
        match agents::check_ready(socket, CHECK_TIMEOUT).await {
            Ok(()) => findings.ok(format!("the agent at {shown} is ready")),
            Err(error) => findings.error(&error),
        }
        let Ok(pem) = agents::get_certificate(socket, CHECK_TIMEOUT).await else { continue };
        let Ok(certificate) = Certificate::from_pem(&pem) else { continue };
        let end = utc(certificate.not_after);
        findings.ok(format!("the certificate of the agent at {shown} expires on {end}"));
        let policy = &loaded.config.payload_policy;
        let choice = PayloadChoice { version: Version::V2, by_flag: false };
        if let Err(refused) = decide_payload(policy, choice, &certificate, now()).allowed() {
            findings
                .error(&Error::from(refused).context(format_args!("the payloads of the agent at {shown} are refused")));
        }
    }
}

async fn check_upstream(loaded: &ActiveConfig, findings: &mut CheckFindings) {
    let name = loaded.upstream.name();
    let via_proxy =
        loaded.upstream.proxy().map(|proxy| format!(" through the proxy {}", proxy.name())).unwrap_or_default();
    match tokio::time::timeout(CHECK_TIMEOUT, loaded.upstream.handshake()).await {
        Ok(Ok(handshake)) => match handshake.certificates.first() {
            Some(leaf) => {
                let version = handshake.version.unwrap_or_default();
                findings.ok(format!("{version} with {name}{via_proxy}"));
                let issuer = issuer(leaf).unwrap_or_else(|| "unknown".into());
                findings.ok(format!("its certificate is issued by {issuer}; if this names your proxy, the proxy inspects TLS and can read every token"));
            }
            None => findings.warn(format!("the connection to {name} does not use TLS")),
        },
        Ok(Err(UpstreamError::Proxy { proxy, status: 407 })) => findings.fail(
            format!("the proxy {proxy} requires credentials (407)"),
            "write user:password into a file and name it in upstream.proxy_credentials_file",
        ),
        Ok(Err(error @ UpstreamError::Tls(..))) => findings.fail(
            with_causes(&error),
            "if your proxy inspects TLS, add its root certificate to the system's store or to upstream.ca_file",
        ),
        Ok(Err(error)) => {
            findings.fail(with_causes(&error), "check upstream.auth_url, DNS, the firewall and upstream.proxy")
        }
        Err(_) => {
            findings.fail(format!("{name}{via_proxy} did not answer in time"), "check the firewall and upstream.proxy")
        }
    }
}
