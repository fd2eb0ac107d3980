//! The agent's messages to systemd: readiness, the state of the token, and the progress of parent and pool. Runs in the
//! parent.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

/// The connection to systemd. A separate thread writes the messages, since a manager that does not read must not block
/// the event loop.
#[derive(Clone, Debug, Default)]
pub(super) struct Systemd(Arc<(Mutex<UnsentMessages>, Condvar)>);

/// The unwritten messages. A newer status or watchdog message replaces the older one.
#[derive(Debug, Default)]
struct UnsentMessages {
    states: VecDeque<ServiceState>,
    status: Option<String>,
    alive: bool,
}

#[derive(Clone, Copy, Debug)]
enum ServiceState {
    Ready,
    Reloading,
    Stopping,
}

impl Systemd {
    /// Starts the thread, if systemd expects messages.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let systemd = Self::default();
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            let writer = systemd.clone();
            std::thread::Builder::new().name("systemd".into()).spawn(move || writer.write())?;
        }
        Ok(systemd)
    }

    /// Reports that the socket is served.
    pub(super) fn ready(&self) {
        self.enqueue(|messages| messages.states.push_back(ServiceState::Ready));
    }

    /// Reports the start of a reload; [`Systemd::ready`] reports its completion.
    pub(super) fn reloading(&self) {
        self.enqueue(|messages| messages.states.push_back(ServiceState::Reloading));
    }

    /// Reports the start of the end.
    pub(super) fn stopping(&self) {
        self.enqueue(|messages| messages.states.push_back(ServiceState::Stopping));
    }

    /// Sets the line for `systemctl status`.
    pub(super) fn status(&self, text: &str) {
        self.enqueue(|messages| messages.status = Some(text.to_owned()));
    }

    /// Reports progress to the watchdog.
    pub(super) fn alive(&self) {
        self.enqueue(|messages| messages.alive = true);
    }

    fn enqueue(&self, what: impl FnOnce(&mut UnsentMessages)) {
        let (messages, more) = &*self.0;
        let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing reads the messages, or has not for a long time.
        messages.states.truncate(64);
        what(&mut messages);
        more.notify_one();
    }

    fn write(&self) {
        let (shared, more) = &*self.0;
        loop {
            let mut messages = shared.lock().unwrap_or_else(PoisonError::into_inner);
            while messages.states.is_empty() && messages.status.is_none() && !messages.alive {
                messages = more.wait(messages).unwrap_or_else(PoisonError::into_inner);
            }
            let (state, status, alive) =
                (messages.states.pop_front(), messages.status.take(), std::mem::take(&mut messages.alive));
            drop(messages);
            let mut states = Vec::new();
            match state {
                Some(ServiceState::Ready) => states.push(NotifyState::Ready),
                Some(ServiceState::Stopping) => states.push(NotifyState::Stopping),
                Some(ServiceState::Reloading) => {
                    states.push(NotifyState::Reloading);
                    states.extend(NotifyState::monotonic_usec_now());
                }
                None => {}
            }
            states.extend(status.as_deref().map(NotifyState::Status));
            states.extend(alive.then_some(NotifyState::Watchdog));
            // A manager that has ended is no reason to end.
            if let Err(error) = sd_notify::notify(&states) {
                tracing::debug!("cannot notify systemd: {error}");
            }
        }
    }
}

/// How often [`Systemd::alive`] must be called: twice in systemd's period; `None` without a watchdog.
pub(super) fn watchdog() -> Option<Duration> {
    const LEAST: Duration = Duration::from_millis(1);
    const MOST: Duration = Duration::from_secs(86_400);
    // A timer accepts neither a zero period nor one beyond its clock.
    let whole = sd_notify::watchdog_enabled().filter(|whole| !whole.is_zero())?;
    Some((whole / 2).clamp(LEAST, MOST))
}
