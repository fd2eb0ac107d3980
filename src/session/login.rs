//! The login: first the flags, then the fuse, then one `C_Login`.
//!
//! Runs in the parent.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::{Token, stand_in};
use crate::fuse::remedy::Remedy;
use crate::fuse::{self, BlownFuse, FuseError, FuseStore, LockedFuse, state_directory};
use crate::log;
use crate::modules;
use crate::pin::source::PreparedSource;
use crate::pin::{AttemptBy, AttemptEnd, Credential, PinEntry, PinError, PinSource};
use crate::selector;
use crate::worker_handle::WorkerError;
use crate::worker_protocol::step::Step;
use crate::worker_protocol::{LoginMethod, WorkerReply, WorkerRequest};

use super::SlotSession;
use super::pin_attempt::{
    SignError, accepted_if, at_the_keypad, check_before, check_flags, check_keypad, end_of, login_method,
};

/// The statement for every refused PIN.
const ONCE: &str = "the PIN was sent once and will not be sent again, since a token locks after a few wrong PINs";

/// The logins of one worker: their credential, and the token's lock during a login.
#[derive(Debug)]
pub(crate) struct Login {
    source: PinSupply,
    credential: Option<Arc<Credential>>,
    fuse: FuseHold,
    /// The time limit of a login after the token's lock is held; unset: the rest of the total time.
    time: Option<Duration>,
    /// The PIN file that a URI names. It is never printed.
    uri_file: Option<PathBuf>,
}

/// The source of the PIN, until it is read.
#[derive(Debug)]
enum PinSupply {
    Configured(PreparedSource),
    /// A systemd credential, or the person at the terminal.
    Usual,
    /// No source is left: the program must not ask again.
    None,
}

/// The token's fuse during a login.
#[derive(Debug)]
enum FuseHold {
    /// Not held: no PIN may be sent.
    Free,
    Locked(Box<LockedFuse>),
    /// There is no state directory, and the person at the prompt accepts the risk.
    Without,
}

impl Login {
    /// Takes over the configured source of the PIN. Call it before any child is started.
    #[must_use]
    pub(crate) fn prepare(config: &Config) -> Self {
        let configured = config.pin.clone().map(PinSource::prepare);
        let source = configured.map_or(PinSupply::Usual, PinSupply::Configured);
        Self { source, credential: None, fuse: FuseHold::Free, time: None, uri_file: None }
    }

    /// Logs in with a credential that was read before, and never prompts. `time` limits each login after the token's
    /// lock is held. Otherwise, a late lock could make the agent kill a login half-way.
    #[must_use]
    pub(crate) fn with(credential: Option<Arc<Credential>>, time: Duration) -> Self {
        Self { source: PinSupply::None, credential, fuse: FuseHold::Free, time: Some(time), uri_file: None }
    }

    /// Logs in, if the token requires it.
    ///
    /// # Errors
    /// When the flags, the fuse or the PIN's source forbid an attempt, or the token refused it.
    pub(crate) fn login(&mut self, slot_session: &mut SlotSession, config: &Config) -> Result<()> {
        if slot_session.slot.token.as_ref().is_some_and(|token| !token.login_required) {
            tracing::debug!("{} needs no login", slot_session.name());
            return Ok(());
        }
        self.obtain(slot_session, config).map_err(|error| slot_session.with_whole_commands(error))?;
        let logged_in = self.authenticate(slot_session, WorkerRequest::Login, "login refused");
        logged_in.map_err(|failure| slot_session.with_whole_commands(failure.into()))
    }

    /// Logs in again with the accepted PIN, after the token dropped the login.
    pub(crate) fn again(&mut self, slot_session: &mut SlotSession, config: &Config) -> Result<()> {
        self.obtain(slot_session, config)?;
        Ok(self.authenticate(slot_session, WorkerRequest::Login, "login refused")?)
    }

    /// The method of a context-specific login. Asks for the PIN if the token needed none so far.
    ///
    /// # Errors
    /// When there is no PIN, or the flags or the fuse forbid an attempt.
    pub(crate) fn for_context(&mut self, slot_session: &mut SlotSession, config: &Config) -> Result<LoginMethod> {
        self.obtain(slot_session, config)?;
        Ok(self.credential.as_ref().map_or(LoginMethod::Pinpad, |credential| login_method(credential.entry())))
    }

    /// Whether a lost login can be repeated without a person.
    #[must_use]
    pub(crate) fn can_repeat(&self) -> bool {
        self.credential.as_ref().is_some_and(|credential| matches!(credential.entry(), PinEntry::Pin(_)))
    }

    /// Releases the token's lock while the login lasts. The next login takes it again.
    pub(crate) fn release(&mut self) {
        self.fuse = FuseHold::Free;
    }

    /// Sends a request with the PIN once. The fuse is marked before it and settled after it.
    ///
    /// # Errors
    /// When the fuse forbids it or the token refused it. The PIN is then wiped.
    pub(crate) fn authenticate(
        &mut self,
        slot_session: &mut SlotSession,
        request: impl FnOnce(LoginMethod) -> WorkerRequest,
        context: &str,
    ) -> Result<(), SignError> {
        let Some(credential) = self.credential.clone() else {
            return Err(SignError::Other(Error::new(Kind::PinMissing, "there is no PIN")));
        };
        if credential.is_refused() {
            // Another worker sent it while this one waited for the token's lock.
            self.credential = None;
            let message =
                format!("{}: the token refused this PIN before, so it is not sent again", slot_session.name());
            return Err(SignError::Other(Error::new(Kind::PinIncorrect, message)));
        }
        let request = request(login_method(credential.entry()));
        let is_login = matches!(request, WorkerRequest::Login(_));
        credential.begin_attempt();
        if matches!(credential.entry(), PinEntry::Pinpad) {
            tracing::info!("enter the PIN at the token itself");
        }
        // The mark is on disk before the PIN is sent, and nothing that can fail or wait happens in between.
        let attempt = match std::mem::replace(&mut self.fuse, FuseHold::Free) {
            FuseHold::Locked(fuse) => Some(
                fuse.begin().map_err(|error| SignError::Other(self.fuse_error(error, slot_session, &credential)))?,
            ),
            FuseHold::Without => {
                self.fuse = FuseHold::Without;
                None
            }
            FuseHold::Free => {
                return Err(SignError::Other(Error::new(Kind::Unexpected, "no PIN is sent without the fuse")));
            }
        };
        let reply = match credential.entry() {
            PinEntry::Pin(pin) => slot_session.module.handle.call(&request, Some(pin), &slot_session.deadline),
            PinEntry::Pinpad => at_the_keypad(slot_session, &request),
        };
        let end = match &reply {
            Ok(WorkerReply::LoggedIn { checked }) if is_login => Some(accepted_if(*checked)),
            Ok(WorkerReply::ContextAccepted { checked }) if !is_login => Some(accepted_if(*checked)),
            Err(WorkerError::Fault(fault)) => end_of(fault),
            // The worker ended before it called the module's login.
            Err(WorkerError::Died { .. }) if !slot_session.module.handle.login_started() => Some(AttemptEnd::NotTried),
            _ => None,
        };
        if end == Some(AttemptEnd::Accepted) {
            credential.accept();
            if is_login {
                // The worker lists the objects while the fuse's record goes to disk.
                slot_session.module.handle.send(&WorkerRequest::Objects);
            }
        }
        if end == Some(AttemptEnd::Refused) {
            credential.refuse();
        }
        let mut counted = None;
        match attempt.map(|attempt| attempt.settle(end)) {
            Some(Ok(fuse)) => {
                counted = (end == Some(AttemptEnd::Refused)).then(|| fuse.blown());
                self.fuse = FuseHold::Locked(Box::new(fuse));
            }
            // The mark stays on disk and counts as an attempt. The refusal of the PIN is the error to report.
            Some(Err(error)) if end == Some(AttemptEnd::Refused) => tracing::warn!("{error}"),
            Some(Err(error)) => return Err(SignError::Other(error.into())),
            None => {}
        }
        match reply {
            Ok(WorkerReply::LoggedIn { .. }) if is_login => Ok(()),
            Ok(WorkerReply::ContextAccepted { .. }) if !is_login => Ok(()),
            Ok(_) => Err(SignError::Worker(slot_session.module.handle.protocol_error(Step::LogIn))),
            Err(WorkerError::Fault(fault)) if fault.is_login() => {
                let at_keypad = matches!(credential.entry(), PinEntry::Pinpad);
                self.credential = None;
                if at_keypad && fault.is("C_Login", "CKR_ARGUMENTS_BAD") {
                    let message = format!("{context}: {}: {fault}", slot_session.name());
                    return Err(SignError::Other(Error::new(Kind::PinSource, message).hint(
                        "the module does not accept a login without a PIN, although its flags allow it; use another --pin-source",
                    )));
                }
                let mut error = Error::from(fault).context(format_args!("{context}: {}", slot_session.name()));
                if let (Kind::PinIncorrect, Some(blown)) = (error.kind, counted) {
                    error.hints = std::iter::once(ONCE.to_owned())
                        .chain(self.remedies(slot_session, &credential, &blown))
                        .collect();
                }
                Err(SignError::Other(error))
            }
            Err(error) if is_login => Err(SignError::Other(Error::from(error).context(slot_session.name()))),
            Err(error) => Err(SignError::Worker(error)),
        }
    }

    /// Gets a PIN, and takes the token's lock.
    fn obtain(&mut self, slot_session: &mut SlotSession, config: &Config) -> Result<()> {
        self.uri_file = config.identity.uri.as_ref().and_then(|uri| uri.pin_file.as_ref()).map(PathBuf::from);
        let credential = match &self.credential {
            Some(credential) => Arc::clone(credential),
            None => self.read(slot_session)?,
        };
        if matches!(self.fuse, FuseHold::Free) {
            let by = credential.attempt_by();
            let attended = by == AttemptBy::Person;
            check_before(slot_session, &credential)?;
            if slot_session.slot.token.is_none() {
                // One failed read must not select another fuse than the token's own.
                slot_session.read_slot_again(true)?;
            }
            self.fuse = self.hold(slot_session, config, by, &credential)?;
            if let Some(time) = self.time {
                slot_session.deadline = Deadline::after(time);
            }
            // During the wait for the lock, another login may have left only the last try.
            slot_session.read_slot_again(false)?;
            check_flags(slot_session, attended)?;
            if let Some(warning) = slot_session.slot.token.as_ref().and_then(|token| token.pin.warning()) {
                tracing::warn!("{warning}");
            }
        }
        self.credential = Some(credential);
        Ok(())
    }

    /// Reads or asks for the PIN, if the token's state allows its use.
    fn read(&mut self, slot_session: &mut SlotSession) -> Result<Arc<Credential>> {
        let prepared = self.source(slot_session.slot.token.as_ref())?;
        check_flags(slot_session, prepared.source.is_attended())?;
        check_keypad(slot_session, prepared.source == PinSource::Pinpad)?;
        let name = slot_session.name();
        // Warnings come before the prompt.
        log::flush();
        Ok(Arc::new(Credential::read(prepared, &name, &mut slot_session.deadline)?))
    }

    /// Takes the token's fuse. Only a person at a prompt may continue without a state directory.
    fn hold(
        &self,
        slot_session: &SlotSession,
        config: &Config,
        by: AttemptBy,
        credential: &Credential,
    ) -> Result<FuseHold> {
        let attended = by == AttemptBy::Person;
        let locked = FuseStore::open(config.state_dir.as_deref()).and_then(|store| {
            if let Some(warning) = state_directory::warning(store.directory()) {
                tracing::warn!("{warning}");
            }
            let fuse = store.lock(&slot_session.slot, &slot_session.module.path, by, &slot_session.deadline)?;
            fuse.check().map(|()| fuse)
        });
        match locked {
            Ok(fuse) => Ok(FuseHold::Locked(Box::new(fuse))),
            Err(error) if attended && crate::error::Explain::kind(&error) == Kind::StateDir => {
                tracing::warn!("{error}; this login continues, since a person is present");
                Ok(FuseHold::Without)
            }
            Err(error) => Err(self.fuse_error(error, slot_session, credential)),
        }
    }

    /// Adds hints to an error of the fuse that fit the source of the PIN.
    fn fuse_error(&self, error: FuseError, slot_session: &SlotSession, credential: &Credential) -> Error {
        let hints = if let FuseError::Blown(blown) = &error {
            self.remedies(slot_session, credential, blown)
        } else {
            Vec::new()
        };
        let mut error = Error::from(error);
        if !hints.is_empty() {
            error.hints = hints;
        }
        error
    }

    fn remedies(&self, slot_session: &SlotSession, credential: &Credential, blown: &BlownFuse) -> Vec<String> {
        let token = stand_in(&slot_session.slot, &slot_session.module.path);
        let uri = match slot_session.slot.token {
            Some(_) => fuse::uri_of(&token).to_string(),
            None => selector::token_uri(&slot_session.slot, &slot_session.module.slots).to_string(),
        };
        let remedy = Remedy {
            source: credential.source(),
            is_noticed: credential.is_from_disk(),
            is_path_shown: match (credential.source(), &self.uri_file) {
                (PinSource::File(path), Some(hidden)) => path != hidden,
                _ => true,
            },
            module: &modules::selector(&slot_session.module.path),
            uri: &uri,
            // systemd.exec(5)
            as_root: std::env::var_os("INVOCATION_ID").is_some() && !rustix::process::geteuid().is_root(),
        };
        remedy.hints(blown)
    }

    fn source(&mut self, token: Option<&Token>) -> Result<PreparedSource, PinError> {
        match std::mem::replace(&mut self.source, PinSupply::None) {
            PinSupply::Configured(prepared) => Ok(prepared),
            // A token with a PIN pad asks for the PIN itself if no source is configured.
            PinSupply::Usual => match PinSource::fallback() {
                Ok(PinSource::Prompt) if token.is_some_and(|token| token.pinpad) => Ok(PinSource::Pinpad.prepare()),
                fallback => fallback.map(PinSource::prepare),
            },
            PinSupply::None => Err(PinError::NoSource),
        }
    }
}
