//! The pause after Anaplan refused a login or asked the gateway to wait. During it, the gateway sends Anaplan no login
//! and reports that it is not ready.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::failure::LoginFailure;
use crate::upstream::UpstreamAnswer;
use crate::upstream::answer::bounded;

/// The length of the pause after 401 or 403. A sooner retry would not help: the usual causes are a disabled certificate and a
/// wrong clock.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// The longest pause after 429. A mistake in Anaplan's answer must not stop logins for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The current pause, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Option<(Instant, PauseReason)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PauseReason {
    RateLimited,
    Refused(u16),
}

impl Pause {
    /// Starts a pause if Anaplan's answer to a login is 401, 403 or 429. An answer to an earlier login does not shorten a
    /// pause.
    pub(crate) fn observe(&self, answer: &UpstreamAnswer) {
        let (wait, reason) = match answer.status {
            StatusCode::TOO_MANY_REQUESTS => {
                let asked = Duration::from_secs(answer.retry_after.unwrap_or(0));
                // Callers hear of at most 120 s at a time. They ask again, and hear of the rest.
                (asked.clamp(bounded(Duration::ZERO), LONGEST_WAIT), PauseReason::RateLimited)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                (AFTER_REFUSAL, PauseReason::Refused(answer.status.as_u16()))
            }
            _ => return,
        };
        let until = Instant::now() + wait;
        let mut pause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pause.is_none_or(|(current, _)| current < until) {
            *pause = Some((until, reason));
        }
    }

    /// Checks that a login may be sent to Anaplan.
    ///
    /// # Errors
    /// During a pause.
    pub(crate) fn check(&self) -> Result<(), LoginFailure> {
        let pause = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((until, reason)) = pause else { return Ok(()) };
        let Some(left) = until.checked_duration_since(Instant::now()) else { return Ok(()) };
        Err(match reason {
            PauseReason::RateLimited => LoginFailure::rate_limited("Anaplan limits logins at the moment", left),
            PauseReason::Refused(status) => LoginFailure::until_repaired(
                "paused",
                format!(
                    "Anaplan refused the last login ({status}), so the gateway sends none for a minute; check the certificate in Anaplan and the clock of the gateway's host"
                ),
            ),
        })
    }

    /// Ends the pause. A reload does this.
    pub(crate) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<u64>) -> UpstreamAnswer {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(status).unwrap();
        let mut answer = UpstreamAnswer::new(&parts, hyper::body::Bytes::new());
        answer.retry_after = retry_after;
        answer
    }

    fn left(pause: &Pause) -> u64 {
        let (until, _) = pause.0.lock().unwrap().unwrap();
        (until - Instant::now()).as_secs() + 1
    }

    #[test]
    fn a_pause_lasts_as_long_as_anaplan_asks_up_to_an_hour() {
        for (retry_after, seconds) in [(None, 5), (Some(0), 5), (Some(600), 600), (Some(86_400), 3600)] {
            let pause = Pause::default();
            pause.observe(&answer(429, retry_after));
            assert_eq!(left(&pause), seconds);
            let told = pause.check().unwrap_err().retry_after.unwrap();
            assert!(told <= Duration::from_secs(120), "{told:?}");
        }
    }

    #[test]
    fn a_later_answer_never_shortens_a_pause() {
        let pause = Pause::default();
        pause.observe(&answer(401, None));
        pause.observe(&answer(429, Some(5)));
        assert_eq!((left(&pause), pause.check().unwrap_err().outcome), (60, "paused"));
        pause.observe(&answer(201, None));
        pause.observe(&answer(429, Some(600)));
        pause.observe(&answer(403, None));
        assert_eq!((left(&pause), pause.check().unwrap_err().outcome), (600, "rate_limited"));
        pause.end();
        assert!(pause.check().is_ok());
    }
}
