//! A request in flight. It moves by value from the queue to a worker's task and then to the audit writer, which answers
//! it.
//!
//! Runs in the parent.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::plan::action::{Abandon, Refusal};
use super::plan::retry::FIRST_PAUSE;
use crate::audit::record::Caller;
use crate::error::Kind;
use crate::policy::PayloadChoice;

/// The work of a worker for one request.
#[derive(Debug)]
pub(crate) enum Work {
    /// Make a payload for this caller.
    Sign(PayloadChoice, Caller),
    /// Check that the token is present.
    Probe,
}

/// Names the caller, for the log.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe => f.write_str("a probe"),
            Self::Sign(choice, Caller { uid, gid, pid, job }) => {
                let job = job.as_deref().unwrap_or("-");
                write!(f, "payload {} for user {uid} group {gid} (process {pid}, job {job})", choice.version)
            }
        }
    }
}

/// The answer of a worker that did its work.
#[derive(Debug)]
pub(crate) struct WorkAnswer {
    /// The login request in its JSON form; empty for a probe.
    pub(crate) text: String,
    /// The time that the request waited for a worker.
    pub(crate) queue_time: Duration,
    /// The time that the worker took, in which the token signed.
    pub(crate) token_time: Duration,
}

pub(crate) type Outcome = Result<WorkAnswer, Refusal>;

/// A request. It has one owner at a time, and answering consumes it.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) work: Work,
    pub(crate) since: Instant,
    retried: bool,
    reply: oneshot::Sender<Outcome>,
}

/// The client's side of a request. Dropping it abandons the request.
#[derive(Debug)]
pub(crate) struct PendingAnswer(oneshot::Receiver<Outcome>);

impl InFlight {
    pub(crate) fn new(work: Work) -> (Self, PendingAnswer) {
        let (reply, answer) = oneshot::channel();
        (Self { work, since: Instant::now(), retried: false, reply }, PendingAnswer(answer))
    }

    pub(crate) fn answer(self, outcome: Outcome) {
        // The client may have left.
        let _ = self.reply.send(outcome);
    }

    /// Returns the request if it may be tried again after the loss of its worker. Otherwise, answers it with a refusal.
    pub(crate) fn after_loss(mut self, kind: Kind, may_repeat: bool) -> Option<Self> {
        let may_repeat = may_repeat && kind.retryable() && matches!(self.work, Work::Sign(..));
        if may_repeat && !self.retried && !self.is_abandoned() {
            self.retried = true;
            return Some(self);
        }
        self.answer(Err(Refusal { kind, retry_after: kind.retryable().then_some(FIRST_PAUSE) }));
        None
    }
}

impl Abandon for InFlight {
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

impl PendingAnswer {
    /// The answer, or a refusal at the deadline.
    pub(crate) async fn wait(self, deadline: tokio::time::Instant) -> Outcome {
        match tokio::time::timeout_at(deadline, self.0).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Refusal { kind: Kind::TokenTimeout, retry_after: Some(Duration::from_secs(1)) }),
        }
    }
}
