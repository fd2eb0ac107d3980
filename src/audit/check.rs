//! Checks a whole log. It names the line of each changed, removed, inserted, swapped or doubled record.
//!
//! PURE.

use super::chain::{Head, ParsedRecord, digest};
use super::record::TORN;
use crate::text::printable;

/// Checks one line after the other, with constant memory.
#[derive(Debug, Default)]
pub(crate) struct ChainCheck {
    /// The last record, and the hash that a changed line may have had before.
    last: Option<(Head, Option<String>)>,
    first: Option<u64>,
    records: u64,
    /// A line that is not a record; the next line explains it.
    broken: Option<(String, String)>,
    /// The incomplete lines after crashes.
    pub torn: Vec<String>,
}

impl ChainCheck {
    /// Checks the next line, without its newline. `whole` tells whether it had one. Returns the problems.
    pub(crate) fn line(&mut self, line: &[u8], whole: bool, place: &str) -> Vec<String> {
        let Some((record, hash)) = ParsedRecord::read(line).filter(|_| whole) else {
            let mut problems = self.settle();
            if whole {
                self.broken = Some((place.to_owned(), digest(line)));
            } else {
                problems.push(format!(
                    "{place}: {} bytes without an end: cut off, or being written; after a crash the next record marks it",
                    line.len()
                ));
            }
            return problems;
        };
        let mut problems = Vec::new();
        match self.broken.take() {
            Some((torn, digest)) if record.event == TORN && record.torn_sha256.as_ref() == Some(&digest) => {
                self.torn.push(torn);
            }
            Some((place, _)) => problems.push(no_record(&place)),
            None => {}
        }
        self.records += 1;
        self.first.get_or_insert(record.seq);
        let edited = record.hash != hash;
        if edited {
            problems.push(format!("{place}: record {} was changed: its hash differs", record.seq));
        }
        let other = edited.then_some(hash);
        match &self.last {
            None if record.seq <= 1 && (record.seq, record.prev.as_str()) != (1, Head::none().hash.as_str()) => {
                problems.push(format!("{place}: record {} is not the first record of a log", record.seq));
            }
            None => {}
            Some((last, _)) if record.seq <= last.seq => {
                let how = if record.hash == last.hash { "occurs twice" } else { "is inserted or out of order" };
                problems.push(format!("{place}: record {} {how}, after record {}", record.seq, last.seq));
                // The next line belongs to the record before this one.
                return problems;
            }
            Some((last, _)) if record.seq > last.seq + 1 => {
                problems.push(match record.seq - last.seq {
                    2 => format!("{place}: record {} is missing before it", last.seq + 1),
                    _ => format!("{place}: records {} to {} are missing before it", last.seq + 1, record.seq - 1),
                });
            }
            Some((last, other)) if record.prev != last.hash && other.as_ref() != Some(&record.prev) => {
                problems.push(format!(
                    "{place}: record {} does not follow record {}: one of the two was replaced",
                    record.seq, last.seq
                ));
            }
            Some(_) => {}
        }
        self.last = Some((Head { seq: record.seq, hash: record.hash }, other));
        problems
    }

    fn settle(&mut self) -> Vec<String> {
        self.broken.take().map(|(place, _)| no_record(&place)).into_iter().collect()
    }

    /// The problems that remain at the end.
    pub(crate) fn end(&mut self) -> Vec<String> {
        self.settle()
    }

    /// The last record.
    #[must_use]
    pub(crate) fn head(&self) -> Option<&Head> {
        self.last.as_ref().map(|(head, _)| head)
    }

    /// The number of the first record.
    #[must_use]
    pub(crate) fn first(&self) -> Option<u64> {
        self.first
    }

    #[must_use]
    pub(crate) fn records(&self) -> u64 {
        self.records
    }
}

fn no_record(place: &str) -> String {
    format!("{}: not a record of an audit log", printable(place))
}

#[cfg(test)]
mod tests {
    use super::super::record::{AuditEvent, AuditRecord};
    use super::*;

    /// Records of a log, from the first on.
    fn log(records: u64) -> Vec<String> {
        let mut head = Head::none();
        let next = |time| {
            let entry = AuditRecord { time, event: AuditEvent::Resumed { count: time }, outcome: "ok" };
            let (line, next) = entry.line(&head).unwrap();
            head = next;
            line.trim_end().to_owned()
        };
        (1..=records).map(next).collect()
    }

    fn checked<'a>(lines: impl IntoIterator<Item = &'a String>) -> (ChainCheck, Vec<String>) {
        let mut check = ChainCheck::default();
        let mut problems = Vec::new();
        for (at, line) in lines.into_iter().enumerate() {
            problems.extend(check.line(line.as_bytes(), true, &format!("line {}", at + 1)));
        }
        (check, problems)
    }

    #[test]
    fn a_check_counts_records_and_knows_the_first_and_the_last() {
        let lines = log(7);
        let (check, problems) = checked(&lines[2..]);
        assert_eq!((problems, check.records(), check.first()), (Vec::new(), 5, Some(3)));
        assert_eq!(check.head(), super::super::chain::head_of(lines[6].as_bytes()).as_ref());
        let empty = ChainCheck::default();
        assert_eq!((empty.records(), empty.first(), empty.head()), (0, None, None));
    }

    #[test]
    fn a_gap_names_each_missing_record() {
        let lines = log(9);
        let (_, problems) = checked(lines[..3].iter().chain(&lines[4..]));
        assert_eq!(problems, ["line 4: record 4 is missing before it"]);
        let (_, problems) = checked(lines[..3].iter().chain(&lines[5..]));
        assert_eq!(problems, ["line 4: records 4 to 5 are missing before it"]);
        let (_, problems) = checked(lines[..3].iter().chain(&lines[8..]));
        assert_eq!(problems, ["line 4: records 4 to 8 are missing before it"]);
    }

    #[test]
    fn a_log_begins_with_record_1_after_zeros_or_in_the_middle() {
        let record = |seq, hash: String| {
            let entry = AuditRecord { time: 1, event: AuditEvent::Resumed { count: 1 }, outcome: "ok" };
            entry.line(&Head { seq, hash }).unwrap().0.trim_end().to_owned()
        };
        assert_eq!(checked([&record(0, "0".repeat(64))]).1, [""; 0]);
        assert_eq!(checked([&record(0, "1".repeat(64))]).1, ["line 1: record 1 is not the first record of a log"]);
        assert_eq!(checked([&record(1, "1".repeat(64))]).1, [""; 0]);
    }

    #[test]
    fn a_changed_record_is_named_once_and_the_next_one_fits_both_hashes() {
        let mut lines = log(4);
        lines[1] = lines[1].replace("\"count\":2", "\"count\":9");
        assert_eq!(checked(&lines).1, ["line 2: record 2 was changed: its hash differs"]);
        // A record that was changed together with its own hash no longer fits to the next one.
        let head = super::super::chain::head_of(log(1)[0].as_bytes()).unwrap();
        let other =
            AuditRecord { time: 7, event: AuditEvent::Resumed { count: 7 }, outcome: "ok" }.line(&head).unwrap().0;
        lines[1] = other.trim_end().to_owned();
        let problems = ["line 3: record 3 does not follow record 2: one of the two was replaced"];
        assert_eq!(checked(&lines).1, problems);
    }

    #[test]
    fn a_line_without_an_end_is_cut_off_and_counts_for_nothing() {
        let lines = log(2);
        let (mut check, _) = checked(&lines[..1]);
        let problems = check.line(lines[1].as_bytes(), false, "line 2");
        let length = lines[1].len();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with(&format!("line 2: {length} bytes without an end")), "{problems:?}");
        assert_eq!((check.records(), check.end()), (1, Vec::new()));
        assert_eq!(check.line(b"text", true, "line 3"), [""; 0]);
        assert_eq!(check.line(b"more text", true, "line 4"), ["line 3: not a record of an audit log"]);
        assert_eq!(check.end(), ["line 4: not a record of an audit log"]);
        assert_eq!(check.end(), [""; 0]);
    }

    #[test]
    fn a_torn_line_is_explained_by_the_next_record_alone() {
        let lines = log(1);
        let head = super::super::chain::head_of(lines[0].as_bytes()).unwrap();
        let torn = "{\"seq\":2,".to_owned();
        for (sha256, explained) in [(digest(torn.as_bytes()), true), (digest(b"other"), false)] {
            let event = AuditEvent::Torn { torn_bytes: torn.len(), torn_sha256: sha256 };
            let marker = AuditRecord { time: 1, event, outcome: "ok" }.line(&head).unwrap().0.trim_end().to_owned();
            let (check, problems) = checked([&lines[0], &torn, &marker]);
            assert_eq!(check.torn, if explained { vec!["line 2".to_owned()] } else { Vec::new() });
            assert_eq!(problems.is_empty(), explained, "{problems:?}");
        }
        // A record that is not a marker explains nothing.
        let (check, problems) = checked([&torn, &lines[0]]);
        assert_eq!((check.torn.len(), problems), (0, vec!["line 1: not a record of an audit log".to_owned()]));
    }
}
