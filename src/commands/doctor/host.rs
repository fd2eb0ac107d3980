//! Checks of the host: configuration, environment, clock, files, agents.
//!
//! Runs in the parent.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::findings::Findings;
use crate::audit::{self, AuditError};
use crate::certificate::utc;
use crate::client;
use crate::config::EffectiveSetting;
use crate::config::{Config, variables};
use crate::deadline::Deadline;
use crate::files::file_system_hint;
use crate::fuse::FuseStore;
use crate::fuse::state_directory;
use crate::os::clock;
use crate::os::clock::now;
use crate::os::names::user_name;
use crate::serve::socket_file;
use crate::text::shell::quoted_path;

/// The source of each value.
pub(super) fn configuration(config: &Config, findings: &mut Findings) {
    const CHECK: &str = "configuration";
    match config.files.as_slice() {
        [] => {
            findings.ok(CHECK, "no file: neither ~/.config/cba-agent/config.toml nor /etc/cba-agent/config.toml exists")
        }
        files => files.iter().for_each(|file| findings.ok(CHECK, format!("read from {}", file.display()))),
    }
    for EffectiveSetting { key, value, origin } in &config.effective {
        findings.ok(CHECK, format!("{key} = {value} ({origin})"));
    }
    for weaker in config.policy.weaker_than_default() {
        let found = format!("the policy is weaker than the defaults: {weaker}");
        findings.warn("policy", found, "take the key out of [policy], unless you need it");
    }
}

/// Variables with our prefix that do not exist.
pub(super) fn unknown_variables(pin_variables: &[OsString], findings: &mut Findings) {
    for unknown in variables::unknown(std::env::vars_os().map(|(name, _)| name), pin_variables) {
        findings.warn("environment", unknown.reason(), unknown.remedy());
    }
}

/// Variables that change which libraries are loaded into the process that gets the PIN.
pub(super) fn environment(findings: &mut Findings) {
    let names: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("LD_") || name.starts_with("OPENSSL_"))
        .collect();
    if names.is_empty() {
        findings.ok("environment", "no variable changes which libraries are loaded");
    } else {
        let found = format!("{} can load other libraries into the process that handles the PIN", names.join(", "));
        findings.warn("environment", found, format!("unset {}", names.join(" ")));
    }
}

/// A v2 payload carries the time, and the service refuses a wrong time.
pub(super) fn clock(findings: &mut Findings) {
    const CHECK: &str = "clock";
    let (built, now) = (clock::build_time(), now());
    let time = utc(now);
    if now < built {
        let found = format!("{time} is before this program was built ({})", utc(built));
        return findings.fail(CHECK, found, clock_remedy());
    }
    match clock::is_synchronised() {
        Ok(true) => findings.ok(CHECK, format!("{time}, synchronised")),
        Ok(false) => {
            let found = format!("{time}, not synchronised (adjtimex); a v2 payload needs the right time");
            findings.warn(CHECK, found, clock_remedy());
        }
        Err(error) => {
            findings.warn(
                CHECK,
                format!("{time}; cannot check whether it is synchronised: {error}"),
                "compare it with another clock: `date -u`",
            );
        }
    }
}

/// What sets the clock on this host. Without systemd (sd_booted(3)), as in most containers, `timedatectl` is missing or fails.
fn clock_remedy() -> &'static str {
    let has_timedatectl = ["/run/systemd/system", "/usr/bin/timedatectl"].iter().all(|path| Path::new(path).exists());
    if has_timedatectl {
        "set and synchronise it, as root: `timedatectl set-ntp true`"
    } else {
        "a time service, such as chrony, must set it; a container has the clock of its host: `date -u` shows it"
    }
}

pub(super) fn state(config: &Config, findings: &mut Findings) {
    let directory = match FuseStore::open(config.state_dir.as_deref()) {
        Ok(store) => store.directory().to_owned(),
        Err(error) => return findings.error("state directory", &error.into()),
    };
    if let Some(warning) = state_directory::warning(&directory) {
        findings.warn("state directory", warning, "--state-dir DIR");
    }
    let existing = directory.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::access(existing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => findings.ok("state directory", directory.display().to_string()),
        Err(error) => findings.fail(
            "state directory",
            format!("{} cannot be written: {error}", existing.display()),
            file_system_hint(existing, &error.into()).unwrap_or_else(|| own_directory(&directory, 700, "--state-dir")),
        ),
    }
}

fn own_name() -> String {
    user_name(rustix::process::geteuid().as_raw())
}

/// How to make a private directory for this user. The owner of a directory with other users' files stays the same.
fn own_directory(directory: &Path, mode: u32, setting: &str) -> String {
    let install = |directory: &Path| format!("`install -d -m {mode} -o {} {}`", own_name(), quoted_path(directory));
    if directory.exists() && is_shared(directory, directory) {
        let own = if std::fs::read_dir(directory).is_ok() {
            directory.join("cba-agent")
        } else {
            // Its content is not visible, and its owner may deny access.
            let mut beside = directory.as_os_str().to_owned();
            beside.push(format!("-{}", own_name()));
            PathBuf::from(beside)
        };
        return format!(
            "other users use this directory; make a private one, as root: {}, and set {setting} to it",
            install(&own)
        );
    }
    format!("create it for this user, as root: {}", install(directory))
}

/// Whether a directory contains files other than the agent's.
fn is_shared(directory: &Path, own: &Path) -> bool {
    let name = own.file_name().unwrap_or_default().as_encoded_bytes();
    let is_own = |found: std::ffi::OsString| {
        let found = found.as_encoded_bytes();
        found.ends_with(b".json") || found.ends_with(b".lock") || (own != directory && found.starts_with(name))
    };
    // An unreadable directory may contain anything.
    std::fs::read_dir(directory)
        .map_or(true, |mut all| all.any(|entry| entry.is_ok_and(|entry| !is_own(entry.file_name()))))
}

/// Whether the log can be continued, as far as this is visible without writing to it.
pub(super) fn audit_log(config: &Config, findings: &mut Findings) {
    const CHECK: &str = "audit log";
    let Some(path) = &config.audit else { return };
    let directory = path.parent().unwrap_or(path);
    let may = |path: &Path, access| rustix::fs::access(path, access | rustix::fs::Access::WRITE_OK);
    let written = match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            return findings.fail(
                CHECK,
                format!("{} is not a regular file", path.display()),
                "set audit.path to another file",
            );
        }
        Ok(_) => may(path, rustix::fs::Access::READ_OK),
        Err(_) => Ok(()),
    };
    // The lock file is in the same directory.
    if let Err(error) = written.and_then(|()| may(directory, rustix::fs::Access::EXEC_OK)) {
        let remedy = if let Some(hint) = file_system_hint(directory, &error.into()) {
            hint
        } else if path.exists() && !is_shared(directory, path) {
            let (directory, path) = (quoted_path(directory), quoted_path(path));
            format!("give both to this user, as root: `chown {} {directory} {path}`", own_name())
        } else {
            own_directory(directory, 750, "audit.path")
        };
        return findings.fail(CHECK, format!("{} cannot be written: {error}", path.display()), remedy);
    }
    match audit::head(path) {
        Ok(Some(head)) => findings.ok(CHECK, format!("{}, {} records", path.display(), head.seq)),
        Err(AuditError::Damaged(_)) => {
            let remedy = format!("`cba-agent audit verify {}` names the place", quoted_path(path));
            findings.fail(CHECK, format!("{} does not end in a record", path.display()), remedy);
        }
        Ok(None) | Err(_) => findings.ok(CHECK, format!("{}, no records yet", path.display())),
    }
}

/// Whether the configured agents answer, and whether all allowed users can reach the socket of this host's agent.
pub(super) fn agents(config: &Config, findings: &mut Findings) {
    for socket in config.serve.socket.iter().chain(&config.sign.sockets) {
        match client::health(socket, false, &Deadline::after(config.sign.timeout)) {
            Ok(_) => findings.ok("agent", format!("{} is ready", socket.display())),
            Err(error) => findings.error("agent", &error.into()),
        }
    }
    who_may_ask(config, findings);
}

fn who_may_ask(config: &Config, findings: &mut Findings) {
    match socket_file::subordinate_groups(&config.serve) {
        Ok(groups) => groups.iter().for_each(|group| {
            findings.warn("who may ask", group.to_string(), "use a group outside the ranges of /etc/subgid");
        }),
        Err(error) => findings.error("who may ask", &error),
    }
    // systemd names the socket of a packaged service, so its path may be unknown here.
    let socket = config.serve.socket.as_deref();
    let locked_out = socket_file::locked_out(&config.serve, socket);
    if locked_out.is_empty() && socket.is_some() {
        findings.ok("who may ask", "every listed user can reach the socket");
    }
    for socket_file::LockedOutUser { user, why, remedy } in locked_out {
        findings.fail("who may ask", format!("{user} is allowed, but cannot reach the socket: {why}"), remedy);
    }
}
