//! The wrong-PIN fuse of a token: records that outlive the process, under locks. Runs in the parent.
//!
//! Tokens' flags can be wrong, and processes die. The fuse protects the token from a nightly job with a wrong PIN. The mark of an attempt
//! is on disk before `C_Login` is called, and only `CKR_OK` clears the count. `record` has the rule; `held_records` decides which records
//! count for a token; `state_directory` decides where they may be.

use std::path::{Path, PathBuf};

use crate::deadline::Deadline;
use crate::facts::{Slot, Token, TokenId, stand_in};
use crate::pin::{AttemptBy, AttemptEnd};

mod error;
mod held_records;
mod record;
mod record_file;
mod record_name;
pub(crate) mod remedy;
pub(crate) mod state_directory;
mod stored;

pub(crate) use error::FuseError;
pub(crate) use record::BlownFuse;
pub(crate) use record_name::uri_of;
pub(crate) use stored::StoredFuse;

use held_records::HeldRecords;
use record_name::file_name;

/// The fuses in a state directory.
#[derive(Clone, Debug)]
pub(crate) struct FuseStore {
    directory: PathBuf,
}

impl FuseStore {
    /// Opens the fuses of the configured or default state directory.
    ///
    /// # Errors
    /// When there is none, when it is in memory, or when every user can change it.
    pub(crate) fn open(configured: Option<&Path>) -> Result<Self, FuseError> {
        let directory = state_directory::choose(configured)?;
        state_directory::check(&directory)?;
        Ok(Self { directory })
    }

    #[must_use]
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes the locks of a slot's token, waits for other processes, and reads its records.
    ///
    /// # Errors
    /// When the directory cannot be used, a record is damaged, or a lock is not free in time. For an unattended login also when the token
    /// may be one whose fuse is blown.
    pub(crate) fn lock(
        &self,
        slot: &Slot,
        module: &Path,
        by: AttemptBy,
        deadline: &Deadline,
    ) -> Result<LockedFuse, FuseError> {
        let token = stand_in(slot, module);
        if by != AttemptBy::Person {
            match slot.token {
                None => self.check_unknown()?,
                Some(_) => self.check_stand_in(&TokenId::Slot { module: module.to_owned(), id: slot.id })?,
            }
        }
        let records = HeldRecords::lock(&self.directory, &token, deadline)?;
        Ok(LockedFuse { records, by })
    }

    /// Refuses a token without identity while any fuse is blown: it may be that token.
    fn check_unknown(&self) -> Result<(), FuseError> {
        if self.all()?.iter().any(StoredFuse::is_blown) { Err(FuseError::Unknown) } else { Ok(()) }
    }

    /// Refuses a token whose slot has a blown placeholder record: the slot's refused PIN was this token's.
    fn check_stand_in(&self, slot: &TokenId) -> Result<(), FuseError> {
        let is_its = |fuse: &StoredFuse| fuse.id().as_ref() == Some(slot) && fuse.is_blown();
        match self.all()?.into_iter().find(is_its) {
            Some(fuse) => Err(FuseError::Blown(Box::new(fuse.blown(&self.directory)))),
            None => Ok(()),
        }
    }

    /// Every fuse; the records of one token together. A damaged record is a separate fuse.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn all(&self) -> Result<Vec<StoredFuse>, FuseError> {
        stored::all(&self.directory)
    }

    /// The file of a token's record.
    #[must_use]
    pub(crate) fn path(&self, token: &Token) -> PathBuf {
        self.directory.join(format!("{}.json", file_name(token)))
    }
}

/// A token's fuse, with its locks held until it is dropped.
#[derive(Debug)]
pub(crate) struct LockedFuse {
    records: HeldRecords,
    by: AttemptBy,
}

/// An attempt whose mark is on disk. The mark stays there unless the attempt is settled.
#[derive(Debug)]
#[must_use = "a mark that is not settled counts as a try"]
pub(crate) struct PendingAttempt {
    records: HeldRecords,
    by: AttemptBy,
}

impl LockedFuse {
    /// Marks the start of an attempt on disk, if the records allow it. The mark is the last step.
    ///
    /// # Errors
    /// [`FuseError::Blown`], or when the mark cannot be written.
    pub(crate) fn begin(mut self) -> Result<PendingAttempt, FuseError> {
        self.check()?;
        self.records.mark_attempt()?;
        Ok(PendingAttempt { records: self.records, by: self.by })
    }

    /// Whether an attempt may be made.
    ///
    /// # Errors
    /// [`FuseError::Blown`].
    pub(crate) fn check(&self) -> Result<(), FuseError> {
        let is_allowed = self.records.tries().allows(&self.by);
        if is_allowed { Ok(()) } else { Err(FuseError::Blown(Box::new(self.records.blown()))) }
    }

    /// The counts, in the form of a refusal.
    #[must_use]
    pub(crate) fn blown(&self) -> BlownFuse {
        self.records.blown()
    }
}

impl PendingAttempt {
    /// Records the end of the attempt on disk. An unknown end leaves the mark.
    ///
    /// # Errors
    /// When it cannot be written. The attempt then stays pending.
    pub(crate) fn settle(mut self, end: Option<AttemptEnd>) -> Result<LockedFuse, FuseError> {
        if let Some(end) = end {
            self.records.settle(&self.by, end)?;
        }
        Ok(LockedFuse { records: self.records, by: self.by })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    pub(super) const MODULE: &str = "/lib/module.so";

    pub(super) fn deadline() -> Deadline {
        Deadline::after(Duration::from_millis(50))
    }

    /// A store in a new directory, also if that is in memory.
    pub(super) fn store() -> (tempfile::TempDir, FuseStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = FuseStore { directory: directory.path().to_owned() };
        (directory, store)
    }

    pub(super) fn token(manufacturer: &str, serial: &str, label: &str) -> Token {
        let [manufacturer, serial, label] = [manufacturer, serial, label].map(str::to_owned);
        Token { manufacturer, serial, label, ..Token::default() }
    }

    pub(super) fn lock_token(store: &FuseStore, token: &Token, by: AttemptBy) -> Result<LockedFuse, FuseError> {
        let slot = Slot { id: 1, token: Some(token.clone()), ..Slot::default() };
        store.lock(&slot, Path::new(MODULE), by, &deadline())
    }

    pub(super) fn lock(store: &FuseStore, by: AttemptBy) -> Result<LockedFuse, FuseError> {
        lock_token(store, &token("m", "1", "a"), by)
    }

    pub(super) fn attempt(
        store: &FuseStore,
        token: &Token,
        by: AttemptBy,
        end: Option<AttemptEnd>,
    ) -> Result<LockedFuse, FuseError> {
        lock_token(store, token, by)?.begin()?.settle(end)
    }

    pub(super) fn shown(store: &FuseStore) -> (u32, u32) {
        let all = store.all().unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        (all[0].tries().refused, all[0].tries().pending)
    }

    pub(super) fn file(name: &str) -> AttemptBy {
        AttemptBy::File(crate::pin::source::FileMark(name.into()))
    }

    #[test]
    fn the_mark_is_on_disk_before_the_login_and_survives_the_process() {
        let (_kept, store) = store();
        let _ = lock(&store, AttemptBy::Unattended).unwrap().begin().unwrap();
        assert_eq!(shown(&store), (0, 1));
    }

    #[test]
    fn marks_that_were_left_behind_add_up_and_a_success_clears_them() {
        let (_kept, store) = store();
        for count in 1..=2 {
            let _ = lock(&store, AttemptBy::Unattended).unwrap().begin().unwrap();
            assert_eq!(shown(&store), (0, count));
        }
        let blown = lock(&store, AttemptBy::Unattended).unwrap().begin().unwrap_err();
        assert!(matches!(blown, FuseError::Blown(blown) if (blown.tries.refused, blown.tries.pending) == (0, 2)));
        lock(&store, AttemptBy::Person).unwrap().begin().unwrap().settle(Some(AttemptEnd::Accepted)).unwrap();
        assert_eq!(shown(&store), (0, 0));
    }

    #[test]
    fn an_unknown_end_is_counted_beside_the_next_attempt() {
        let (_kept, store) = store();
        let fuse = lock(&store, AttemptBy::Person).unwrap().begin().unwrap().settle(None).unwrap();
        assert_eq!(shown(&store), (0, 1));
        let second = fuse.begin().unwrap();
        assert_eq!(shown(&store), (0, 2));
        let _ = second.settle(Some(AttemptEnd::NotTried)).unwrap();
        assert_eq!(shown(&store), (0, 1));
    }

    #[test]
    fn an_attempt_that_spent_nothing_leaves_what_was_counted() {
        let (_kept, store) = store();
        let _ = lock(&store, AttemptBy::Unattended).unwrap().begin().unwrap();
        let attempt = lock(&store, AttemptBy::Unattended).unwrap().begin().unwrap();
        drop(attempt.settle(Some(AttemptEnd::NotTried)).unwrap());
        assert_eq!(shown(&store), (0, 1));
    }

    #[test]
    fn an_invalid_mark_counts_as_an_attempt() {
        let (_kept, store) = store();
        attempt(&store, &token("m", "1", "a"), AttemptBy::Unattended, Some(AttemptEnd::Accepted)).unwrap();
        let path = store.path(&token("m", "1", "a")).with_extension("lock");
        for (content, pending) in [("x", 1), ("1", 1), ("0", 0), ("", 0)] {
            fs::write(&path, content).unwrap();
            assert_eq!(shown(&store), (0, pending), "{content}");
            assert_eq!(lock(&store, AttemptBy::Unattended).unwrap().blown().tries.pending, pending, "{content}");
        }
    }

    #[test]
    fn a_second_process_waits_and_then_says_who_is_there() {
        let (_kept, store) = store();
        let held = lock(&store, AttemptBy::Unattended).unwrap();
        assert!(matches!(lock(&store, AttemptBy::Unattended), Err(FuseError::Held)));
        drop(held);
        assert!(lock(&store, AttemptBy::Unattended).is_ok());
    }

    #[test]
    fn a_damaged_record_refuses_until_it_is_reset() {
        let (_kept, store) = store();
        fs::write(store.path(&token("m", "1", "a")), "{").unwrap();
        assert!(matches!(lock(&store, AttemptBy::Unattended), Err(FuseError::DamagedOf { .. })));
        // It could be another token's record under an earlier label.
        assert!(matches!(lock_token(&store, &token("m", "2", "b"), AttemptBy::Unattended), Err(FuseError::Damaged(_))));
        store.all().unwrap()[0].reset(&deadline()).unwrap();
        assert!(lock(&store, AttemptBy::Unattended).is_ok());
    }

    #[test]
    fn a_slot_without_identity_obeys_every_blown_fuse() {
        let (_kept, store) = store();
        let silent = Slot { id: 1, ..Slot::default() };
        let module = Path::new(MODULE);
        let lock_silent = || store.lock(&silent, module, AttemptBy::Unattended, &deadline());
        let _ = lock_silent().unwrap().begin().unwrap().settle(Some(AttemptEnd::Refused)).unwrap();
        assert!(matches!(lock(&store, AttemptBy::Unattended), Err(FuseError::Blown(_))));
        assert!(matches!(lock_silent(), Err(FuseError::Unknown)));
        assert!(lock(&store, AttemptBy::Person).is_ok());
    }
}
