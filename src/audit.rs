//! The audit log: one record for each payload, on disk before the payload is handed out.
//!
//! Runs in the parent. One file of one user. Processes of that user append under a lock. A lock file beside the log
//! holds the head, so that the chain continues in a new file after a rotation. An incomplete record after a crash or on
//! a full disk is cut off or marked, and never counts as a record.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::deadline::Deadline;
use crate::error::{Explain, Kind};
use crate::files;
use crate::os::input_file;
use crate::text::shell::quoted_path;

pub(crate) mod chain;
pub(crate) mod check;
pub(crate) mod record;

use chain::Head;
use record::{AuditEvent, AuditRecord};

/// The time for which another process may hold the lock: a few records and two syncs.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum time until the head in the lock file is on disk. After a loss of power within this time and a rotation
/// before the next record, the chain shows a gap that does not exist.
const HEAD_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The distance from the end of the file in which the last record is searched.
const WINDOW: u64 = 128 << 10;

/// The log in one file.
#[derive(Clone, Debug)]
pub(crate) struct AuditLog {
    path: PathBuf,
    lock: PathBuf,
    /// The last written head, and the state of the file after it.
    written: Option<(LogFileState, Head)>,
    /// When the head in the lock file was last synced.
    kept: Option<Instant>,
}

/// Device, inode and length.
type LogFileState = (u64, u64, u64);

/// The reason why no record can be written, so that no payload is handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    #[error("the audit log {0} cannot be written")]
    Write(PathBuf, #[source] io::Error),
    #[error("the audit log {0} is held by another process")]
    Held(PathBuf),
    #[error("the audit log {0} does not end in a record")]
    Damaged(PathBuf),
}

impl Explain for AuditError {
    fn kind(&self) -> Kind {
        Kind::AuditUnavailable
    }

    fn hints(&self) -> Vec<String> {
        let check = |path: &Path| format!("`cba-agent audit verify {}` names what is wrong", quoted_path(path));
        match self {
            Self::Write(path, error) => {
                if let Some(hint) = files::file_system_hint(path, error) {
                    return vec![hint, NOTHING.into()];
                }
                let directory = path.parent().unwrap_or(path);
                let hint = "file and directory must belong to the user that runs cba-agent";
                vec![format!("{hint}: `ls -ld {} {}`", quoted_path(directory), quoted_path(path)), NOTHING.into()]
            }
            Self::Held(path) => {
                vec![
                    format!("another program holds its lock file; `fuser -v {}` names it", quoted_path(&lock_of(path))),
                    NOTHING.into(),
                ]
            }
            Self::Damaged(path) => {
                vec![check(path), "keep the file for an investigation, and move it away to begin a new one".into()]
            }
        }
    }
}

const NOTHING: &str = "no payload was handed out, since each one needs a record";

/// The end of a file.
struct LogTail {
    head: Option<Head>,
    /// The bytes after the last newline.
    torn: Vec<u8>,
}

/// The lock file of a log. Hidden, so that a pattern for the log and its rotated files does not match it.
fn lock_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".lock");
    path.with_file_name(name)
}

impl AuditLog {
    /// The log at a path. Opens nothing yet.
    #[must_use]
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { lock: lock_of(&path), path, written: None, kept: None }
    }

    /// Checks that the log can be opened, locked and continued, before anything is signed.
    pub(crate) fn check(&mut self) -> Result<(), AuditError> {
        let lock = self.take_lock()?;
        let file = self.open()?;
        self.stand(&file, &lock).map(drop)
    }

    /// Appends all records or none, and returns when they are on disk.
    ///
    /// # Errors
    /// The reason why they are not. The file is then restored, if the file system allows it.
    pub(crate) fn append(&mut self, entries: &[AuditRecord]) -> Result<(), AuditError> {
        let lock = self.take_lock()?;
        let file = self.open()?;
        let (before, torn, size) = self.stand(&file, &lock)?;
        let mut head = before.clone();
        let mut text = String::new();
        let marker = match torn {
            TornRecord::No => None,
            TornRecord::End => {
                text.push('\n');
                None
            }
            TornRecord::Part(event) => {
                text.push('\n');
                Some(AuditRecord { time: entries.first().map_or(0, |entry| entry.time), event, outcome: "ok" })
            }
        };
        for entry in marker.iter().chain(entries) {
            let (line, next) = entry.line(&head).map_err(|error| self.failed(error.into()))?;
            if line.len() > chain::LINE_LIMIT {
                return Err(self.failed(io::Error::other("a record would be longer than its readers accept")));
            }
            text.push_str(&line);
            head = next;
        }
        let written = file.write_all_at(text.as_bytes(), size).and_then(|()| file.sync_data());
        let kept = written.and_then(|()| self.keep_head(&lock, &file, &head, size == 0));
        if let Err(error) = kept {
            // The payloads of these records are not handed out.
            let _ = file.set_len(size).and_then(|()| file.sync_data());
            let _ = lock.write_all_at(kept_form(&before).as_bytes(), 0);
            self.written = None;
            return Err(self.failed(error));
        }
        self.written = state(&file).ok().map(|state| (state, head));
        Ok(())
    }

    fn keep_head(&mut self, lock: &File, file: &File, head: &Head, is_new: bool) -> io::Result<()> {
        lock.write_all_at(kept_form(head).as_bytes(), 0)?;
        // The copy of the head is needed only if the log is renamed before the next record.
        if self.kept.is_none_or(|kept| kept.elapsed() >= HEAD_SYNC_INTERVAL) {
            lock.sync_data()?;
            self.kept = Some(Instant::now());
        }
        if is_new {
            file.sync_all()?;
            self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())?;
        }
        Ok(())
    }

    fn take_lock(&self) -> Result<File, AuditError> {
        let opened = files::open(&self.lock).and_then(|file| files::wait_for(file, &Deadline::after(LOCK_TIMEOUT)));
        opened
            .map_err(|error| AuditError::Write(self.lock.clone(), error))?
            .ok_or_else(|| AuditError::Held(self.path.clone()))
    }

    /// Opens the file by its path each time, since it may have been renamed.
    fn open(&self) -> Result<File, AuditError> {
        files::open(&self.path).map_err(|error| self.failed(error))
    }

    /// The head of the chain, the incomplete record after it, and the length of the file.
    fn stand(&self, file: &File, lock: &File) -> Result<(Head, TornRecord, u64), AuditError> {
        let now = state(file).map_err(|error| self.failed(error))?;
        if let Some((_, head)) = self.written.as_ref().filter(|(then, _)| *then == now) {
            return Ok((head.clone(), TornRecord::No, now.2));
        }
        let size = now.2;
        let tail = tail(file, size).map_err(|error| self.failed(error))?;
        let mut kept = [0; 85];
        let kept = lock.read_exact_at(&mut kept, 0).ok().and_then(|()| Head::parse(std::str::from_utf8(&kept).ok()?));
        // The later one of the two: a file without its end must not be continued silently.
        let head = match (tail.head, kept) {
            (Some(own), Some(kept)) => Some(if kept.seq >= own.seq { kept } else { own }),
            (own, kept) => own.or(kept),
        };
        let Some(head) = head else {
            // Empty, or the start of the first record after a crash. Any other file was probably named by mistake.
            let is_new = size == 0 || tail.torn.len() as u64 == size && chain::may_be_first(&tail.torn);
            return if is_new { Ok((Head::none(), torn(&tail.torn), size)) } else { Err(self.damaged()) };
        };
        if chain::follows(&tail.torn, &head) {
            // Complete except for its newline.
            return Ok((chain::head_of(&tail.torn).unwrap_or(head), TornRecord::End, size));
        }
        if chain::head_of(&tail.torn).as_ref() == Some(&head) {
            return Ok((head, TornRecord::End, size));
        }
        Ok((head, torn(&tail.torn), size))
    }

    fn failed(&self, error: io::Error) -> AuditError {
        AuditError::Write(self.path.clone(), error)
    }

    fn damaged(&self) -> AuditError {
        AuditError::Damaged(self.path.clone())
    }
}

/// The head in the lock file. Its length is fixed, so that a write never leaves a part of an older one.
fn kept_form(head: &Head) -> String {
    format!("{:020}:{}\n", head.seq, head.hash)
}

/// The bytes after the last newline.
enum TornRecord {
    No,
    /// A record without its newline.
    End,
    Part(AuditEvent),
}

fn torn(bytes: &[u8]) -> TornRecord {
    match bytes.len() {
        0 => TornRecord::No,
        torn_bytes => TornRecord::Part(AuditEvent::Torn { torn_bytes, torn_sha256: chain::digest(bytes) }),
    }
}

fn state(file: &File) -> io::Result<LogFileState> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino(), metadata.len()))
}

fn tail(file: &File, size: u64) -> io::Result<LogTail> {
    let from = size.saturating_sub(WINDOW);
    let mut bytes = vec![0; usize::try_from(size - from).unwrap_or_default()];
    file.read_exact_at(&mut bytes, from)?;
    let mut lines = bytes.rsplit(|byte| *byte == b'\n');
    let torn = lines.next().unwrap_or_default().to_vec();
    // A line from a crash, and the record that would have marked it, if the next crash came first.
    let head = lines.take(2).find_map(chain::head_of);
    Ok(LogTail { head, torn })
}

/// The head of a log, for a copy that is kept elsewhere; `None` for a log without records.
///
/// # Errors
/// When the file cannot be read, or does not end in a record.
pub(crate) fn head(path: &Path) -> Result<Option<Head>, AuditError> {
    let failed = |error| AuditError::Write(path.to_owned(), error);
    let file = input_file::open_regular(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let tail = tail(&file, size).map_err(failed)?;
    if tail.head.is_none() && size > 0 {
        return Err(AuditError::Damaged(path.to_owned()));
    }
    Ok(tail.head)
}
