//! The audit log: one record for each payload, on disk before the payload is handed out.
//!
//! One file of one user, appended under a lock by whichever of its processes has something to say. Beside it stands a lock
//! file that holds the head, so that the chain goes on in a new file after the old one was renamed. What a crash or a full
//! disk leaves of a record is cut off or marked, never taken for one.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::deadline::Deadline;
use crate::error::{Explain, Kind};
use crate::files;
use crate::text::shell::quoted_path;

pub mod chain;
pub mod check;

use chain::{Entry, Event, Head};

/// How long another process may hold the lock: a few records and two syncs.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the head in the lock file may be on its way to the disk: so much can a loss of power cost that is followed by a
/// rotation before the next record, and then the chain shows a gap that is none.
const KEEP: Duration = Duration::from_secs(1);

/// How far back the last record is looked for.
const WINDOW: u64 = 128 << 10;

/// The log of one file.
#[derive(Clone, Debug)]
pub struct Log {
    path: PathBuf,
    lock: PathBuf,
    /// What was last written, and how the file was then known.
    written: Option<(FileState, Head)>,
    /// When the head beside it was last synced.
    kept: Option<Instant>,
}

/// Device, inode and length.
type FileState = (u64, u64, u64);

/// Why nothing can be recorded, so that nothing is handed out.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file system says no.
    #[error("the audit log {0} cannot be written")]
    Write(PathBuf, #[source] io::Error),
    /// Another process keeps the lock.
    #[error("the audit log {0} is held by another process")]
    Held(PathBuf),
    /// Nothing says where the chain stands.
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
            Self::Write(path, error) if error.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) => {
                let directory = path.parent().unwrap_or(path);
                vec![format!("make room; `df -h {}` shows what is left", quoted_path(directory)), NOTHING.into()]
            }
            Self::Write(path, _) => {
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
                vec![check(path), "keep the file for whoever looks into it, and move it away to begin a new one".into()]
            }
        }
    }
}

const NOTHING: &str = "no payload was handed out: what is not recorded is not done";

/// What a file ends in.
struct Tail {
    head: Option<Head>,
    /// Bytes behind the last newline.
    torn: Vec<u8>,
}

/// The lock file of a log. Hidden, so that a pattern that means the log and those that it was renamed to leaves it out.
fn lock_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".lock");
    path.with_file_name(name)
}

impl Log {
    /// The log at a path; nothing is opened yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { lock: lock_of(&path), path, written: None, kept: None }
    }

    /// Whether it can be opened, locked and gone on with, before anything is signed.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&mut self) -> Result<(), AuditError> {
        let lock = self.take_lock()?;
        let file = self.open()?;
        self.stand(&file, &lock).map(drop)
    }

    /// Appends records and returns when they are on disk, all or none.
    ///
    /// # Errors
    /// Why they are not; the file is then as it was before, as far as the file system lets it.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), AuditError> {
        let lock = self.take_lock()?;
        let file = self.open()?;
        let (before, torn, size) = self.stand(&file, &lock)?;
        let mut head = before.clone();
        let mut text = String::new();
        let marker = match torn {
            Torn::No => None,
            Torn::End => {
                text.push('\n');
                None
            }
            Torn::Part(event) => {
                text.push('\n');
                Some(Entry { time: entries.first().map_or(0, |entry| entry.time), event, outcome: "ok" })
            }
        };
        for entry in marker.iter().chain(entries) {
            let (line, next) = entry.line(&head).map_err(|error| self.failed(error.into()))?;
            if line.len() > chain::LINE_LIMIT {
                return Err(self.failed(io::Error::other("a record would be longer than its readers take")));
            }
            text.push_str(&line);
            head = next;
        }
        let written = file.write_all_at(text.as_bytes(), size).and_then(|()| file.sync_data());
        let kept = written.and_then(|()| self.keep_head(&lock, &file, &head, size == 0));
        if let Err(error) = kept {
            // Nobody gets what these records speak of.
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
        // It is needed only where the file is renamed before the next record.
        if self.kept.is_none_or(|kept| kept.elapsed() >= KEEP) {
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
        let opened = files::open(&self.lock).and_then(|file| files::wait_for(file, &Deadline::after(PATIENCE)));
        opened
            .map_err(|error| AuditError::Write(self.lock.clone(), error))?
            .ok_or_else(|| AuditError::Held(self.path.clone()))
    }

    /// By its path each time: it may have been renamed since.
    fn open(&self) -> Result<File, AuditError> {
        files::open(&self.path).map_err(|error| self.failed(error))
    }

    /// Where the chain stands, what a crash left behind it, and the file's length.
    fn stand(&self, file: &File, lock: &File) -> Result<(Head, Torn, u64), AuditError> {
        let now = state(file).map_err(|error| self.failed(error))?;
        if let Some((_, head)) = self.written.as_ref().filter(|(then, _)| *then == now) {
            return Ok((head.clone(), Torn::No, now.2));
        }
        let size = now.2;
        let tail = tail(file, size).map_err(|error| self.failed(error))?;
        let mut kept = [0; 85];
        let kept = lock.read_exact_at(&mut kept, 0).ok().and_then(|()| Head::parse(std::str::from_utf8(&kept).ok()?));
        // The further of the two: a file that lost its end is not gone on with as if nothing had been there.
        let head = match (tail.head, kept) {
            (Some(own), Some(kept)) => Some(if kept.seq >= own.seq { kept } else { own }),
            (own, kept) => own.or(kept),
        };
        let Some(head) = head else {
            // Nothing, or what a crash left of the very first record; not somebody's file that a path names by mistake.
            let is_new = size == 0 || tail.torn.len() as u64 == size && chain::may_be_first(&tail.torn);
            return if is_new { Ok((Head::none(), torn(&tail.torn), size)) } else { Err(self.damaged()) };
        };
        if chain::follows(&tail.torn, &head) {
            // Whole but for its newline.
            return Ok((chain::head_of(&tail.torn).unwrap_or(head), Torn::End, size));
        }
        if chain::head_of(&tail.torn).as_ref() == Some(&head) {
            return Ok((head, Torn::End, size));
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

/// A head as the lock file keeps it: always of one length, so that it is never half an older one.
fn kept_form(head: &Head) -> String {
    format!("{:020}:{}\n", head.seq, head.hash)
}

/// What stands behind the last newline.
enum Torn {
    No,
    /// A record that lacks its newline alone.
    End,
    /// Part of a record.
    Part(Event),
}

fn torn(bytes: &[u8]) -> Torn {
    match bytes.len() {
        0 => Torn::No,
        torn_bytes => Torn::Part(Event::Torn { torn_bytes, torn_sha256: chain::digest(bytes) }),
    }
}

fn state(file: &File) -> io::Result<FileState> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino(), metadata.len()))
}

fn tail(file: &File, size: u64) -> io::Result<Tail> {
    let from = size.saturating_sub(WINDOW);
    let mut bytes = vec![0; usize::try_from(size - from).unwrap_or_default()];
    file.read_exact_at(&mut bytes, from)?;
    let mut lines = bytes.rsplit(|byte| *byte == b'\n');
    let torn = lines.next().unwrap_or_default().to_vec();
    // A line that a crash left and the record that would have said so, if the next crash came first.
    let head = lines.take(2).find_map(chain::head_of);
    Ok(Tail { head, torn })
}

/// The head of a log, for a copy that is kept elsewhere; `None` for one without records.
///
/// # Errors
/// When the file cannot be read, or does not end in a record.
pub fn head(path: &Path) -> Result<Option<Head>, AuditError> {
    let failed = |error| AuditError::Write(path.to_owned(), error);
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let tail = tail(&file, size).map_err(failed)?;
    if tail.head.is_none() && size > 0 {
        return Err(AuditError::Damaged(path.to_owned()));
    }
    Ok(tail.head)
}
