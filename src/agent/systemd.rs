//! What systemd hears: ready, what the token does, and that front and pool make progress.

use std::time::Duration;

use sd_notify::NotifyState;

/// The state that the agent says it is in.
pub(super) fn ready() {
    say(&[NotifyState::Ready]);
}

/// A renewal of all workers began; [`ready`] says when it is under way.
pub(super) fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    match now {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(_) => say(&[NotifyState::Reloading]),
    }
}

pub(super) fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub(super) fn status(text: &str) {
    say(&[NotifyState::Status(text)]);
}

pub(super) fn alive() {
    say(&[NotifyState::Watchdog]);
}

/// How often [`alive`] must be said: twice in systemd's time; `None` where it does not ask for it.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|whole| whole / 2)
}

/// A manager that went away is no reason to end.
fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd cannot be told: {error}");
    }
}
