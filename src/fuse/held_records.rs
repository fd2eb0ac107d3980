//! The records that count for one token, under their locks.
//!
//! Runs in the parent. A token's own record has the name from its present label. Two more kinds count. Records of the
//! same token under an earlier label are merged into its own at the next attempt. Records of tokens that could be the
//! same (`TokenId::may_be`) only forbid, and are never changed, since they could belong to another token.
//!
//! All of them are locked together, in the order of their names. A token's own record is written before the others are searched. So of two
//! processes whose tokens could be the same, at least one sees the other's record, and waits for its lock.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::record_name::{file_name, uri_of};
use super::{BlownFuse, FuseError, stored};
use crate::deadline::Deadline;
use crate::facts::{Token, TokenId};
use crate::fuse::record::{FuseRecord, Tries};
use crate::fuse::record_file::{self, clear_mark, is_marked, read_unmarked, set_mark, write};
use crate::pin::{AttemptBy, AttemptEnd};
use crate::text::printable;

/// The records of one token.
#[derive(Debug)]
pub(super) struct HeldRecords {
    directory: PathBuf,
    own: HeldRecord,
    /// The same token under another label.
    earlier: Vec<HeldRecord>,
    /// Tokens that could be this one.
    others: Vec<HeldRecord>,
}

/// One record with its lock.
#[derive(Debug)]
struct HeldRecord {
    path: PathBuf,
    lock: File,
    /// The counts, including a marked attempt.
    record: FuseRecord,
    /// The content of the record's file.
    written: Option<FuseRecord>,
}

impl HeldRecords {
    /// Takes all locks of a token, waits for other processes, and reads the records.
    pub(super) fn lock(directory: &Path, token: &Token, deadline: &Deadline) -> Result<Self, FuseError> {
        let failed = |error| FuseError::State(directory.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let own_path = directory.join(format!("{}.json", file_name(token)));
        let id = FuseRecord::new(token).id();
        loop {
            let mut paths = counting(directory, &own_path, &id)?;
            paths.insert(own_path.clone());
            let mut held = Vec::new();
            for path in &paths {
                held.push(HeldRecord::lock(path, deadline).map_err(|error| match error {
                    FuseError::Damaged(path) if path == own_path => {
                        FuseError::DamagedOf { uri: uri_of(token).to_string(), directory: directory.to_owned() }
                    }
                    error => error,
                })?);
            }
            let at = held.iter().position(|held| held.path == own_path);
            let Some(mut own) = at.map(|at| held.swap_remove(at)) else { continue };
            own.publish(token)?;
            if counting(directory, &own_path, &id)?.is_subset(&paths) {
                // A record that was removed during the wait does not count.
                held.retain(|held| held.written.is_some());
                let (earlier, others) = held.into_iter().partition(|held| held.record.id() == id);
                return Ok(Self { directory: directory.to_owned(), own, earlier, others });
            }
            // Another process wrote a counting record. Its lock may come before the held ones: start again.
        }
    }

    /// The sum of all counts.
    pub(super) fn tries(&self) -> Tries {
        Tries::of(self.all().map(|held| &held.record))
    }

    fn all(&self) -> impl Iterator<Item = &HeldRecord> {
        std::iter::once(&self.own).chain(&self.earlier).chain(&self.others)
    }

    /// The sum in the form of a refusal, with each fuse that counted something.
    pub(super) fn blown(&self) -> BlownFuse {
        let counts = |held: &&HeldRecord| held.record.spent() > 0;
        let uri = |held: &HeldRecord| uri_of(&held.record.token()).to_string();
        // The records of one token are cleared together.
        let own = std::iter::once(&self.own).chain(&self.earlier).any(|held| counts(&held)).then(|| uri(&self.own));
        let uris = own.into_iter().chain(self.others.iter().filter(counts).map(uri)).collect();
        let other = self.others.iter().find(counts).map(|held| {
            let record = &held.record;
            format!(
                "the fuse of token '{}' (serial '{}', {})",
                printable(&record.label),
                printable(&record.serial),
                printable(&record.manufacturer)
            )
        });
        BlownFuse { tries: self.tries(), uris, other, directory: self.directory.clone() }
    }

    /// Marks the start of an attempt, and returns when the mark is on disk.
    pub(super) fn mark_attempt(&mut self) -> Result<(), FuseError> {
        for earlier in &self.earlier {
            self.own.record.add(&earlier.record);
        }
        // All earlier counts, including an old mark, are in the record before the mark belongs to this attempt.
        self.own.write_changes()?;
        // In this order: a crash in between counts a try twice, and never loses it.
        for earlier in self.earlier.drain(..) {
            record_file::remove(&earlier.path, &earlier.lock)?;
        }
        self.own.record.begin();
        set_mark(&self.own.lock).map_err(|error| self.own.failed(error))
    }

    /// Records the end of the marked attempt.
    pub(super) fn settle(&mut self, by: &AttemptBy, end: AttemptEnd) -> Result<(), FuseError> {
        self.own.record.settle(by, end);
        // In this order: a crash in between counts the attempt again, and never loses it.
        self.own.write_changes()?;
        clear_mark(&self.own.lock).map_err(|error| self.own.failed(error))
    }
}

impl HeldRecord {
    fn lock(path: &Path, deadline: &Deadline) -> Result<Self, FuseError> {
        let lock = record_file::lock(path, deadline)?;
        let written = read_unmarked(path)?;
        let mut record = written.clone().unwrap_or_default();
        if is_marked(&lock).map_err(|error| FuseError::State(path.to_owned(), error))? {
            record.begin();
        }
        Ok(Self { path: path.to_owned(), lock, record, written })
    }

    /// Makes the record visible to other processes. The first time, it also syncs the names of both files.
    fn publish(&mut self, token: &Token) -> Result<(), FuseError> {
        let is_new = self.lock.metadata().map_or(true, |metadata| metadata.len() == 0);
        if self.written.is_none() {
            let counted = std::mem::replace(&mut self.record, FuseRecord::new(token));
            self.write()?;
            self.record.add(&counted);
        } else if is_new {
            self.write()?;
        }
        Ok(())
    }

    fn write_changes(&mut self) -> Result<(), FuseError> {
        if self.written.as_ref() == Some(&self.record) { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), FuseError> {
        write(&self.path, &self.record).map_err(|error| self.failed(error))?;
        self.written = Some(self.record.clone());
        Ok(())
    }

    fn failed(&self, error: io::Error) -> FuseError {
        FuseError::State(self.path.clone(), error)
    }
}

/// The files of other records that count for a token. A damaged one could be its own under an earlier label, so
/// everything stops until a person has looked at it.
fn counting(directory: &Path, own: &Path, id: &TokenId) -> Result<BTreeSet<PathBuf>, FuseError> {
    let mut counting = BTreeSet::new();
    for path in stored::files(directory)?.into_iter().filter(|path| path != own) {
        if read_unmarked(&path)?.is_some_and(|record| record.id().may_be(id)) {
            counting.insert(path);
        }
    }
    Ok(counting)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::super::tests::{MODULE, attempt, deadline, file, lock, lock_token, shown, store, token};
    use super::super::{FuseError, FuseStore};
    use super::*;
    use crate::facts::Slot;
    use crate::fuse::record::FuseRecord;
    use crate::pin::{AttemptBy, AttemptEnd};

    /// A record as written by earlier versions, with the mark of an unfinished attempt if there is one.
    fn old_record(store: &FuseStore, token: &Token, refused: u32, is_marked: bool) {
        let record = FuseRecord { refused, refused_file: (refused > 0).then(|| "a".into()), ..FuseRecord::new(token) };
        fs::write(store.path(token), serde_json::to_vec(&record).unwrap()).unwrap();
        fs::write(store.path(token).with_extension("lock"), if is_marked { "1" } else { "0" }).unwrap();
    }

    #[test]
    fn a_lock_without_an_attempt_counts_nothing() {
        let (_kept, store) = store();
        old_record(&store, &token("m", "1", "a"), 0, true);
        for _ in 0..3 {
            drop(lock(&store, AttemptBy::Unattended).unwrap());
            assert_eq!(shown(&store), (0, 1));
        }
    }

    #[test]
    fn a_renewed_certificate_brings_no_new_fuse() {
        let (old, new) = (token("m", "1", "old"), token("m", "1", "new"));
        let (_kept, store) = store();
        attempt(&store, &old, file("a"), Some(AttemptEnd::Refused)).unwrap();
        for by in [AttemptBy::Unattended, file("a")] {
            assert!(matches!(attempt(&store, &new, by, None), Err(FuseError::Blown(_))));
        }
        // One changed file gets a try, and a second refusal is final: under both labels.
        attempt(&store, &new, file("b"), Some(AttemptEnd::Refused)).unwrap();
        for token in [&old, &new] {
            assert!(matches!(attempt(&store, token, file("c"), None), Err(FuseError::Blown(_))));
        }
        attempt(&store, &new, AttemptBy::Person, Some(AttemptEnd::Accepted)).unwrap();
        assert_eq!(shown(&store), (0, 0));
        attempt(&store, &old, AttemptBy::Unattended, Some(AttemptEnd::Accepted)).unwrap();
    }

    #[test]
    fn records_of_earlier_versions_are_added_up_and_none_is_forgotten() {
        let (first, second, third) = (token("m", "1", "first"), token("m", "1", "second"), token("m", "1", "third"));
        // Refusals and marks under two labels, from before one token had one fuse; and whether a new file gets a try.
        for (refused, marked, is_tried) in [
            ([1, 0], [false, false], true),
            ([1, 1], [false, false], false),
            ([1, 0], [false, true], false),
            ([0, 0], [true, true], false),
            ([0, 0], [true, false], true),
            ([2, 0], [false, false], false),
        ] {
            let (_kept, store) = store();
            old_record(&store, &first, refused[0], marked[0]);
            old_record(&store, &second, refused[1], marked[1]);
            let begun = lock_token(&store, &third, file("b")).unwrap().begin();
            assert_eq!(begun.is_ok(), is_tried, "{refused:?} {marked:?}");
            let _ = begun.map(|attempt| attempt.settle(Some(AttemptEnd::NotTried)).unwrap());
            let sum = (refused.iter().sum(), marked.iter().map(|is_marked| u32::from(*is_marked)).sum());
            assert_eq!(shown(&store), sum, "{refused:?} {marked:?}");
        }
    }

    #[test]
    fn an_earlier_version_beside_this_one_finds_what_was_refused() {
        let (_kept, store) = store();
        let renewed = token("m", "1", "new");
        attempt(&store, &token("m", "1", "old"), file("a"), Some(AttemptEnd::Refused)).unwrap();
        let _ = attempt(&store, &renewed, file("b"), None).unwrap();
        // An earlier version finds the record by the name from the label, and uses the lock and the mark beside it.
        let text = fs::read_to_string(store.path(&renewed)).unwrap();
        assert!(text.contains("\"refused\":1,\"pending\":0,\"refused_file\":\"a\""), "{text}");
        assert_eq!(fs::read_to_string(store.path(&renewed).with_extension("lock")).unwrap(), "1");
    }

    #[test]
    fn tokens_that_could_be_the_same_share_their_tries() {
        let (card, renewed) = (token("piv_II", "aa", "old"), token("piv_II", "bb", "new"));
        let yubikey =
            Token { model: "YubiKey YK5".into(), ..token("Yubico (www.yubico.com)", "12345678", "YubiKey PIV") };
        for other in [&renewed, &yubikey] {
            let (_kept, store) = store();
            attempt(&store, &card, file("a"), Some(AttemptEnd::Refused)).unwrap();
            assert!(matches!(attempt(&store, other, AttemptBy::Unattended, None), Err(FuseError::Blown(_))));
            assert!(matches!(attempt(&store, other, file("a"), None), Err(FuseError::Blown(_))));
            attempt(&store, other, file("b"), Some(AttemptEnd::Refused)).unwrap();
            for token in [&card, other] {
                let refused = attempt(&store, token, file("c"), None);
                assert!(
                    matches!(refused, Err(FuseError::Blown(blown)) if blown.uris.len() == 2 && blown.other.is_some())
                );
            }
            // A person clears the fuse of this token. The other may belong to another token.
            attempt(&store, other, AttemptBy::Person, Some(AttemptEnd::Accepted)).unwrap();
            assert!(matches!(attempt(&store, other, AttemptBy::Unattended, None), Err(FuseError::Blown(_))));
            store.all().unwrap().iter().for_each(|fuse| fuse.reset(&deadline()).unwrap());
            attempt(&store, other, AttemptBy::Unattended, Some(AttemptEnd::Accepted)).unwrap();
        }
    }

    #[test]
    fn two_processes_whose_tokens_could_be_one_wait_for_each_other() {
        let (card, renewed) = (token("piv_II", "aa", "old"), token("piv_II", "bb", "new"));
        let (_kept, store) = store();
        let held = lock_token(&store, &card, AttemptBy::Unattended).unwrap();
        assert!(matches!(lock_token(&store, &renewed, AttemptBy::Unattended), Err(FuseError::Held)));
        drop(held);
        assert!(lock_token(&store, &renewed, AttemptBy::Unattended).is_ok());
    }

    #[test]
    fn many_processes_with_one_wrong_pin_spend_one_try_whatever_the_token_is_called() {
        let (kept, store) = store();
        let spent: usize = std::thread::scope(|scope| {
            let start = |number: usize| {
                let store = store.clone();
                let label = ["old", "new", "newest"][number % 3];
                scope.spawn(move || {
                    let slot = Slot { id: 1, token: Some(token("m", "1", label)), ..Slot::default() };
                    let long = Deadline::after(Duration::from_secs(60));
                    let fuse = store.lock(&slot, Path::new(MODULE), file("a"), &long).unwrap();
                    match fuse.begin() {
                        Ok(attempt) => attempt.settle(Some(AttemptEnd::Refused)).map(|_| 1).unwrap(),
                        Err(FuseError::Blown(_)) => 0,
                        Err(error) => panic!("{error}"),
                    }
                })
            };
            let all: Vec<_> = (0..12).map(start).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(spent, 1);
        drop(kept);
    }
}
