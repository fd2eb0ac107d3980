//! One worker's place: hears what to do, starts a worker, has it sign, sees it end.
//!
//! Runs in the parent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;

use super::audit_writer::Draft;
use super::plan::action::{Done, Job, Refusal, Slot};
use super::plan::retry::stops_logins;
use super::request_work::{Asked, asked_by, carry_out, entry, text_of};
use super::start_worker::start;
use super::worker_events::Ear;
use super::worker_thread::Thread;
use super::{Answer, Held, Shared, Task};
use crate::audit::chain::Entry;
use crate::cba::Request;
use crate::custody::Evidence;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::stand_in;
use crate::pin::{Credential, How};
use crate::signer::Signer;
use crate::worker_handle::Progress;

/// What a place may take beyond the deadlines of what it does, to end a worker and to write.
const GRACE: Duration = Duration::from_secs(30);

/// How long a person may take at the token's keypad.
const KEYPAD: Duration = Duration::from_secs(300);

/// How long an answer is awaited in the loop. For a token that takes longer, a change of threads is nothing.
const SOON: Duration = Duration::from_millis(50);

/// What a place is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// Start a worker after so long.
    Start(Duration),
    /// Answer a request.
    Work(Job),
    /// End the worker in good order.
    Close,
    /// There will be no other worker after this one.
    End,
}

/// What a place woke for.
enum Wake {
    Call(Call),
    Due,
    /// Something has come of the request in hand, or nothing in time.
    Heard(Progress),
    Lost,
}

/// A worker that is ready.
struct Worker {
    signer: Signer,
    ear: Ear,
}

/// A worker's place: its task in the loop.
pub(super) async fn run(shared: Arc<Shared>, slot: Slot, calls: UnboundedReceiver<Call>, thread: Thread) {
    let (asked, turn) = (VecDeque::new(), Instant::now());
    let mut place = Place { shared, slot, calls, thread, worker: None, asked, turn, used: None, due: None };
    let mut is_last = false;
    while !is_last || place.worker.is_some() {
        match place.wait().await {
            Wake::Call(Call::Start(after)) => place.due = Some(Instant::now() + after),
            Wake::Call(Call::Work(job)) => place.take_on(job).await,
            Wake::Call(Call::Close) => place.close().await,
            Wake::Call(Call::End) => is_last = true,
            Wake::Due => place.start().await,
            Wake::Heard(progress) => place.answer(progress).await,
            Wake::Lost => place.lost(Error::new(Kind::TokenFailed, "the process that holds the module ended")).await,
        }
    }
}

struct Place {
    shared: Arc<Shared>,
    slot: Slot,
    calls: UnboundedReceiver<Call>,
    thread: Thread,
    worker: Option<Worker>,
    /// What the worker has, in order; the first is in hand.
    asked: VecDeque<Asked>,
    /// Since when it is the first's turn.
    turn: Instant,
    /// What it logged in with, or tried to.
    used: Option<Arc<Credential>>,
    /// When to start one.
    due: Option<Instant>,
}

impl Place {
    async fn wait(&mut self) -> Wake {
        tokio::select! {
            biased;
            // The senders are part of what this place holds itself, so there is no end of them.
            Some(call) = self.calls.recv() => Wake::Call(call),
            () = time(self.due) => {
                self.due = None;
                Wake::Due
            }
            wake = hear(self.worker.as_mut(), self.asked.front(), self.turn) => wake,
        }
    }

    /// By when this place will be done: a few calls, and where a person types at the token, their time.
    fn due_by(&self) -> Instant {
        let at_keypad = self.used.as_ref().is_some_and(|credential| matches!(credential.how(), How::Pinpad));
        let call = self.shared.config.serve.call_timeout.max(if at_keypad { KEYPAD } else { Duration::ZERO });
        Instant::now() + call.saturating_mul(4) + GRACE
    }

    fn announce(&self) {
        self.shared.lock().due[self.slot] = Some(self.due_by());
    }

    /// Whatever is first now is in hand; returns since when it was the last one's turn.
    fn next_turn(&mut self) -> Instant {
        let due = (!self.asked.is_empty()).then(|| self.due_by());
        let mut state = self.shared.lock();
        state.due[self.slot] = due;
        state.signing[self.slot] = self.asked.front().is_some_and(|asked| matches!(asked.task, Task::Sign(..)));
        drop(state);
        std::mem::replace(&mut self.turn, Instant::now())
    }

    async fn start(&mut self) {
        let shared = Arc::clone(&self.shared);
        let (credential, expected) = {
            let mut state = shared.lock();
            if !state.plan.may_start(self.slot) {
                return;
            }
            (state.credential.clone(), state.token.clone())
        };
        self.used.clone_from(&credential);
        self.announce();
        let started = self.thread.run(move || start(&shared, credential, expected.as_ref())).await;
        let error = match started.map(|(signer, evidence)| (Ear::at(&signer), signer, evidence)) {
            Ok((Ok(ear), signer, evidence)) => {
                self.next_turn();
                return self.is_ready(Worker { signer, ear }, evidence);
            }
            Ok((Err(error), signer, _)) => {
                self.thread.run(move || drop(signer)).await;
                Error::new(Kind::Unexpected, format!("cannot watch a worker: {error}"))
                    .hint("raise the number of open files: LimitNOFILE= in the unit, or `ulimit -n`")
            }
            Err(error) => error,
        };
        self.lost(error).await;
    }

    fn is_ready(&mut self, worker: Worker, evidence: Evidence) {
        let (slot, signer) = (self.slot, &worker.signer);
        let held = Held {
            evidence,
            certificate: signer.identity().certificate.clone(),
            token: stand_in(&signer.reached().slot, &signer.reached().opened.module),
        };
        tracing::info!(
            "worker {slot} (process {}) is ready with {}, certificate {} until {}",
            signer.reached().opened.handle.process(),
            signer.reached().name(),
            held.certificate.subject,
            crate::certificate::utc(held.certificate.not_after)
        );
        let (alone, token_id) = (signer.always_authenticates(), signer.reached().token_id());
        self.worker = Some(worker);
        self.shared.apply(|state, now| {
            // What was found before a renewal may be what the renewal is to replace.
            if state.plan.is_current(slot) {
                state.token.get_or_insert(token_id);
                state.held = Some(Arc::new(held));
                state.proven = Some(Instant::now());
                state.last_error = None;
            }
            state.plan.started(slot, alone, now)
        });
    }

    /// Takes a request on, and has the worker begin with it where nothing that needs more comes first.
    async fn take_on(&mut self, job: Job) {
        let (slot, shared) = (self.slot, Arc::clone(&self.shared));
        let waiting = shared.lock().jobs.get(&job).map(|waiting| (waiting.task.clone(), waiting.since));
        let (Some((task, since)), Some(worker)) = (waiting, &mut self.worker) else {
            // Whoever asked is gone.
            shared.apply(|state, now| state.plan.finished(slot, job, Done::Dropped, now));
            return;
        };
        let begun = match &task {
            Task::Sign(wish, _) if self.asked.iter().all(|asked| asked.begun) => {
                worker.signer.begin(&shared.config, *wish)
            }
            _ => Ok(false),
        };
        let is_first = self.asked.is_empty();
        let asked = Asked { job, task, since, begun: *begun.as_ref().unwrap_or(&false) };
        match begun {
            Err(error) => {
                let entry = entry(&shared, &worker.signer, &asked, Err(error.kind));
                self.refuse(&asked, entry, &error).await;
            }
            Ok(_) => self.asked.push_back(asked),
        }
        if is_first {
            self.next_turn();
        }
    }

    /// Looks at what has come of the request in hand; whatever is not there by now is waited for on the thread.
    async fn answer(&mut self, progress: Progress) {
        let (slot, shared) = (self.slot, Arc::clone(&self.shared));
        let (Some(worker), Some(asked)) = (self.worker.take(), self.asked.pop_front()) else { return };
        if !asked.begun && !shared.lock().jobs.contains_key(&asked.job) {
            // Whoever asked is gone.
            self.worker = Some(worker);
            self.next_turn();
            return shared.apply(|state, now| state.plan.finished(slot, asked.job, Done::Dropped, now));
        }
        let soon = progress == Progress::Signed;
        let (worker, asked, made) = self.made(worker, asked, soon).await;
        let turn = self.next_turn();
        let signer = &mut self.worker.insert(worker).signer;
        signer.release();
        let entry = entry(&shared, signer, &asked, made.as_ref().map(Option::as_ref).map_err(|error| error.kind));
        let alone = signer.always_authenticates();
        let job = asked.job;
        match made.and_then(|request| request.as_ref().map(text_of).transpose()) {
            Ok(text) => {
                let (queue, token) = (turn - asked.since, turn.elapsed());
                let answer = Answer { text: text.unwrap_or_default(), queue, token };
                match entry {
                    // Answered when its record is on disk; the worker need not wait for that.
                    Some(entry) => self.record(Draft { entry, answer: Some((job, answer)) }).await,
                    None => shared.lock().answer(job, Ok(answer)),
                }
                shared.apply(|state, now| {
                    state.proven = Some(Instant::now());
                    if alone {
                        state.plan.needs_to_be_alone(slot);
                    }
                    state.plan.finished(slot, job, Done::Answered { soon }, now)
                });
            }
            Err(error) if error.kind == Kind::Policy => self.refuse(&asked, entry, &error).await,
            Err(error) => {
                if let Some(entry) = entry {
                    self.record(Draft { entry, answer: None }).await;
                }
                // The plan knows it as the one in hand.
                self.lost(error).await;
            }
        }
    }

    /// Has a worker do what is asked: here where the answer is there, and else on the thread.
    async fn made(&self, mut worker: Worker, asked: Asked, soon: bool) -> (Worker, Asked, Result<Option<Request>>) {
        let shared = Arc::clone(&self.shared);
        if soon {
            let made = carry_out(&asked.task, &mut worker.signer, &shared);
            return (worker, asked, made);
        }
        shared.lock().plan.takes_long(self.slot);
        let errand = move || {
            worker.signer.allow(Deadline::after(shared.config.serve.call_timeout));
            let made = carry_out(&asked.task, &mut worker.signer, &shared);
            (worker, asked, made)
        };
        self.thread.run(errand).await
    }

    /// Answers a request that the policy refuses.
    async fn refuse(&mut self, asked: &Asked, entry: Option<Entry>, error: &Error) {
        if let Some(entry) = entry {
            self.record(Draft { entry, answer: None }).await;
        }
        tracing::warn!("refused: {}: {}", asked_by(&asked.task), error.message);
        let (slot, job) = (self.slot, asked.job);
        self.shared.apply(|state, now| {
            state.answer(job, Err(Refusal { kind: Kind::Policy, retry_after: None }));
            state.plan.finished(slot, job, Done::Dropped, now)
        });
    }

    /// Gives a record to the audit log's thread; one that does not keep up is not waited for in the loop.
    async fn record(&self, draft: Draft) {
        let Some(draft) = self.shared.desk.as_ref().and_then(|desk| desk.take(draft)) else { return };
        let shared = Arc::clone(&self.shared);
        let push = move || shared.desk.as_ref().map_or((), |desk| desk.push(draft));
        self.thread.run(push).await;
    }

    async fn close(&mut self) {
        self.announce();
        if let Some(Worker { signer, .. }) = self.worker.take() {
            self.thread.run(move || signer.end(None)).await;
        }
        self.next_turn();
        self.shared.apply(|state, now| state.plan.closed(self.slot, now));
    }

    /// The worker is of no use any more, or never was: ended at once, and replaced when the plan says so.
    async fn lost(&mut self, error: Error) {
        if let Some(Worker { signer, .. }) = self.worker.take() {
            // The key may have been used for them.
            let begun = self.asked.iter().filter(|asked| asked.begun);
            let unknown: Vec<Entry> =
                begun.filter_map(|asked| entry(&self.shared, &signer, asked, Err(error.kind))).collect();
            // Killed, not asked to end: what failed once may hang now.
            self.thread.run(move || drop(signer)).await;
            for entry in unknown {
                self.record(Draft { entry, answer: None }).await;
            }
        }
        self.asked.clear();
        self.next_turn();
        let (slot, used) = (self.slot, self.used.take());
        // A process that could not be started, for want of memory or room, is worth another try.
        let kind = if error.kind == Kind::Unexpected { Kind::TokenFailed } else { error.kind };
        // Without any PIN the agent ends, and says so itself.
        if error.kind != Kind::PinMissing || used.is_some() {
            report(slot, &error, self.shared.lock().last_error.as_deref());
        }
        let random = getrandom::u64().unwrap_or_default();
        self.shared.apply(|state, now| {
            *state.restarts.entry(error.kind.name()).or_default() += 1;
            state.last_error = Some(error.message.clone());
            state.proven = None;
            let is_refused = matches!(error.kind, Kind::PinIncorrect | Kind::PinLocked | Kind::PinLength);
            let same = |own: &Arc<Credential>| used.as_ref().is_some_and(|used| Arc::ptr_eq(own, used));
            if is_refused && state.credential.as_ref().is_some_and(same) {
                // It is of no use any more, and its memory is wiped with the last worker's. One that was read since stays.
                state.credential = None;
            }
            state.plan.lost(slot, kind, now, random)
        });
    }
}

/// Waits for a time, where there is one.
async fn time(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits until a worker has something to say: to the request in hand, or that it has ended.
async fn hear(worker: Option<&mut Worker>, asked: Option<&Asked>, turn: Instant) -> Wake {
    let Some(Worker { signer, ear }) = worker else { return std::future::pending().await };
    match asked {
        None => {
            ear.ended(signer).await;
            Wake::Lost
        }
        Some(asked) if !asked.begun => Wake::Heard(Progress::None),
        Some(_) => {
            let soon = tokio::time::timeout_at((turn + SOON).into(), ear.answered(signer)).await;
            Wake::Heard(soon.unwrap_or(Progress::None))
        }
    }
}

/// Says why a worker was lost: once, where the same happens again and again.
fn report(slot: Slot, error: &Error, last: Option<&str>) {
    let (message, hints) = (&error.message, &error.hints);
    if last == Some(message) {
        tracing::debug!("worker {slot}: {message}");
    } else if stops_logins(error.kind) || error.kind == Kind::SignatureInvalid {
        tracing::error!("worker {slot}: {message}");
        hints.iter().for_each(|hint| tracing::error!("hint: {hint}"));
    } else {
        tracing::warn!("worker {slot}: {message}");
        hints.iter().for_each(|hint| tracing::warn!("hint: {hint}"));
    }
}
