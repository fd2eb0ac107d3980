//! The pool: the workers, and the queue of requests.
//!
//! Runs in the parent. [`plan`] decides what happens when, and this module carries it out. A request moves by value
//! ([`in_flight`]): from the queue to a worker's task, and then to the audit writer, which answers it. Each worker has
//! a task of the event loop, which sends requests and reads replies. It also has a thread for everything that may
//! block.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::audit::AuditLog;
use crate::config::Config;
use crate::custody::{Criteria, Report, TrustedRoots};
use crate::os::clock::now;
use crate::pin::Credential;
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
use state::{PoolShared, PoolState};
use worker_thread::WorkerThread;

/// The time for which a message counts as fresh, in addition to two calls of the module. It covers corrections of the
/// clock.
const CLOCK_CORRECTION: Duration = Duration::from_secs(60);

/// The time for which an answer proves that the token is present.
const PROOF_VALIDITY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<PoolShared>,
    running: Mutex<PoolTasks>,
}

/// The tasks and the thread that the pool waits for at its end.
#[derive(Debug, Default)]
struct PoolTasks {
    tasks: JoinSet<()>,
    audit_writer: Option<std::thread::JoinHandle<()>>,
}

/// The state of the pool, for the rest of the agent.
#[derive(Clone, Debug)]
pub(super) struct PoolView {
    pub(super) queued: usize,
    pub(super) phases: Vec<Phase>,
    pub(super) logins: Logins,
    pub(super) is_up: bool,
    pub(super) trouble: Option<Refusal>,
    pub(super) served: Option<Arc<ServedIdentity>>,
    pub(super) restarts: HashMap<&'static str, u64>,
    pub(super) last_error: Option<String>,
    /// Whether the token accepted this PIN at least once.
    pub(super) pin_accepted: bool,
}

impl Pool {
    /// Starts the threads and the first worker in the current event loop.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub(super) fn start(config: Arc<Config>, credential: Option<Credential>) -> io::Result<Self> {
        let workers = config.serve.workers;
        let state = PoolState {
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
            recent: RecentMessages::new(config.serve.call_timeout.saturating_mul(2).saturating_add(CLOCK_CORRECTION)),
        };
        let (mailboxes, mails): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let changed = watch::Sender::new(());
        let log = config.audit.clone().map(AuditLog::new);
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
                let write = |queue| audit_writer::run(queue, AuditLog::clone(&log), is_signing, &shared.changed);
                shared.audit_queue.iter().for_each(write);
            };
            std::thread::Builder::new().name("audit".into()).spawn(run)
        };
        let audit_writer = log.map(write).transpose()?;
        shared.apply(|state, now| state.plan.launch(now));
        Ok(Self { shared, running: Mutex::new(PoolTasks { tasks, audit_writer }) })
    }

    /// Adds a request to the queue, and returns its pending answer.
    pub(super) fn submit(&self, work: Work) -> PendingAnswer {
        let is_probe = matches!(work, Work::Probe);
        let (request, answer) = InFlight::new(work);
        self.shared.apply(|state, now| state.plan.submit(request, is_probe, now));
        answer
    }

    /// Whether the token answered within the last few seconds.
    pub(super) fn is_proven(&self) -> bool {
        let state = self.shared.lock();
        state.plan.is_up() && state.proven.is_some_and(|proven| proven.elapsed() < PROOF_VALIDITY)
    }

    /// Whether every logged-in worker is making a payload within its time limit, so that none can take a probe.
    pub(super) fn is_at_work(&self) -> bool {
        let state = self.shared.lock();
        let mut up = state.plan.phases().zip(&state.signing).filter(|(phase, _)| phase.is_ready()).peekable();
        up.peek().is_some() && up.all(|(_, signing)| *signing)
    }

    /// Replaces every worker by a new one. The new workers use this credential, or the old one if it is `None`.
    pub(super) fn renew(&self, credential: Option<Credential>) {
        self.shared.apply(|state, now| {
            if let Some(credential) = credential {
                state.credential = Some(Arc::new(credential));
            }
            (state.token, state.proven, state.last_error) = (None, None, None);
            state.plan.renew(now)
        });
    }

    /// Whether the old credential can be used again.
    pub(super) fn has_credential(&self) -> bool {
        self.shared.lock().credential.is_some()
    }

    /// Returns the current state.
    pub(super) fn view(&self) -> PoolView {
        let state = self.shared.lock();
        let now = self.shared.began.elapsed();
        PoolView {
            queued: state.plan.queued(),
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

    /// Returns a function that builds the custody report of an identity as JSON. It may take long.
    pub(super) fn report_of(&self, served: Arc<ServedIdentity>) -> impl FnOnce() -> Option<Bytes> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let config = &shared.config;
            let (policy, sources, choice) =
                (&config.policy, config.policy_sources(), start_worker::first_choice(config));
            let criteria =
                Criteria { policy, sources, choice, trusted_roots: &TrustedRoots::default(), now: now(), host };
            let report = serde_json::to_string(&Report::new(&served.evidence, &criteria)).ok()?;
            Some(format!("{}\n", printable_json(&report)).into())
        }
    }

    /// Whether the last record could not be written.
    pub(super) fn audit_has_failed(&self) -> bool {
        self.shared.audit_queue.as_ref().is_some_and(AuditQueue::has_failed)
    }

    /// Counts a refused user, for the next record.
    pub(super) fn refused(&self) {
        self.shared.audit_queue.iter().for_each(AuditQueue::refused);
    }

    /// Returns a receiver that is notified when a worker starts or ends.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Whether every task and the audit writer are within their time limits. The watchdog needs this proof.
    pub(super) fn makes_progress(&self) -> bool {
        let now = Instant::now();
        let writes = !self.shared.audit_queue.as_ref().is_some_and(AuditQueue::is_stuck);
        writes && self.shared.lock().due.iter().flatten().all(|due| *due > now)
    }

    /// Ends every worker with a logout, and wipes the PIN.
    pub(super) async fn end(&self) {
        self.shared.apply(|state, now| {
            state.credential = None;
            state.plan.close(now)
        });
        let PoolTasks { mut tasks, audit_writer } =
            std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        // The audit writer ends last, because the workers' tasks add no more records now.
        self.shared.audit_queue.iter().for_each(AuditQueue::end);
        if let Some(writer) = audit_writer {
            let _ = writer.join();
        }
    }
}
