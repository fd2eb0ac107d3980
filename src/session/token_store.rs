//! The directory where a module looks for tokens that are files, for hints about a missing one.
//!
//! Runs in the parent. A module does not report a directory that it cannot read: its tokens are missing.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group};
use rustix::fs::{Access, access};

use crate::error::{Error, Kind};
use crate::facts::Slot;
use crate::modules;
use crate::os::input_file;
use crate::os::names::{group_name, user_name};
use crate::sandbox_profile::Profile;
use crate::sandbox_profile::paths::{TokenStore, token_store};
use crate::selector::{self, SelectError};
use crate::text::shell::quoted;

/// Adds the obstacles between this user and the tokens, and the module's directory, to a selection error.
pub(super) fn hint_at_it(error: SelectError, module: &Path) -> Error {
    let nothing_was_asked_for = matches!(error, SelectError::NoToken { .. });
    let mut error = Error::from(error);
    if modules::needs_pcscd(module) && error.kind == Kind::NotFound {
        return error.hint(PCSCD);
    }
    let Some(store) = store_of(module).filter(|_| error.kind == Kind::NotFound) else { return error };
    let obstacles = obstacles(&store);
    // A user who cannot read the tokens must not initialise another one.
    if nothing_was_asked_for && !obstacles.is_empty() {
        error.hints.clear();
    }
    error.hints = obstacles.into_iter().chain(error.hints).chain([place(&store)]).collect();
    error
}

/// Without pcscd, a module for smart cards shows no reader, or fails with a return value that says nothing.
pub(super) const PCSCD: &str = "`cba-agent doctor` checks whether pcscd answers, and whether this user may ask it";

/// The obstacles between this user and the tokens of a module.
pub(super) fn obstacles_of(module: &Path) -> Vec<String> {
    store_of(module).map(|store| obstacles(&store)).unwrap_or_default()
}

/// The number of SoftHSM2 tokens that the module does not show although this user may read them. While another process
/// rewrites a token at its login, the module may find an incomplete file. It then ignores the file or fails to read it
/// (SoftHSMv2 issue 757).
pub(super) fn passed_over(module: &Path, slots: &[Slot]) -> usize {
    if modules::known_by(module).is_none_or(|known| known.name != "softhsm2") {
        return 0;
    }
    let Some(store) = store_of(module) else { return 0 };
    let entries = store.directories.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten();
    let is_token =
        |path: &Path| ["token.object", "sqlite3.db"].iter().any(|file| may_read(&path.join(file), Access::READ_OK));
    let stored = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_token(path)).count();
    stored.saturating_sub(selector::indexed(slots).filter(|slot| slot.error.is_none()).count())
}

fn store_of(module: &Path) -> Option<TokenStore> {
    // p11-kit reads the tokens of several modules.
    let known = modules::known_by(module).filter(|known| known.name != "p11-kit")?;
    Profile::named(known.name).and_then(token_store)
}

fn obstacles(store: &TokenStore) -> Vec<String> {
    let named = std::env::var_os(store.variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let unreadable = named.filter(|path| !path.is_dir()).and_then(|path| {
        let error = input_file::open_regular(&path).err()?;
        Some(format!("{} names {}, which cannot be read: {error}", store.variable, path.display()))
    });
    let closed = || store.unreadable.as_deref().and_then(obstacle);
    match unreadable.or_else(closed) {
        Some(unreadable) => vec![unreadable],
        None => store.directories.iter().filter_map(|directory| obstacle(directory)).collect(),
    }
}

/// The directory, and the configuration that names it.
fn place(store: &TokenStore) -> String {
    let directories: Vec<String> = store.directories.iter().map(|path| path.display().to_string()).collect();
    let is_set = std::env::var_os(store.variable).is_some_and(|value| !value.is_empty());
    let variable = if is_set { "is set" } else { "is not set" };
    let configuration = match &store.configuration {
        Some(path) => format!(", as {} says", path.display()),
        None => String::new(),
    };
    format!(
        "the module looks for tokens in {}{configuration}; {} {variable}",
        directories.join(" and "),
        store.variable
    )
}

/// The obstacle between this user and the tokens of a directory.
fn obstacle(directory: &Path) -> Option<String> {
    let user = rustix::process::geteuid();
    let shown = directory.display();
    if let Some(part) = directory.ancestors().find(|part| part.is_dir() && !may_read(part, Access::EXEC_OK)) {
        let metadata = fs::metadata(part).ok()?;
        return Some(format!(
            "{} belongs to {}, and user {} cannot enter it{}",
            part.display(),
            owner(&metadata),
            user_name(user.as_raw()),
            way_in(&metadata)
        ));
    }
    let Ok(metadata) = fs::metadata(directory) else { return Some(format!("{shown} does not exist")) };
    if !may_read(directory, Access::READ_OK) {
        return Some(format!(
            "{shown} belongs to {}, and user {} cannot read it{}",
            owner(&metadata),
            user_name(user.as_raw()),
            way_in(&metadata)
        ));
    }
    if !metadata.is_dir() {
        return Some(format!("{shown} is not a directory"));
    }
    let tokens = fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let closed: Vec<_> =
        tokens.filter(|path| path.is_dir() && !may_read(path, Access::READ_OK | Access::EXEC_OK)).collect();
    let owner = owner(&fs::metadata(closed.first()?).ok()?);
    let count = closed.len();
    Some(format!(
        "{count} of the tokens in {shown} belong to {owner}, and user {} cannot read them",
        user_name(user.as_raw())
    ))
}

/// The command that gives this user access through a group, such as Debian's group softhsm. It never suggests root's
/// group, because that group opens far more.
fn way_in(metadata: &Metadata) -> String {
    const GROUP_MAY_READ: u32 = 0o040;
    let group = Group::from_gid(Gid::from_raw(metadata.gid())).ok().flatten();
    match group.filter(|group| group.gid.as_raw() != 0 && metadata.mode() & GROUP_MAY_READ != 0) {
        Some(group) => {
            let user = user_name(rustix::process::geteuid().as_raw());
            format!("; as root: `usermod -aG {} {}`, then log in again", quoted(&group.name), quoted(&user))
        }
        None => String::new(),
    }
}

fn may_read(path: &Path, how: Access) -> bool {
    access(path, how).is_ok()
}

fn owner(metadata: &Metadata) -> String {
    let (user, group) = (user_name(metadata.uid()), group_name(metadata.gid()));
    format!("user {user} and group {group} (mode {:04o})", metadata.mode() & 0o7777)
}
