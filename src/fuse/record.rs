//! The fuse's memory of one token, and its rule.
//!
//! PURE. It contains neither a PIN nor a value derived from one.

use serde::{Deserialize, Serialize};

use crate::facts::{Token, TokenId};
use crate::pin::{AttemptBy, AttemptEnd};
use std::path::PathBuf;

/// The maximum number of tries that unattended runs may spend between two successes.
pub(super) const BOUND: u32 = 2;

/// The content of one record file, about one token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FuseRecord {
    pub manufacturer: String,
    pub model: String,
    pub serial: String,
    pub label: String,
    /// Refused PINs since the last accepted one.
    pub refused: u32,
    /// Attempts since then with an unknown end: begun, and never settled.
    pub pending: u32,
    /// The state of the file whose PIN was refused last, if it was a persistent file.
    pub refused_file: Option<String>,
}

impl FuseRecord {
    /// The record of a token without any attempt.
    #[must_use]
    pub(crate) fn new(token: &Token) -> Self {
        Self {
            manufacturer: token.manufacturer.clone(),
            model: token.model.clone(),
            serial: token.serial.clone(),
            label: token.label.clone(),
            ..Self::default()
        }
    }

    #[must_use]
    pub(crate) fn token(&self) -> Token {
        Token {
            manufacturer: self.manufacturer.clone(),
            model: self.model.clone(),
            serial: self.serial.clone(),
            label: self.label.clone(),
            ..Token::default()
        }
    }

    #[must_use]
    pub(crate) fn id(&self) -> TokenId {
        TokenId::of_stand_in(&self.token())
    }

    /// The number of tries that may have been spent since the last success.
    #[must_use]
    pub(crate) fn spent(&self) -> u32 {
        Tries::of([self]).spent()
    }

    /// Adds the counts of another record of the same token.
    pub(super) fn add(&mut self, other: &Self) {
        self.refused = self.refused.saturating_add(other.refused);
        self.pending = self.pending.saturating_add(other.pending);
        if self.refused_file.is_none() {
            self.refused_file.clone_from(&other.refused_file);
        }
    }

    /// Marks the start of an attempt.
    pub(crate) fn begin(&mut self) {
        self.pending = self.pending.saturating_add(1);
    }

    /// Records the end of the last attempt. If other tokens may have the same identity, an unattended success on one of
    /// them does not clear the refusal of another: only a person does.
    pub(crate) fn settle(&mut self, by: &AttemptBy, end: AttemptEnd) {
        self.pending = self.pending.saturating_sub(1);
        match end {
            AttemptEnd::Accepted if *by == AttemptBy::Person || self.id().is_unique() => {
                (self.refused, self.pending, self.refused_file) = (0, 0, None);
            }
            AttemptEnd::Accepted => self.pending = 0,
            AttemptEnd::NotTried => {}
            AttemptEnd::Refused => {
                self.refused = self.refused.saturating_add(1);
                self.refused_file = if let AttemptBy::File(mark) = by { Some(mark.0.clone()) } else { None };
            }
        }
    }
}

/// The sum of several records of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tries {
    /// Refused PINs since the last accepted one.
    pub refused: u32,
    /// Attempts with an unknown end.
    pub pending: u32,
    /// The files whose PINs were refused.
    files: Vec<String>,
}

impl Tries {
    /// Adds up records.
    pub(crate) fn of<'a>(records: impl IntoIterator<Item = &'a FuseRecord>) -> Self {
        let mut tries = Self { refused: 0, pending: 0, files: Vec::new() };
        for record in records {
            tries.refused = tries.refused.saturating_add(record.refused);
            tries.pending = tries.pending.saturating_add(record.pending);
            tries.files.extend(record.refused_file.clone());
        }
        tries
    }

    /// The number of tries that may have been spent since the last success.
    #[must_use]
    pub(crate) fn spent(&self) -> u32 {
        self.refused.saturating_add(self.pending)
    }

    /// Whether an unattended attempt with an unchanged source is refused.
    #[must_use]
    pub(crate) fn is_blown(&self) -> bool {
        self.refused > 0 || self.pending >= BOUND
    }

    /// Whether this attempt is allowed. A person: always. Others: while nothing was refused; after one refusal, a file
    /// that has changed since; after two, only a person.
    #[must_use]
    pub(crate) fn allows(&self, by: &AttemptBy) -> bool {
        match by {
            AttemptBy::Person => true,
            _ if !self.is_blown() => true,
            AttemptBy::File(mark) => self.spent() < BOUND && !self.files.contains(&mark.0),
            AttemptBy::Unattended => false,
        }
    }
}

/// The counts of a blown fuse.
#[derive(Clone, Debug)]
pub(crate) struct BlownFuse {
    /// All counted tries.
    pub tries: Tries,
    /// The URI of each counted fuse; the token's own first.
    pub uris: Vec<String>,
    /// Another token's fuse that counts, because both could be the same token; in words.
    pub other: Option<String>,
    /// The state directory.
    pub directory: PathBuf,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str) -> AttemptBy {
        AttemptBy::File(crate::pin::source::FileMark(name.into()))
    }

    fn after(attempts: &[(AttemptBy, Option<AttemptEnd>)]) -> FuseRecord {
        let mut record = FuseRecord { serial: "1".into(), ..FuseRecord::default() };
        for (attempt, end) in attempts {
            record.begin();
            end.iter().for_each(|end| record.settle(attempt, *end));
        }
        record
    }

    #[test]
    fn a_refusal_blows_it_for_all_but_a_changed_file_and_a_person() {
        let record = after(&[(file("a"), Some(AttemptEnd::Refused))]);
        assert!(!Tries::of([&record]).allows(&file("a")) && !Tries::of([&record]).allows(&AttemptBy::Unattended));
        assert!(Tries::of([&record]).allows(&file("b")) && Tries::of([&record]).allows(&AttemptBy::Person));
    }

    #[test]
    fn a_second_refusal_is_final_until_a_success() {
        let mut record = after(&[(file("a"), Some(AttemptEnd::Refused)), (file("b"), Some(AttemptEnd::Refused))]);
        assert!(!Tries::of([&record]).allows(&file("c")));
        record.begin();
        record.settle(&AttemptBy::Person, AttemptEnd::Accepted);
        assert!(Tries::of([&record]).allows(&AttemptBy::Unattended));
    }

    #[test]
    fn one_unknown_end_is_tolerated_and_the_second_blows_the_fuse() {
        let one = after(&[(AttemptBy::Unattended, None)]);
        assert!(Tries::of([&one]).allows(&AttemptBy::Unattended));
        let two = after(&[(AttemptBy::Unattended, None), (AttemptBy::Unattended, None)]);
        assert!(!Tries::of([&two]).allows(&AttemptBy::Unattended) && !Tries::of([&two]).allows(&file("b")));
        let mixed = after(&[(AttemptBy::Unattended, None), (file("a"), Some(AttemptEnd::Refused))]);
        assert!(!Tries::of([&mixed]).allows(&file("b")), "two tries may have been spent");
    }

    #[test]
    fn a_pin_that_the_token_did_not_check_changes_nothing() {
        assert_eq!(after(&[(file("a"), Some(AttemptEnd::NotTried))]), after(&[]));
        let refused = after(&[(file("a"), Some(AttemptEnd::Refused))]);
        let mut again = refused.clone();
        again.begin();
        again.settle(&AttemptBy::Person, AttemptEnd::NotTried);
        assert_eq!(again, refused);
    }

    #[test]
    fn a_record_keeps_the_identity_of_its_token_and_sums_up() {
        let token = Token {
            manufacturer: "m".into(),
            model: "d".into(),
            serial: "s".into(),
            label: "l".into(),
            ..Token::default()
        };
        let record = FuseRecord::new(&token);
        assert_eq!((record.token(), record.spent(), Tries::of([&record]).is_blown()), (token, 0, false));
        let mut one = FuseRecord { refused: 1, pending: 1, ..record.clone() };
        assert_eq!((one.spent(), Tries::of([&one]).is_blown()), (2, true));
        let other = FuseRecord { refused: 2, pending: 3, refused_file: Some("f".into()), ..record.clone() };
        one.add(&other);
        assert_eq!((one.refused, one.pending, one.refused_file.as_deref()), (3, 4, Some("f")));
        one.add(&FuseRecord { refused_file: Some("g".into()), ..record });
        assert_eq!((one.refused, one.pending, one.refused_file.as_deref()), (3, 4, Some("f")));
    }

    #[test]
    fn an_unattended_success_clears_a_unique_token_alone() {
        for (serial, by, refused) in [
            ("1234", AttemptBy::Unattended, 0),
            ("1234", AttemptBy::Person, 0),
            ("0000", AttemptBy::Unattended, 1),
            ("0000", AttemptBy::Person, 0),
        ] {
            let mut record = FuseRecord { serial: serial.into(), refused: 1, pending: 1, ..FuseRecord::default() };
            record.refused_file = Some("f".into());
            record.begin();
            record.settle(&by, AttemptEnd::Accepted);
            assert_eq!((record.refused, record.pending), (refused, 0), "{serial} {by:?}");
            assert_eq!(record.refused_file.is_some(), refused > 0);
        }
        let unattended =
            after(&[(file("a"), Some(AttemptEnd::Refused)), (AttemptBy::Unattended, Some(AttemptEnd::Refused))]);
        assert_eq!((unattended.refused, unattended.refused_file), (2, None));
    }

    proptest! {
        #[test]
        fn two_tokens_that_cannot_be_told_apart_never_spend_more_than_two_refusals_each(
            steps in proptest::collection::vec((0..2usize, 0..2usize, 0..3usize), 0..60),
        ) {
            // Both have this record. Each keeps a separate count, which its own success resets.
            let mut record = FuseRecord { serial: "0000".into(), ..FuseRecord::default() };
            let mut spent = [0; 2];
            for (token, content, end) in steps {
                let by = file(&format!("{token}{content}"));
                if !Tries::of([&record]).allows(&by) {
                    continue;
                }
                record.begin();
                let end = [AttemptEnd::Refused, AttemptEnd::NotTried, AttemptEnd::Accepted][end];
                record.settle(&by, end);
                match end {
                    AttemptEnd::Accepted => spent[token] = 0,
                    AttemptEnd::Refused => spent[token] += 1,
                    AttemptEnd::NotTried => {}
                }
                prop_assert!(spent[0] + spent[1] <= BOUND, "{spent:?}");
            }
        }

        #[test]
        fn unattended_attempts_never_spend_more_than_two_tries(
            steps in proptest::collection::vec((0..3usize, 0..4usize), 0..40),
        ) {
            let mut record = FuseRecord { serial: "1".into(), ..FuseRecord::default() };
            let mut spent = 0;
            for (source, end) in steps {
                let attempt = [file("a"), file("b"), AttemptBy::Unattended][source].clone();
                if !Tries::of([&record]).allows(&attempt) {
                    continue;
                }
                record.begin();
                match [None, Some(AttemptEnd::Refused), Some(AttemptEnd::NotTried), Some(AttemptEnd::Accepted)][end] {
                    None => spent += 1,
                    Some(AttemptEnd::Accepted) => { record.settle(&attempt, AttemptEnd::Accepted); spent = 0; }
                    Some(end) => { record.settle(&attempt, end); spent += u32::from(end == AttemptEnd::Refused); }
                }
                prop_assert!(spent <= BOUND);
            }
        }
    }
}
