//! What a failure means for the next start.
//!
//! PURE.

use std::time::Duration;

use crate::error::Kind;

/// The first pause between two starts that failed.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether a failure says that no PIN should be sent until somebody acted. What stands in the way of an attempt without
/// having cost one, and passes by itself, does not.
pub(crate) fn stops_logins(kind: Kind) -> bool {
    kind.exit_code() == 4 && !matches!(kind, Kind::StateDir | Kind::PinState)
}

/// Whether a start that failed so would not fare better at once.
pub(crate) fn is_away(kind: Kind) -> bool {
    !kind.retryable() || matches!(kind, Kind::TokenRemoved | Kind::TokenSessions)
}

/// Twice as long each time, and not at the same time as everybody else: between half of it and all of it.
pub(crate) fn pause(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(2).min(16);
    let whole = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let half = whole / 2;
    let jitter = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_millis(random % jitter)
}
