//! The directory of the fuses, and the check that it keeps them.
//!
//! Runs in the parent. A fuse must outlive a restart, and only users of the token may change it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FsWord;

use super::FuseError;
use crate::files::in_memory;

/// Selects the state directory: the configured one, else systemd's, else the user's. A relative path in a variable counts as unset: it
/// would be a different directory, with a different fuse, for each working directory.
///
/// # Errors
/// [`FuseError::NoDirectory`].
pub(crate) fn choose(configured: Option<&Path>) -> Result<PathBuf, FuseError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let systemd = || {
        let all = variable("STATE_DIRECTORY")?.into_os_string().into_string().ok()?;
        all.split(':').next().map(PathBuf::from)
    };
    let home = |name: &str| variable(name).filter(|home| home.is_absolute());
    configured
        .map(Path::to_owned)
        .or_else(|| systemd().filter(|directory| directory.is_absolute()))
        .or_else(|| home("XDG_STATE_HOME").map(|home| home.join("cba-agent")))
        .or_else(|| home("HOME").map(|home| home.join(".local/state/cba-agent")))
        .ok_or(FuseError::NoDirectory)
}

/// Refuses a directory that loses its files at a restart, or that every user can change.
///
/// # Errors
/// [`FuseError::InMemory`], [`FuseError::OpenToOthers`].
pub(crate) fn check(directory: &Path) -> Result<(), FuseError> {
    if let Some(kind) = file_system(directory).and_then(in_memory) {
        return Err(FuseError::InMemory { directory: directory.to_owned(), kind });
    }
    match fs::metadata(directory) {
        Ok(metadata) if metadata.mode() & 0o002 != 0 => Err(FuseError::OpenToOthers(directory.to_owned())),
        _ => Ok(()),
    }
}

/// Warnings about an accepted directory.
#[must_use]
pub(crate) fn warning(directory: &Path) -> Option<String> {
    // linux/magic.h
    const OVERLAY: FsWord = 0x794c_7630;
    let shown = directory.display();
    if file_system(directory) == Some(OVERLAY) {
        return Some(format!(
            "the state directory {shown} is on an overlay file system: in a container, refused PINs are forgotten with it; \
             use a volume"
        ));
    }
    let (user, owner) =
        (rustix::process::geteuid(), fs::metadata(directory).map(|found| found.uid()).unwrap_or_default());
    if !user.is_root() && owner != 0 && owner != user.as_raw() {
        return Some(format!("the state directory {shown} belongs to another user, who can change it"));
    }
    let is_open = |part: &&Path| fs::metadata(part).is_ok_and(|metadata| metadata.mode() & 0o1002 == 0o002);
    let part = directory.ancestors().skip(1).find(is_open)?;
    Some(format!("every user can replace the state directory {shown}, since they can write {}", part.display()))
}

/// The file system of a directory, or of its parent if it does not exist yet.
fn file_system(directory: &Path) -> Option<FsWord> {
    directory.ancestors().find_map(|part| rustix::fs::statfs(part).ok()).map(|found| found.f_type)
}
