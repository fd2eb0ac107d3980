//! The login: flags first, then the fuse, then one `C_Login`.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::Token;
use crate::fault::{Fault, PinVerdict};
use crate::log;
use crate::pin::fuse::{self, Attempt, End, Fuse};
use crate::pin::source::{self, Prepared};
use crate::pin::{Credential, How, PinError, Source};
use crate::worker::HandleError;
use crate::worker::wire::{Authentication, Reply, Request};

use super::Reached;

/// The logins of one worker: what they are made with, and the token's lock while they are made.
#[derive(Debug)]
pub struct Login {
    source: PinSource,
    credential: Option<Arc<Credential>>,
    lock: Lock,
    /// The time for a login once the token's lock is had; unset: what is left of all.
    time: Option<Duration>,
}

/// Where the PIN comes from while none is at hand.
#[derive(Debug)]
enum PinSource {
    /// The configured one.
    Configured(Prepared),
    /// A credential of systemd's, or the person at the terminal.
    Usual,
    /// Nobody may be asked any more.
    None,
}

/// The token's lock, with its fuse.
#[derive(Debug)]
enum Lock {
    Free,
    Held(Box<Fuse>),
    /// No state can be kept, and a person answers for it.
    Without,
}

/// Why a request that carried a PIN brought no answer.
#[derive(Debug)]
pub enum Failure {
    /// The worker's own error, which may still be judged by its return value.
    Worker(HandleError),
    /// Anything that ends the command.
    Other(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Worker(error) => error.into(),
            Failure::Other(error) => error,
        }
    }
}

impl Login {
    /// Takes over the configured source of the PIN; call it before any child is started.
    #[must_use]
    pub fn prepare(config: &Config) -> Self {
        let configured = config.pin.clone().map(Source::prepare);
        let source = configured.map_or(PinSource::Usual, PinSource::Configured);
        Self { source, credential: None, lock: Lock::Free, time: None }
    }

    /// Logs in with what was read before, and asks nobody. `time` is for each login, once the token's lock is had: a lock
    /// that comes late must not have the login killed half-way.
    #[must_use]
    pub fn with(credential: Option<Arc<Credential>>, time: Duration) -> Self {
        Self { source: PinSource::None, credential, lock: Lock::Free, time: Some(time) }
    }

    /// Logs the user in, where the token wants it.
    ///
    /// # Errors
    /// When the flags, the fuse or the PIN's source forbid an attempt, or the token refused it.
    pub fn login(&mut self, reached: &mut Reached, config: &Config) -> Result<()> {
        if reached.slot.token.as_ref().is_some_and(|token| !token.login_required) {
            tracing::debug!("{} needs no login", reached.name());
            return Ok(());
        }
        self.obtain(reached, config).map_err(|error| reached.with_whole_commands(error))?;
        let logged_in = self.authenticate(reached, Request::Login, "login refused");
        logged_in.map_err(|failure| reached.with_whole_commands(failure.into()))
    }

    /// Logs in again with the PIN that the token took, after it dropped the login.
    ///
    /// # Errors
    /// As [`Login::login`].
    pub fn again(&mut self, reached: &mut Reached, config: &Config) -> Result<()> {
        self.obtain(reached, config)?;
        Ok(self.authenticate(reached, Request::Login, "login refused")?)
    }

    /// How a context-specific login will be made; asks for the PIN where the token needed none so far.
    ///
    /// # Errors
    /// When there is no PIN, or the flags or the fuse forbid an attempt.
    pub fn for_context(&mut self, reached: &mut Reached, config: &Config) -> Result<Authentication> {
        self.obtain(reached, config)?;
        Ok(self.credential.as_ref().map_or(Authentication::Pinpad, |credential| authentication(credential.how())))
    }

    /// Whether a lost login can be repeated without a person.
    #[must_use]
    pub fn can_repeat(&self) -> bool {
        self.credential.as_ref().is_some_and(|credential| matches!(credential.how(), How::Pin(_)))
    }

    /// Gives the token's lock back while the login goes on; the next login takes it again.
    pub fn release(&mut self) {
        self.lock = Lock::Free;
    }

    /// Sends a request that carries the PIN, once, between the fuse's mark and its settling.
    ///
    /// # Errors
    /// When the fuse forbids it or the token refused it; the PIN is then gone from here.
    pub fn authenticate(
        &mut self,
        reached: &mut Reached,
        request: impl FnOnce(Authentication) -> Request,
        context: &str,
    ) -> Result<(), Failure> {
        let Some(credential) = self.credential.clone() else {
            return Err(Failure::Other(Error::new(Kind::PinMissing, "no PIN is at hand")));
        };
        let request = request(authentication(credential.how()));
        if matches!(credential.how(), How::Pinpad) {
            tracing::info!("enter the PIN at the token itself");
        }
        // The mark is on disk before the PIN is sent, and nothing that can fail or wait comes between the two.
        if let Lock::Held(fuse) = &mut self.lock {
            fuse.begin().map_err(|error| Failure::Other(error.into()))?;
        }
        let reply = match credential.how() {
            How::Pin(pin) => reached.opened.handle.call(&request, Some(pin), &reached.deadline),
            How::Pinpad => at_the_keypad(reached, &request),
        };
        let end = match &reply {
            Ok(Reply::LoggedIn { checked: true } | Reply::ContextAccepted { checked: true }) => Some(End::Accepted),
            Ok(Reply::LoggedIn { checked: false } | Reply::ContextAccepted { checked: false }) => Some(End::NotTried),
            Err(HandleError::Fault(fault)) => end_of(fault),
            // It ended before it told the module to log in.
            Err(HandleError::Died { .. }) if !reached.opened.handle.login_begun() => Some(End::NotTried),
            _ => None,
        };
        if end == Some(End::Accepted) {
            credential.accept();
            if matches!(request, Request::Login(_)) {
                // The worker reads them while the record goes to disk.
                reached.opened.handle.foresee(Request::Objects);
            }
        }
        if let (Lock::Held(fuse), Some(end)) = (&mut self.lock, end) {
            fuse.settle(end).map_err(|error| Failure::Other(error.into()))?;
        }
        match reply {
            Ok(Reply::LoggedIn { .. } | Reply::ContextAccepted { .. }) => Ok(()),
            Ok(_) => Err(Failure::Worker(reached.opened.handle.out_of_turn("login"))),
            Err(HandleError::Fault(fault)) if fault.is_login() => {
                let at_keypad = matches!(credential.how(), How::Pinpad);
                self.credential = None;
                if at_keypad && fault.is("C_Login", "CKR_ARGUMENTS_BAD") {
                    let message = format!("{context}: {}: {fault}", reached.name());
                    return Err(Failure::Other(Error::new(Kind::PinSource, message).hint(
                        "the module takes no login without a PIN, whatever its flags say; use another --pin-source",
                    )));
                }
                Err(Failure::Other(Error::from(fault).context(format_args!("{context}: {}", reached.name()))))
            }
            Err(error) if matches!(request, Request::Login(_)) => {
                Err(Failure::Other(Error::from(error).context(reached.name())))
            }
            Err(error) => Err(Failure::Worker(error)),
        }
    }

    /// Has a PIN at hand and the token's lock held.
    fn obtain(&mut self, reached: &mut Reached, config: &Config) -> Result<()> {
        let credential = match &self.credential {
            Some(credential) => Arc::clone(credential),
            None => self.read(reached)?,
        };
        if matches!(self.lock, Lock::Free) {
            let attempt = credential.attempt();
            check_before(reached, &credential)?;
            if reached.slot.token.is_none() {
                // A reading that failed once must not lead to another fuse than the token's own.
                reached.read_slot_again(true)?;
            }
            let attended = attempt == Attempt::Attended;
            self.lock = lock(reached, config, attempt)?;
            if let Some(time) = self.time {
                reached.deadline = Deadline::after(time);
            }
            // While the lock was awaited, another login may have brought the token to its last try.
            reached.read_slot_again(false)?;
            check_flags(reached, attended)?;
            if reached.slot.token.as_ref().is_some_and(|token| token.pin_count_low) {
                tracing::warn!("a wrong PIN was given to this token before (CKF_USER_PIN_COUNT_LOW)");
            }
        }
        self.credential = Some(credential);
        Ok(())
    }

    /// Reads or asks for the PIN, where the token's state would let it be used.
    fn read(&mut self, reached: &mut Reached) -> Result<Arc<Credential>> {
        let prepared = self.source(reached.slot.token.as_ref())?;
        check_flags(reached, prepared.source.is_attended())?;
        check_keypad(reached, prepared.source == Source::Pinpad)?;
        let name = reached.name();
        // Warnings come before the prompt.
        log::flush();
        Ok(Arc::new(Credential::read(prepared, &name, &mut reached.deadline)?))
    }

    fn source(&mut self, token: Option<&Token>) -> Result<Prepared, PinError> {
        match std::mem::replace(&mut self.source, PinSource::None) {
            PinSource::Configured(prepared) => Ok(prepared),
            // A token with a keypad asks for itself where nothing else is configured.
            PinSource::Usual => match Source::fallback() {
                Ok(Source::Prompt) if token.is_some_and(|token| token.pinpad) => Ok(Source::Pinpad.prepare()),
                fallback => fallback.map(Source::prepare),
            },
            PinSource::None => Err(PinError::NoSource),
        }
    }
}

fn authentication(how: &How) -> Authentication {
    match how {
        How::Pin(_) => Authentication::Pin,
        How::Pinpad => Authentication::Pinpad,
    }
}

fn check_before(reached: &Reached, credential: &Credential) -> Result<()> {
    check_flags(reached, credential.attempt() == Attempt::Attended)?;
    check_keypad(reached, matches!(credential.how(), How::Pinpad))
}

fn check_keypad(reached: &Reached, is_meant: bool) -> Result<()> {
    if is_meant && reached.slot.token.as_ref().is_some_and(|token| !token.pinpad) {
        let message = format!("{} has no keypad of its own", reached.name());
        return Err(Error::new(Kind::PinSource, message).hint(source::SOURCES));
    }
    Ok(())
}

/// What a fault says of the attempt. `None`: the PIN may have been looked at, and nobody knows.
fn end_of(fault: &Fault) -> Option<End> {
    if !fault.is_login() {
        // Another call failed before the login was reached.
        return Some(End::NotTried);
    }
    match fault.pin_verdict() {
        PinVerdict::Refused => Some(End::Refused),
        PinVerdict::NotTried => Some(End::NotTried),
        PinVerdict::Unknown => None,
    }
}

/// The token's lock and fuse. A person at a prompt may go on where no state can be kept; nothing else may.
fn lock(reached: &Reached, config: &Config, attempt: Attempt) -> Result<Lock> {
    let attended = attempt == Attempt::Attended;
    let token = fuse::token_of(&reached.slot, &reached.opened.module);
    let locked = fuse::directory(config.state_dir.as_deref()).and_then(|directory| {
        match &reached.slot.token {
            _ if attended => {}
            None => fuse::check_unknown(&directory)?,
            Some(_) => fuse::check_stand_in(&directory, reached.slot.id, &reached.opened.module)?,
        }
        Fuse::lock(&directory, &token, attempt, &reached.deadline)
    });
    match locked {
        Ok(fuse) => Ok(Lock::Held(Box::new(fuse))),
        Err(error) if attended && crate::error::Explain::kind(&error) == Kind::StateDir => {
            tracing::warn!("{error}; this login goes on, since a person answers for it");
            Ok(Lock::Without)
        }
        Err(error) => Err(error.into()),
    }
}

/// A person types at the token: that is a prompt, and the time that it takes is theirs, within reason.
fn at_the_keypad(reached: &mut Reached, request: &Request) -> std::result::Result<Reply, HandleError> {
    const PATIENCE: Duration = Duration::from_secs(300);
    let deadline = Deadline::after(PATIENCE.max(reached.deadline.whole()));
    let handle = &mut reached.opened.handle;
    reached.deadline.stopped(|| handle.call(request, None, &deadline))
}

/// What the token's flags forbid.
fn check_flags(reached: &Reached, attended: bool) -> Result<()> {
    let Some(token) = &reached.slot.token else { return Ok(()) };
    let refuse =
        |kind, message: &str, hint: &str| Err(Error::new(kind, format!("{}: {message}", reached.name())).hint(hint));
    if token.pin_locked {
        let hint = "unblock it with the security officer's PIN: `pkcs11-tool --login --login-type so --init-pin`; or with the token's own tool and its PUK";
        return refuse(Kind::PinLocked, "the PIN is locked (CKF_USER_PIN_LOCKED)", hint);
    }
    if !token.pin_initialized {
        let message = "no user PIN was ever set (CKF_USER_PIN_INITIALIZED is not set)";
        return refuse(Kind::PinExpired, message, "set one: `pkcs11-tool --login --login-type so --init-pin`");
    }
    if token.pin_to_be_changed {
        let message = "the PIN must be changed first (CKF_USER_PIN_TO_BE_CHANGED)";
        return refuse(Kind::PinExpired, message, "change it: `pkcs11-tool --login --change-pin`");
    }
    if token.pin_final_try && !attended {
        let message = "one PIN try is left (CKF_USER_PIN_FINAL_TRY), and nobody is here to answer for it";
        return refuse(Kind::PinFinalTry, message, "log in once by hand with the right PIN: --pin-source prompt");
    }
    Ok(())
}
