//! The rate limits. Each client has a limit of logins. Each source has limits of failed logins under a client's name, of
//! requests with Anaplan tokens, and of logged refusals.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::{NoOpMiddleware, RateLimitingMiddleware, StateInformationMiddleware};
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::source::CallerSource;
use crate::verify::FailureLimit;

/// The maximum number of failed logins of one source under one client's name. After it, the gateway refuses this pair
/// without a verification until [`FAILURE_WINDOW`] is over.
const MAX_FAILURES: u32 = 10;

/// The time from the first counted failure until the count starts again.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// The maximum number of entries in a table. If the table of failures has no free entry, the gateway refuses pairs of source
/// and client that are not in it.
const MAX_TABLE_ENTRIES: usize = 16 << 10;

/// The number of requests with Anaplan tokens that one source may make in a minute.
const TOKEN_REQUESTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(600).expect("600 is not 0"); // invariant: 600 is not 0

/// The number of refusals of one source that are logged in a minute.
const LOGGED_REFUSALS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("30 is not 0"); // invariant: 30 is not 0

type Middleware = NoOpMiddleware<Instant>;
type PerSource<M = Middleware> = RateLimiter<CallerSource, HashMapStateStore<CallerSource>, MonotonicClock, M>;

/// Limits the logins of one client per minute. A clone shares the count.
#[derive(Clone, Debug)]
pub(crate) struct ClientRate {
    per_minute: NonZeroU32,
    limiter: Arc<RateLimiter<NotKeyed, InMemoryState, MonotonicClock, Middleware>>,
}

impl ClientRate {
    /// Creates a limiter that has counted no login.
    #[must_use]
    pub(crate) fn new(per_minute: NonZeroU32) -> Self {
        let limiter = RateLimiter::direct_with_clock(Quota::per_minute(per_minute), MonotonicClock);
        Self { per_minute, limiter: Arc::new(limiter) }
    }

    /// Returns the old limiter with its count if the limit is unchanged, otherwise a new one.
    #[must_use]
    pub(crate) fn for_reload(old: Option<&Self>, per_minute: NonZeroU32) -> Self {
        old.filter(|old| old.per_minute == per_minute).cloned().unwrap_or_else(|| Self::new(per_minute))
    }

    /// Counts a login.
    ///
    /// # Errors
    /// The time to wait, if the limit is reached.
    pub(crate) fn count(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|wait| wait.wait_time_from(MonotonicClock.now()))
    }
}

/// The counters of all sources. A source is a user of this host, or an address.
pub(crate) struct SourceRates {
    failures: Mutex<HashMap<(CallerSource, String), (u32, Instant)>>,
    tokens: PerSource,
    logged: PerSource<StateInformationMiddleware>,
}

impl Default for SourceRates {
    fn default() -> Self {
        let per_source = |rate| RateLimiter::new(Quota::per_minute(rate), HashMapStateStore::default(), MonotonicClock);
        Self {
            failures: Mutex::default(),
            tokens: per_source(TOKEN_REQUESTS_PER_MINUTE),
            logged: per_source(LOGGED_REFUSALS_PER_MINUTE).with_middleware(),
        }
    }
}

impl SourceRates {
    /// Counts a request with an Anaplan token.
    ///
    /// # Errors
    /// The time to wait, if the limit is reached.
    pub(crate) fn count_token_request(&self, source: CallerSource) -> Result<(), Duration> {
        drop_inactive_sources(&self.tokens);
        self.tokens.check_key(&source).map_err(|wait| wait.wait_time_from(MonotonicClock.now()))
    }

    /// Counts a refusal of this source, and returns whether it may be logged. At the limit, the log says so: somebody looks
    /// there for the ID of a reply.
    #[must_use]
    pub(crate) fn may_log(&self, source: CallerSource) -> bool {
        drop_inactive_sources(&self.logged);
        let Ok(state) = self.logged.check_key(&source) else { return false };
        if state.remaining_burst_capacity() == 0 {
            tracing::warn!(
                "the log omits refusals of {source} beyond {LOGGED_REFUSALS_PER_MINUTE} a minute; the metrics count all"
            );
        }
        true
    }
}

impl FailureLimit for SourceRates {
    fn may_try(&self, source: CallerSource, client: &str) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_TABLE_ENTRIES {
            failures.retain(|_, (_, since)| since.elapsed() < FAILURE_WINDOW);
        }
        match failures.get(&(source, client.to_owned())) {
            Some((count, since)) => *count < MAX_FAILURES || since.elapsed() >= FAILURE_WINDOW,
            None => failures.len() < MAX_TABLE_ENTRIES,
        }
    }

    fn count_failure(&self, source: CallerSource, client: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = failures.entry((source, client.to_owned())).or_insert((0, Instant::now()));
        if entry.1.elapsed() >= FAILURE_WINDOW {
            *entry = (0, Instant::now());
        }
        entry.0 = entry.0.saturating_add(1);
    }
}

/// Removes sources without a recent request, so that the table stays small.
fn drop_inactive_sources<M: RateLimitingMiddleware<Instant>>(limiter: &PerSource<M>) {
    if limiter.len() > MAX_TABLE_ENTRIES {
        limiter.retain_recent();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_block_only_the_pair_of_source_and_client() {
        let rates = SourceRates::default();
        for _ in 0..MAX_FAILURES {
            assert!(rates.may_try(CallerSource::User(1), "a"));
            rates.count_failure(CallerSource::User(1), "a");
        }
        assert!(!rates.may_try(CallerSource::User(1), "a"));
        assert!(rates.may_try(CallerSource::User(1), "b") && rates.may_try(CallerSource::User(2), "a"));
    }

    #[test]
    fn a_reload_keeps_the_counter_of_an_unchanged_rate() {
        let rate = ClientRate::new(NonZeroU32::new(2).unwrap());
        assert!(rate.count().is_ok() && rate.count().is_ok());
        let reloaded = ClientRate::for_reload(Some(&rate), NonZeroU32::new(2).unwrap());
        assert!(reloaded.count().unwrap_err() > Duration::from_secs(20));
        assert!(ClientRate::for_reload(Some(&rate), NonZeroU32::new(3).unwrap()).count().is_ok());
    }
}
