//! One worker's thread: waits for orders, starts a worker, has it sign, sees it end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::stops_logins;
use super::order::{Job, Order, Refusal, Slot};
use super::scribe::Draft;
use super::{Answer, Bell, Held, Shared, Task};
use crate::audit::chain::{Caller, Entry};
use crate::cba::{Format, Request, Version};
use crate::config::Config;
use crate::custody::Evidence;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::Token;
use crate::pin::{Credential, How, fuse};
use crate::policy::Wish;
use crate::reach::{self, Login, read_certificate};
use crate::signer::Signer;
use crate::worker::Idle;

/// What a thread may take beyond the deadlines of what it does, to end a worker and to write.
const GRACE: Duration = Duration::from_secs(30);

/// How long a person may take at the token's keypad.
const KEYPAD: Duration = Duration::from_secs(300);

/// What a thread woke for.
enum Wake {
    Order(Order),
    Due,
    Lost,
    End,
}

pub(super) fn run(shared: &Shared, slot: Slot) {
    // Without it, an answer waits for a processor as long as a signature takes.
    let _ = crate::process::turns::take_short_turns();
    let mut place = Place { shared, slot, worker: None, used: None, due: None };
    loop {
        match place.wait() {
            Wake::Order(Order::Start { after, .. }) => place.due = Some(Instant::now() + after),
            Wake::Order(Order::Work { job, .. }) => place.work(job),
            Wake::Order(Order::Close { .. }) => place.close(),
            // Answered where it is ordered.
            Wake::Order(Order::Refuse { .. }) => {}
            Wake::Due => place.start(),
            Wake::Lost => place.lost(&Error::new(Kind::TokenFailed, "the process that holds the module ended")),
            Wake::End => break,
        }
    }
}

struct Place<'a> {
    shared: &'a Shared,
    slot: Slot,
    worker: Option<Signer>,
    /// What it logged in with, or tried to.
    used: Option<Arc<Credential>>,
    /// When to start one.
    due: Option<Instant>,
}

impl Place<'_> {
    fn bell(&self) -> &Bell {
        &self.shared.bells[self.slot]
    }

    fn wait(&mut self) -> Wake {
        loop {
            self.bell().clear();
            let mut state = self.shared.lock();
            state.due[self.slot] = None;
            if let Some(order) = state.inboxes[self.slot].pop_front() {
                return Wake::Order(order);
            }
            if state.ended && self.worker.is_none() {
                return Wake::End;
            }
            drop(state);
            let left = self.due.map(|due| due.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.due = None;
                return Wake::Due;
            }
            let bell = &self.shared.bells[self.slot];
            match &mut self.worker {
                None => bell.wait(left),
                Some(worker) => match worker.idle_until(bell) {
                    Ok(Idle::Called | Idle::TimedOut) => {}
                    Ok(Idle::Ended) | Err(_) => return Wake::Lost,
                },
            }
        }
    }

    /// Says by when this thread will be done: a few calls, and where a person types at the token, their time.
    fn announce(&self) {
        let at_keypad = self.used.as_ref().is_some_and(|credential| matches!(credential.how(), How::Pinpad));
        let call = self.shared.config.serve.call_timeout.max(if at_keypad { KEYPAD } else { Duration::ZERO });
        self.shared.lock().due[self.slot] = Some(Instant::now() + call.saturating_mul(4) + GRACE);
    }

    fn start(&mut self) {
        let (slot, shared) = (self.slot, self.shared);
        let mut state = shared.lock();
        if state.ended || !state.plan.may_start(slot) {
            return;
        }
        let (credential, expected) = (state.credential.clone(), state.token.clone());
        drop(state);
        self.used.clone_from(&credential);
        self.announce();
        match start(&shared.config, credential, expected.as_ref()).and_then(|worker| self.describe(worker)) {
            Ok((worker, evidence)) => {
                let held = Held {
                    evidence,
                    certificate: worker.identity().certificate.clone(),
                    token: fuse::token_of(&worker.reached().slot, &worker.reached().opened.module),
                };
                tracing::info!(
                    "worker {slot} (process {}) is ready with {}, certificate {} until {}",
                    worker.reached().opened.handle.process(),
                    worker.reached().name(),
                    held.certificate.subject,
                    crate::certificate::utc(held.certificate.not_after)
                );
                let alone = worker.always_authenticates();
                self.worker = Some(worker);
                shared.apply(|state, now| {
                    // What was found before a renewal may be what the renewal is to replace.
                    if state.plan.is_current(slot) {
                        state.token.get_or_insert_with(|| held.token.clone());
                        state.held = Some(Arc::new(held));
                        state.proven = Some(Instant::now());
                        state.last_error = None;
                    }
                    state.plan.started(slot, alone, now)
                });
            }
            Err(error) => self.lost(&error),
        }
    }

    /// With what is known of the key; what is evidence alone is left out where asking for it once cost a worker.
    fn describe(&self, mut worker: Signer) -> Result<(Signer, Evidence)> {
        let digest = self.shared.digest_of(&worker.reached().opened.module);
        let in_detail = self.shared.lock().evidence_is_safe;
        let evidence =
            worker.evidence(digest, in_detail).inspect_err(|_| self.shared.lock().evidence_is_safe = false)?;
        Ok((worker, evidence))
    }

    fn work(&mut self, job: Job) {
        let (slot, shared) = (self.slot, self.shared);
        let task = shared.lock().jobs.get(&job).map(|waiting| (waiting.task.clone(), waiting.since));
        let Some((task, since)) = task.filter(|_| self.worker.is_some()) else {
            // Whoever asked is gone.
            shared.apply(|state, now| state.plan.finished(slot, false, now));
            return;
        };
        self.announce();
        let Some(worker) = &mut self.worker else { return };
        worker.allow(Deadline::after(shared.config.serve.call_timeout));
        let start = Instant::now();
        shared.lock().signing[slot] = matches!(task, Task::Sign(..));
        let result = carry_out(&task, worker, &shared.config);
        shared.lock().signing[slot] = false;
        worker.release();
        let entry = match &task {
            Task::Sign(wish, caller) if shared.desk.is_some() => {
                let made = result.as_ref().map_err(|error| error.kind);
                made.map(Option::as_ref).transpose().map(|made| worker.entry(caller.clone(), *wish, made))
            }
            _ => None,
        };
        match result.and_then(|request| request.as_ref().map(text_of).transpose()) {
            Ok(text) => {
                let text = text.unwrap_or_default();
                let mut answer = Some(Answer { text, queue: start - since, token: start.elapsed() });
                let alone = worker.always_authenticates();
                if let (Some(desk), Some(entry)) = (&shared.desk, entry) {
                    // Answered when its record is on disk; the worker need not wait for that.
                    desk.push(Draft { entry, answer: answer.take().map(|answer| (job, answer)) });
                }
                if let Some(answer) = answer {
                    // Whoever waits goes on while this thread looks for more to do.
                    let waiting = shared.lock().jobs.remove(&job);
                    waiting.and_then(|waiting| waiting.answer.send(Ok(answer)).ok());
                }
                shared.apply(|state, now| {
                    state.proven = Some(Instant::now());
                    if alone {
                        state.plan.needs_to_be_alone(slot);
                    }
                    state.plan.finished(slot, true, now)
                });
            }
            Err(error) if error.kind == Kind::Policy => {
                self.record(entry);
                tracing::warn!("{}", error.message);
                shared.apply(|state, now| {
                    state.answer(job, Err(Refusal { kind: Kind::Policy, retry_after: None }));
                    state.plan.finished(slot, false, now)
                });
            }
            Err(error) => {
                self.record(entry);
                self.lost(&error);
            }
        }
    }

    /// Records what nobody waits for.
    fn record(&self, entry: Option<Entry>) {
        if let (Some(desk), Some(entry)) = (&self.shared.desk, entry) {
            desk.push(Draft { entry, answer: None });
        }
    }

    fn close(&mut self) {
        self.announce();
        if let Some(worker) = self.worker.take() {
            worker.end(None);
        }
        self.shared.apply(|state, now| state.plan.closed(self.slot, now));
    }

    /// The worker is of no use any more, or never was: ended at once, and replaced when the plan says so.
    fn lost(&mut self, error: &Error) {
        // Killed, not asked to end: what failed once may hang now.
        drop(self.worker.take());
        let (slot, used) = (self.slot, self.used.take());
        // A process that could not be started, for want of memory or room, is worth another try.
        let kind = if error.kind == Kind::Unexpected { Kind::TokenFailed } else { error.kind };
        // Without any PIN the agent ends, and says so itself.
        if error.kind != Kind::PinMissing || used.is_some() {
            report(slot, error, self.shared.lock().last_error.as_deref());
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

/// A payload, or nothing for a token that answers.
fn carry_out(task: &Task, worker: &mut Signer, config: &Config) -> Result<Option<Request>> {
    match task {
        Task::Probe => worker.probe(config, first_wish(config)).map(|()| None),
        Task::Sign(wish, Caller { uid, gid, pid, job }) => {
            let request = worker.sign(config, *wish)?;
            let job = job.as_deref().unwrap_or("-");
            tracing::info!("payload {} for user {uid} group {gid} (process {pid}, job {job})", wish.version);
            Ok(Some(request))
        }
    }
}

fn text_of(request: &Request) -> Result<String> {
    request.render(Format::Json).map_err(|error| Error::new(Kind::Unexpected, error.to_string()))
}

/// From nothing to a worker that is logged in, on the token that is expected where one is.
fn start(config: &Config, credential: Option<Arc<Credential>>, expected: Option<&Token>) -> Result<Signer> {
    let time = || Deadline::after(config.serve.call_timeout);
    let login = Login::with(credential, config.serve.call_timeout);
    let file = config.certificate_file.as_deref().map(read_certificate).transpose()?;
    let reached = reach::open(config, &time())?.reach(config, time())?;
    let found = fuse::token_of(&reached.slot, &reached.opened.module);
    if expected.is_some_and(|expected| !is_same(expected, &found)) {
        let message = format!("{} is in the place of the one that this agent holds; it gets no PIN", reached.name());
        reached.end(None);
        return Err(Error::new(Kind::TokenRemoved, message)
            .hint("put the other one back, or tell the agent to take this one: systemctl reload, or SIGHUP"));
    }
    let mut signer = Signer::ready(reached, login, file, config, first_wish(config))?;
    signer.release();
    Ok(signer)
}

/// By what the fuse knows a token.
fn is_same(a: &Token, b: &Token) -> bool {
    (&a.manufacturer, &a.model, &a.serial, &a.label) == (&b.manufacturer, &b.model, &b.serial, &b.label)
}

/// What a worker is judged by before it gets the PIN; each request is judged by its own.
pub(super) fn first_wish(config: &Config) -> Wish {
    let allowed = config.policy.payload_versions.as_ref().and_then(|versions| versions.first().copied());
    Wish { version: allowed.unwrap_or(Version::V2), by_flag: false }
}
