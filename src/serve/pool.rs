//! The pool: the workers, and the queue of requests.
//!
//! Runs in the parent. [`plan`] decides what happens when, and this room carries it out. A request moves by value
//! ([`in_flight`]) from the queue to a worker's task, to the audit writer, and ends as an answer. Each worker has a task of the
//! event loop, which sends requests and reads replies, and a thread, which does all that may block.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::audit::Log;
use crate::config::Config;
use crate::custody::{Measure, Report, Trust};
use crate::pin::Credential;
use crate::session::now;
use crate::text::printable_json;

mod audit_writer;
mod in_flight;
pub(super) mod plan;
mod recent_messages;
#[cfg(test)]
mod simulation;
mod start_worker;
mod state;
mod worker_events;
mod worker_task;
mod worker_thread;

use audit_writer::AuditQueue;
pub(super) use in_flight::Work;
use in_flight::{InFlight, PendingAnswer};
use plan::action::Refusal;
use plan::{Logins, Phase, Plan};
use recent_messages::RecentMessages;
pub(super) use state::ServedIdentity;
use state::{PoolShared, State};
use worker_thread::WorkerThread;

/// How much longer than two calls of the module a message passes for a fresh one, with corrections of the clock.
const CLOCK_STEPS: Duration = Duration::from_secs(60);

/// How long a proof that the token answers holds.
const PROOF_HOLDS: Duration = Duration::from_secs(5);

/// The pool.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<PoolShared>,
    running: Mutex<Running>,
}

/// What the pool waits for at its end.
#[derive(Debug, Default)]
struct Running {
    tasks: JoinSet<()>,
    audit_writer: Option<std::thread::JoinHandle<()>>,
}

/// The pool as others see it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) waiting: usize,
    pub(super) phases: Vec<Phase>,
    pub(super) logins: Logins,
    pub(super) is_up: bool,
    pub(super) trouble: Option<Refusal>,
    pub(super) served: Option<Arc<ServedIdentity>>,
    pub(super) restarts: HashMap<&'static str, u64>,
    pub(super) last_error: Option<String>,
    /// Whether the token took this PIN at least once.
    pub(super) pin_accepted: bool,
}

impl Pool {
    /// Starts the threads and the first worker, in the event loop that this is called in.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub(super) fn start(config: Config, credential: Option<Credential>) -> io::Result<Self> {
        let workers = config.serve.workers;
        let state = State {
            plan: Plan::new(workers, config.serve.queue.saturating_mul(workers)),
            due: vec![None; workers],
            signing: vec![false; workers],
            credential: credential.map(Arc::new),
            token: None,
            served: None,
            proven: None,
            evidence_is_safe: true,
            restarts: HashMap::new(),
            last_error: None,
            recent: RecentMessages::new(config.serve.call_timeout.saturating_mul(2).saturating_add(CLOCK_STEPS)),
        };
        let (mailboxes, mails): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let changed = watch::Sender::new(());
        let log = config.audit.clone().map(Log::new);
        let (state, audit_queue) = (Mutex::new(state), log.is_some().then(AuditQueue::default));
        let shared = Arc::new(PoolShared { config, began: Instant::now(), mailboxes, state, audit_queue, changed });
        let mut tasks = JoinSet::new();
        for (worker, mails) in mails.into_iter().enumerate() {
            let thread = WorkerThread::start(&format!("worker {worker}"))?;
            tasks.spawn(worker_task::run(Arc::clone(&shared), worker, mails, thread));
        }
        let write = |log| {
            let shared = Arc::clone(&shared);
            let run = move || {
                let is_signing = || shared.lock().signing.contains(&true);
                let write = |queue| audit_writer::run(queue, Log::clone(&log), is_signing, &shared.changed);
                shared.audit_queue.iter().for_each(write);
            };
            std::thread::Builder::new().name("audit".into()).spawn(run)
        };
        let audit_writer = log.map(write).transpose()?;
        shared.apply(|state, now| state.plan.launch(now));
        Ok(Self { shared, running: Mutex::new(Running { tasks, audit_writer }) })
    }

    /// Takes a request into the queue. Its answer comes through what is returned.
    pub(super) fn submit(&self, work: Work) -> PendingAnswer {
        let is_probe = matches!(work, Work::Probe);
        let (request, answer) = InFlight::new(work);
        self.shared.apply(|state, now| state.plan.submit(request, is_probe, now));
        answer
    }

    /// Whether the token was seen to answer a moment ago.
    pub(super) fn is_proven(&self) -> bool {
        let state = self.shared.lock();
        state.plan.is_up() && state.proven.is_some_and(|proven| proven.elapsed() < PROOF_HOLDS)
    }

    /// Whether every worker that is logged in makes a payload just now, within its time, and none can be asked.
    pub(super) fn is_at_work(&self) -> bool {
        let state = self.shared.lock();
        let mut up = state.plan.phases().zip(&state.signing).filter(|(phase, _)| phase.is_ready()).peekable();
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
            served: state.served.clone(),
            restarts: state.restarts.clone(),
            last_error: state.last_error.clone(),
            pin_accepted: state.credential.as_ref().is_some_and(|credential| credential.is_accepted()),
        }
    }

    /// What is known of the identity that the workers hold; `None` while nothing was seen.
    pub(super) fn served(&self) -> Option<Arc<ServedIdentity>> {
        self.shared.lock().served.clone()
    }

    /// Builds the custody report of an identity as JSON. It may take long.
    pub(super) fn report_of(&self, served: Arc<ServedIdentity>) -> impl FnOnce() -> Option<Bytes> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let config = &shared.config;
            let (policy, sources, wish) = (&config.policy, config.policy_sources(), start_worker::first_wish(config));
            let measure = Measure { policy, sources, wish, trust: &Trust::default(), now: now(), host };
            let report = serde_json::to_string(&Report::new(&served.evidence, &measure)).ok()?;
            Some(format!("{}\n", printable_json(&report)).into())
        }
    }

    /// Whether the last record could not be written.
    pub(super) fn audit_has_failed(&self) -> bool {
        self.shared.audit_queue.as_ref().is_some_and(AuditQueue::has_failed)
    }

    /// Counts a user who was refused, for the next record.
    pub(super) fn refused(&self) {
        self.shared.audit_queue.iter().for_each(AuditQueue::refused);
    }

    /// Hears from now on when a worker comes or goes.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Whether every worker's task does what it does within its time: the proof for a watchdog.
    pub(super) fn makes_progress(&self) -> bool {
        let now = Instant::now();
        let writes = !self.shared.audit_queue.as_ref().is_some_and(AuditQueue::is_stuck);
        writes && self.shared.lock().due.iter().flatten().all(|due| *due > now)
    }

    /// Ends every worker in good order, and the PIN with them.
    pub(super) async fn end(&self) {
        self.shared.apply(|state, now| {
            state.credential = None;
            state.plan.close(now)
        });
        let Running { mut tasks, audit_writer } =
            std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        // Last: no more records come.
        self.shared.audit_queue.iter().for_each(AuditQueue::end);
        if let Some(writer) = audit_writer {
            let _ = writer.join();
        }
    }
}
