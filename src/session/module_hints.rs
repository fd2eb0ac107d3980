//! Known causes for single modules, for the hints of an error: the module's own return value says too little.
//!
//! Runs in the parent. Deliberately absent: anything that changes the agent's behaviour.

use std::env;
use std::path::Path;

use super::token_store;
use crate::config::Config;
use crate::error::{Error, Kind};
use crate::facts::Library;
use crate::modules;
use crate::sandbox_profile::paths::softhsm_backend;
use crate::text::printable;

/// The variables that tell tpm2-pkcs11 how to reach its TPM.
const TCTI: [&str; 3] = ["TPM2_PKCS11_TCTI", "TPM2TOOLS_TCTI", "TCTI"];

/// Adds hints about known start problems of a module, and its own output, before the other hints.
pub(super) fn of_a_start(mut error: Error, last_words: Vec<String>, config: &Config, path: &Path) -> Error {
    let mut hints = Vec::new();
    hints.extend(modules::missing_group(path).map(|missing| missing.remedy()));
    if name_of(path) == Some("tpm2") {
        hints.extend(tcti(config.sandbox_profile(path).is_some()));
        hints.extend(sql_lock());
    }
    if name_of(path) == Some("softhsm2") {
        hints.extend(backend());
    }
    hints.extend(token_store::obstacles_of(path));
    hints.extend(modules::needs_pcscd(path).then(|| token_store::PCSCD.to_owned()));
    hints.extend(last_words.into_iter().map(|line| format!("the module says: {line}")));
    error.hints.splice(0..0, hints);
    error
}

/// Adds the reason why a module may hide a present token.
pub(super) fn of_a_hidden_token(error: Error, library: &Library, path: &Path) -> Error {
    match ykcs11_version(library, path) {
        Some(version) if version < (2, 6, 1) => error.hint(format!(
            "ykcs11 {} shows no token where a slot holds an Ed25519 or X25519 key (`ykman piv info`): update ykcs11 to 2.6.1, \
             or use --module opensc",
            shown(version)
        )),
        _ => error,
    }
}

/// Adds the reason why a module may not use a key of this size.
pub(super) fn of_a_large_key(error: Error, bits: usize, library: &Library, path: &Path) -> Error {
    match ykcs11_version(library, path) {
        Some(version) if version < (2, 5, 0) && bits > 2048 => error.hint(format!(
            "ykcs11 {} does not know RSA keys of {bits} bits: update ykcs11 to 2.5.0, or use --module opensc",
            shown(version)
        )),
        _ => error,
    }
}

/// A module that needs more than its profile allows fails with its own error.
pub(super) fn of_the_sandbox(error: Error, config: &Config, path: &Path) -> Error {
    match config.sandbox_profile(path) {
        Some(name) => error
            .hint(format!("it runs in the sandbox profile {name}; try --sandbox off to see whether that is the cause")),
        None => error,
    }
}

/// Whether other tokens may be missing. The modules behind p11-kit share one profile, which has the files of some.
pub(super) fn misses_some(error: &Error, path: &Path) -> bool {
    error.kind == Kind::NotFound && name_of(path) == Some("p11-kit")
}

fn name_of(path: &Path) -> Option<&'static str> {
    modules::known_by(path).map(|known| known.name)
}

fn tcti(is_confined: bool) -> Option<String> {
    let set = TCTI.iter().find_map(|name| Some((name, env::var(name).ok().filter(|value| !value.is_empty())?)));
    let (name, value) = set?;
    let hint = match value.split_once(':') {
        Some(("cmd", _)) if is_confined => format!(
            "{name}=cmd:... starts a program, which the sandbox forbids: use device:, swtpm: or tabrmd:, or --sandbox off"
        ),
        Some(("device", device)) => {
            let error = std::fs::OpenOptions::new().read(true).write(true).open(device).err()?;
            format!("{name} names {device}, which this user cannot open: {error}; its group is often tss")
        }
        _ => return None,
    };
    Some(hint)
}

/// A build without SQLite fails with a return value that says nothing.
fn backend() -> Option<String> {
    let backend = softhsm_backend().filter(|backend| backend != "file")?;
    Some(format!(
        "the configuration sets objectstore.backend = {}, which this build of SoftHSM2 may lack, as Debian's does: set it to file",
        printable(&backend)
    ))
}

fn sql_lock() -> Option<String> {
    let lock = env::var_os("PKCS11_SQL_LOCK").filter(|value| !value.is_empty())?;
    let directory = Path::new(&lock);
    Some(if directory.is_dir() {
        "PKCS11_SQL_LOCK is set: tpm2-pkcs11 before 1.9.1 then puts its lock into /, which it may not write; unset it"
            .into()
    } else {
        format!("PKCS11_SQL_LOCK names {}, which is not a directory", directory.display())
    })
}

/// ykcs11 reports 2.7.2 as 2.72.
fn ykcs11_version(library: &Library, path: &Path) -> Option<(u8, u8, u8)> {
    if name_of(path) != Some("ykcs11") {
        return None;
    }
    let (major, minor) = library.version.split_once('.')?;
    let minor: u8 = minor.parse().ok()?;
    Some((major.parse().ok()?, minor / 10, minor % 10))
}

fn shown((major, minor, patch): (u8, u8, u8)) -> String {
    format!("{major}.{minor}.{patch}")
}
