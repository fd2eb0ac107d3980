//! The wrong-PIN fuse of a token: a record that outlives the process, under a lock.
//!
//! Flags of tokens lie and processes die, so this is what stands between a nightly job with a wrong PIN and a locked
//! token. The mark is on disk before `C_Login` is called; only `CKR_OK` clears it. The rule is in `record`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use super::record::Record;
pub use super::record::{Attempt, End};
use crate::deadline::Deadline;
use crate::error::{Explain, Kind};
use crate::facts::{Slot, Token};
use crate::printable::{hex, printable};

/// Why a login is not tried.
#[derive(Debug, thiserror::Error)]
pub enum FuseError {
    /// Nowhere to keep it.
    #[error("no state directory: neither --state-dir nor STATE_DIRECTORY, XDG_STATE_HOME or HOME is an absolute path")]
    NoDirectory,
    /// The token cannot be told from others, and one of them has a blown fuse.
    #[error("no login is tried: the token's information cannot be read, and the fuse of a token here is blown")]
    Unknown,
    /// It cannot be read or written.
    #[error("the wrong-PIN fuse in {} cannot be kept", .0.display())]
    State(PathBuf, #[source] io::Error),
    /// Its record is damaged.
    #[error("the record {} is damaged", .0.display())]
    Damaged(PathBuf),
    /// Another process is at the token.
    #[error("another cba-agent holds the token")]
    Held,
    /// It is blown.
    #[error(
        "no login is tried: the token refused {refused} PIN(s) and {pending} attempt(s) ended unknown since the last success"
    )]
    Blown {
        /// Refused PINs.
        refused: u32,
        /// Attempts with unknown end.
        pending: u32,
    },
}

impl Explain for FuseError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoDirectory | Self::State(..) | Self::Damaged(_) => Kind::StateDir,
            Self::Held => Kind::TokenBusy,
            Self::Unknown | Self::Blown { .. } => Kind::PinFuse,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoDirectory | Self::State(..) => vec![
                "unattended logins need a directory that this user can write: --state-dir DIR".into(),
            ],
            Self::Unknown => vec!["log in once with --pin-source prompt, or see `cba-agent pin-fuse`".into()],
            Self::Damaged(_) => vec!["after a look at it: cba-agent pin-fuse --reset".into()],
            Self::Held => vec!["wait for it, or allow more time with --timeout".into()],
            Self::Blown { refused, pending } if refused + pending < 2 => vec![
                "correct the PIN in its file, which is then tried once; or log in once with --pin-source prompt; or, \
                 when the PIN is right for certain: cba-agent pin-fuse --reset"
                    .into(),
            ],
            Self::Blown { .. } => vec![
                "log in once with --pin-source prompt; or, when the PIN is right for certain: cba-agent pin-fuse --reset"
                    .into(),
            ],
        }
    }
}

/// The state directory: what was configured, else systemd's, else the user's. A relative path would be another
/// directory, and another fuse, wherever the program is run, so such a variable counts as unset.
///
/// # Errors
/// [`FuseError::NoDirectory`].
pub fn directory(configured: Option<&Path>) -> Result<PathBuf, FuseError> {
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

/// What a slot's fuse is kept by: its token, or, where that says nothing of itself, the slot in its module.
#[must_use]
pub fn token_of(slot: &Slot, module: &Path) -> Token {
    slot.token.clone().unwrap_or_else(|| Token {
        label: format!("slot ID {}", slot.id),
        model: module.display().to_string(),
        ..Token::default()
    })
}

/// Refuses an unattended login to a token that says nothing of itself while any fuse is blown: it may be that token's.
///
/// # Errors
/// [`FuseError::Unknown`], or when the records cannot be read.
pub fn check_unknown(directory: &Path) -> Result<(), FuseError> {
    let blown = |(_, record): &(PathBuf, Result<Record, FuseError>)| record.as_ref().map_or(true, Record::is_blown);
    if all(directory)?.iter().any(blown) { Err(FuseError::Unknown) } else { Ok(()) }
}

/// A token's fuse, held under its lock until dropped.
#[derive(Debug)]
pub struct Fuse {
    path: PathBuf,
    record: Record,
    attempt: Attempt,
    _lock: File,
}

impl Fuse {
    /// Takes the lock of a token, waiting for whoever holds it, and reads its record.
    ///
    /// # Errors
    /// When the state directory cannot be used, the record is damaged, or the lock is not free in time.
    pub fn lock(directory: &Path, token: &Token, attempt: Attempt, deadline: &Deadline) -> Result<Self, FuseError> {
        let failed = |error| FuseError::State(directory.to_owned(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let name = file_name(token);
        let lock = open(&directory.join(format!("{name}.lock"))).map_err(failed)?;
        let lock = wait_for(lock, deadline).map_err(failed)?.ok_or(FuseError::Held)?;
        let path = directory.join(format!("{name}.json"));
        let record = read(&path)?.unwrap_or_else(|| Record::new(token));
        Ok(Self { path, record, attempt, _lock: lock })
    }

    /// Marks an attempt as begun, on disk, where the record allows it.
    ///
    /// # Errors
    /// [`FuseError::Blown`], or when the mark cannot be written.
    pub fn begin(&mut self) -> Result<(), FuseError> {
        if !self.record.allows(&self.attempt) {
            return Err(FuseError::Blown { refused: self.record.refused, pending: self.record.pending });
        }
        self.record.begin();
        self.write()
    }

    /// Settles the attempt, on disk.
    ///
    /// # Errors
    /// When it cannot be written; the attempt then stays pending.
    pub fn settle(&mut self, end: End) -> Result<(), FuseError> {
        self.record.settle(&self.attempt, end);
        self.write()
    }

    fn write(&self) -> Result<(), FuseError> {
        write(&self.path, &self.record).map_err(|error| FuseError::State(self.path.clone(), error))
    }
}

/// Records with their files; a damaged one is its error.
pub type Records = Vec<(PathBuf, Result<Record, FuseError>)>;

/// The record of every token in a state directory, each with its file.
///
/// # Errors
/// When the directory cannot be read. A damaged record is reported as such.
pub fn all(directory: &Path) -> Result<Records, FuseError> {
    let failed = |error| FuseError::State(directory.to_owned(), error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let record = read(&path).and_then(|record| record.ok_or(FuseError::Damaged(path.clone())));
            records.push((path, record));
        }
    }
    records.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(records)
}

/// Clears a record, under its token's lock.
///
/// # Errors
/// When it cannot be removed, or the lock is not free in time.
pub fn reset(path: &Path, deadline: &Deadline) -> Result<(), FuseError> {
    let failed = |error| FuseError::State(path.to_owned(), error);
    let lock = open(&path.with_extension("lock")).map_err(failed)?;
    let _lock = wait_for(lock, deadline).map_err(failed)?.ok_or(FuseError::Held)?;
    fs::remove_file(path).map_err(failed)
}

/// The file of a token's record in a state directory.
#[must_use]
pub fn path(directory: &Path, token: &Token) -> PathBuf {
    directory.join(format!("{}.json", file_name(token)))
}

/// One line about a record, for people.
#[must_use]
pub fn describe(record: &Record) -> String {
    let state = match (record.is_blown(), record.spent()) {
        (false, 0) => "intact".to_owned(),
        (false, _) => "intact; one attempt ended unknown".to_owned(),
        (true, spent) if spent < 2 => "blown: takes one attempt with a changed PIN file, or a prompt".to_owned(),
        (true, _) => "blown: takes a prompt, or `cba-agent pin-fuse --reset`".to_owned(),
    };
    format!(
        "token '{}' serial '{}' ({} {}): {state} (refused {}, unknown {})",
        printable(&record.label),
        printable(&record.serial),
        printable(&record.manufacturer),
        printable(&record.model),
        record.refused,
        record.pending,
    )
}

fn file_name(token: &Token) -> String {
    let parts = [&token.manufacturer, &token.model, &token.serial, &token.label];
    let digest = parts.iter().fold(Sha256::new(), |digest, part| digest.chain_update(part).chain_update([0]));
    hex(&digest.finalize()[..16])
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    give_to_owner(&file, path)?;
    Ok(file)
}

/// What root writes belongs to the owner of the directory, or a service would be locked out by one run of root's.
fn give_to_owner(file: &File, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(directory) = path.parent() else { return Ok(()) };
    let owner = fs::metadata(directory)?;
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Waits for the lock in a thread of its own, since waiting for a lock knows no time-out; a lock that comes too late
/// is given back.
fn wait_for(file: File, deadline: &Deadline) -> io::Result<Option<File>> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error.into()),
    }
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let locked = flock(&file, FlockOperation::LockExclusive).map(|()| file);
        let _ = sender.send(locked);
    });
    match receiver.recv_timeout(deadline.left().unwrap_or_default()) {
        Ok(locked) => Ok(Some(locked?)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(None),
    }
}

/// `None` where there is none; the absence of a record is the state of a token that was never refused.
fn read(path: &Path) -> Result<Option<Record>, FuseError> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(1 << 16).read_to_string(&mut text)) {
        Ok(_) => serde_json::from_str(&text).map(Some).map_err(|_| FuseError::Damaged(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FuseError::State(path.to_owned(), error)),
    }
}

/// Replaces the record so that a crash leaves the old one or the new one, and returns when it is on disk.
fn write(path: &Path, record: &Record) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    give_to_owner(&file, &new)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lock(directory: &Path, attempt: Attempt) -> Result<Fuse, FuseError> {
        Fuse::lock(directory, &Token::default(), attempt, &Deadline::after(Duration::from_millis(50)))
    }

    #[test]
    fn the_mark_is_on_disk_before_the_login_and_survives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        lock(directory.path(), Attempt::Unattended).unwrap().begin().unwrap();
        let (_, record) = all(directory.path()).unwrap().pop().unwrap();
        assert_eq!(record.unwrap().pending, 1);
    }

    #[test]
    fn a_second_process_waits_and_then_says_who_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path(), Attempt::Unattended).unwrap();
        assert!(matches!(lock(directory.path(), Attempt::Unattended), Err(FuseError::Held)));
        drop(held);
        assert!(lock(directory.path(), Attempt::Unattended).is_ok());
    }

    #[test]
    fn a_damaged_record_refuses_until_it_is_reset() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), &Token::default());
        fs::write(&path, "{").unwrap();
        assert!(matches!(lock(directory.path(), Attempt::Unattended), Err(FuseError::Damaged(_))));
        reset(&path, &Deadline::after(Duration::from_millis(50))).unwrap();
        assert!(lock(directory.path(), Attempt::Unattended).is_ok());
    }
}
