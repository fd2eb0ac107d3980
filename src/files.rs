//! Files that belong to this program: opened without following links, and locked.
//!
//! Runs in the parent.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, FsWord, flock};
use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::text::shell::quoted_path;

/// Opens a file for reading and writing, and creates it with mode 0600 if necessary. It follows no symbolic link: root may run this in a
/// service's directory.
///
/// # Errors
/// When it cannot be opened or created, is not a regular file, or has a second hard link.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let options = || OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(NO_FOLLOW).clone();
    match options().create_new(true).open(path) {
        Ok(file) => {
            give_to_owner(&file, path)?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => regular(options().open(path)?),
        Err(error) => Err(error),
    }
}

/// What helps where a file system is read-only for this process, or full. Owners and modes are not the cause then.
#[must_use]
pub(crate) fn file_system_hint(path: &Path, error: &io::Error) -> Option<String> {
    let existing = path.ancestors().find(|part| part.exists()).unwrap_or(path);
    let place = quoted_path(existing);
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => Some(format!(
            "the file system is read-only there: `findmnt -T {place}` shows the mount; a unit needs ReadWritePaths=, a container a volume, \
             or name another place"
        )),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some(format!("make room: `df -h {place}` shows the free space, and `df -i {place}` the free inodes"))
        }
        _ => None,
    }
}

/// What helps where a file that a user named cannot be read.
#[must_use]
pub(crate) fn unreadable_hint(path: &Path) -> String {
    format!("`ls -ld {}` shows its type, owner and mode", quoted_path(path))
}

/// Lets the directory's group write a new file, if the directory is meant for that: its group may write it, and its files get its group
/// (set-group-ID). So users of one token can share its fuse.
///
/// # Errors
/// When the directory cannot be read, or the mode cannot be changed.
pub(crate) fn share_with_group(file: &File, path: &Path) -> io::Result<()> {
    const SHARED: u32 = 0o2070;
    let Some(directory) = path.parent() else { return Ok(()) };
    if fs::metadata(directory)?.mode() & SHARED != SHARED {
        return Ok(());
    }
    // Only the owner may share a file.
    let is_own = file.metadata()?.uid() == rustix::process::geteuid().as_raw() || rustix::process::geteuid().is_root();
    if is_own { file.set_permissions(fs::Permissions::from_mode(0o660)) } else { Ok(()) }
}

/// Flags for opening without following a link and without blocking on a pipe.
pub(crate) const NO_FOLLOW: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// `None` where the file does not exist.
pub(crate) fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Opens a regular file for reading, and follows no symbolic link.
///
/// # Errors
/// When it cannot be opened, is not a regular file, or has a second hard link.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path).and_then(regular)
}

/// Refuses everything except a regular file with one name.
///
/// # Errors
/// For other files.
pub(crate) fn regular(file: File) -> io::Result<File> {
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() == 1 { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Gives a file that root created to the owner of the directory. Otherwise one run by root would lock out the service. Only for a new file:
/// another one may be a link to a user's file.
///
/// # Errors
/// When the directory's owner cannot be read, or the file's owner cannot be changed.
pub(crate) fn give_to_owner(file: &File, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(directory) = path.parent() else { return Ok(()) };
    let owner = fs::metadata(directory)?;
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Waits for the lock; `None` at the deadline. The kernel has no lock with a time limit, and a waiting thread would remain with its
/// descriptor. So the lock is polled.
///
/// # Errors
/// When the file system has no locks.
pub(crate) fn wait_for(file: File, deadline: &Deadline) -> io::Result<Option<File>> {
    const RETRY_INTERVAL: Duration = Duration::from_millis(20);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(left) = deadline.left() else { return Ok(None) };
        std::thread::sleep(left.min(RETRY_INTERVAL));
    }
}

/// The name of a file system that is empty after a restart (statfs(2)).
#[must_use]
pub(crate) fn in_memory(kind: FsWord) -> Option<&'static str> {
    const TMPFS: FsWord = 0x0102_1994;
    const RAMFS: FsWord = 0x8584_58f6;
    const HUGETLBFS: FsWord = 0x9584_58f6;
    match kind {
        TMPFS => Some("tmpfs"),
        RAMFS => Some("ramfs"),
        HUGETLBFS => Some("hugetlbfs"),
        _ => None,
    }
}
