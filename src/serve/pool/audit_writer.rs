//! The thread of the audit log. Requests wait here until their records are on disk, and are answered then.
//!
//! Runs in the parent. Meanwhile the workers sign the next payloads. One write and one sync cover all waiting records.
//! If it fails, none of these clients gets a payload.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::in_flight::{InFlight, WorkAnswer};
use super::plan::action::Refusal;
use crate::audit::AuditLog;
use crate::audit::record::{AuditEvent, AuditRecord};
use crate::error::{Error, Kind};
use crate::os::clock::now;

/// The maximum number of waiting records. Beyond it, workers wait for room, and new requests wait in the bounded queue
/// of the pool.
const QUEUE_LIMIT: usize = 1024;

/// A write that takes longer means that the disk hangs. The watchdog then gets no more signals.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// The least time between two writes while workers sign, so that many records share one sync. A single request does not
/// wait.
const SYNC_INTERVAL: Duration = Duration::from_millis(2);

/// The time until a client may try again after a failed write.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A record, and the request that is answered once the record is on disk.
#[derive(Debug)]
pub(super) struct PendingRecord {
    pub(super) record: AuditRecord,
    pub(super) answer: Option<(InFlight, WorkAnswer)>,
}

/// The records that wait for the disk.
#[derive(Debug, Default)]
pub(super) struct AuditQueue {
    queued: Mutex<QueuedRecords>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct QueuedRecords {
    records: VecDeque<PendingRecord>,
    /// Refused users since the last record about them. They are only counted, so that they cannot fill the log.
    refused: u64,
    /// Payloads that were withheld since the log failed.
    unrecorded: u64,
    has_failed: bool,
    try_again: bool,
    ended: bool,
    /// The start of the current write.
    since: Option<Instant>,
}

impl AuditQueue {
    fn lock(&self) -> MutexGuard<'_, QueuedRecords> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a record, or returns it if there is no room.
    pub(super) fn take(&self, record: PendingRecord) -> Option<PendingRecord> {
        let mut queued = self.lock();
        if queued.records.len() >= QUEUE_LIMIT {
            return Some(record);
        }
        queued.records.push_back(record);
        drop(queued);
        self.moved.notify_all();
        None
    }

    /// Queues a record, and waits for room.
    pub(super) fn push(&self, record: PendingRecord) {
        let queued = self.moved.wait_while(self.lock(), |queued| queued.records.len() >= QUEUE_LIMIT);
        queued.unwrap_or_else(PoisonError::into_inner).records.push_back(record);
        self.moved.notify_all();
    }

    pub(super) fn refused(&self) {
        self.lock().refused += 1;
    }

    /// Whether the last write failed. If so, the writer tries again, so that the next call may return a better result.
    pub(super) fn has_failed(&self) -> bool {
        let mut queued = self.lock();
        queued.try_again = queued.has_failed;
        self.moved.notify_all();
        queued.has_failed
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.lock().since.is_some_and(|since| since.elapsed() > STUCK_AFTER)
    }

    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.moved.notify_all();
    }
}

/// Writes records until the end, and then the remaining ones.
///
/// `is_signing` says whether more records will come soon. `changed` is notified when the log fails or recovers.
pub(super) fn run(queue: &AuditQueue, mut log: AuditLog, is_signing: impl Fn() -> bool, changed: &watch::Sender<()>) {
    let mut last: Option<Instant> = None;
    loop {
        let idle = |queued: &mut QueuedRecords| queued.records.is_empty() && !queued.try_again && !queued.ended;
        drop(queue.moved.wait_while(queue.lock(), idle));
        let pause = last.map_or(Duration::ZERO, |last| SYNC_INTERVAL.saturating_sub(last.elapsed()));
        if !pause.is_zero() && is_signing() {
            let more = |queued: &mut QueuedRecords| queued.records.len() < QUEUE_LIMIT && !queued.ended;
            drop(queue.moved.wait_timeout_while(queue.lock(), pause, more));
        }
        last = Some(Instant::now());
        let mut queued = queue.lock();
        if queued.records.is_empty() && queued.ended && queued.refused == 0 {
            return;
        }
        let ending = queued.records.is_empty() && queued.ended;
        let pending = std::mem::take(&mut queued.records);
        let refused = std::mem::take(&mut queued.refused);
        let mut records = Vec::with_capacity(pending.len() + 2);
        let record_now = |event| AuditRecord { time: now(), event, outcome: "ok" };
        if queued.has_failed {
            records.push(record_now(AuditEvent::Resumed { count: queued.unrecorded }));
        }
        if refused > 0 {
            records.push(AuditRecord {
                outcome: Kind::NotAllowed.name(),
                ..record_now(AuditEvent::RefusedPeers { count: refused })
            });
        }
        (queued.try_again, queued.since) = (false, Some(Instant::now()));
        drop(queued);
        queue.moved.notify_all();
        records.extend(pending.iter().map(|pending| pending.record.clone()));
        let result = log.append(&records).map_err(Error::from);
        settle(changed, queue, pending, refused, result.err());
        if ending {
            return;
        }
    }
}

fn settle(
    changed: &watch::Sender<()>,
    queue: &AuditQueue,
    pending: VecDeque<PendingRecord>,
    refused: u64,
    error: Option<Error>,
) {
    let mut queued = queue.lock();
    let had_failed = queued.has_failed;
    (queued.has_failed, queued.since) = (error.is_some(), None);
    match &error {
        Some(_) => {
            queued.refused += refused;
            queued.unrecorded += pending.iter().filter(|pending| pending.answer.is_some()).count() as u64;
        }
        None => queued.unrecorded = 0,
    }
    drop(queued);
    match &error {
        Some(error) if !had_failed => {
            tracing::error!("{}", error.message);
            error.hints.iter().for_each(|hint| tracing::error!("hint: {hint}"));
        }
        None if had_failed => tracing::info!("the audit log can be written again"),
        _ => {}
    }
    let refusal = Refusal { kind: Kind::AuditUnavailable, retry_after: Some(RETRY_AFTER) };
    for (request, answer) in pending.into_iter().filter_map(|pending| pending.answer) {
        request.answer(if error.is_some() { Err(refusal) } else { Ok(answer) });
    }
    if had_failed != error.is_some() {
        changed.send_replace(());
    }
}
