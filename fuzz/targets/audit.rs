//! Audit logs: a chain that passes the check was written completely.

#![no_main]
#![allow(missing_docs)]

use cba_agent::audit::chain::{Head, LINE_LIMIT, digest, follows, head_of, may_be_first};
use cba_agent::audit::check::ChainCheck;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut check = ChainCheck::default();
    let mut wrong = Vec::new();
    let mut before: Option<Head> = None;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let whole = line.ends_with(b"\n");
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = &line[..line.len().min(LINE_LIMIT)];
        let _ = (may_be_first(line), digest(line));
        wrong.extend(check.line(line, whole, &format!("line {}", number + 1)));
        if let (Some(head), Some(before)) = (head_of(line), &before) {
            assert!(!follows(line, before) || head.seq == before.seq + 1, "{head}");
        }
        before = head_of(line).or(before);
        let named = before.as_ref().map(ToString::to_string);
        assert_eq!(named.as_deref().and_then(Head::parse), before);
    }
    wrong.extend(check.end());
    assert!(wrong.iter().all(|line| !line.chars().any(char::is_control)), "{wrong:?}");
    if wrong.is_empty() {
        assert!(check.head().is_none_or(|head| Some(head) == before.as_ref()), "the head is not of the last record");
    }
});
