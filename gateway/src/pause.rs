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

/// The current pause, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Option<(Instant, PauseReason)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PauseReason {
    RateLimited,
    Refused(u16),
}

impl Pause {
    /// Starts a pause if Anaplan's answer to a login is 401, 403 or 429.
    pub(crate) fn observe(&self, answer: &UpstreamAnswer) {
        let next = match answer.status {
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = bounded(Duration::from_secs(answer.retry_after.unwrap_or(0)));
                Some((Instant::now() + wait, PauseReason::RateLimited))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Some((Instant::now() + AFTER_REFUSAL, PauseReason::Refused(answer.status.as_u16())))
            }
            _ => return,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = next;
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
