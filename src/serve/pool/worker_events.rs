//! The loop's ear at a worker: its answers, its end, and what its module prints.
//!
//! Runs in the parent.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use crate::signer::Signer;
use crate::worker_handle::{Descriptors, Progress, Rest};

/// The worker's descriptors in the loop.
#[derive(Debug)]
pub(super) struct Ear {
    answers: AsyncFd<OwnedFd>,
    end: Option<AsyncFd<OwnedFd>>,
    output: Option<AsyncFd<OwnedFd>>,
}

impl Ear {
    /// Listens to a worker, in the loop that this is called in.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn at(signer: &Signer) -> io::Result<Self> {
        let Descriptors { answers, end, output } = signer.descriptors()?;
        // Deprecated for types that may show another descriptor some day; these own theirs.
        #[allow(deprecated)]
        let listen = |descriptor| AsyncFd::with_interest(descriptor, Interest::READABLE);
        Ok(Self {
            answers: listen(answers)?,
            end: end.map(listen).transpose()?,
            output: output.map(listen).transpose()?,
        })
    }

    /// Waits until the worker has ended by itself. What its module prints meanwhile is logged.
    pub(super) async fn ended(&mut self, signer: &mut Signer) {
        loop {
            let rest = tokio::select! {
                _ = readable(self.end.as_ref()) => return,
                ready = readable(self.output.as_ref()) => log(ready, signer),
            };
            self.logged(rest).await;
        }
    }

    /// A module that prints without end has its turn among all others.
    async fn logged(&mut self, rest: Rest) {
        self.output.take_if(|_| rest == Rest::Ended);
        tokio::task::yield_now().await;
    }

    /// Waits until something has come of what was begun. What the module prints meanwhile is logged.
    pub(super) async fn answered(&mut self, signer: &mut Signer) -> Progress {
        loop {
            let rest = tokio::select! {
                biased;
                ready = self.answers.readable() => match (ready, signer.look()) {
                    (Ok(mut ready), Progress::None) => {
                        ready.clear_ready();
                        continue;
                    }
                    // Where the kernel cannot wait, whoever calls next finds out why.
                    (Err(_), Progress::None) => return Progress::Other,
                    (_, progress) => return progress,
                },
                ready = readable(self.output.as_ref()) => log(ready, signer),
            };
            self.logged(rest).await;
        }
    }
}

type Ready<'a> = io::Result<AsyncFdReadyGuard<'a, OwnedFd>>;

async fn readable(descriptor: Option<&AsyncFd<OwnedFd>>) -> Ready<'_> {
    match descriptor {
        Some(descriptor) => descriptor.readable().await,
        None => std::future::pending().await,
    }
}

fn log(ready: Ready<'_>, signer: &mut Signer) -> Rest {
    let Ok(mut ready) = ready else { return Rest::Ended };
    let rest = signer.log_output();
    if rest == Rest::None {
        if ready.ready().is_read_closed() {
            // Which stays so, whoever opens the pipe anew.
            return Rest::Ended;
        }
        ready.clear_ready();
    }
    rest
}
