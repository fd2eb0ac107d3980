//! Subordinate user and group IDs: the ranges in `/etc/subuid` and `/etc/subgid` (subuid(5)).
//!
//! Runs in both processes. Through a user namespace, the owner of a range can run processes under each of its IDs. Only
//! these two files are read: ranges from other NSS sources (`subid:` in nsswitch.conf(5)) and from systemd-nsresourced
//! are unknown here.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::input_file;

/// Ranges of user IDs.
pub const USERS: &str = "/etc/subuid";

/// Ranges of group IDs.
pub(crate) const GROUPS: &str = "/etc/subgid";

/// The ranges in one file. They are read again when the file changes.
#[derive(Debug)]
pub struct SubordinateIds {
    path: PathBuf,
    read: Mutex<Ranges>,
}

#[derive(Debug, Default)]
struct Ranges {
    stamp: Option<Stamp>,
    ranges: Vec<Range>,
}

/// Device, inode, size and times of a file. A replaced or changed file has another stamp.
type Stamp = (u64, u64, u64, i64, i64, i64);

#[derive(Debug)]
struct Range {
    owner: String,
    first: u64,
    count: u64,
}

impl SubordinateIds {
    /// Reads the file. A missing file contains no range.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        let read = read(path)?;
        Ok(Self { path: path.to_owned(), read: Mutex::new(read) })
    }

    /// The owner of the range with this ID. A file that became unreadable keeps its last ranges.
    #[must_use]
    pub fn owner(&self, id: u32) -> Option<String> {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if fs::metadata(&self.path).ok().as_ref().map(stamp) != known.stamp {
            match read(&self.path) {
                Ok(ranges) => *known = ranges,
                Err(error) => tracing::warn!("cannot read {} again: {error}", self.path.display()),
            }
        }
        let holds = |range: &&Range| u64::from(id).checked_sub(range.first).is_some_and(|at| at < range.count);
        known.ranges.iter().find(holds).map(|range| range.owner.clone())
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec())
}

fn read(path: &Path) -> io::Result<Ranges> {
    let found = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ranges::default()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    input_file::open_regular(path)?.read_to_end(&mut text)?;
    let ranges = String::from_utf8_lossy(&text).lines().filter_map(parse).collect();
    // The stamp from before the read: if the file changes meanwhile, it is read again.
    Ok(Ranges { stamp: Some(stamp(&found)), ranges })
}

/// `OWNER:FIRST:COUNT`. Other lines are ignored, as in newuidmap(1).
fn parse(line: &str) -> Option<Range> {
    let mut fields = line.split(':');
    let (owner, first, count) = (fields.next()?, number(fields.next()?)?, number(fields.next()?)?);
    let is_whole = fields.next().is_none() && !owner.is_empty();
    is_whole.then(|| Range { owner: owner.to_owned(), first, count })
}

/// Parses a number like strtoul(3) with base 0, which newuidmap(1) uses.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_the_owner_of_its_range_also_after_the_file_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("subuid");
        let absent = SubordinateIds::read(&path).unwrap();
        assert_eq!(absent.owner(100_000), None);
        fs::write(&path, "alice:100000:65536\nbad line\nbob:x:1\n1001:0x40000:0x10\nx:5:1:2\n").unwrap();
        let ids = SubordinateIds::read(&path).unwrap();
        for (id, owner) in [
            (99_999, None),
            (100_000, Some("alice")),
            (165_535, Some("alice")),
            (165_536, None),
            (0x40000, Some("1001")),
            (0x40010, None),
            (5, None),
        ] {
            assert_eq!(ids.owner(id).as_deref(), owner, "{id}");
            assert_eq!(absent.owner(id).as_deref(), owner, "{id}");
        }
        fs::write(&path, "carol:300000:65536\n").unwrap();
        assert_eq!((ids.owner(100_000), ids.owner(300_000)), (None, Some("carol".into())));
        fs::remove_file(&path).unwrap();
        assert_eq!(ids.owner(300_000), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(SubordinateIds::read(directory.path()).is_err());
    }
}
