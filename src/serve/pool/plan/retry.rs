//! Decides what follows from a failure for the next start.
//!
//! PURE.

use std::time::Duration;

use crate::error::{Class, Kind};

/// The first pause between two failed starts.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether no PIN may be sent after this failure until somebody acts. Logins continue if the failure prevented the
/// attempt and can pass without help.
pub(crate) fn stops_logins(kind: Kind) -> bool {
    kind.class() == Class::Pin && !matches!(kind, Kind::StateDir | Kind::PinState)
}

/// Whether another start right after this failure would fail again.
pub(crate) fn is_away(kind: Kind) -> bool {
    !kind.retryable() || matches!(kind, Kind::TokenRemoved | Kind::TokenSessions)
}

/// The pause before the next start. It doubles with each failure. Its second half is random, so that several agents do
/// not start together.
pub(crate) fn pause(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(2).min(16);
    let whole = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let half = whole / 2;
    let jitter = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_millis(random % jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_that_a_person_must_clear_stops_logins() {
        for kind in [Kind::PinMissing, Kind::PinSource, Kind::PinIncorrect, Kind::PinLocked, Kind::PinLength] {
            assert!(stops_logins(kind), "{kind:?}");
        }
        for kind in [Kind::PinExpired, Kind::PinFinalTry, Kind::PinFuse] {
            assert!(stops_logins(kind), "{kind:?}");
        }
        for kind in [Kind::StateDir, Kind::PinState, Kind::TokenFailed, Kind::TokenRemoved, Kind::Policy] {
            assert!(!stops_logins(kind), "{kind:?}");
        }
    }

    #[test]
    fn a_token_that_is_removed_full_or_refused_is_away() {
        for kind in [Kind::TokenRemoved, Kind::TokenSessions, Kind::NotFound, Kind::Policy, Kind::PinIncorrect] {
            assert!(is_away(kind), "{kind:?}");
        }
        for kind in [Kind::TokenFailed, Kind::TokenTimeout, Kind::TokenBusy] {
            assert!(!is_away(kind), "{kind:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_spread_over_their_second_half() {
        assert_eq!(pause(2, 0), Duration::from_millis(125));
        assert_eq!(pause(3, 0), Duration::from_millis(250));
        assert_eq!(pause(3, 249), Duration::from_millis(499));
        assert_eq!(pause(3, 250), Duration::from_millis(250));
        assert_eq!(pause(u32::MAX, 0), LONGEST_PAUSE / 2);
        assert!(pause(u32::MAX, u64::MAX) < LONGEST_PAUSE);
    }
}
