//! What systemd hears: ready, what the token does, and that front and pool make progress.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

/// The way to systemd. What is said is written by a thread of its own: a manager that does not read must not hold up the
/// loop.
#[derive(Clone, Debug, Default)]
pub(super) struct Systemd(Arc<(Mutex<Said>, Condvar)>);

/// What is not yet written. A newer status or sign of life takes the place of the older.
#[derive(Debug, Default)]
struct Said {
    states: VecDeque<State>,
    status: Option<String>,
    alive: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Ready,
    Reloading,
    Stopping,
}

impl Systemd {
    /// Starts the thread, where systemd wants to hear anything.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start() -> std::io::Result<Self> {
        let systemd = Self::default();
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            let own = systemd.clone();
            std::thread::Builder::new().name("systemd".into()).spawn(move || own.write())?;
        }
        Ok(systemd)
    }

    /// The socket is served.
    pub(super) fn ready(&self) {
        self.say(|said| said.states.push_back(State::Ready));
    }

    /// A renewal of all workers began; [`Systemd::ready`] says when it is under way.
    pub(super) fn reloading(&self) {
        self.say(|said| said.states.push_back(State::Reloading));
    }

    /// The end began.
    pub(super) fn stopping(&self) {
        self.say(|said| said.states.push_back(State::Stopping));
    }

    /// One line for `systemctl status`.
    pub(super) fn status(&self, text: &str) {
        self.say(|said| said.status = Some(text.to_owned()));
    }

    /// Front and pool make progress.
    pub(super) fn alive(&self) {
        self.say(|said| said.alive = true);
    }

    fn say(&self, what: impl FnOnce(&mut Said)) {
        let (said, more) = &*self.0;
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody listens, or nobody has for long.
        said.states.truncate(64);
        what(&mut said);
        more.notify_one();
    }

    fn write(&self) {
        let (shared, more) = &*self.0;
        loop {
            let mut said = shared.lock().unwrap_or_else(PoisonError::into_inner);
            while said.states.is_empty() && said.status.is_none() && !said.alive {
                said = more.wait(said).unwrap_or_else(PoisonError::into_inner);
            }
            let (state, status, alive) = (said.states.pop_front(), said.status.take(), std::mem::take(&mut said.alive));
            drop(said);
            let mut states = Vec::new();
            match state {
                Some(State::Ready) => states.push(NotifyState::Ready),
                Some(State::Stopping) => states.push(NotifyState::Stopping),
                Some(State::Reloading) => {
                    states.push(NotifyState::Reloading);
                    states.extend(NotifyState::monotonic_usec_now());
                }
                None => {}
            }
            states.extend(status.as_deref().map(NotifyState::Status));
            states.extend(alive.then_some(NotifyState::Watchdog));
            // A manager that went away is no reason to end.
            if let Err(error) = sd_notify::notify(&states) {
                tracing::debug!("systemd cannot be told: {error}");
            }
        }
    }
}

/// How often [`Systemd::alive`] must be said: twice in systemd's time; `None` where it does not ask for it.
pub(super) fn watchdog() -> Option<Duration> {
    const LEAST: Duration = Duration::from_millis(1);
    const MOST: Duration = Duration::from_secs(86_400);
    // A timer takes neither a period of nothing nor one beyond its clock.
    let whole = sd_notify::watchdog_enabled().filter(|whole| !whole.is_zero())?;
    Some((whole / 2).clamp(LEAST, MOST))
}
