//! The wrong-PIN fuse of a token: a record that outlives the process, under a lock.
//!
//! Flags of tokens lie and processes die, so this is what stands between a nightly job with a wrong PIN and a locked
//! token. The mark of an attempt is on disk before `C_Login` is called; only `CKR_OK` clears what was counted. The rule is
//! in `record`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::record::Record;
pub use super::record::{Attempt, End};
use super::store::{is_marked, mark, read, read_unmarked, write};
use crate::deadline::Deadline;
use crate::error::{Explain, Kind};
use crate::facts::{Slot, Token};
use crate::printable::{hex, printable};
use crate::selector::{TokenSelector, Uri};
use crate::store::{open, share_with_group, wait_for};

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
    /// The same, of a token that is known.
    #[error("the wrong-PIN fuse of this token is damaged")]
    DamagedOf {
        /// The token's URI.
        uri: String,
    },
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
        /// The token's URI.
        uri: String,
    },
}

impl Explain for FuseError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoDirectory | Self::State(..) | Self::Damaged(_) | Self::DamagedOf { .. } => Kind::StateDir,
            Self::Held => Kind::TokenBusy,
            Self::Unknown | Self::Blown { .. } => Kind::PinFuse,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoDirectory | Self::State(..) => {
                vec!["unattended logins need a directory that this user can write: --state-dir DIR".into()]
            }
            Self::Unknown => vec!["log in once with --pin-source prompt, or see `cba-agent pin-fuse`".into()],
            Self::Damaged(path) => vec![format!("after a look at it, remove {}", path.display())],
            Self::DamagedOf { uri } => vec![format!("when the PIN is right for certain: {}", reset_command(uri))],
            Self::Held => vec!["wait for it, or allow more time with --timeout".into()],
            Self::Blown { refused, pending, uri } => {
                let mended =
                    (refused + pending < 2).then(|| "correct the PIN in its file, which is then tried once".into());
                let prompt = "or log in once with --pin-source prompt".into();
                let reset = format!("or, when the PIN is right for certain: {}", reset_command(uri));
                mended.into_iter().chain([prompt, reset]).collect()
            }
        }
    }
}

fn reset_command(uri: &str) -> String {
    format!("`cba-agent pin-fuse --reset --uri '{uri}'`")
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

/// Refuses an unattended login to a token in a slot whose stand-in has a blown fuse: the PIN that was refused there, when
/// the slot said nothing, was this token's.
///
/// # Errors
/// [`FuseError::Blown`], or when the record cannot be read.
pub fn check_stand_in(directory: &Path, slot_id: u64, module: &Path) -> Result<(), FuseError> {
    let stand_in = token_of(&Slot { id: slot_id, ..Slot::default() }, module);
    let record = read(&path(directory, &stand_in))?.filter(Record::is_blown);
    let blown = |record: Record| FuseError::Blown {
        refused: record.refused,
        pending: record.pending,
        uri: uri_of(&stand_in).to_string(),
    };
    record.map_or(Ok(()), |record| Err(blown(record)))
}

/// A token's fuse, held under its lock until dropped.
#[derive(Debug)]
pub struct Fuse {
    path: PathBuf,
    /// All that was counted, an attempt that is marked too.
    record: Record,
    attempt: Attempt,
    has_begun: bool,
    /// What the record's file holds.
    written: Option<Record>,
    lock: File,
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
        let lock_path = directory.join(format!("{name}.lock"));
        let lock = open(&lock_path).map_err(failed)?;
        share_with_group(&lock, &lock_path).map_err(failed)?;
        let lock = wait_for(lock, deadline).map_err(failed)?.ok_or(FuseError::Held)?;
        let path = directory.join(format!("{name}.json"));
        let written = match read_unmarked(&path) {
            Err(FuseError::Damaged(_)) => Err(FuseError::DamagedOf { uri: uri_of(token).to_string() }),
            read => read,
        }?;
        let mut record = written.clone().unwrap_or_else(|| Record::new(token));
        if is_marked(&lock).map_err(failed)? {
            record.begin();
        }
        Ok(Self { path, record, attempt, has_begun: false, written, lock })
    }

    /// Marks an attempt as begun, on disk, where the record allows it; once until it is settled.
    ///
    /// # Errors
    /// [`FuseError::Blown`], or when the mark cannot be written.
    pub fn begin(&mut self) -> Result<(), FuseError> {
        if self.has_begun {
            return Ok(());
        }
        if !self.record.allows(&self.attempt) {
            let uri = uri_of(&self.record.token()).to_string();
            return Err(FuseError::Blown { refused: self.record.refused, pending: self.record.pending, uri });
        }
        // Whatever was counted, a mark that was left behind too, is in the record before the mark is this attempt's. The
        // first time, that also brings both files' names to disk.
        let is_new = self.lock.metadata().map_or(true, |metadata| metadata.len() == 0);
        if is_new || self.written.as_ref() != Some(&self.record) {
            self.write()?;
        }
        self.record.begin();
        self.has_begun = true;
        self.mark(true)
    }

    /// Settles the attempt, on disk.
    ///
    /// # Errors
    /// When it cannot be written; the attempt then stays pending.
    pub fn settle(&mut self, end: End) -> Result<(), FuseError> {
        self.record.settle(&self.attempt, end);
        self.has_begun = false;
        // In this order: a crash in between counts the attempt once more, and does not lose it.
        if self.written.as_ref() != Some(&self.record) {
            self.write()?;
        }
        self.mark(false)
    }

    fn write(&mut self) -> Result<(), FuseError> {
        write(&self.path, &self.record).map_err(|error| FuseError::State(self.path.clone(), error))?;
        self.written = Some(self.record.clone());
        Ok(())
    }

    fn mark(&self, attempt_begun: bool) -> Result<(), FuseError> {
        mark(&self.lock, attempt_begun).map_err(|error| FuseError::State(self.path.clone(), error))
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
    let lock = wait_for(lock, deadline).map_err(failed)?.ok_or(FuseError::Held)?;
    fs::remove_file(path).map_err(failed)?;
    mark(&lock, false).map_err(failed)
}

/// The URI that means one record: every field by which it is kept, the empty ones too.
#[must_use]
pub fn uri_of(token: &Token) -> Uri {
    let field = |text: &str| Some(text.to_owned());
    let token = TokenSelector {
        label: field(&token.label),
        serial: field(&token.serial),
        manufacturer: field(&token.manufacturer),
        model: field(&token.model),
        ..TokenSelector::default()
    };
    Uri { token, ..Uri::default() }
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
        (true, _) => "blown: takes a prompt, or --reset".to_owned(),
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
    fn marks_that_were_left_behind_add_up_and_a_success_clears_them() {
        let directory = tempfile::tempdir().unwrap();
        let shown = || all(directory.path()).unwrap().pop().unwrap().1.unwrap();
        for count in 1..=2 {
            lock(directory.path(), Attempt::Unattended).unwrap().begin().unwrap();
            assert_eq!(shown().pending, count);
        }
        assert!(matches!(
            lock(directory.path(), Attempt::Unattended).unwrap().begin(),
            Err(FuseError::Blown { refused: 0, pending: 2, .. })
        ));
        let mut attended = lock(directory.path(), Attempt::Attended).unwrap();
        attended.begin().unwrap();
        attended.settle(End::Accepted).unwrap();
        assert_eq!(shown(), Record::new(&Token::default()));
    }

    #[test]
    fn an_attempt_that_spent_nothing_leaves_what_was_counted() {
        let directory = tempfile::tempdir().unwrap();
        lock(directory.path(), Attempt::Unattended).unwrap().begin().unwrap();
        let mut fuse = lock(directory.path(), Attempt::Unattended).unwrap();
        fuse.begin().unwrap();
        fuse.settle(End::NotTried).unwrap();
        drop(fuse);
        assert_eq!(lock(directory.path(), Attempt::Unattended).unwrap().record.pending, 1);
    }

    #[test]
    fn a_mark_that_is_no_mark_counts_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut fuse = lock(directory.path(), Attempt::Unattended).unwrap();
        fuse.begin().unwrap();
        fuse.settle(End::Accepted).unwrap();
        drop(fuse);
        let path = path(directory.path(), &Token::default()).with_extension("lock");
        for (content, pending) in [("x", 1), ("1", 1), ("0", 0), ("", 0)] {
            fs::write(&path, content).unwrap();
            assert_eq!(all(directory.path()).unwrap().pop().unwrap().1.unwrap().pending, pending, "{content}");
            assert_eq!(lock(directory.path(), Attempt::Unattended).unwrap().record.pending, pending, "{content}");
        }
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
        assert!(matches!(lock(directory.path(), Attempt::Unattended), Err(FuseError::DamagedOf { .. })));
        reset(&path, &Deadline::after(Duration::from_millis(50))).unwrap();
        assert!(lock(directory.path(), Attempt::Unattended).is_ok());
    }
}
