//! A worker's thread: what may take long is done here, while the loop goes on.
//!
//! Runs in the parent. It ends with the place that it belongs to, and so after every worker that was started on it, as
//! must be: a worker dies with the thread that started it.

use std::io;
use std::sync::mpsc;

use tokio::sync::oneshot;

type Errand = Box<dyn FnOnce() + Send>;

/// A thread that does one errand after the other.
#[derive(Debug)]
pub(super) struct Thread {
    errands: mpsc::Sender<Errand>,
}

impl Thread {
    /// Starts one.
    ///
    /// # Errors
    /// When the system has none left.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (errands, given) = mpsc::channel::<Errand>();
        let run = move || given.into_iter().for_each(|errand| errand());
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { errands })
    }

    /// Has something done there, and waits for what comes of it. What was begun is done even if nobody waits any more.
    pub(super) async fn run<T: Send + 'static>(&self, errand: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = oneshot::channel();
        let _ = self.errands.send(Box::new(move || drop(sender.send(errand()))));
        match result.await {
            Ok(result) => result,
            // An errand that panics ends the process.
            Err(_) => std::future::pending().await,
        }
    }
}
