//! `doctor`: what a host lacks, in the order in which a newcomer meets it, each with the command that mends it.
//!
//! No PIN is sent unless a trial payload is asked for.

use std::path::Path;

use clap::ArgMatches;
use serde::Serialize;

use super::print;
use crate::agent::{client, doorway};
use crate::audit::{self, AuditError};
use crate::certificate::utc;
use crate::cli;
use crate::config::{Config, Effective};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::identity;
use crate::modules;
use crate::pin::{Source, fuse};
use crate::policy::{self, Objection, Wish};
use crate::printable::{hex, printable};
use crate::reach::{self, Login, Reached, now, read_certificate};
use crate::signer::Signer;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One line.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// All of them.
#[derive(Debug, Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.0.push(Check { check, verdict: Verdict::Ok, found: found.into(), remedy: None });
    }

    fn warn(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Check { check, verdict: Verdict::Warning, found: found.into(), remedy: Some(remedy.into()) });
    }

    fn fail(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Check { check, verdict: Verdict::Failed, found: found.into(), remedy: Some(remedy.into()) });
    }

    fn error(&mut self, check: &'static str, error: &Error) {
        let remedy = error.hints.first().cloned().unwrap_or_else(|| error.kind.usual_hint().into());
        self.fail(check, error.message.clone(), remedy);
    }
}

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let mut findings = Findings::default();
    let login = cli::is_given(matches, "sign").then(|| Login::prepare(config));
    configuration(config, &mut findings);
    environment(&mut findings);
    pin_source(config, &mut findings);
    state(config, &mut findings);
    audit_log(config, &mut findings);
    token(config, login, &mut findings);
    agents(config, &mut findings);
    let text = if cli::is_given(matches, "json") {
        serde_json::json!({ "checks": findings.0 }).to_string()
    } else {
        findings.0.iter().flat_map(lines).collect::<Vec<_>>().join("\n")
    };
    print(&text)?;
    let failed = findings.0.iter().filter(|check| check.verdict == Verdict::Failed).count();
    if failed > 0 {
        return Err(Error::new(Kind::Invalid, format!("{failed} of {} checks failed", findings.0.len()))
            .hint("each failed line names what mends it"));
    }
    Ok(())
}

fn lines(check: &Check) -> Vec<String> {
    let word = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Failed => "failed",
    };
    let line = printable(&format!("{word:<8} {:<16} {}", check.check, check.found));
    let remedy = check.remedy.as_ref().map(|remedy| printable(&format!("{:<25} mend: {remedy}", "")));
    std::iter::once(line).chain(remedy).collect()
}

/// Where each value came from.
fn configuration(config: &Config, findings: &mut Findings) {
    const CHECK: &str = "configuration";
    if config.effective.is_empty() {
        findings.ok(CHECK, "no file, variable or flag sets anything: all defaults");
    }
    for Effective { key, value, origin } in &config.effective {
        findings.ok(CHECK, format!("{key} = {value} ({origin})"));
    }
}

/// Variables that change what is loaded into the process that gets the PIN.
fn environment(findings: &mut Findings) {
    let names: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("LD_") || name.starts_with("OPENSSL_"))
        .collect();
    if names.is_empty() {
        findings.ok("environment", "nothing in it changes what is loaded");
    } else {
        let found = format!("{} can change what is loaded beside the PIN", names.join(", "));
        findings.warn("environment", found, format!("env -u {} cba-agent ...", names.join(" -u ")));
    }
}

/// Whether the log can be gone on with, as far as that shows without writing to it.
fn audit_log(config: &Config, findings: &mut Findings) {
    const CHECK: &str = "audit log";
    let Some(path) = &config.audit else { return };
    let directory = path.parent().unwrap_or(path);
    let may = |path: &Path, access| rustix::fs::access(path, access | rustix::fs::Access::WRITE_OK);
    let written = match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            return findings.fail(CHECK, format!("{} is no plain file", path.display()), "name another: audit.path");
        }
        Ok(_) => may(path, rustix::fs::Access::READ_OK),
        Err(_) => Ok(()),
    };
    // The lock file stands beside it.
    if let Err(error) = written.and_then(|()| may(directory, rustix::fs::Access::EXEC_OK)) {
        let remedy =
            format!("give both to the user that runs cba-agent: chown USER {} {}", directory.display(), path.display());
        return findings.fail(CHECK, format!("{} cannot be written: {error}", path.display()), remedy);
    }
    match audit::head(path) {
        Ok(Some(head)) => findings.ok(CHECK, format!("{}, {} records", path.display(), head.seq)),
        Err(AuditError::Damaged(_)) => {
            let remedy = format!("cba-agent audit verify {}", path.display());
            findings.fail(CHECK, format!("{} does not end in a record", path.display()), remedy);
        }
        Ok(None) | Err(_) => findings.ok(CHECK, format!("{}, no records yet", path.display())),
    }
}

/// Whether there is a source, without reading more of it than its permissions.
fn pin_source(config: &Config, findings: &mut Findings) {
    const CHECK: &str = "PIN source";
    match config.pin.clone().map_or_else(Source::fallback, Ok) {
        Err(error) => findings.error(CHECK, &error.into()),
        Ok(Source::File(path)) => match std::fs::metadata(&path) {
            Err(error) => findings.fail(CHECK, format!("{}: {error}", path.display()), "check the path and its owner"),
            Ok(metadata) if std::os::unix::fs::MetadataExt::mode(&metadata) & 0o007 != 0 => {
                findings.fail(
                    CHECK,
                    format!("{} is open to every user", path.display()),
                    format!("chmod o-rwx {}", path.display()),
                );
            }
            Ok(_) => findings.ok(CHECK, format!("file {}", path.display())),
        },
        Ok(Source::Prompt) => {
            findings.warn(CHECK, "a prompt: somebody must be there", "set pin.source for unattended use")
        }
        Ok(_) => findings.ok(CHECK, "configured"),
    }
}

fn state(config: &Config, findings: &mut Findings) {
    let directory = match fuse::directory(config.state_dir.as_deref()) {
        Ok(directory) => directory,
        Err(error) => return findings.error("state directory", &error.into()),
    };
    let existing = directory.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::access(existing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => findings.ok("state directory", directory.display().to_string()),
        Err(error) => findings.fail(
            "state directory",
            format!("{} cannot be written: {error}", existing.display()),
            format!("give it to the user that runs cba-agent, or --state-dir DIR: chown USER {}", existing.display()),
        ),
    }
}

fn token(config: &Config, login: Option<Login>, findings: &mut Findings) {
    let deadline = Deadline::after(config.sign.timeout);
    let opened = match reach::open(config, &deadline) {
        Ok(opened) => opened,
        Err(error) => return findings.error("module", &error),
    };
    let digest = modules::sha256(&opened.module).unwrap_or_else(|| "not readable".into());
    findings.ok("module", format!("{} (SHA-256 {digest}), {}", opened.module.display(), opened.library.description));
    if let Some(how) = modules::writable_by_others(&opened.module) {
        findings.warn("module", how, "`serve` refuses it: let root alone write the file and the directories above");
    }
    let mut reached = match opened.reach(config, deadline) {
        Ok(reached) => reached,
        Err(error) => return findings.error("token", &error),
    };
    findings.ok("token", format!("{} in slot ID {}", reached.name(), reached.slot.id));
    pin_state(&reached, config, findings);
    match reached.session.mechanisms.first() {
        Some(mechanism) => findings.ok("mechanism", mechanism.name()),
        None if reached.session.mechanisms_known => {
            findings.fail("mechanism", "neither CKM_SHA512_RSA_PKCS nor CKM_RSA_PKCS", "use another token");
        }
        None => {
            findings.warn("mechanism", "the module does not list its mechanisms", "try it: cba-agent doctor --sign")
        }
    }
    certificate(&mut reached, config, findings);
    match login {
        None => reached.end(None),
        Some(login) => trial(reached, login, config, findings),
    }
}

fn pin_state(reached: &Reached, config: &Config, findings: &mut Findings) {
    let unblock = "unblock it with the token's own tool and its PUK or security officer PIN";
    let by_hand = "log in once by hand with the right PIN: cba-agent sign --pin-source prompt";
    match &reached.slot.token {
        Some(token) if token.pin_locked => findings.fail("PIN state", "locked", unblock),
        Some(token) if !token.pin_initialized => {
            findings.fail("PIN state", "no user PIN was ever set", "pkcs11-tool --login --login-type so --init-pin");
        }
        Some(token) if token.pin_to_be_changed => {
            findings.fail("PIN state", "to be changed first", "pkcs11-tool --login --change-pin");
        }
        Some(token) if token.pin_final_try => findings.fail("PIN state", "one try is left", by_hand),
        Some(token) if token.pin_count_low => findings.warn("PIN state", "a wrong PIN was given before", by_hand),
        Some(_) => findings.ok("PIN state", "no wrong PIN since the last right one"),
        None => findings.warn("PIN state", "the token says nothing of itself", by_hand),
    }
    let token = fuse::token_of(&reached.slot, &reached.opened.module);
    let Ok(directory) = fuse::directory(config.state_dir.as_deref()) else { return };
    let path = fuse::path(&directory, &token);
    match fuse::all(&directory).unwrap_or_default().into_iter().find(|(found, _)| *found == path) {
        None => findings.ok("PIN fuse", "intact"),
        Some((_, Ok(record))) if !record.is_blown() => findings.ok("PIN fuse", fuse::describe(&record)),
        Some((_, Ok(record))) => {
            let reset = format!("correct the PIN, then: cba-agent pin-fuse --reset --uri '{}'", fuse::uri_of(&token));
            findings.fail("PIN fuse", fuse::describe(&record), reset);
        }
        Some((_, Err(error))) => findings.error("PIN fuse", &error.into()),
    }
}

/// The certificate as far as it shows without a login, held against the policy's certificate rules.
fn certificate(reached: &mut Reached, config: &Config, findings: &mut Findings) {
    let file = match config.certificate_file.as_deref().map(read_certificate).transpose() {
        Ok(file) => file,
        Err(error) => return findings.error("certificate", &error),
    };
    let found = reached
        .objects()
        .and_then(|objects| identity::choose_certificate(&objects, &config.identity, file, now()).map_err(Error::from));
    let certificate = match found {
        Ok(identity) => identity.certificate,
        Err(error) if error.kind == Kind::NotFound => {
            return findings.warn("certificate", error.message, "some tokens show it only after a login: --sign");
        }
        Err(error) => return findings.error("certificate", &error),
    };
    let (subject, end) = (&certificate.subject, utc(certificate.not_after));
    let decision = policy::decide_certificate(&config.policy, &certificate, now());
    if decision.refusals.is_empty() {
        findings.ok("certificate", format!("{subject}, until {end}, SHA-256 {}", hex(&certificate.sha256())));
    } else {
        findings.fail("certificate", reasons(&decision.refusals).join("; "), "have another one issued for this key");
    }
    for warning in reasons(&decision.warnings) {
        findings.warn("certificate", warning, "ask whoever issues it");
    }
    let left = certificate.not_after.saturating_sub(now());
    if certificate.is_valid_at(now()) && left < config.sign.warn_before.as_secs() {
        let remedy = "write its successor into the token and register it before that";
        findings.warn("certificate", format!("it ends in {}", crate::config::days(left)), remedy);
    }
}

fn reasons(objections: &[Objection]) -> Vec<&str> {
    objections.iter().map(|objection| objection.reason.as_str()).collect()
}

/// One payload, made and thrown away.
fn trial(reached: Reached, login: Login, config: &Config, findings: &mut Findings) {
    let wish = Wish { version: config.sign.version, by_flag: config.sign.version_by_flag };
    let file = config.certificate_file.as_deref().map(read_certificate).transpose();
    let signer = file.and_then(|file| Signer::ready(reached, login, file, config, wish));
    let tried = signer.and_then(|mut signer| {
        let signed = signer.sign(config, wish).map(drop);
        signer.end(signed.as_ref().err());
        signed
    });
    match tried {
        Ok(()) => findings.ok("trial payload", "signed, verified, and thrown away"),
        Err(error) => findings.error("trial payload", &error),
    }
}

/// Whether the configured agents answer, and whether those come to them who may.
fn agents(config: &Config, findings: &mut Findings) {
    for socket in config.serve.socket.iter().chain(&config.sign.sockets) {
        match client::health(socket, false, &Deadline::after(config.sign.timeout)) {
            Ok(_) => findings.ok("agent", format!("{} is ready", socket.display())),
            Err(error) => findings.error("agent", &error.into()),
        }
    }
    let Some(socket) = &config.serve.socket else { return };
    let locked_out = doorway::locked_out(&config.serve, socket);
    if locked_out.is_empty() {
        findings.ok("who may ask", "nobody whom the lists name is kept out by groups or modes");
    }
    for doorway::LockedOut { user, why, remedy } in locked_out {
        findings.fail("who may ask", format!("{user} is allowed, and cannot reach the socket: {why}"), remedy);
    }
}
