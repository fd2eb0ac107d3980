//! The record files of the fuse. A crash leaves the old or the new record. The mark of an attempt in progress is one
//! byte of the token's lock file: overwritten in place, it costs one disk write, and cannot be torn.
//!
//! Runs in the parent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use super::FuseError;
use super::record::FuseRecord;
use crate::deadline::Deadline;
use crate::files::{NO_FOLLOW, give_to_owner, if_exists, open, open_to_read, share_with_group, wait_for};

/// Takes the lock of a record.
pub(super) fn lock(path: &Path, deadline: &Deadline) -> Result<File, FuseError> {
    let failed = |error| FuseError::State(path.to_owned(), error);
    let lock = open_lock(&path.with_extension("lock"), deadline).map_err(failed)?;
    wait_for(lock, deadline).map_err(failed)?.ok_or(FuseError::Held)
}

/// Removes a record under its lock. Another process may have merged it into another record before.
pub(super) fn remove(path: &Path, lock: &File) -> Result<(), FuseError> {
    if_exists(fs::remove_file(path))
        .and_then(|_| clear_mark(lock))
        .map_err(|error| FuseError::State(path.to_owned(), error))
}

/// Opens the lock file of a record. In a group's directory, another user may have just created it and not shared it
/// yet.
fn open_lock(path: &Path, deadline: &Deadline) -> io::Result<File> {
    const RETRY_INTERVAL: Duration = Duration::from_millis(20);
    const LIMIT: u32 = 50;
    for _ in 0..LIMIT {
        match open(path).and_then(|lock| share_with_group(&lock, path).map(|()| lock)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && deadline.left().is_some() => {
                std::thread::sleep(RETRY_INTERVAL);
            }
            opened => return opened,
        }
    }
    open(path)
}

/// The record, including the mark; `None` if there is none: no attempt was ever made.
pub(super) fn read(path: &Path) -> Result<Option<FuseRecord>, FuseError> {
    let lock = path.with_extension("lock");
    let failed = |error| FuseError::State(lock.clone(), error);
    // Read the mark first: an attempt that ends in between then counts twice, and is never missed.
    let opened = if_exists(open_to_read(&lock)).map_err(failed)?;
    let marked = opened.map_or(Ok(false), |file| is_marked(&file)).map_err(failed)?;
    let mut record = read_unmarked(path)?;
    if let (Some(record), true) = (&mut record, marked) {
        record.begin();
    }
    Ok(record)
}

/// The record without the mark.
pub(super) fn read_unmarked(path: &Path) -> Result<Option<FuseRecord>, FuseError> {
    let mut text = String::new();
    let read = open_to_read(path).and_then(|file| file.take(1 << 16).read_to_string(&mut text));
    match if_exists(read).map_err(|error| FuseError::State(path.to_owned(), error))? {
        Some(_) => serde_json::from_str(&text).map(Some).map_err(|_| FuseError::Damaged(path.to_owned())),
        None => Ok(None),
    }
}

/// Replaces the record, and returns when it is on disk. A crash leaves the old or the new one.
pub(super) fn write(path: &Path, record: &FuseRecord) -> io::Result<()> {
    let new = path.with_extension("new");
    if_exists(fs::remove_file(&new))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(NO_FOLLOW).open(&new)?;
    give_to_owner(&file, &new)?;
    share_with_group(&file, &new)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Whether an attempt was begun and not settled. An empty file was never marked. Any other content except a cleared
/// mark counts as a mark.
pub(super) fn is_marked(lock: &File) -> io::Result<bool> {
    let mut byte = [0];
    Ok(lock.read_at(&mut byte, 0)? > 0 && byte != UNMARKED)
}

/// Sets the mark, and returns when it is on disk.
pub(super) fn set_mark(lock: &File) -> io::Result<()> {
    lock.write_all_at(&MARKED, 0)?;
    lock.sync_data()
}

/// Clears the mark. After a loss of power, the mark may be back: the attempt then counts again, and is never missed.
pub(super) fn clear_mark(lock: &File) -> io::Result<()> {
    lock.write_all_at(&UNMARKED, 0)
}

const MARKED: [u8; 1] = *b"1";
const UNMARKED: [u8; 1] = *b"0";
