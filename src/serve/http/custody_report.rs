//! The answer to `GET /custody`: built on a thread of its own, one at a time, and kept for a few seconds.
//!
//! Runs in the parent. A token decides how many certificates the report has to look at, so building it may take longer
//! than the loop can wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::Mutex;

use crate::serve::pool::{Pool, ServedIdentity};

/// How long a report is handed out.
const HOLDS: Duration = Duration::from_secs(5);

/// The last report.
#[derive(Debug, Default)]
pub(super) struct CustodyReport(Arc<Mutex<Option<Last>>>);

#[derive(Debug)]
struct Last {
    built: Instant,
    /// What it reports on; another identity or another login has its own.
    served: Arc<ServedIdentity>,
    text: Bytes,
}

impl CustodyReport {
    /// The report on what the workers hold as JSON, a few seconds old at most; `None` where nothing was seen or it cannot be
    /// built.
    pub(super) async fn text(&self, pool: &Pool) -> Option<Bytes> {
        let served = pool.served()?;
        // Held until the report is there, even if this client leaves: the next one does not start another.
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some(last) =
            last.as_ref().filter(|last| Arc::ptr_eq(&last.served, &served) && last.built.elapsed() < HOLDS)
        {
            return Some(last.text.clone());
        }
        let build = pool.report_of(Arc::clone(&served));
        let build = move || {
            let text = build();
            *last = text.clone().map(|text| Last { built: Instant::now(), served, text });
            text
        };
        tokio::task::spawn_blocking(build).await.ok().flatten()
    }
}
