//! The events of a worker in the event loop: a reply, the end of its process, and output of its module.
//!
//! Runs in the parent.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use crate::session::signing_session::SigningSession;
use crate::worker_handle::{OutputState, ReplyState, WorkerDescriptors};

/// The worker's descriptors in the event loop.
#[derive(Debug)]
pub(super) struct WorkerEvents {
    replies: AsyncFd<OwnedFd>,
    end: Option<AsyncFd<OwnedFd>>,
    output: Option<AsyncFd<OwnedFd>>,
}

impl WorkerEvents {
    /// Watches a worker in the current event loop.
    ///
    /// # Errors
    /// When the process has no free descriptor.
    pub(super) fn of(session: &SigningSession) -> io::Result<Self> {
        let WorkerDescriptors { replies, end, output } = session.descriptors()?;
        // Deprecated for types whose descriptor may change. These types own their descriptors.
        #[allow(deprecated)]
        let watch = |descriptor| AsyncFd::with_interest(descriptor, Interest::READABLE);
        Ok(Self { replies: watch(replies)?, end: end.map(watch).transpose()?, output: output.map(watch).transpose()? })
    }

    /// Waits for the reply to the current request, until its deadline, and logs the module's output meanwhile. After
    /// `Complete`, reading the reply does not block. Otherwise there is no reply, and finding the reason may block.
    pub(super) async fn wait_for_reply(&mut self, session: &mut SigningSession, deadline: Instant) -> ReplyState {
        let mut timeout = std::pin::pin!(tokio::time::sleep_until(deadline.into()));
        loop {
            let state = tokio::select! {
                biased;
                ready = self.replies.readable() => match (ready, session.poll_reply()) {
                    (Ok(mut ready), ReplyState::Pending) => {
                        ready.clear_ready();
                        continue;
                    }
                    (Err(_), ReplyState::Pending) => return ReplyState::Broken,
                    (_, state) => return state,
                },
                () = &mut timeout => return ReplyState::Pending,
                _ = readable(self.end.as_ref()) => return ReplyState::Broken,
                ready = readable(self.output.as_ref()) => log_available(ready, session),
            };
            self.after_output(state).await;
        }
    }

    /// Waits until an idle worker ends, and logs the module's output meanwhile.
    pub(super) async fn wait_for_end(&mut self, session: &mut SigningSession) {
        loop {
            let state = tokio::select! {
                _ = readable(self.end.as_ref()) => return,
                ready = readable(self.output.as_ref()) => log_available(ready, session),
            };
            self.after_output(state).await;
        }
    }

    /// Stops watching output that has ended, and yields: a module that prints endlessly must not block the other tasks.
    async fn after_output(&mut self, state: OutputState) {
        self.output.take_if(|_| state == OutputState::Ended);
        tokio::task::yield_now().await;
    }
}

type Readable<'a> = io::Result<AsyncFdReadyGuard<'a, OwnedFd>>;

async fn readable(descriptor: Option<&AsyncFd<OwnedFd>>) -> Readable<'_> {
    match descriptor {
        Some(descriptor) => descriptor.readable().await,
        None => std::future::pending().await,
    }
}

fn log_available(ready: Readable<'_>, session: &mut SigningSession) -> OutputState {
    let Ok(mut ready) = ready else { return OutputState::Ended };
    let state = session.log_output();
    if state == OutputState::Empty {
        if ready.ready().is_read_closed() {
            // No more output is expected, even if another process opens the pipe again.
            return OutputState::Ended;
        }
        ready.clear_ready();
    }
    state
}
