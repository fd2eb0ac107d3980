//! The service behind the socket: everything that an answer needs, the rate limits, and the readiness.
//!
//! Runs in the parent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::access::{AccessRules, RefusalLog};
use super::metrics::Metrics;
use super::pool::plan::action::Refusal;
use super::pool::{Pool, Work};
use crate::config::Config;
use crate::error::Kind;
use crate::problem::Problem;

mod client_stream;
mod connections;
mod custody_report;
mod routes;
mod server;

pub(super) use server::run;

use connections::Connections;
use custody_report::CustodyReport;

/// The time limit for a check that the token is present.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for which the result of that check is valid.
const PROBE_VALIDITY: Duration = Duration::from_secs(5);

/// Everything that the answers need.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) pool: Pool,
    pub(super) metrics: Metrics,
    pub(super) refusal_log: RefusalLog,
    pub(super) config: Arc<Config>,
    rules: AccessRules,
    limiter: Limiter,
    total_limiter: TotalLimiter,
    /// The result of the last check, and its time.
    probed: Mutex<Option<(Instant, Option<Refusal>)>>,
    custody: CustodyReport,
    connections: Arc<Connections>,
    draining: AtomicBool,
}

type Limiter = RateLimiter<u32, HashMapStateStore<u32>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

type TotalLimiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// The number of users whose last requests are remembered, before old ones are removed.
const USERS: usize = 1024;

impl Service {
    pub(super) fn new(
        pool: Pool,
        metrics: Metrics,
        rules: AccessRules,
        config: Arc<Config>,
        connections: usize,
    ) -> Arc<Self> {
        let each = Quota::per_second(config.serve.rate_limit_per_second);
        let total = Quota::per_second(config.serve.total_rate_limit_per_second);
        let limiter = RateLimiter::new(each, HashMapStateStore::default(), MonotonicClock);
        Arc::new(Self {
            pool,
            metrics,
            rules,
            config,
            limiter,
            total_limiter: RateLimiter::direct_with_clock(total, MonotonicClock),
            refusal_log: RefusalLog::default(),
            probed: Mutex::new(None),
            custody: CustodyReport::default(),
            connections: Connections::new(connections),
            draining: AtomicBool::new(false),
        })
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts a request of a user. A request for a payload also counts for all users together.
    pub(super) fn limit(&self, uid: u32, is_for_payload: bool) -> Result<(), Problem> {
        if self.limiter.len() > USERS {
            self.limiter.retain_recent();
        }
        let refuse = |wait: NotUntil<std::time::Instant>, reason, detail: &str| {
            self.metrics.count_refusal(reason);
            Problem::new("rate_limited").detail(detail).retry_after(wait.wait_time_from(MonotonicClock.now()))
        };
        self.limiter.check_key(&uid).map_err(|wait| refuse(wait, "rate_limited", "rate_limit_per_second"))?;
        if is_for_payload {
            let refuse = |wait| refuse(wait, "total_rate_limited", "total_rate_limit_per_second");
            self.total_limiter.check().map_err(refuse)?;
        }
        Ok(())
    }

    /// Whether a worker is logged in with a valid certificate, and the token answered in the last seconds.
    pub(super) async fn ready(&self) -> Result<(), Problem> {
        self.probe().await.map_err(|refusal| Problem::of(refusal.kind, refusal.retry_after).unavailable())
    }

    /// The reason why the agent is not ready, as far as it is known without the token.
    pub(super) fn why_not_ready(&self) -> Problem {
        let starting = Refusal { kind: Kind::NotFound, retry_after: Some(Duration::from_secs(1)) };
        let refusal = self.pool.view().trouble.unwrap_or(starting);
        Problem::of(refusal.kind, refusal.retry_after).unavailable()
    }

    pub(super) async fn metrics_text(&self) -> prometheus::Result<Vec<u8>> {
        let ready = self.probe().await.is_ok();
        self.metrics.text(&self.pool.view(), ready, !self.pool.audit_has_failed())
    }

    async fn probe(&self) -> Result<(), Refusal> {
        if self.pool.audit_has_failed() {
            return Err(Refusal { kind: Kind::AuditUnavailable, retry_after: Some(PROBE_VALIDITY) });
        }
        let view = self.pool.view();
        if !view.is_up {
            let starting = Refusal { kind: Kind::TokenFailed, retry_after: Some(Duration::from_secs(1)) };
            return Err(view.trouble.unwrap_or(starting));
        }
        // All workers are busy, within their time limits. This is no fault of the token, and no worker is free for a
        // check.
        if self.pool.is_proven() || self.pool.is_at_work() {
            return Ok(());
        }
        // One request checks, and concurrent ones get the same result.
        let mut probed = self.probed.lock().await;
        if let Some((when, result)) = *probed {
            if when.elapsed() < PROBE_VALIDITY && (result.is_some() || self.pool.is_proven()) {
                return result.map_or(Ok(()), Err);
            }
        }
        let result = self.pool.submit(Work::Probe).wait(Instant::now() + PROBE_TIMEOUT).await;
        let refusal = result.err().filter(|_| !self.pool.is_at_work());
        *probed = Some((Instant::now(), refusal));
        refusal.map_or(Ok(()), Err)
    }
}
