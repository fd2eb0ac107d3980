//! One read-only session: login, mechanisms, objects.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session as Handle, SessionState, UserType};
use cryptoki::slot::Slot;
use secrecy::SecretString;

use super::module::read_slot;
use super::objects::Reader;
use super::raw::Raw;
use super::{Key, fault};
use crate::facts::{Description, Mechanism, Objects, Session as SessionFacts, Slot as SlotFacts};
use crate::fault::Fault;

/// A session on one slot.
pub struct Session<'a> {
    context: &'a Pkcs11,
    slot: Slot,
    pub(super) raw: &'a Raw,
    pub(super) handle: Handle,
    /// Whether [`Raw`] knows the session.
    pub(super) raw_is_usable: bool,
    /// Objects by the number under which the front knows them.
    found: Vec<ObjectHandle>,
}

/// How the user proves to be one.
pub enum UserPin {
    /// With a PIN that is sent.
    Pin(SecretString),
    /// At the token itself (protected authentication path).
    Pinpad,
}

/// What `C_Login` that did not fail says of the PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    /// The token took it.
    Accepted,
    /// The token did not look at it, since somebody is logged in already.
    NotChecked,
}

impl<'a> Session<'a> {
    pub(super) fn new(context: &'a Pkcs11, raw: &'a Raw, slot: Slot, handle: Handle) -> Self {
        let raw_is_usable = raw.shares(handle.handle(), slot.id());
        Self { context, slot, raw, handle, raw_is_usable, found: Vec::new() }
    }

    /// The signature mechanisms by the mechanism list; a mechanism that says it cannot sign is left out.
    #[must_use]
    pub fn facts(&self) -> SessionFacts {
        let Ok(list) = self.context.get_mechanism_list(self.slot) else { return SessionFacts::default() };
        let may_sign =
            |mechanism| self.context.get_mechanism_info(self.slot, mechanism).map_or(true, |info| info.sign());
        let both =
            [(MechanismType::SHA512_RSA_PKCS, Mechanism::Sha512RsaPkcs), (MechanismType::RSA_PKCS, Mechanism::RsaPkcs)];
        let offered = both.into_iter().filter(|(kind, _)| list.contains(kind) && may_sign(*kind));
        SessionFacts { mechanisms: offered.map(|(_, mechanism)| mechanism).collect(), mechanisms_known: true }
    }

    /// The slot and its token as they are now.
    #[must_use]
    pub fn slot(&self) -> SlotFacts {
        read_slot(self.context, self.raw, self.slot)
    }

    /// The slot and its token as they are now, where the session still stands, with its login, and the token is there.
    ///
    /// # Errors
    /// What is no longer so.
    pub fn probe(&self, logged_in: bool) -> Result<SlotFacts, Fault> {
        let info = self.handle.get_session_info().map_err(fault("C_GetSessionInfo"))?;
        if logged_in && matches!(info.session_state(), SessionState::RoPublic | SessionState::RwPublic) {
            return Err(Fault::call("C_GetSessionInfo", "CKR_USER_NOT_LOGGED_IN"));
        }
        if self.context.get_slot_info(self.slot).is_ok_and(|info| !info.token_present()) {
            return Err(Fault::call("C_GetSlotInfo", "CKR_TOKEN_NOT_PRESENT"));
        }
        match self.context.get_token_info(self.slot) {
            Err(error @ Error::Pkcs11(..)) => Err(fault("C_GetTokenInfo")(error)),
            _ => Ok(self.slot()),
        }
    }

    /// Logs the user in, once.
    ///
    /// # Errors
    /// What `C_Login` answered, save that somebody is logged in already.
    pub fn login(&self, pin: &UserPin) -> Result<LoginOutcome, Fault> {
        match self.c_login(UserType::User, pin) {
            Ok(()) => Ok(LoginOutcome::Accepted),
            Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(LoginOutcome::NotChecked),
            Err(error) => Err(fault("C_Login")(error)),
        }
    }

    /// The context-specific login of an always-authenticate key, after `C_SignInit` (PKCS#11 3.0 section 5.6.8).
    /// Modules that store the attribute without enforcing it answer that there is nothing to log in to.
    ///
    /// # Errors
    /// What `C_Login` answered, save those answers.
    pub fn context_login(&self, pin: &UserPin) -> Result<LoginOutcome, Fault> {
        match self.c_login(UserType::ContextSpecific, pin) {
            Ok(()) => Ok(LoginOutcome::Accepted),
            Err(Error::Pkcs11(
                RvError::UserAlreadyLoggedIn | RvError::UserTypeInvalid | RvError::OperationNotInitialized,
                _,
            )) => Ok(LoginOutcome::NotChecked),
            Err(error) => Err(fault("C_Login")(error)),
        }
    }

    fn c_login(&self, user: UserType, pin: &UserPin) -> Result<(), Error> {
        match pin {
            UserPin::Pin(pin) => self.handle.login(user, Some(pin)),
            UserPin::Pinpad => self.handle.login(user, None),
        }
    }

    /// RSA keys and certificates that the session sees.
    ///
    /// # Errors
    /// What the search answered.
    pub fn objects(&mut self) -> Result<Objects, Fault> {
        let (facts, found) = self.reader().objects()?;
        self.found = found;
        Ok(facts)
    }

    /// A key by the number under which [`Session::objects`] named it.
    ///
    /// # Errors
    /// When there is no such number.
    pub fn key(&self, number: u64, mechanism: Mechanism) -> Result<Key<'_>, Fault> {
        Ok(Key::new(self, self.found(number, "C_SignInit")?, mechanism))
    }

    /// What is evidence of a key, by its number as for [`Session::key`].
    ///
    /// # Errors
    /// What the module answered, or when there is no such number.
    pub fn describe(&self, number: u64) -> Result<Description, Fault> {
        self.reader().describe(self.found(number, "C_GetAttributeValue")?)
    }

    fn reader(&self) -> Reader<'_> {
        Reader { session: &self.handle, raw: self.raw_is_usable.then_some(self.raw) }
    }

    fn found(&self, number: u64, call: &str) -> Result<ObjectHandle, Fault> {
        let found = usize::try_from(number).ok().and_then(|number| self.found.get(number));
        found.copied().ok_or_else(|| Fault::Malformed { call: call.into(), what: "no such object".into() })
    }

    /// Logs out and closes; what the module answers no longer matters.
    pub fn close(self, logged_in: bool) {
        if logged_in {
            let _ = self.handle.logout();
        }
        let _ = self.handle.close();
    }
}
