//! Checks a whole log. It names the line of each changed, removed, inserted, swapped or doubled record.
//!
//! PURE.

use super::chain::{Head, Record, TORN, digest};
use crate::text::printable;

/// Checks one line after the other, with constant memory.
#[derive(Debug, Default)]
pub struct Check {
    /// The last record, and the hash that a changed line may have had before.
    last: Option<(Head, Option<String>)>,
    first: Option<u64>,
    records: u64,
    /// A line that is not a record; the next line explains it.
    broken: Option<(String, String)>,
    /// The incomplete lines after crashes.
    pub torn: Vec<String>,
}

impl Check {
    /// Checks the next line, without its newline. `whole` tells whether it had one. Returns the problems.
    pub fn line(&mut self, line: &[u8], whole: bool, place: &str) -> Vec<String> {
        let Some((record, hash)) = Record::read(line).filter(|_| whole) else {
            let mut wrong = self.settle();
            if whole {
                self.broken = Some((place.to_owned(), digest(line)));
            } else {
                wrong.push(format!(
                    "{place}: {} bytes without an end: cut off, or being written; after a crash the next record marks it",
                    line.len()
                ));
            }
            return wrong;
        };
        let mut wrong = Vec::new();
        match self.broken.take() {
            Some((torn, digest)) if record.event == TORN && record.torn_sha256.as_ref() == Some(&digest) => {
                self.torn.push(torn);
            }
            Some((place, _)) => wrong.push(no_record(&place)),
            None => {}
        }
        self.records += 1;
        self.first.get_or_insert(record.seq);
        let edited = record.hash != hash;
        if edited {
            wrong.push(format!("{place}: record {} was changed: its hash differs", record.seq));
        }
        let other = edited.then_some(hash);
        match &self.last {
            None if record.seq <= 1 && (record.seq, record.prev.as_str()) != (1, Head::none().hash.as_str()) => {
                wrong.push(format!("{place}: record {} is not the first record of a log", record.seq));
            }
            None => {}
            Some((last, _)) if record.seq <= last.seq => {
                let how = if record.hash == last.hash { "is there twice" } else { "is inserted or out of order" };
                wrong.push(format!("{place}: record {} {how}, after record {}", record.seq, last.seq));
                // The next line belongs to the record before this one.
                return wrong;
            }
            Some((last, _)) if record.seq > last.seq + 1 => {
                wrong.push(match record.seq - last.seq {
                    2 => format!("{place}: record {} is missing before it", last.seq + 1),
                    _ => format!("{place}: records {} to {} are missing before it", last.seq + 1, record.seq - 1),
                });
            }
            Some((last, other)) if record.prev != last.hash && other.as_ref() != Some(&record.prev) => {
                wrong.push(format!(
                    "{place}: record {} does not follow record {}: one of the two was replaced",
                    record.seq, last.seq
                ));
            }
            Some(_) => {}
        }
        self.last = Some((Head { seq: record.seq, hash: record.hash }, other));
        wrong
    }

    fn settle(&mut self) -> Vec<String> {
        self.broken.take().map(|(place, _)| no_record(&place)).into_iter().collect()
    }

    /// The problems that remain at the end.
    pub fn end(&mut self) -> Vec<String> {
        self.settle()
    }

    /// The last record.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.last.as_ref().map(|(head, _)| head)
    }

    /// The number of the first record.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.first
    }

    /// The number of records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }
}

fn no_record(place: &str) -> String {
    format!("{}: not a record of an audit log", printable(place))
}
