//! The records of the audit log: what happened, and its line in the chain.
//!
//! PURE.

use serde::Serialize;

use super::chain::{Head, digest};
use crate::certificate::utc;
use crate::text::printable_json;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Caller {
    /// As the kernel reports it.
    pub uid: u32,
    /// As the kernel reports it.
    pub gid: u32,
    /// The process at the time of the connection. Another process may have this number by now.
    pub pid: i32,
    /// The label that the caller sent.
    pub job: Option<String>,
}

/// Facts about a payload. None of them allows a login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PayloadFacts {
    /// The token's serial number.
    pub token_serial: Option<String>,
    /// The SHA-256 of the certificate, hexadecimal.
    pub certificate_sha256: Option<String>,
    /// `v1` or `v2`.
    pub payload_version: String,
    /// The SHA-256 of the message, hexadecimal; `None` if nothing was signed.
    pub message_sha256: Option<String>,
    pub mechanism: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum AuditEvent {
    /// A caller asked for a payload.
    Sign {
        #[serde(flatten)]
        caller: Caller,
        #[serde(flatten)]
        payload: PayloadFacts,
    },
    /// The number of callers that were refused because of their user since the last such record.
    RefusedPeers { count: u64 },
    /// The number of payloads that were withheld because the log could not be written.
    Resumed { count: u64 },
    /// The line before is an incomplete record from a crash.
    Torn {
        torn_bytes: usize,
        /// Its SHA-256.
        torn_sha256: String,
    },
}

/// One record, before it has a place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditRecord {
    /// Seconds of Unix time.
    pub time: u64,
    pub event: AuditEvent,
    /// `ok`, or the stable name of the error.
    pub outcome: &'static str,
}

impl AuditRecord {
    fn name(&self) -> &'static str {
        match self.event {
            AuditEvent::Sign { .. } => "sign",
            AuditEvent::RefusedPeers { .. } => "refused_peers",
            AuditEvent::Resumed { .. } => "resumed",
            AuditEvent::Torn { .. } => TORN,
        }
    }

    /// The line after `head`, with its newline, and the new head.
    ///
    /// # Errors
    /// Those of the JSON writer, which cannot occur for plain values.
    pub(crate) fn line(&self, head: &Head) -> serde_json::Result<(String, Head)> {
        #[derive(Serialize)]
        struct Line<'a> {
            seq: u64,
            time: String,
            event: &'static str,
            outcome: &'static str,
            #[serde(flatten)]
            rest: &'a AuditEvent,
            prev: &'a str,
        }
        let (seq, time) = (head.seq + 1, utc(self.time));
        let line = Line { seq, time, event: self.name(), outcome: self.outcome, rest: &self.event, prev: &head.hash };
        // A token's text must not put control characters on a terminal that shows the file.
        let mut text = printable_json(&serde_json::to_string(&line)?);
        text.pop();
        let hash = digest(text.as_bytes());
        text.push_str(&format!(",\"hash\":\"{hash}\"}}\n"));
        Ok((text, Head { seq, hash }))
    }
}

pub(super) const TORN: &str = "torn";
