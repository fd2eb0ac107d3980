//! The answer to `GET /custody`: built on a separate thread, one at a time, and kept for a few seconds.
//!
//! Runs in the parent. The token determines the number of certificates in the report, so building it may take longer
//! than the loop can wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::Mutex;

use crate::serve::pool::{Pool, ServedIdentity};

/// The time for which a report is kept.
const REPORT_VALIDITY: Duration = Duration::from_secs(5);

/// The last report.
#[derive(Debug, Default)]
pub(super) struct CustodyReport(Arc<Mutex<Option<CachedReport>>>);

#[derive(Debug)]
struct CachedReport {
    built: Instant,
    /// The identity of the report. Another identity or login needs a new report.
    served: Arc<ServedIdentity>,
    text: Bytes,
}

impl CustodyReport {
    /// The report about the workers' identity as JSON, at most a few seconds old; `None` if there is none or it cannot
    /// be built.
    pub(super) async fn text(&self, pool: &Pool) -> Option<Bytes> {
        let served = pool.view().served?;
        // Held until the report exists, even if this client leaves: the next client must not start another one.
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some(last) =
            last.as_ref().filter(|last| Arc::ptr_eq(&last.served, &served) && last.built.elapsed() < REPORT_VALIDITY)
        {
            return Some(last.text.clone());
        }
        let build = pool.report_of(Arc::clone(&served));
        let build = move || {
            let text = build();
            *last = text.clone().map(|text| CachedReport { built: Instant::now(), served, text });
            text
        };
        tokio::task::spawn_blocking(build).await.ok().flatten()
    }
}
