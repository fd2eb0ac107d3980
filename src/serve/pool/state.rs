//! The state that all tasks of the pool share, and the code that carries out the plan's actions.
//!
//! Runs in the parent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::audit_writer::AuditQueue;
use super::in_flight::InFlight;
use super::plan::action::Action;
use super::plan::{Logins, Plan};
use super::recent_messages::RecentMessages;
use crate::cba::LoginRequest;
use crate::certificate::Certificate;
use crate::config::Config;
use crate::custody::Evidence;
use crate::facts::{Token, TokenId};
use crate::pin::Credential;

#[derive(Debug)]
pub(super) struct PoolShared {
    pub(super) config: Arc<Config>,
    pub(super) began: Instant,
    /// By the number of the worker.
    pub(super) mailboxes: Vec<mpsc::UnboundedSender<Action<InFlight>>>,
    pub(super) state: Mutex<PoolState>,
    /// The queue of payloads that wait for their records, if there is an audit log.
    pub(super) audit_queue: Option<AuditQueue>,
    /// Notified when a worker starts or ends.
    pub(super) changed: watch::Sender<()>,
}

/// The identity that the workers sign with, and the evidence of its key.
#[derive(Clone, Debug)]
pub(crate) struct ServedIdentity {
    pub(crate) evidence: Evidence,
    pub(crate) certificate: Certificate,
    /// The token, or a placeholder for a token that reports nothing about itself.
    pub(crate) token: Token,
}

#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) plan: Plan<InFlight>,
    /// The time limit of each worker's current work.
    pub(super) due: Vec<Option<Instant>>,
    /// Whether each worker is making a payload.
    pub(super) signing: Vec<bool>,
    pub(super) credential: Option<Arc<Credential>>,
    /// The token of the first successful start.
    pub(super) token: Option<TokenId>,
    pub(super) served: Option<Arc<ServedIdentity>>,
    /// The time of the token's last answer.
    pub(super) proven: Option<Instant>,
    /// Whether no worker was lost while it read attributes that serve only as evidence.
    pub(super) evidence_is_safe: bool,
    pub(super) restarts: HashMap<&'static str, u64>,
    /// The error of the last lost worker, as text.
    pub(super) last_error: Option<String>,
    pub(super) recent: RecentMessages,
}

impl PoolShared {
    pub(super) fn lock(&self) -> MutexGuard<'_, PoolState> {
        // A panic ends the process, so no other thread sees a half-changed state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the message of a payload was never delivered before.
    pub(super) fn is_new(&self, request: &LoginRequest) -> bool {
        self.lock().recent.is_new(request.message_digest(), self.began.elapsed())
    }

    /// Changes the state, and then carries out the actions of the plan.
    pub(super) fn apply(&self, change: impl FnOnce(&mut PoolState, Duration) -> Vec<Action<InFlight>>) {
        let mut state = self.lock();
        let before = state.summary();
        let actions = change(&mut state, self.began.elapsed());
        let has_changed = state.summary() != before;
        for action in actions {
            match action {
                Action::Refuse(request, refusal) => request.answer(Err(refusal)),
                Action::Start { worker, .. } | Action::Take { worker, .. } | Action::Close { worker } => {
                    // A task ends after its last worker, and the plan sends it no action then.
                    let _ = self.mailboxes[worker].send(action);
                }
            }
        }
        drop(state);
        if has_changed {
            self.changed.send_replace(());
        }
    }
}

impl PoolState {
    /// The values whose changes are reported to watchers.
    fn summary(&self) -> (bool, Logins, u64) {
        (self.plan.is_up(), self.plan.logins(), self.restarts.values().sum())
    }
}
