//! The task of one worker: it starts the worker, sends it requests, reads its replies, and notices its end.
//!
//! Runs in the parent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;

use super::audit_writer::PendingRecord;
use super::in_flight::{InFlight, Work, WorkAnswer};
use super::plan::action::{Action, Refusal};
use super::start_worker::start;
use super::state::{PoolShared, ServedIdentity};
use super::worker_events::WorkerEvents;
use super::worker_thread::WorkerThread;
use crate::audit::record::AuditRecord;
use crate::cba::LoginRequest;
use crate::custody::Evidence;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::stand_in;
use crate::os::limits::OPEN_FILES;
use crate::pin::{Credential, PinEntry};
use crate::policy::Permit;
use crate::session::KEYPAD_TIMEOUT;
use crate::signer;
use crate::worker_handle::ReplyState;

mod ready;
mod task_event;

use ready::{ReadyWorker, WorkerResult, accepted, report, text_of};
use task_event::{CurrentRequest, TaskEvent, sleep_until, worker_event};

/// The time limit for ending a worker and writing its record, in addition to the deadlines of its calls.
const END_GRACE: Duration = Duration::from_secs(30);

struct WorkerTask {
    shared: Arc<PoolShared>,
    worker: usize,
    mailbox: UnboundedReceiver<Action<InFlight>>,
    thread: WorkerThread,
    ready: Option<ReadyWorker>,
    current: Option<CurrentRequest>,
    /// The credential of the worker's login or login attempt.
    used: Option<Arc<Credential>>,
    start_at: Option<Instant>,
    is_over: bool,
}

/// Runs the task of one worker until the pool closes and the worker has ended.
pub(super) async fn run(
    shared: Arc<PoolShared>,
    worker: usize,
    mailbox: UnboundedReceiver<Action<InFlight>>,
    thread: WorkerThread,
) {
    let (ready, current, used, start_at, is_over) = (None, None, None, None, false);
    let mut task = WorkerTask { shared, worker, mailbox, thread, ready, current, used, start_at, is_over };
    while !task.is_over {
        match task.next_event().await {
            TaskEvent::Told(Action::Start { after, .. }) => task.start_at = Some(Instant::now() + after),
            TaskEvent::Told(Action::Take { request, .. }) => task.take(request).await,
            TaskEvent::Told(Action::Close { .. }) => task.close().await,
            TaskEvent::Told(Action::Refuse(request, refusal)) => request.answer(Err(refusal)),
            TaskEvent::StartIsDue => task.start().await,
            TaskEvent::Replied(reply) => task.complete(reply).await,
            TaskEvent::Ended => {
                let error = Error::new(Kind::TokenFailed, "the process that holds the module ended");
                task.lost(error, None).await;
            }
        }
    }
}

impl WorkerTask {
    async fn next_event(&mut self) -> TaskEvent {
        tokio::select! {
            biased;
            // The task itself holds a sender, so this channel never closes.
            Some(action) = self.mailbox.recv() => TaskEvent::Told(action),
            () = sleep_until(self.start_at) => {
                self.start_at = None;
                TaskEvent::StartIsDue
            }
            event = worker_event(self.ready.as_mut(), self.current.as_ref(), &self.shared) => event,
        }
    }

    /// Tells the watchdog the time limit of the current work: a few calls, and the time of a person at the token.
    fn announce(&self, work: Option<&Work>) {
        let call =
            self.shared.config.serve.call_timeout.max(if self.at_keypad() { KEYPAD_TIMEOUT } else { Duration::ZERO });
        let mut state = self.shared.lock();
        state.due[self.worker] = Some(Instant::now() + call.saturating_mul(4) + END_GRACE);
        state.signing[self.worker] = matches!(work, Some(Work::Sign(..)));
    }

    /// Announces the current request of the worker, if there is one.
    fn announce_current(&self) {
        match &self.current {
            Some(current) => self.announce(Some(&current.request.work)),
            None => {
                let mut state = self.shared.lock();
                (state.due[self.worker], state.signing[self.worker]) = (None, false);
            }
        }
    }

    fn at_keypad(&self) -> bool {
        self.used.as_ref().is_some_and(|credential| matches!(credential.entry(), PinEntry::Pinpad))
    }

    async fn start(&mut self) {
        let shared = Arc::clone(&self.shared);
        let (credential, expected) = {
            let mut state = shared.lock();
            if !state.plan.may_start(self.worker) {
                return;
            }
            (state.credential.clone(), state.token.clone())
        };
        self.used.clone_from(&credential);
        self.announce(None);
        let started = self.thread.run(move || start(&shared, credential, expected.as_ref())).await;
        let error = match started.map(|(session, evidence)| (WorkerEvents::of(&session), session, evidence)) {
            Ok((Ok(events), session, evidence)) => {
                self.announce_current();
                return self.started(ReadyWorker::new(session, events), evidence);
            }
            Ok((Err(error), session, _)) => {
                self.thread.run(move || drop(session)).await;
                Error::new(Kind::Unexpected, format!("cannot watch a worker: {error}")).hint(OPEN_FILES)
            }
            Err(error) => error,
        };
        self.lost(error, None).await;
    }

    fn started(&mut self, ready: ReadyWorker, evidence: Evidence) {
        let (worker, session) = (self.worker, &ready.session);
        let served = ServedIdentity {
            evidence,
            certificate: session.identity().certificate.clone(),
            token: stand_in(&session.slot_session().slot, &session.slot_session().module.path),
        };
        tracing::info!(
            "worker {worker} (process {}) is ready with {}, certificate {} until {}",
            session.slot_session().module.handle.process_id(),
            session.slot_session().name(),
            served.certificate.subject,
            crate::certificate::utc(served.certificate.not_after)
        );
        let (exclusive, token_id) = (session.always_authenticates(), session.slot_session().token_id());
        self.ready = Some(ready);
        self.shared.apply(|state, now| {
            // A renewal may have happened meanwhile. It replaces what this worker has found.
            if state.plan.is_current(worker) {
                state.token.get_or_insert(token_id);
                state.served = Some(Arc::new(served));
                state.proven = Some(Instant::now());
                state.last_error = None;
            }
            state.plan.started(worker, exclusive, now)
        });
    }

    /// Gives the worker a request. The thread carries out a request that needs a login; other requests are only sent.
    async fn take(&mut self, request: InFlight) {
        let (shared, began) = (Arc::clone(&self.shared), Instant::now());
        let Some(ready) = &mut self.ready else { return };
        let permit = match &request.work {
            Work::Probe => None,
            Work::Sign(choice, _) => match signer::permit(&ready.session, &shared.config, *choice) {
                Ok(permit) => Some(permit),
                Err(error) => {
                    let record = self.audit_record(&request.work, Err(error.kind));
                    return self.refuse(request, record, &error).await;
                }
            },
        };
        self.announce(Some(&request.work));
        let Some(ready) = &mut self.ready else { return };
        ready.session.allow(Deadline::after(shared.config.serve.call_timeout));
        match permit {
            Some(permit) => {
                ready.warn(&shared.config, &permit);
                if ready.session.always_authenticates() {
                    return self.sign_on_thread(request, permit, began).await;
                }
                ready.session.send_sign(&permit);
                self.current = Some(CurrentRequest { request, permit: Some(permit), began });
            }
            None => {
                ready.session.send_probe();
                self.current = Some(CurrentRequest { request, permit: None, began });
            }
        }
    }

    async fn sign_on_thread(&mut self, request: InFlight, permit: Permit, began: Instant) {
        let (Some(ready), shared) = (self.ready.take(), Arc::clone(&self.shared)) else { return };
        let (ready, result) = self.thread.run(move || ready.sign(&shared.config, permit)).await;
        self.ready = Some(ready);
        self.finish(request, result, (began, began.elapsed())).await;
    }

    /// Reads the reply to the current request, gives the worker the next one, and then checks the reply.
    async fn complete(&mut self, reply: ReplyState) {
        let (Some(ready), Some(current)) = (self.ready.take(), self.current.take()) else { return };
        let CurrentRequest { request, permit, began } = current;
        let (ready, result) = self.worker_result(ready, permit, reply).await;
        let times = (began, began.elapsed());
        // Before its next request, such a key needs a login, and this reply must not wait for that.
        let exclusive = ready.session.always_authenticates();
        self.ready = Some(ready);
        if result.is_ok() && !exclusive {
            let next = self.shared.lock().plan.refill(self.worker);
            if let Some(next) = next {
                self.take(next).await;
            }
        }
        self.finish(request, result, times).await;
    }

    /// Reads the worker's result: at once if that does not block, otherwise on the thread.
    async fn worker_result(
        &self,
        mut ready: ReadyWorker,
        permit: Option<Permit>,
        reply: ReplyState,
    ) -> (ReadyWorker, Result<WorkerResult>) {
        let (shared, is_here) = (Arc::clone(&self.shared), reply == ReplyState::Complete);
        let Some(permit) = permit else {
            let probed = move || ready.probed(&shared.config);
            return if is_here { probed() } else { self.thread.run(probed).await };
        };
        match is_here.then(|| ready.session.signed()) {
            Some(Ok(payload)) => (ready, Ok(Some((permit, payload)))),
            signed => self.thread.run(move || ready.recovered(&shared.config, permit, signed)).await,
        }
    }

    /// Checks the worker's result, records it, and answers the request.
    async fn finish(&mut self, request: InFlight, result: Result<WorkerResult>, (began, token): (Instant, Duration)) {
        let Some(ReadyWorker { session, .. }) = &mut self.ready else {
            // Answers the request with an error, because it may not be repeated.
            let _ = request.after_loss(Kind::TokenFailed, false);
            return;
        };
        // A worker that failed ends before the token's lock is free: its module may hang in a login.
        if result.as_ref().map_or_else(|error| error.kind == Kind::Policy, |_| true) {
            session.release();
        }
        let exclusive = session.always_authenticates();
        let result = result
            .and_then(|result| result.map(|result| accepted(&self.shared, session, result, &request)).transpose());
        let outcome = result.as_ref().map(Option::as_ref).map_err(|error| error.kind);
        let record = outcome.transpose().and_then(|result| self.audit_record(&request.work, result));
        match result.and_then(|login_request| login_request.as_ref().map(text_of).transpose()) {
            Ok(text) => {
                let answer =
                    WorkAnswer { text: text.unwrap_or_default(), queue_time: began - request.since, token_time: token };
                match record {
                    // The audit writer answers once the record is on disk. The worker does not wait for that.
                    Some(record) => self.record(PendingRecord { record, answer: Some((request, answer)) }).await,
                    None => request.answer(Ok(answer)),
                }
                self.shared.apply(|state, now| {
                    state.proven = Some(Instant::now());
                    state.plan.finished(self.worker, true, exclusive, now)
                });
            }
            Err(error) if error.kind == Kind::Policy => self.refuse(request, record, &error).await,
            Err(error) => {
                if let Some(record) = record {
                    self.record(PendingRecord { record, answer: None }).await;
                }
                self.lost(error, Some(request)).await;
            }
        }
        self.announce_current();
    }

    /// Answers a request that the policy refuses.
    async fn refuse(&self, request: InFlight, record: Option<AuditRecord>, error: &Error) {
        if let Some(record) = record {
            self.record(PendingRecord { record, answer: None }).await;
        }
        tracing::warn!("refused: {}: {}", request.work, error.message);
        request.answer(Err(Refusal { kind: Kind::Policy, retry_after: None }));
        let exclusive = self.ready.as_ref().is_some_and(|ready| ready.session.always_authenticates());
        self.shared.apply(|state, now| state.plan.finished(self.worker, false, exclusive, now));
    }

    /// Returns the record of a request for a payload, if there is an audit log.
    fn audit_record(&self, work: &Work, result: Result<&LoginRequest, Kind>) -> Option<AuditRecord> {
        match (work, &self.ready) {
            (Work::Sign(choice, caller), Some(ready)) if self.shared.audit_queue.is_some() => {
                Some(signer::record(&ready.session, caller.clone(), *choice, result))
            }
            _ => None,
        }
    }

    /// Gives a record to the audit writer. If its queue is full, the thread waits, and not the event loop.
    async fn record(&self, record: PendingRecord) {
        let Some(record) = self.shared.audit_queue.as_ref().and_then(|queue| queue.take(record)) else { return };
        let shared = Arc::clone(&self.shared);
        let push = move || shared.audit_queue.as_ref().map_or((), |queue| queue.push(record));
        self.thread.run(push).await;
    }

    async fn close(&mut self) {
        self.announce(None);
        if let Some(ReadyWorker { session, .. }) = self.ready.take() {
            self.thread.run(move || session.end(None)).await;
        }
        self.announce_current();
        self.shared.apply(|state, now| {
            self.is_over = state.plan.is_closing();
            state.plan.closed(self.worker, now)
        });
    }

    /// Kills a worker that failed, and reports to the plan. `failed` is the request that the error belongs to.
    async fn lost(&mut self, error: Error, failed: Option<InFlight>) {
        let unfinished = self.current.take();
        // The key may have been used for this request.
        let record = unfinished.as_ref().and_then(|current| self.audit_record(&current.request.work, Err(error.kind)));
        if let Some(ReadyWorker { session, .. }) = self.ready.take() {
            // The worker is killed without a close request: the module failed, and may hang now.
            self.thread.run(move || drop(session)).await;
        }
        if let Some(record) = record {
            self.record(PendingRecord { record, answer: None }).await;
        }
        self.announce_current();
        let (may_repeat, used) = (!self.at_keypad(), self.used.take());
        // An unexpected error is a process that could not be started, for example for lack of memory. Another try makes sense.
        let kind = if error.kind == Kind::Unexpected { Kind::TokenFailed } else { error.kind };
        // If no source has a PIN, the agent itself ends and reports this error.
        if error.kind != Kind::PinMissing || used.is_some() {
            report(self.worker, &error, self.shared.lock().last_error.as_deref());
        }
        let random = getrandom::u64().unwrap_or_default();
        self.shared.apply(|state, now| {
            *state.restarts.entry(error.kind.name()).or_default() += 1;
            state.last_error = Some(error.message.clone());
            state.proven = None;
            let is_refused = matches!(error.kind, Kind::PinIncorrect | Kind::PinLocked | Kind::PinLength);
            let same = |own: &Arc<Credential>| used.as_ref().is_some_and(|used| Arc::ptr_eq(own, used));
            if is_refused && state.credential.as_ref().is_some_and(same) {
                // The PIN is wiped with the last worker's copy. A credential that was read later stays.
                state.credential = None;
            }
            let failed = failed.and_then(|request| request.after_loss(kind, may_repeat));
            let unfinished = unfinished.and_then(|it| it.request.after_loss(Kind::TokenFailed, may_repeat));
            let mut returned: Vec<InFlight> = failed.into_iter().chain(unfinished).collect();
            // A request may have arrived since the worker failed. Actions are sent under this lock.
            while let Ok(action) = self.mailbox.try_recv() {
                if let Action::Take { request, .. } = action {
                    returned.push(request);
                }
            }
            self.is_over = state.plan.is_closing();
            state.plan.lost(self.worker, kind, returned, now, random)
        });
    }
}
