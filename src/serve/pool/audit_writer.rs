//! The audit log's thread: payloads wait here until their records are on disk, as many at once as have come meanwhile.
//!
//! Runs in the parent. The workers go on with the next request; one write and one sync serve all that waits. If it
//! fails, nobody who waits gets a payload.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::plan::action::{Job, Refusal};
use super::{Answer, Shared};
use crate::audit::Log;
use crate::audit::chain::{Entry, Event};
use crate::error::{Error, Kind};
use crate::session::now;

/// So many records wait at most; the workers wait for room, and further requests in the bounded queue before them.
const ROOM: usize = 1024;

/// How long one write may take before the agent is no longer taken for alive: a disk that hangs.
const STUCK: Duration = Duration::from_secs(60);

/// While further payloads are being made, one write follows another no sooner than this, so that many records share one
/// sync. A request that comes alone does not wait.
const PACE: Duration = Duration::from_millis(2);

/// When a client may try again after a write that failed.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// A record, and whoever waits for it.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) entry: Entry,
    pub(super) answer: Option<(Job, Answer)>,
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pile: Mutex<Pile>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Pile {
    drafts: VecDeque<Draft>,
    /// Strangers refused since the last record of them: counted, so that they cannot fill the log.
    refused: u64,
    /// Payloads that were not handed out since the log failed.
    unrecorded: u64,
    has_failed: bool,
    try_again: bool,
    ended: bool,
    /// Since when it is being written.
    since: Option<Instant>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Pile> {
        self.pile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a draft where there is room, and else gives it back.
    pub(super) fn take(&self, draft: Draft) -> Option<Draft> {
        let mut pile = self.lock();
        if pile.drafts.len() >= ROOM {
            return Some(draft);
        }
        pile.drafts.push_back(draft);
        drop(pile);
        self.moved.notify_all();
        None
    }

    /// Waits for room.
    pub(super) fn push(&self, draft: Draft) {
        let pile = self.moved.wait_while(self.lock(), |pile| pile.drafts.len() >= ROOM);
        pile.unwrap_or_else(PoisonError::into_inner).drafts.push_back(draft);
        self.moved.notify_all();
    }

    pub(super) fn refused(&self) {
        self.lock().refused += 1;
    }

    /// Whether the last write failed; it is tried again then, so that the next who asks may hear better.
    pub(super) fn has_failed(&self) -> bool {
        let mut pile = self.lock();
        pile.try_again = pile.has_failed;
        self.moved.notify_all();
        pile.has_failed
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.lock().since.is_some_and(|since| since.elapsed() > STUCK)
    }

    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.moved.notify_all();
    }
}

/// Writes until the end, and then what is left.
pub(super) fn run(shared: &Shared, desk: &Desk, mut log: Log) {
    let mut last: Option<Instant> = None;
    loop {
        let idle = |pile: &mut Pile| pile.drafts.is_empty() && !pile.try_again && !pile.ended;
        drop(desk.moved.wait_while(desk.lock(), idle));
        let pause = last.map_or(Duration::ZERO, |last| PACE.saturating_sub(last.elapsed()));
        if !pause.is_zero() && shared.lock().signing.contains(&true) {
            let more = |pile: &mut Pile| pile.drafts.len() < ROOM && !pile.ended;
            drop(desk.moved.wait_timeout_while(desk.lock(), pause, more));
        }
        last = Some(Instant::now());
        let mut pile = desk.lock();
        if pile.drafts.is_empty() && pile.ended && pile.refused == 0 {
            return;
        }
        let ending = pile.drafts.is_empty() && pile.ended;
        let drafts = std::mem::take(&mut pile.drafts);
        let refused = std::mem::take(&mut pile.refused);
        let mut entries = Vec::with_capacity(drafts.len() + 2);
        let own = |event| Entry { time: now(), event, outcome: "ok" };
        if pile.has_failed {
            entries.push(own(Event::Resumed { count: pile.unrecorded }));
        }
        if refused > 0 {
            entries.push(Entry { outcome: Kind::NotAllowed.name(), ..own(Event::RefusedPeers { count: refused }) });
        }
        (pile.try_again, pile.since) = (false, Some(Instant::now()));
        drop(pile);
        desk.moved.notify_all();
        entries.extend(drafts.iter().map(|draft| draft.entry.clone()));
        let result = log.append(&entries).map_err(Error::from);
        settle(shared, desk, drafts, refused, result.err());
        if ending {
            return;
        }
    }
}

fn settle(shared: &Shared, desk: &Desk, drafts: VecDeque<Draft>, refused: u64, error: Option<Error>) {
    let mut pile = desk.lock();
    let had_failed = pile.has_failed;
    (pile.has_failed, pile.since) = (error.is_some(), None);
    match &error {
        Some(_) => {
            pile.refused += refused;
            pile.unrecorded += drafts.iter().filter(|draft| draft.answer.is_some()).count() as u64;
        }
        None => pile.unrecorded = 0,
    }
    drop(pile);
    match &error {
        Some(error) if !had_failed => {
            tracing::error!("{}", error.message);
            error.hints.iter().for_each(|hint| tracing::error!("hint: {hint}"));
        }
        None if had_failed => tracing::info!("the audit log can be written again"),
        _ => {}
    }
    let refusal = Refusal { kind: Kind::AuditUnavailable, retry_after: Some(TRY_AGAIN) };
    let mut state = shared.lock();
    for (job, answer) in drafts.into_iter().filter_map(|draft| draft.answer) {
        state.answer(job, if error.is_some() { Err(refusal) } else { Ok(answer) });
    }
    drop(state);
    if had_failed != error.is_some() {
        shared.changed.send_replace(());
    }
}
