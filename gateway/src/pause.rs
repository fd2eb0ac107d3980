//! Pauses in which no login is posted, because the service refused an earlier one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::failure::LoginFailure;
use crate::upstream::UpstreamAnswer;
use crate::upstream::answer::bounded;

/// The pause after a login that the service refused: the certificate is disabled, or the clock is wrong.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// The current pause.
#[derive(Debug, Default)]
pub struct Pause(Mutex<Option<(Instant, Reason)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    TooMany,
    Refused(u16),
}

impl Pause {
    /// Starts a pause if the service's answer to a login requires it.
    pub fn learn(&self, answer: &UpstreamAnswer) {
        let next = match answer.status {
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = bounded(Duration::from_secs(answer.retry_after.unwrap_or(0)));
                Some((Instant::now() + wait, Reason::TooMany))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Some((Instant::now() + AFTER_REFUSAL, Reason::Refused(answer.status.as_u16())))
            }
            _ => return,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Checks that a login may be posted.
    ///
    /// # Errors
    /// During a pause.
    pub fn check(&self) -> Result<(), LoginFailure> {
        let held = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((until, reason)) = held else { return Ok(()) };
        let Some(left) = until.checked_duration_since(Instant::now()) else { return Ok(()) };
        Err(match reason {
            Reason::TooMany => LoginFailure::too_many("Anaplan takes no further logins at the moment", left),
            Reason::Refused(status) => LoginFailure::until_repaired(
                "paused",
                format!(
                    "Anaplan refused the last login ({status}); logins stop for a minute. Check the certificate in Anaplan and this host's clock"
                ),
            ),
        })
    }

    /// Ends the pause. A reload does this.
    pub fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
