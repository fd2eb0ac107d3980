//! The files of the fuse: locks and records, written so that a crash leaves the old or the new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::fuse::FuseError;
use super::record::Record;
use crate::deadline::Deadline;

/// Opens a lock file, made if it is not there. Nobody's symbolic link is followed: root may be the one who runs this in
/// a directory that belongs to a service.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let own = || OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(no_follow()).clone();
    match own().create_new(true).open(path) {
        Ok(file) => {
            give_to_owner(&file, path)?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => regular(own().open(path)?),
        Err(error) => Err(error),
    }
}

fn no_follow() -> i32 {
    i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default()
}

fn regular(file: File) -> io::Result<File> {
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() == 1 { Ok(file) } else { Err(io::Error::other("not a plain file")) }
}

/// What root makes belongs to the owner of the directory, or a service would be locked out by one run of root's. Only
/// for a file that was made a moment ago: anything else may be a link to somebody's file.
fn give_to_owner(file: &File, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(directory) = path.parent() else { return Ok(()) };
    let owner = fs::metadata(directory)?;
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Waits for the lock. The kernel knows no time-out for that, and a thread that waited without one would stay behind
/// with its descriptor, in a service again and again; so it is asked every now and then.
pub(super) fn wait_for(file: File, deadline: &Deadline) -> io::Result<Option<File>> {
    const AGAIN: Duration = Duration::from_millis(20);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(left) = deadline.left() else { return Ok(None) };
        std::thread::sleep(left.min(AGAIN));
    }
}

/// `None` where there is none; the absence of a record is the state of a token that was never refused.
pub(super) fn read(path: &Path) -> Result<Option<Record>, FuseError> {
    let mut text = String::new();
    let opened = OpenOptions::new().read(true).custom_flags(no_follow()).open(path).and_then(regular);
    match opened.and_then(|file| file.take(1 << 16).read_to_string(&mut text)) {
        Ok(_) => serde_json::from_str(&text).map(Some).map_err(|_| FuseError::Damaged(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FuseError::State(path.to_owned(), error)),
    }
}

/// Replaces the record so that a crash leaves the old one or the new one, and returns when it is on disk.
pub(super) fn write(path: &Path, record: &Record) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(no_follow()).open(&new)?;
    give_to_owner(&file, &new)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
