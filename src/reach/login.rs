//! The login: flags first, then the fuse, then one `C_Login`.

use std::time::Duration;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::Token;
use crate::fault::{Fault, PinVerdict};
use crate::pin::fuse::{self, Attempt, End, Fuse};
use crate::pin::source::{self, FileMark, Opened as OpenedPin, Prepared};
use crate::pin::{Pin, PinError, Source};
use crate::worker::HandleError;
use crate::worker::wire::{Authentication, Reply, Request};

use super::Reached;

/// What a login leaves behind for a context-specific one: the PIN, and the token's lock until the end.
#[derive(Debug)]
pub struct Login {
    how: Option<How>,
    fuse: Option<Fuse>,
    source: Option<Prepared>,
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

#[derive(Debug)]
enum How {
    Pin(Pin),
    Pinpad,
}

impl Login {
    /// Takes over the configured source of the PIN; call it before any child is started.
    #[must_use]
    pub fn prepare(config: &Config) -> Self {
        Self { how: None, fuse: None, source: config.pin.clone().map(Source::prepare) }
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
        self.obtain(reached, config)?;
        Ok(self.authenticate(reached, Request::Login, "login refused")?)
    }

    /// Logs in again with the PIN that the token took, after it dropped the login.
    ///
    /// # Errors
    /// As [`Login::login`].
    pub fn again(&mut self, reached: &mut Reached) -> Result<()> {
        Ok(self.authenticate(reached, Request::Login, "login refused")?)
    }

    /// How a context-specific login will be made; asks for the PIN where the token needed none so far.
    ///
    /// # Errors
    /// When there is no PIN.
    pub fn for_context(&mut self, reached: &mut Reached, config: &Config) -> Result<Authentication> {
        if self.how.is_none() {
            self.obtain(reached, config)?;
        }
        Ok(self.how.as_ref().map_or(Authentication::Pinpad, How::authentication))
    }

    /// Whether a lost login can be repeated without a person.
    #[must_use]
    pub fn can_repeat(&self) -> bool {
        matches!(self.how, Some(How::Pin(_)))
    }

    /// Sends a request that carries the PIN, once, between the fuse's mark and its settling.
    ///
    /// # Errors
    /// When the fuse forbids it or the token refused it; the PIN is then gone from this process.
    pub fn authenticate(
        &mut self,
        reached: &mut Reached,
        request: impl FnOnce(Authentication) -> Request,
        context: &str,
    ) -> Result<(), Failure> {
        let Some(how) = &self.how else {
            return Err(Failure::Other(Error::new(Kind::PinMissing, "no PIN is at hand")));
        };
        if let Some(fuse) = &mut self.fuse {
            fuse.begin().map_err(|error| Failure::Other(error.into()))?;
        }
        let request = request(how.authentication());
        let reply = match how {
            How::Pin(pin) => reached.opened.handle.call(&request, Some(pin), &reached.deadline),
            How::Pinpad => at_the_keypad(reached, &request),
        };
        let end = match &reply {
            Ok(Reply::LoggedIn { checked: true } | Reply::ContextAccepted { checked: true }) => Some(End::Accepted),
            Ok(Reply::LoggedIn { checked: false } | Reply::ContextAccepted { checked: false }) => Some(End::NotTried),
            Err(HandleError::Fault(fault)) => end_of(fault),
            _ => None,
        };
        if let (Some(fuse), Some(end)) = (&mut self.fuse, end) {
            fuse.settle(end).map_err(|error| Failure::Other(error.into()))?;
        }
        match reply {
            Ok(Reply::LoggedIn { .. } | Reply::ContextAccepted { .. }) => Ok(()),
            Ok(_) => Err(Failure::Worker(reached.opened.handle.out_of_turn("login"))),
            Err(HandleError::Fault(fault)) if fault.is_login() => {
                let at_keypad = matches!(self.how, Some(How::Pinpad));
                self.how = None;
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

    /// Reads or asks for the PIN and takes the token's lock.
    fn obtain(&mut self, reached: &mut Reached, config: &Config) -> Result<()> {
        let prepared = self.source(reached.slot.token.as_ref())?;
        let attended = prepared.source.is_attended();
        check_flags(reached, attended)?;
        if prepared.source == Source::Pinpad && reached.slot.token.as_ref().is_some_and(|token| !token.pinpad) {
            let message = format!("{} has no keypad of its own", reached.name());
            return Err(Error::new(Kind::PinSource, message).hint(source::SOURCES));
        }
        let opened = prepared.open(&reached.deadline)?;
        let (how, mark) = match opened {
            OpenedPin::Pin(pin, mark) => (How::Pin(pin), mark),
            OpenedPin::Pinpad => (How::Pinpad, None),
            OpenedPin::Ask => {
                let name = reached.name();
                (How::Pin(reached.deadline.stopped(|| source::ask(&name))?), None)
            }
        };
        if reached.slot.token.is_none() {
            // A reading that failed once must not lead to another fuse than the token's own.
            reached.read_slot_again(true)?;
        }
        self.fuse = lock(reached, config, attempt(attended, mark))?;
        // While the lock was awaited, another login may have brought the token to its last try.
        reached.read_slot_again(false)?;
        check_flags(reached, attended)?;
        if reached.slot.token.as_ref().is_some_and(|token| token.pin_count_low) {
            tracing::warn!("a wrong PIN was given to this token before (CKF_USER_PIN_COUNT_LOW)");
        }
        self.how = Some(how);
        Ok(())
    }

    fn source(&mut self, token: Option<&Token>) -> Result<Prepared, PinError> {
        if let Some(prepared) = self.source.take() {
            return Ok(prepared);
        }
        // A token with a keypad asks for itself where nothing else is configured.
        match Source::fallback() {
            Ok(Source::Prompt) if token.is_some_and(|token| token.pinpad) => Ok(Source::Pinpad.prepare()),
            fallback => fallback.map(Source::prepare),
        }
    }
}

impl How {
    fn authentication(&self) -> Authentication {
        match self {
            Self::Pin(_) => Authentication::Pin,
            Self::Pinpad => Authentication::Pinpad,
        }
    }
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

fn attempt(attended: bool, mark: Option<FileMark>) -> Attempt {
    match mark {
        _ if attended => Attempt::Attended,
        Some(mark) => Attempt::File(mark),
        None => Attempt::Unattended,
    }
}

/// The token's lock and fuse. A person at a prompt may go on where no state can be kept; nothing else may.
fn lock(reached: &Reached, config: &Config, attempt: Attempt) -> Result<Option<Fuse>> {
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
        Ok(fuse) => Ok(Some(fuse)),
        Err(error) if attended && crate::error::Explain::kind(&error) == Kind::StateDir => {
            tracing::warn!("{error}; this login goes on, since a person answers for it");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A person types at the token: that is a prompt, and the time that it takes is theirs, within reason.
fn at_the_keypad(reached: &mut Reached, request: &Request) -> std::result::Result<Reply, HandleError> {
    const PATIENCE: Duration = Duration::from_secs(300);
    tracing::info!("enter the PIN at the token itself");
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
        let hint = "unblock it with the token's own tool and its PUK or security officer PIN";
        return refuse(Kind::PinLocked, "the PIN is locked (CKF_USER_PIN_LOCKED)", hint);
    }
    if !token.pin_initialized {
        let message = "no user PIN was ever set (CKF_USER_PIN_INITIALIZED is not set)";
        return refuse(Kind::PinExpired, message, "set one: pkcs11-tool --login --login-type so --init-pin");
    }
    if token.pin_to_be_changed {
        let message = "the PIN must be changed first (CKF_USER_PIN_TO_BE_CHANGED)";
        return refuse(Kind::PinExpired, message, "change it: pkcs11-tool --login --change-pin");
    }
    if token.pin_final_try && !attended {
        let message = "one PIN try is left (CKF_USER_PIN_FINAL_TRY), and nobody is here to answer for it";
        return refuse(Kind::PinFinalTry, message, "log in once by hand with the right PIN: --pin-source prompt");
    }
    Ok(())
}
