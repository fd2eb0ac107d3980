//! What the fuse remembers of one token, and the rule that it decides by.
//!
//! PURE. Nothing here is a PIN or derived from one.

use serde::{Deserialize, Serialize};

use super::source::FileMark;
use crate::facts::Token;

/// Tries that unattended set-ups may spend between two successes, at most.
const BOUND: u32 = 2;

/// The fuse of one token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The token's manufacturer.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Its label.
    pub label: String,
    /// PINs that the token refused since it last took one.
    pub refused: u32,
    /// Attempts since then whose end nobody knows: begun, and never settled.
    pub pending: u32,
    /// The state of the file whose PIN was refused last, where it was a persistent file.
    pub refused_file: Option<String>,
}

/// Who attempts a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// A person, at a prompt or at the token's keypad.
    Attended,
    /// A persistent file in this state.
    File(FileMark),
    /// Any other source.
    Unattended,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `CKR_OK`: the PIN is right.
    Accepted,
    /// A try was spent.
    Refused,
    /// The token did not look at the PIN.
    NotTried,
}

impl Record {
    /// The record of a token that was never tried.
    #[must_use]
    pub fn new(token: &Token) -> Self {
        Self {
            manufacturer: token.manufacturer.clone(),
            model: token.model.clone(),
            serial: token.serial.clone(),
            label: token.label.clone(),
            ..Self::default()
        }
    }

    /// The token that it is kept of.
    #[must_use]
    pub fn token(&self) -> Token {
        Token {
            manufacturer: self.manufacturer.clone(),
            model: self.model.clone(),
            serial: self.serial.clone(),
            label: self.label.clone(),
            ..Token::default()
        }
    }

    /// Tries that may have been spent since the last success.
    #[must_use]
    pub fn spent(&self) -> u32 {
        self.refused.saturating_add(self.pending)
    }

    /// Whether an unattended attempt with an unchanged source is refused.
    #[must_use]
    pub fn is_blown(&self) -> bool {
        self.refused > 0 || self.pending >= BOUND
    }

    /// Whether this attempt may be made: a person always; others while nothing was refused; after one refusal a file
    /// that changed since; after two, nobody.
    #[must_use]
    pub fn allows(&self, attempt: &Attempt) -> bool {
        match attempt {
            Attempt::Attended => true,
            _ if !self.is_blown() => true,
            Attempt::File(mark) => self.spent() < BOUND && self.refused_file.as_deref() != Some(&mark.0),
            Attempt::Unattended => false,
        }
    }

    /// Marks an attempt as begun.
    pub fn begin(&mut self) {
        self.pending = self.pending.saturating_add(1);
    }

    /// Settles the attempt that was begun last.
    pub fn settle(&mut self, attempt: &Attempt, end: End) {
        self.pending = self.pending.saturating_sub(1);
        match end {
            End::Accepted => (self.refused, self.pending, self.refused_file) = (0, 0, None),
            End::NotTried => {}
            End::Refused => {
                self.refused = self.refused.saturating_add(1);
                self.refused_file = if let Attempt::File(mark) = attempt { Some(mark.0.clone()) } else { None };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str) -> Attempt {
        Attempt::File(FileMark(name.into()))
    }

    fn after(attempts: &[(Attempt, Option<End>)]) -> Record {
        let mut record = Record::default();
        for (attempt, end) in attempts {
            record.begin();
            end.iter().for_each(|end| record.settle(attempt, *end));
        }
        record
    }

    #[test]
    fn a_refusal_blows_it_for_all_but_a_changed_file_and_a_person() {
        let record = after(&[(file("a"), Some(End::Refused))]);
        assert!(!record.allows(&file("a")) && !record.allows(&Attempt::Unattended));
        assert!(record.allows(&file("b")) && record.allows(&Attempt::Attended));
    }

    #[test]
    fn a_second_refusal_is_final_until_a_success() {
        let mut record = after(&[(file("a"), Some(End::Refused)), (file("b"), Some(End::Refused))]);
        assert!(!record.allows(&file("c")));
        record.begin();
        record.settle(&Attempt::Attended, End::Accepted);
        assert!(record.allows(&Attempt::Unattended));
    }

    #[test]
    fn one_unknown_end_is_borne_and_the_second_blows_it() {
        let one = after(&[(Attempt::Unattended, None)]);
        assert!(one.allows(&Attempt::Unattended));
        let two = after(&[(Attempt::Unattended, None), (Attempt::Unattended, None)]);
        assert!(!two.allows(&Attempt::Unattended) && !two.allows(&file("b")));
        let mixed = after(&[(Attempt::Unattended, None), (file("a"), Some(End::Refused))]);
        assert!(!mixed.allows(&file("b")), "two tries may have been spent");
    }

    #[test]
    fn what_the_token_did_not_look_at_changes_nothing() {
        assert_eq!(after(&[(file("a"), Some(End::NotTried))]), Record::default());
        let refused = after(&[(file("a"), Some(End::Refused))]);
        let mut again = refused.clone();
        again.begin();
        again.settle(&Attempt::Attended, End::NotTried);
        assert_eq!(again, refused);
    }

    proptest! {
        #[test]
        fn unattended_attempts_never_spend_more_than_two_tries(
            steps in proptest::collection::vec((0..3usize, 0..4usize), 0..40),
        ) {
            let mut record = Record::default();
            let mut spent = 0;
            for (source, end) in steps {
                let attempt = [file("a"), file("b"), Attempt::Unattended][source].clone();
                if !record.allows(&attempt) {
                    continue;
                }
                record.begin();
                match [None, Some(End::Refused), Some(End::NotTried), Some(End::Accepted)][end] {
                    None => spent += 1,
                    Some(End::Accepted) => { record.settle(&attempt, End::Accepted); spent = 0; }
                    Some(end) => { record.settle(&attempt, end); spent += u32::from(end == End::Refused); }
                }
                prop_assert!(spent <= BOUND);
            }
        }
    }
}
