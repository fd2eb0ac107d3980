//! A worker that is logged in: how it carries out requests, and how the parent accepts its results.
//!
//! Runs in the parent.

use std::time::{Duration, Instant};

use crate::cba::{LoginRequest, RequestFormat, UncheckedPayload};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::policy::Permit;
use crate::serve::pool::in_flight::InFlight;
use crate::serve::pool::plan::retry::stops_logins;
use crate::serve::pool::start_worker::first_choice;
use crate::serve::pool::state::PoolShared;
use crate::serve::pool::worker_events::WorkerEvents;
use crate::session::signing_session::{Signed, SigningSession};
use crate::signer;

/// The policy's warnings are logged once in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(86_400);

/// The result of a worker; `None` for a probe.
pub(super) type WorkerResult = Option<(Permit, UncheckedPayload)>;

/// A worker that is logged in.
pub(super) struct ReadyWorker {
    pub(super) session: SigningSession,
    pub(super) events: WorkerEvents,
    warned: Option<Instant>,
}

impl ReadyWorker {
    pub(super) fn new(session: SigningSession, events: WorkerEvents) -> Self {
        Self { session, events, warned: None }
    }

    /// Logs the policy's warnings, once a day.
    pub(super) fn warn(&mut self, config: &Config, permit: &Permit) {
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARNING_INTERVAL) {
            signer::warn(&self.session, config, permit);
            self.warned = Some(Instant::now());
        }
    }

    /// Signs, and logs in first if the key needs a login for each signature. It may block.
    pub(super) fn sign(mut self, config: &Config, permit: Permit) -> (Self, Result<WorkerResult>) {
        let result = signer::sign(&mut self.session, config, permit).map(Some);
        (self, result)
    }

    /// Reads the reply to a request for a signature, unless this has happened already. Signs again if a first signature
    /// failed because of a missing login or mechanism. It may block.
    pub(super) fn recovered(
        mut self,
        config: &Config,
        permit: Permit,
        signed: Option<Signed>,
    ) -> (Self, Result<WorkerResult>) {
        let signed = signed.unwrap_or_else(|| self.session.signed());
        let result = signer::recovered(&mut self.session, config, permit, signed).map(Some);
        (self, result)
    }

    /// Reads the reply to a probe, and asks the policy whether the token may sign.
    pub(super) fn probed(mut self, config: &Config) -> (Self, Result<WorkerResult>) {
        let probed = self.session.probed();
        let result = probed.and_then(|()| signer::permit(&self.session, config, first_choice(config))).map(|_| None);
        (self, result)
    }
}

/// Turns the worker's result into a login request whose message was never delivered before.
pub(super) fn accepted(
    shared: &PoolShared,
    session: &SigningSession,
    (permit, payload): (Permit, UncheckedPayload),
    request: &InFlight,
) -> Result<LoginRequest> {
    let login_request = signer::accept(session, &shared.config, &permit, payload)?;
    if !shared.is_new(&login_request) {
        // A repeated message passes every other check, but is an alarm.
        let message = "cannot hand out a payload: the token's result was discarded: its message was handed out before";
        return Err(Error::new(Kind::SignatureInvalid, message)
            .hint("treat this as an alarm: module, token or memory is faulty or compromised; nothing was handed out"));
    }
    tracing::info!("{}", request.work);
    Ok(login_request)
}

/// Returns the login request in the form that a client receives.
pub(super) fn text_of(request: &LoginRequest) -> Result<String> {
    request.render(RequestFormat::Json).map_err(|error| Error::new(Kind::Unexpected, error.to_string()))
}

/// Logs the reason why a worker was lost. The same error again is logged at level debug.
pub(super) fn report(worker: usize, error: &Error, last: Option<&str>) {
    let (message, hints) = (&error.message, &error.hints);
    if last == Some(message) {
        tracing::debug!("worker {worker}: {message}");
    } else if stops_logins(error.kind) || error.kind == Kind::SignatureInvalid {
        tracing::error!("worker {worker}: {message}");
        hints.iter().for_each(|hint| tracing::error!("hint: {hint}"));
    } else {
        tracing::warn!("worker {worker}: {message}");
        hints.iter().for_each(|hint| tracing::warn!("hint: {hint}"));
    }
}
