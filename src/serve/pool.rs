//! The pool: the workers, and the queue before them.
//!
//! Runs in the parent. What happens when is decided in [`plan`]; here it is carried out. Each worker's place is a task
//! of the loop, which asks for signatures and looks at what comes back, and a thread, in which everything is done that
//! may take long.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::audit::Log;
use crate::audit::chain::Caller;
use crate::cba::Request;
use crate::certificate::Certificate;
use crate::config::Config;
use crate::custody::{Evidence, Measure, Report, Trust};
use crate::error::Kind;
use crate::facts::{Token, TokenId};
use crate::modules;
use crate::pin::{Credential, How};
use crate::policy::Wish;
use crate::session::now;
use crate::text::printable_json;

mod audit_writer;
pub(super) mod plan;
mod recent_messages;
mod request_work;
#[cfg(test)]
mod simulation;
mod start_worker;
mod worker_events;
mod worker_task;
mod worker_thread;

use crate::serve::pool::plan::action::{Job, Logins, Order, Phase, Refusal};
use audit_writer::Desk;
use plan::Plan;
use recent_messages::RecentMessages;
use worker_task::Call;
use worker_thread::Thread;

/// How much longer than two calls of the module a message passes for a fresh one, with corrections of the clock.
const CLOCK_STEPS: Duration = Duration::from_secs(60);

/// How long a proof that the token answers holds.
const PROOF_HOLDS: Duration = Duration::from_secs(5);

/// What a worker is asked.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// A payload.
    Sign(Wish, Caller),
    /// Whether the token is there.
    Probe,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Answer {
    /// The request in its JSON form; empty for a probe.
    pub(super) text: String,
    /// How long it waited.
    pub(super) queue: Duration,
    /// How long the token took.
    pub(super) token: Duration,
}

pub(super) type Outcome = Result<Answer, Refusal>;

/// What is known of the identity that the workers hold.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) evidence: Evidence,
    pub(super) certificate: Certificate,
    /// The token, or the stand-in of one that says nothing of itself.
    pub(super) token: Token,
}

/// The pool.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    crew: Mutex<Crew>,
}

/// Who is waited for at the end.
#[derive(Debug, Default)]
struct Crew {
    places: JoinSet<()>,
    scribe: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    began: Instant,
    calls: Vec<mpsc::UnboundedSender<Call>>,
    state: Mutex<State>,
    /// Where payloads wait for their records, if records are kept.
    desk: Option<Desk>,
    /// Hears when a worker comes or goes.
    changed: watch::Sender<()>,
}

/// Device, inode, time of change in nanoseconds and seconds, size.
type FileState = (u64, u64, i64, i64, u64);

#[derive(Debug)]
struct State {
    plan: Plan,
    jobs: HashMap<Job, Waiting>,
    next: Job,
    /// By when each worker's place must be done with what it does.
    due: Vec<Option<Instant>>,
    /// Whether each worker makes a payload just now.
    signing: Vec<bool>,
    credential: Option<Arc<Credential>>,
    /// The token of the first success.
    token: Option<TokenId>,
    held: Option<Arc<Held>>,
    proven: Option<Instant>,
    /// Whether no worker was lost over what is evidence of the key alone.
    evidence_is_safe: bool,
    /// The digest of the module's file, and by what the file is known again.
    digest: Option<(FileState, String)>,
    restarts: HashMap<&'static str, u64>,
    /// Why the last worker was lost, in words.
    last_error: Option<String>,
    recent: RecentMessages,
}

#[derive(Debug)]
struct Waiting {
    task: Task,
    since: Instant,
    answer: oneshot::Sender<Outcome>,
}

/// A request's place in the pool; dropped, it is given up.
#[derive(Debug)]
pub(super) struct Ticket {
    shared: Arc<Shared>,
    job: Job,
    answer: oneshot::Receiver<Outcome>,
}

/// The pool as others see it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) waiting: usize,
    pub(super) phases: Vec<Phase>,
    pub(super) logins: Logins,
    pub(super) is_up: bool,
    pub(super) trouble: Option<Refusal>,
    pub(super) held: Option<Arc<Held>>,
    pub(super) restarts: HashMap<&'static str, u64>,
    pub(super) last_error: Option<String>,
    /// Whether the token took this PIN at least once.
    pub(super) pin_accepted: bool,
}

impl Pool {
    /// Starts the threads and the first worker, in the loop that this is called in.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(config: Config, credential: Option<Credential>) -> io::Result<Self> {
        let workers = config.serve.workers;
        // A person who has to act again is not asked twice for one request.
        let at_keypad = credential.as_ref().is_some_and(|credential| matches!(credential.how(), How::Pinpad));
        let plan = Plan::new(workers, config.serve.queue.saturating_mul(workers), !at_keypad);
        let state = State {
            plan,
            jobs: HashMap::new(),
            next: 0,
            due: vec![None; workers],
            signing: vec![false; workers],
            credential: credential.map(Arc::new),
            token: None,
            held: None,
            proven: None,
            evidence_is_safe: true,
            digest: None,
            restarts: HashMap::new(),
            last_error: None,
            recent: RecentMessages::new(config.serve.call_timeout.saturating_mul(2).saturating_add(CLOCK_STEPS)),
        };
        let (calls, called): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let changed = watch::Sender::new(());
        let log = config.audit.clone().map(Log::new);
        let (state, desk) = (Mutex::new(state), log.is_some().then(Desk::default));
        let shared = Arc::new(Shared { config, began: Instant::now(), calls, state, desk, changed });
        let mut places = JoinSet::new();
        for (slot, called) in called.into_iter().enumerate() {
            let thread = Thread::start(&format!("worker {slot}"))?;
            places.spawn(worker_task::run(Arc::clone(&shared), slot, called, thread));
        }
        let write = |log| {
            let shared = Arc::clone(&shared);
            let run = move || shared.desk.iter().for_each(|desk| audit_writer::run(&shared, desk, Log::clone(&log)));
            std::thread::Builder::new().name("audit".into()).spawn(run)
        };
        let scribe = log.map(write).transpose()?;
        shared.apply(|state, now| state.plan.launch(now));
        Ok(Self { shared, crew: Mutex::new(Crew { places, scribe }) })
    }

    /// Asks for something; the answer comes through the ticket.
    pub(super) fn submit(&self, task: Task) -> Ticket {
        let (sender, answer) = oneshot::channel();
        let first = matches!(task, Task::Probe);
        let job = self.shared.apply_with(|state, now| {
            let job = state.next;
            state.next += 1;
            state.jobs.insert(job, Waiting { task, since: Instant::now(), answer: sender });
            (job, state.plan.submit(job, first, now))
        });
        Ticket { shared: Arc::clone(&self.shared), job, answer }
    }

    /// Whether the token was seen to answer a moment ago.
    pub(super) fn is_proven(&self) -> bool {
        let state = self.shared.lock();
        state.plan.is_up() && state.proven.is_some_and(|proven| proven.elapsed() < PROOF_HOLDS)
    }

    /// Whether every worker that is logged in makes a payload just now, within its time, and none can be asked.
    pub(super) fn is_at_work(&self) -> bool {
        let state = self.shared.lock();
        let mut up = state.plan.phases().zip(&state.signing).filter(|(phase, _)| phase.is_up()).peekable();
        up.peek().is_some() && up.all(|(_, signing)| *signing)
    }

    /// Replaces every worker by a new one, with what is in the PIN's source now; without a new credential with the old.
    pub(super) fn renew(&self, credential: Option<Credential>) {
        self.shared.apply(|state, now| {
            if let Some(credential) = credential {
                state.credential = Some(Arc::new(credential));
            }
            (state.token, state.proven, state.last_error) = (None, None, None);
            state.plan.renew(now)
        });
    }

    /// Whether the old credential could be used once more.
    pub(super) fn has_credential(&self) -> bool {
        self.shared.lock().credential.is_some()
    }

    /// How it stands.
    pub(super) fn view(&self) -> View {
        let state = self.shared.lock();
        let now = self.shared.began.elapsed();
        View {
            waiting: state.plan.waiting(),
            phases: state.plan.phases().collect(),
            logins: state.plan.logins(),
            is_up: state.plan.is_up(),
            trouble: state.plan.trouble().map(|kind| Refusal { kind, retry_after: state.plan.retry_after(now) }),
            held: state.held.clone(),
            restarts: state.restarts.clone(),
            last_error: state.last_error.clone(),
            pin_accepted: state.credential.as_ref().is_some_and(|credential| credential.is_accepted()),
        }
    }

    /// What is known of the identity that the workers hold; `None` while nothing was seen.
    pub(super) fn held(&self) -> Option<Arc<Held>> {
        self.shared.lock().held.clone()
    }

    /// Builds the custody report of an identity as JSON. It may take long.
    pub(super) fn report_of(&self, held: Arc<Held>) -> impl FnOnce() -> Option<Bytes> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let config = &shared.config;
            let (policy, sources, wish) = (&config.policy, config.policy_sources(), start_worker::first_wish(config));
            let measure = Measure { policy, sources, wish, trust: &Trust::default(), now: now(), host };
            let report = serde_json::to_string(&Report::new(&held.evidence, &measure)).ok()?;
            Some(format!("{}\n", printable_json(&report)).into())
        }
    }

    /// Whether the last record could not be written.
    pub(super) fn audit_has_failed(&self) -> bool {
        self.shared.desk.as_ref().is_some_and(Desk::has_failed)
    }

    /// Counts a stranger for the next record.
    pub(super) fn refused(&self) {
        self.shared.desk.iter().for_each(Desk::refused);
    }

    /// Hears from now on when a worker comes or goes.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Whether every worker's place does what it does within its time: the proof for a watchdog.
    pub(super) fn makes_progress(&self) -> bool {
        let now = Instant::now();
        let writes = !self.shared.desk.as_ref().is_some_and(Desk::is_stuck);
        writes && self.shared.lock().due.iter().flatten().all(|due| *due > now)
    }

    /// Ends every worker in good order, and the PIN with them.
    pub(super) async fn end(&self) {
        self.shared.apply(|state, now| {
            state.credential = None;
            state.plan.close(now)
        });
        for calls in &self.shared.calls {
            let _ = calls.send(Call::End);
        }
        let Crew { mut places, scribe } =
            std::mem::take(&mut *self.crew.lock().unwrap_or_else(PoisonError::into_inner));
        while places.join_next().await.is_some() {}
        // Last, when nothing more comes to be written.
        self.shared.desk.iter().for_each(Desk::end);
        if let Some(scribe) = scribe {
            let _ = scribe.join();
        }
    }
}

impl Ticket {
    /// The answer, or a refusal at the deadline.
    pub(super) async fn answer(mut self, deadline: tokio::time::Instant) -> Outcome {
        let late = Refusal { kind: Kind::TokenTimeout, retry_after: Some(Duration::from_secs(1)) };
        match tokio::time::timeout_at(deadline, &mut self.answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(late),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.jobs.remove(&self.job).is_some() {
            state.plan.give_up(self.job);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic ends the process; there is no state to be found half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The SHA-256 of a module's file, read again only where the file is another.
    fn digest_of(&self, module: &Path) -> Option<String> {
        let metadata = fs::metadata(module).ok()?;
        let file = (metadata.dev(), metadata.ino(), metadata.mtime_nsec(), metadata.mtime(), metadata.size());
        let known = self.lock().digest.clone().filter(|(known, _)| *known == file);
        let digest = known.map_or_else(|| modules::sha256(module), |(_, digest)| Some(digest))?;
        self.lock().digest = Some((file, digest.clone()));
        Some(digest)
    }

    /// Whether a payload's message was never handed out before.
    fn is_new(&self, request: &Request) -> bool {
        self.lock().recent.is_new(request.message_digest(), self.began.elapsed())
    }

    fn apply(&self, change: impl FnOnce(&mut State, Duration) -> Vec<Order>) {
        self.apply_with(|state, now| ((), change(state, now)));
    }

    /// Changes the state, and carries out what follows from it.
    fn apply_with<T>(&self, change: impl FnOnce(&mut State, Duration) -> (T, Vec<Order>)) -> T {
        let mut state = self.lock();
        let before = state.summary();
        let (result, orders) = change(&mut state, self.began.elapsed());
        let has_changed = state.summary() != before;
        for order in orders {
            // A place's task ends after its last worker, and then nothing is ordered there.
            let _ = match order {
                Order::Start { slot, after } => self.calls[slot].send(Call::Start(after)),
                Order::Work { slot, job } => self.calls[slot].send(Call::Work(job)),
                Order::Close { slot } => self.calls[slot].send(Call::Close),
                Order::Refuse { job, refusal } => {
                    state.answer(job, Err(refusal));
                    Ok(())
                }
            };
        }
        drop(state);
        if has_changed {
            self.changed.send_replace(());
        }
        result
    }
}

impl State {
    /// What others hear of when it changes.
    fn summary(&self) -> (bool, Logins, u64) {
        (self.plan.is_up(), self.plan.logins(), self.restarts.values().sum())
    }

    fn answer(&mut self, job: Job, outcome: Outcome) {
        if let Some(waiting) = self.jobs.remove(&job) {
            let _ = waiting.answer.send(outcome);
        }
    }
}
