//! Checks from the module to the certificate, as far as they are possible without a login.
//!
//! Runs in the parent.

use std::path::{Path, PathBuf};

use super::findings::Findings;
use super::{key, p11_kit, pcscd};
use crate::certificate::{Certificate, utc};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::facts::{Gap, stand_in};
use crate::fuse::FuseStore;
use crate::fuse::remedy::reset_command;
use crate::fuse::{self, StoredFuse};
use crate::identity::{self, Identity};
use crate::modules;
use crate::os::clock::now;
use crate::pin::PinSource;
use crate::pin::source::PreparedSource;
use crate::policy::{self, PreLoginFacts};
use crate::sandbox_profile::SandboxMode;
use crate::selector;
use crate::session::{self, LoadedModule, Login, SlotSession, TokenSession, read_certificate};
use crate::signer;
use crate::text::hex;

/// Checks everything that a signature needs. With a login it makes one payload, and discards it.
pub(super) fn check(config: &Config, login: Option<Login>, findings: &mut Findings) {
    let slot_session = reach(config, findings);
    if let Some(slot_session) = &slot_session {
        pin_state(slot_session, config, findings);
    }
    pin_source(config, login.is_some(), findings);
    let Some(mut slot_session) = slot_session else { return };
    identity(&mut slot_session, config, login.is_some(), findings);
    match login {
        None => slot_session.end(None),
        Some(login) => trial(slot_session, login, config, findings),
    }
}

/// The module, its requirements, its slots, and the selected token.
fn reach(config: &Config, findings: &mut Findings) -> Option<SlotSession> {
    let candidates = match &config.module {
        Some(module) => modules::resolve(module).map(|path| vec![path]),
        None => modules::search(),
    };
    let candidates = match candidates {
        Ok(candidates) => candidates,
        Err(error) => return findings.end("module", &error.into()),
    };
    for missing in candidates.iter().filter_map(|path| modules::missing_group(path)) {
        let found = format!("user {} is not in group {}, and the module may hang", missing.user, missing.group);
        findings.fail("module's group", found, missing.remedy());
    }
    let deadline = Deadline::after(config.sign.timeout);
    let loaded = match session::open(config, &deadline) {
        Ok(loaded) => loaded,
        Err(error) => {
            readers(&candidates, config, findings);
            return findings.end("module", &error);
        }
    };
    let path = loaded.path.clone();
    let digest = modules::sha256(&path).unwrap_or_else(|| "not readable".into());
    findings.ok("module", format!("{} (SHA-256 {digest}), {}", path.display(), loaded.library.description));
    if let Some(how) = modules::writable_by_others(&path) {
        findings.warn("module", how, "`serve` refuses it: let only root write the file and the directories above");
    }
    if modules::known_by(&path).is_some_and(|known| known.name.starts_with("p11-kit")) {
        p11_kit::check(findings);
    }
    sandbox(&loaded, config, findings);
    readers(&[path], config, findings);
    slots(&loaded, findings);
    match loaded.open_session(config, deadline) {
        Ok(slot_session) => {
            findings.ok("token", format!("{} in slot ID {}", slot_session.name(), slot_session.slot.id));
            Some(slot_session)
        }
        Err(error) => {
            findings.fail("token", error.message, error.hints.join("; "));
            None
        }
    }
}

/// Checks what the sandbox does not prevent.
fn sandbox(loaded: &LoadedModule, config: &Config, findings: &mut Findings) {
    const CHECK: &str = "sandbox";
    match &loaded.confinement {
        // Almost no kernel in use can confine Unix sockets, so this gap alone is no warning. The line names it.
        Some(confinement) if confinement.gaps.iter().all(|gap| *gap == Gap::UnixSockets) => {
            findings.ok(CHECK, confinement.to_string());
        }
        Some(confinement) => findings.warn(CHECK, confinement.to_string(), confinement.remedy()),
        None if config.sandbox == SandboxMode::Off => {
            findings.warn(CHECK, "off", "unset sandbox.mode, or set it to module")
        }
        None => findings.warn(
            CHECK,
            "none: there is no sandbox profile for this module",
            "modules with a known name have one; confine this one with the unit file",
        ),
    }
}

/// The smart card service, if a module may need it.
fn readers(modules: &[PathBuf], config: &Config, findings: &mut Findings) {
    if modules.iter().any(|path: &PathBuf| modules::needs_pcscd(path)) {
        pcscd::check(config, findings);
    }
}

fn slots(loaded: &LoadedModule, findings: &mut Findings) {
    const CHECK: &str = "slots";
    let indexed: Vec<u64> = selector::indexed(&loaded.slots).map(|slot| slot.id).collect();
    if indexed.is_empty() {
        // The next check names the remedy.
        return findings.ok(CHECK, format!("{} with a token, none of them initialised", loaded.slots.len()));
    }
    for slot in &loaded.slots {
        let place = indexed.iter().position(|id| *id == slot.id);
        let place = place.map_or_else(|| format!("slot ID {}", slot.id), |index| format!("--slot {index}"));
        match (&slot.error, &slot.token) {
            (Some(error), _) => {
                findings.warn(CHECK, format!("{place} cannot be read: {error}"), "`cba-agent list` shows what is there")
            }
            (None, Some(token)) if token.initialized => {
                findings.ok(CHECK, format!("{place}: token '{}', serial {}", token.label, token.serial));
            }
            _ => findings.ok(CHECK, format!("{place}: not initialised")),
        }
    }
}

fn pin_state(slot_session: &SlotSession, config: &Config, findings: &mut Findings) {
    const CHECK: &str = "PIN state";
    let by_hand = "log in once by hand with the right PIN: `cba-agent sign --pin-source prompt`";
    match slot_session.slot.token.as_ref() {
        Some(token) if !token.login_required => findings.ok(CHECK, "the token needs no PIN"),
        Some(token) => match (token.pin.refusal(false), token.pin.warning()) {
            (Some(refusal), _) => findings.fail(CHECK, refusal.cause, slot_session.whole_commands(refusal.remedy)),
            (None, Some(warning)) => findings.warn(CHECK, warning, by_hand),
            (None, None) => findings.ok(CHECK, "no wrong PIN since the last correct one"),
        },
        None => findings.warn(CHECK, "the token reports no identity", by_hand),
    }
    fuse(slot_session, config, findings);
}

/// The counts of the fuses of this token, and of tokens that could be the same.
fn fuse(slot_session: &SlotSession, config: &Config, findings: &mut Findings) {
    const CHECK: &str = "PIN fuse";
    // Another line reports a directory that cannot be used.
    let Ok(store) = FuseStore::open(config.state_dir.as_deref()) else { return };
    let (id, path) = (slot_session.token_id(), store.path(&stand_in(&slot_session.slot, &slot_session.module.path)));
    let counts = |fuse: &StoredFuse| fuse.id().map_or_else(|| fuse.files.contains(&path), |found| found.may_be(&id));
    let fuses: Vec<StoredFuse> = store.all().unwrap_or_default().into_iter().filter(counts).collect();
    if fuses.is_empty() {
        findings.ok(CHECK, "intact");
    }
    for fuse in fuses {
        match (fuse.uri(), fuse.is_blown()) {
            (_, false) => findings.ok(CHECK, fuse.describe()),
            (Some(uri), true) => {
                let reset = reset_command(&uri, store.directory());
                findings.fail(CHECK, fuse.describe(), format!("correct the PIN, then: {reset}"));
            }
            (None, true) => {
                let uri = fuse::uri_of(&stand_in(&slot_session.slot, &slot_session.module.path)).to_string();
                let reset = reset_command(&uri, store.directory());
                findings.fail(CHECK, fuse.describe(), format!("when you are sure that the PIN is right: {reset}"));
            }
        }
    }
}

/// Whether a PIN is available. It reads a PIN only where this costs nothing, and sends it nowhere.
fn pin_source(config: &Config, is_needed_later: bool, findings: &mut Findings) {
    const CHECK: &str = "PIN source";
    let source = match config.pin.clone().map_or_else(PinSource::fallback, Ok) {
        Ok(source) => source,
        Err(error) => return findings.error(CHECK, &error.into()),
    };
    // A URI's `pin-source` is never printed.
    let by_uri = config.identity.uri.as_ref().and_then(|uri| uri.pin_file.as_deref()).map(Path::new);
    let named = |path: &Path| match by_uri {
        Some(other) if other == path => "the file that the URI names".to_owned(),
        _ => format!("file {}", path.display()),
    };
    let is_file = |path: &Path| std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let found = match &source {
        PinSource::Fd(_) | PinSource::Stdin => {
            let when = if is_needed_later { "read for the trial payload" } else { "read when it is needed" };
            return findings.ok(CHECK, format!("a stream, {when}"));
        }
        PinSource::File(path) if path.exists() && !is_file(path) => {
            return findings.ok(CHECK, format!("{}, read when it is needed", named(path)));
        }
        PinSource::Prompt => {
            return findings.warn(CHECK, "a prompt: a person must be present", "set pin.source for unattended use");
        }
        PinSource::File(path) => named(path),
        PinSource::Env(_) => "a variable".into(),
        PinSource::Credential(name) => format!("credential {name}"),
        PinSource::Pinpad => "the token's own PIN pad".into(),
    };
    let loaded = PreparedSource::open(source.prepare(), &Deadline::after(config.sign.timeout));
    match loaded {
        Ok(_) => findings.ok(CHECK, found),
        Err(error) => findings.error(CHECK, &error.into()),
    }
}

/// The identity as far as it is visible without a login, its mechanism, and the check of its certificate against the
/// policy.
fn identity(slot_session: &mut SlotSession, config: &Config, logs_in_later: bool, findings: &mut Findings) {
    let file = match config.certificate_file.as_deref().map(read_certificate).transpose() {
        Ok(file) => file,
        Err(error) => return findings.error("identity", &error),
    };
    let found = slot_session
        .objects()
        .and_then(|objects| identity::choose_certificate(&objects, &config.identity, file, now()).map_err(Error::from))
        .map_err(|error| slot_session.with_whole_commands(error));
    let identity = match found {
        Ok(identity) => Some(identity),
        Err(error) if error.kind == Kind::NotFound && logs_in_later => {
            findings.ok("identity", format!("{} before the login of the trial payload", error.message));
            None
        }
        Err(error) if error.kind == Kind::NotFound => {
            findings.warn("identity", error.message, "some tokens show it only after a login: --sign");
            None
        }
        Err(error) => return findings.error("identity", &error),
    };
    if let Some(identity) = &identity {
        let (subject, id) = (&identity.certificate.subject, hex(&identity.key.id));
        findings.ok("identity", format!("{subject} (key ID {id})"));
        for other in identity.unreadable.iter().filter(|other| other.is_broken()) {
            let remedy = "ask the CA to issue it again and replace this one, or delete it from the token";
            findings.fail("certificate", other.to_string(), remedy);
        }
    }
    if !logs_in_later {
        let from_file = config.certificate_file.is_some();
        policy_before_login(slot_session, identity.as_ref(), from_file, config, findings);
        key::check_before_login(identity.as_ref(), slot_session.slot.token.as_ref(), config, findings);
    }
    match slot_session.mechanisms.usable.first() {
        Some(mechanism) => findings.ok("mechanism", mechanism.name()),
        None if slot_session.mechanisms.known => {
            findings.fail("mechanism", "neither CKM_SHA512_RSA_PKCS nor CKM_RSA_PKCS", "use another token");
        }
        None => {
            findings.warn("mechanism", "the module does not list its mechanisms", "try it: `cba-agent doctor --sign`")
        }
    }
    if let Some(identity) = &identity {
        let remedy = "write a new one into the token, and register it before that time";
        judge(&identity.certificate, config, remedy, findings);
    }
}

/// Checks the facts that are known without a login against the policy. With a login, the trial payload shows all of them.
fn policy_before_login(
    slot_session: &SlotSession,
    identity: Option<&Identity>,
    certificate_from_file: bool,
    config: &Config,
    findings: &mut Findings,
) {
    let (token, mechanism) = (slot_session.slot.token.as_ref(), slot_session.mechanisms.usable.first());
    let certificate = identity.map(|identity| &identity.certificate);
    let decision = match mechanism {
        Some(&mechanism) => {
            let facts = PreLoginFacts { token, certificate_from_file, choice: config.sign.choice, mechanism };
            policy::decide_without_login(&config.policy, &facts, certificate)
        }
        None => policy::decide_token(&config.policy, token),
    };
    for breach in &decision.refusals {
        findings.fail("policy", breach.reason(), breach.hint());
    }
}

/// Checks a certificate against the policy, and reports when it expires.
pub(super) fn judge(certificate: &Certificate, config: &Config, before_its_end: &str, findings: &mut Findings) {
    const CHECK: &str = "certificate";
    let now = now();
    let decision = policy::decide_certificate(&config.policy, certificate, now);
    if decision.refusals.is_empty() {
        findings.ok(CHECK, format!("until {}, SHA-256 {}", utc(certificate.not_after), hex(&certificate.sha256())));
    }
    for breach in &decision.refusals {
        findings.fail(CHECK, breach.reason(), breach.hint());
    }
    for breach in &decision.warnings {
        findings.warn(CHECK, breach.reason(), breach.hint());
    }
    let left = certificate.not_after.saturating_sub(now);
    if certificate.is_valid_at(now) && left < config.sign.warn_before.as_secs() {
        findings.warn(CHECK, format!("it ends in {}", crate::values::days(left)), before_its_end);
    }
}

/// Makes one payload and discards it.
fn trial(slot_session: SlotSession, login: Login, config: &Config, findings: &mut Findings) {
    let choice = config.sign.choice;
    let file = config.certificate_file.as_deref().map(read_certificate).transpose();
    let session = file.and_then(|file| signer::ready(TokenSession::new(slot_session, login), file, config, choice));
    let tried = session.and_then(|mut session| {
        key::check(session.identity(), session.slot_session().slot.token.as_ref(), config, findings);
        let signed = signer::sign_once(&mut session, config, choice).map(drop);
        session.end(signed.as_ref().err());
        signed
    });
    match tried {
        Ok(()) => findings.ok("trial payload", "signed, verified, and discarded"),
        Err(error) => findings.error("trial payload", &error),
    }
}
