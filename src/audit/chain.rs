//! The hash chain that connects the records of the audit log. [`super::check`] checks a whole log.
//!
//! PURE. A record is one line of JSON. Its last member is `hash`, the SHA-256 of the line's bytes before `,"hash":`. `prev`
//! is the hash of the record before. The chain has no key: it shows changes to a reader who knows a later hash.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::text::hex;

/// The longest line that is read, in bytes: much longer than any record.
pub(crate) const LINE_LIMIT: usize = 16 << 10;

/// The text between a record's other members and its hash.
const HASH: &[u8] = b",\"hash\":\"";

/// The end of a chain: the last record's number and hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The number of the last record; 0 before the first.
    pub seq: u64,
    /// Its hash in hexadecimal; zeros before the first.
    pub hash: String,
}

impl Head {
    /// The head before the first record.
    #[must_use]
    pub(crate) fn none() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }

    /// Parses `SEQ:HASH`.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (seq, hash) = text.trim_end().split_once(':')?;
        let plain = !seq.is_empty() && seq.bytes().all(|byte| byte.is_ascii_digit());
        (plain && is_hash(hash)).then(|| Some(Self { seq: seq.parse().ok()?, hash: hash.to_owned() }))?
    }
}

/// `SEQ:HASH`.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The SHA-256 in hexadecimal.
#[must_use]
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The members that the check reads.
#[derive(Debug, Deserialize)]
pub(super) struct ParsedRecord {
    pub(super) seq: u64,
    pub(super) prev: String,
    pub(super) hash: String,
    pub(super) event: String,
    pub(super) torn_sha256: Option<String>,
}

impl ParsedRecord {
    /// Parses a record and its hash; `None` for other lines. The hash is not checked here.
    pub(super) fn read(line: &[u8]) -> Option<(Self, String)> {
        let record: Self = serde_json::from_slice(line).ok()?;
        let body = line.len().checked_sub(HASH.len() + 64 + 2)?;
        let is_last = line[body..].starts_with(HASH) && line.ends_with(format!("{}\"}}", record.hash).as_bytes());
        (is_last && is_hash(&record.hash)).then(|| (record, digest(&line[..body])))
    }
}

/// The head after a line, if the line is a complete record with a correct hash.
#[must_use]
pub(crate) fn head_of(line: &[u8]) -> Option<Head> {
    let (record, hash) = ParsedRecord::read(line)?;
    (record.hash == hash).then_some(Head { seq: record.seq, hash })
}

/// Whether a line is the record that follows `head`.
#[must_use]
pub(crate) fn follows(line: &[u8], head: &Head) -> bool {
    ParsedRecord::read(line)
        .is_some_and(|(record, hash)| record.hash == hash && record.prev == head.hash && record.seq == head.seq + 1)
}

/// Whether bytes may be an incomplete first record: its beginning, or zeros from unwritten blocks.
#[must_use]
pub(crate) fn may_be_first(bytes: &[u8]) -> bool {
    const START: &[u8] = b"{\"seq\":1,";
    let common = bytes.len().min(START.len());
    bytes[..common] == START[..common] || bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::check::ChainCheck;
    use crate::audit::record::{AuditEvent, AuditRecord, Caller, PayloadFacts};

    fn entry(time: u64) -> AuditRecord {
        let caller = Caller { uid: 1, gid: 2, pid: 3, job: Some("nightly".into()) };
        let payload = PayloadFacts { payload_version: "v2".into(), ..PayloadFacts::default() };
        AuditRecord { time, event: AuditEvent::Sign { caller, payload }, outcome: "ok" }
    }

    fn log(records: u64) -> Vec<String> {
        let mut head = Head::none();
        let next = |time| {
            let (line, next) = entry(time).line(&head).unwrap();
            head = next;
            line.trim_end().to_owned()
        };
        (1..=records).map(next).collect()
    }

    fn check(lines: &[String]) -> Vec<String> {
        let mut check = ChainCheck::default();
        let mut problems: Vec<String> = lines
            .iter()
            .enumerate()
            .flat_map(|(at, line)| check.line(line.as_bytes(), true, &format!("line {}", at + 1)))
            .collect();
        problems.extend(check.end());
        problems
    }

    #[test]
    fn written_records_are_valid_and_end_with_the_hash() {
        let lines = log(9);
        assert_eq!(check(&lines), [""; 0]);
        assert_eq!(check(&lines[4..]), [""; 0]);
        let (body, hash) = lines[3].split_once(",\"hash\":").unwrap();
        assert_eq!(hash, format!("\"{}\"}}", digest(body.as_bytes())));
        assert!(body.contains("\"job\":\"nightly\""), "{body}");
    }

    #[test]
    fn each_kind_of_change_is_named_by_its_line() {
        let lines = log(9);
        let mut edited = lines.clone();
        edited[4] = edited[4].replace("nightly", "nightlx");
        assert_eq!(check(&edited), ["line 5: record 5 was changed: its hash differs"]);
        let mut hash = lines.clone();
        let last = hash[4].len() - 3;
        let other = if hash[4].as_bytes()[last] == b'0' { "1" } else { "0" };
        hash[4].replace_range(last..=last, other);
        assert_eq!(check(&hash), ["line 5: record 5 was changed: its hash differs"]);
        let mut removed = lines.clone();
        removed.remove(4);
        assert_eq!(check(&removed), ["line 5: record 5 is missing before it"]);
        let mut swapped = lines.clone();
        swapped.swap(4, 5);
        assert_eq!(
            check(&swapped),
            ["line 5: record 5 is missing before it", "line 6: record 5 is inserted or out of order, after record 6"]
        );
        let mut doubled = lines.clone();
        doubled.insert(5, lines[4].clone());
        assert_eq!(check(&doubled), ["line 6: record 5 occurs twice, after record 5"]);
        let mut inserted = lines.clone();
        inserted.insert(5, entry(77).line(&Head { seq: 4, hash: "0".repeat(64) }).unwrap().0.trim_end().to_owned());
        assert_eq!(check(&inserted), ["line 6: record 5 is inserted or out of order, after record 5"]);
        let mut replaced = lines.clone();
        replaced[4] = entry(77).line(&head_of(lines[3].as_bytes()).unwrap()).unwrap().0.trim_end().to_owned();
        assert_eq!(check(&replaced), ["line 6: record 6 does not follow record 5: one of the two was replaced"]);
        let mut text = lines.clone();
        text.insert(2, "hello".into());
        assert_eq!(check(&text), ["line 3: not a record of an audit log"]);
    }

    #[test]
    fn a_torn_line_is_valid_if_the_next_record_names_it() {
        let mut lines = log(3);
        let torn = lines[2][..40].to_owned();
        let head = head_of(lines[1].as_bytes()).unwrap();
        lines[2].clone_from(&torn);
        assert_eq!(check(&lines), ["line 3: not a record of an audit log"]);
        let marker = AuditEvent::Torn { torn_bytes: 40, torn_sha256: digest(torn.as_bytes()) };
        let (line, _) = AuditRecord { time: 5, event: marker, outcome: "ok" }.line(&head).unwrap();
        lines.push(line.trim_end().to_owned());
        assert_eq!(check(&lines), [""; 0]);
        lines[2].push('x');
        assert_eq!(check(&lines), ["line 3: not a record of an audit log"]);
    }

    #[test]
    fn a_head_is_read_in_its_one_form() {
        let hash = "0123456789abcdef".repeat(4);
        let read = Head::parse(&format!("12:{hash}\n")).unwrap();
        assert_eq!(read, Head { seq: 12, hash: hash.clone() });
        assert_eq!(Head::none().to_string(), format!("0:{}", "0".repeat(64)));
        let upper = hash.to_uppercase();
        for text in [
            format!("12 {hash}"),
            format!(":{hash}"),
            format!("+1:{hash}"),
            format!("1:{upper}"),
            format!("1:{}", &hash[1..]),
            format!("1:{hash}0"),
            format!("1:{}g", &hash[1..]),
            format!("99999999999999999999:{hash}"),
            String::new(),
        ] {
            assert_eq!(Head::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn each_event_has_its_name_and_members() {
        for (event, name, member) in [
            (entry(1).event, "sign", "\"uid\":1,\"gid\":2,\"pid\":3"),
            (AuditEvent::RefusedPeers { count: 4 }, "refused_peers", "\"count\":4"),
            (AuditEvent::Resumed { count: 5 }, "resumed", "\"count\":5"),
            (AuditEvent::Torn { torn_bytes: 6, torn_sha256: "ab".into() }, "torn", "\"torn_bytes\":6"),
        ] {
            let (line, head) = AuditRecord { time: 0, event, outcome: "ok" }.line(&Head::none()).unwrap();
            assert!(line.contains(&format!("\"event\":\"{name}\"")) && line.contains(member), "{line}");
            assert_eq!((head.seq, line.ends_with(&format!(",\"hash\":\"{}\"}}\n", head.hash))), (1, true));
        }
    }

    #[test]
    fn a_record_follows_its_head_alone() {
        let lines = log(3);
        let head = |line: usize| head_of(lines[line].as_bytes()).unwrap();
        assert!(follows(lines[1].as_bytes(), &head(0)));
        assert!(!follows(lines[2].as_bytes(), &head(0)) && !follows(lines[1].as_bytes(), &head(1)));
        assert!(!follows(lines[1].as_bytes(), &Head { seq: 5, ..head(0) }), "another number");
        assert!(!follows(lines[1].as_bytes(), &Head { hash: head(1).hash, ..head(0) }), "another hash");
        let changed = lines[1].replace("nightly", "nightlx");
        assert!(!follows(changed.as_bytes(), &head(0)) && head_of(changed.as_bytes()).is_none());
        // The hash must be the last member, at its place.
        let moved = lines[1].replacen("{", "{\"x\":1,", 1).replace("\"}", "\" }");
        assert_eq!((head_of(moved.as_bytes()), head_of(b"{}"), head_of(b"")), (None, None, None));
    }

    #[test]
    fn the_beginning_of_a_first_record_is_known() {
        for (bytes, wanted) in [
            (&b""[..], true),
            (b"{\"seq\":", true),
            (b"{\"seq\":1,\"time", true),
            (b"{\"seq\":2,", false),
            (b"{\"seq\":11", false),
            (b"\0\0\0", true),
            (b"\0\0x", false),
            (b"hello", false),
        ] {
            assert_eq!(may_be_first(bytes), wanted, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_hash_counts_at_its_place_and_in_its_form_alone() {
        let start = format!("{{\"seq\":1,\"prev\":\"{}\",\"event\":\"sign\",", "0".repeat(64));
        let spaced = format!("{start}\"hash\": \"{}\"}}", digest(start.as_bytes()));
        assert_eq!(head_of(spaced.as_bytes()), None);
        let body = start.trim_end_matches(',');
        let right = format!("{body},\"hash\":\"{}\"}}", digest(body.as_bytes()));
        assert!(head_of(right.as_bytes()).is_some());
        let upper = right.replace(&digest(body.as_bytes()), &digest(body.as_bytes()).to_uppercase());
        let mut check = ChainCheck::default();
        assert_eq!(check.line(upper.as_bytes(), true, "x"), [""; 0]);
        assert_eq!(check.end(), ["x: not a record of an audit log"]);
    }

    proptest! {
        #[test]
        fn no_change_of_a_byte_goes_unseen(line in 0..6_usize, at in 0..900_usize, byte in 0..255_u8) {
            let mut lines: Vec<Vec<u8>> = log(6).into_iter().map(String::into_bytes).collect();
            let at = at % lines[line].len();
            prop_assume!(lines[line][at] != byte && byte != b'\n');
            lines[line][at] = byte;
            let mut check = ChainCheck::default();
            let mut problems = 0;
            for line in &lines {
                problems += check.line(line, true, "x").len();
            }
            prop_assert!(problems + check.end().len() > 0);
        }

        #[test]
        fn nothing_makes_the_check_panic(line in proptest::collection::vec(any::<u8>(), 0..300), whole: bool) {
            let mut check = ChainCheck::default();
            check.line(&line, whole, "x");
            check.end();
        }

        #[test]
        fn heads_read_back(seq: u64) {
            let head = Head { seq, hash: digest(&seq.to_be_bytes()) };
            prop_assert_eq!(Head::parse(&head.to_string()), Some(head));
        }
    }
}
