//! The records of the fuse, written so that a crash leaves the old or the new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::fuse::FuseError;
use super::record::Record;
use crate::store::{give_to_owner, no_follow, regular};

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
