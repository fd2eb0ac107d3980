//! One read-only session: login, mechanisms, objects.

use cryptoki_sys::{
    CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_USER_TYPE, CKF_SIGN, CKF_TOKEN_PRESENT, CKM_RSA_PKCS, CKM_SHA512_RSA_PKCS,
    CKS_RO_PUBLIC_SESSION, CKS_RW_PUBLIC_SESSION, CKU_CONTEXT_SPECIFIC, CKU_USER,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::Key;
use super::module::read_slot;
use super::objects::Reader;
use super::raw::Functions;
use crate::facts::{Description, Mechanism, Objects, Session as SessionFacts, Slot as SlotFacts};
use crate::fault::Fault;

/// A session on one slot, closed when it is dropped.
pub struct Session<'a> {
    pub(super) functions: &'a Functions,
    pub(super) handle: CK_SESSION_HANDLE,
    slot: u64,
    /// Objects by the number under which the front knows them.
    found: Vec<CK_OBJECT_HANDLE>,
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
    pub(super) fn new(functions: &'a Functions, slot: u64, handle: CK_SESSION_HANDLE) -> Self {
        Self { functions, handle, slot, found: Vec::new() }
    }

    /// The signature mechanisms by the mechanism list; a mechanism that says it cannot sign is left out. Some modules list
    /// a mechanism and have no information on it; it is tried.
    #[must_use]
    pub fn facts(&self) -> SessionFacts {
        let Ok(list) = self.functions.mechanisms(self.slot) else { return SessionFacts::default() };
        let may_sign = |mechanism| {
            let info = self.functions.mechanism_info(self.slot, mechanism);
            info.map_or(true, |info| info.flags & CKF_SIGN != 0)
        };
        let both = [(CKM_SHA512_RSA_PKCS, Mechanism::Sha512RsaPkcs), (CKM_RSA_PKCS, Mechanism::RsaPkcs)];
        let offered = both.into_iter().filter(|(kind, _)| list.contains(kind) && may_sign(*kind));
        SessionFacts { mechanisms: offered.map(|(_, mechanism)| mechanism).collect(), mechanisms_known: true }
    }

    /// The slot and its token as they are now.
    #[must_use]
    pub fn slot(&self) -> SlotFacts {
        read_slot(self.functions, self.slot)
    }

    /// The slot and its token as they are now, where the session still stands, with its login, and the token is there.
    ///
    /// # Errors
    /// What is no longer so.
    pub fn probe(&self, logged_in: bool) -> Result<SlotFacts, Fault> {
        let info = self.functions.session_info(self.handle)?;
        if logged_in && [CKS_RO_PUBLIC_SESSION, CKS_RW_PUBLIC_SESSION].contains(&info.state) {
            return Err(Fault::call("C_GetSessionInfo", "CKR_USER_NOT_LOGGED_IN"));
        }
        if self.functions.slot_info(self.slot).is_ok_and(|info| info.flags & CKF_TOKEN_PRESENT == 0) {
            return Err(Fault::call("C_GetSlotInfo", "CKR_TOKEN_NOT_PRESENT"));
        }
        self.functions.token_info(self.slot)?;
        Ok(self.slot())
    }

    /// Logs the user in, once.
    ///
    /// # Errors
    /// What `C_Login` answered, save that somebody is logged in already.
    pub fn login(&self, pin: &UserPin) -> Result<LoginOutcome, Fault> {
        self.c_login(CKU_USER, pin, &["CKR_USER_ALREADY_LOGGED_IN"])
    }

    /// The context-specific login of an always-authenticate key, after `C_SignInit` (PKCS#11 3.0 section 5.6.8).
    /// Modules that store the attribute without enforcing it answer that there is nothing to log in to.
    ///
    /// # Errors
    /// What `C_Login` answered, save those answers.
    pub fn context_login(&self, pin: &UserPin) -> Result<LoginOutcome, Fault> {
        let nothing_to_do = ["CKR_USER_ALREADY_LOGGED_IN", "CKR_USER_TYPE_INVALID", "CKR_OPERATION_NOT_INITIALIZED"];
        self.c_login(CKU_CONTEXT_SPECIFIC, pin, &nothing_to_do)
    }

    fn c_login(&self, user: CK_USER_TYPE, pin: &UserPin, not_checked: &[&str]) -> Result<LoginOutcome, Fault> {
        let pin = match pin {
            UserPin::Pin(pin) => Some(pin.expose_secret()),
            UserPin::Pinpad => None,
        };
        match self.functions.login(self.handle, user, pin) {
            Ok(()) => Ok(LoginOutcome::Accepted),
            Err(fault) if not_checked.contains(&fault.ckr()) => Ok(LoginOutcome::NotChecked),
            Err(fault) => Err(fault),
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
        Reader { functions: self.functions, session: self.handle }
    }

    fn found(&self, number: u64, call: &str) -> Result<CK_OBJECT_HANDLE, Fault> {
        let found = usize::try_from(number).ok().and_then(|number| self.found.get(number));
        found.copied().ok_or_else(|| Fault::malformed(call, "no such object"))
    }

    /// Logs out and closes; what the module answers no longer matters.
    pub fn close(self, logged_in: bool) {
        if logged_in {
            let _ = self.functions.logout(self.handle);
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let _ = self.functions.close_session(self.handle);
    }
}
