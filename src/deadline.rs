//! Time limits for module and token.
//!
//! Runs in both processes.

use std::time::{Duration, Instant};

/// The end of the time for some work. A prompt postpones it.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// A deadline after this duration.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        Self { at: now.checked_add(timeout).unwrap_or(now + Duration::from_secs(86_400)), timeout }
    }

    /// Runs a wait for a person. Its time does not count.
    pub(crate) fn stopped<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = wait();
        self.at += start.elapsed();
        result
    }

    /// The total time, without prompts.
    #[must_use]
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The remaining time; `None` after the deadline.
    #[must_use]
    pub(crate) fn left(&self) -> Option<Duration> {
        self.at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stops_while_a_person_is_awaited() {
        let mut deadline = Deadline::after(Duration::from_secs(5));
        let before = deadline.at;
        deadline.stopped(|| std::thread::sleep(Duration::from_millis(2)));
        assert!(deadline.at >= before + Duration::from_millis(2));
        assert_eq!(Deadline::after(Duration::ZERO).left(), None);
    }
}
