//! The thread of a worker: it does work that may block, while the event loop continues.
//!
//! Runs in the parent. The kernel kills a worker process when the thread that started it ends. So the thread must outlive
//! its workers: it ends when the task of its worker drops it.

use std::io;
use std::sync::mpsc;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one job after another.
#[derive(Debug)]
pub(super) struct WorkerThread {
    jobs: mpsc::Sender<Job>,
}

impl WorkerThread {
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, received) = mpsc::channel::<Job>();
        let run = move || received.into_iter().for_each(|job| job());
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { jobs })
    }

    /// Does a job on the thread and returns its result. A job that has begun is finished even if nobody waits for it
    /// any more.
    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = oneshot::channel();
        let _ = self.jobs.send(Box::new(move || drop(sender.send(job()))));
        match result.await {
            Ok(result) => result,
            // Only a job that panics sends no result. The panic ends the process, so this future never has to finish.
            Err(_) => std::future::pending().await,
        }
    }
}
