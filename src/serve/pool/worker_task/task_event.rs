//! The events for which the task of a worker waits.
//!
//! Runs in the parent.

use std::time::Instant;

use super::ready::ReadyWorker;
use crate::policy::Permit;
use crate::serve::pool::in_flight::InFlight;
use crate::serve::pool::plan::action::Action;
use crate::serve::pool::state::PoolShared;
use crate::worker_handle::ReplyState;

/// The reason why a task wakes up.
pub(super) enum TaskEvent {
    Told(Action<InFlight>),
    StartIsDue,
    /// The reply to the current request has arrived, or will not arrive.
    Replied(ReplyState),
    /// The worker ended although it had no request.
    Ended,
}

pub(super) struct CurrentRequest {
    pub(super) request: InFlight,
    /// `None` for a probe.
    pub(super) permit: Option<Permit>,
    pub(super) began: Instant,
}

pub(super) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for the reply to the current request, or for the end of an idle worker.
pub(super) async fn worker_event(
    ready: Option<&mut ReadyWorker>,
    current: Option<&CurrentRequest>,
    shared: &PoolShared,
) -> TaskEvent {
    let Some(ReadyWorker { session, events, .. }) = ready else { return std::future::pending().await };
    match current {
        Some(current) => {
            let deadline = current.began + shared.config.serve.call_timeout;
            TaskEvent::Replied(events.wait_for_reply(session, deadline).await)
        }
        None => {
            events.wait_for_end(session).await;
            TaskEvent::Ended
        }
    }
}
