//! One read-only session: login, mechanisms, objects. Runs in the worker.

use cryptoki_sys::{
    CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_USER_TYPE, CKF_EXTENSION, CKF_HW, CKF_SIGN, CKF_TOKEN_PRESENT,
    CKM_RSA_PKCS, CKM_SHA512_RSA_PKCS, CKS_RO_PUBLIC_SESSION, CKS_RW_PUBLIC_SESSION, CKU_CONTEXT_SPECIFIC, CKU_USER,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::objects::ObjectReader;
use super::raw::Functions;
use super::slot_info::read_slot;
use crate::facts::{Description, Mechanism, Mechanisms, Slot as SlotFacts, TokenObjects};
use crate::fault::Fault;

/// A session on one slot, closed when it is dropped.
pub(crate) struct Pkcs11Session<'a> {
    pub(super) functions: &'a Functions,
    pub(super) handle: CK_SESSION_HANDLE,
    slot: u64,
    /// Objects by the numbers that the parent uses.
    found: Vec<CK_OBJECT_HANDLE>,
}

/// The method of a login.
pub(crate) enum UserPin {
    /// With a PIN that is sent.
    Pin(SecretString),
    /// On the token itself (protected authentication path).
    Pinpad,
}

/// The PIN's check in a successful `C_Login`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginOutcome {
    /// The token accepted it.
    Accepted,
    /// The token did not check it, since the user is already logged in.
    NotChecked,
}

impl<'a> Pkcs11Session<'a> {
    pub(super) fn new(functions: &'a Functions, slot: u64, handle: CK_SESSION_HANDLE) -> Self {
        Self { functions, handle, slot, found: Vec::new() }
    }

    /// The signature mechanisms in the mechanism list, without those that report other uses only. Some modules list a
    /// mechanism without information about it, or without any use; it is kept.
    #[must_use]
    pub(crate) fn mechanisms(&self) -> Mechanisms {
        let Ok(list) = self.functions.mechanisms(self.slot) else { return Mechanisms::default() };
        let may_sign = |mechanism| {
            let info = self.functions.mechanism_info(self.slot, mechanism);
            info.map_or(true, |info| info.flags & CKF_SIGN != 0 || info.flags & !(CKF_HW | CKF_EXTENSION) == 0)
        };
        let both = [(CKM_SHA512_RSA_PKCS, Mechanism::Sha512RsaPkcs), (CKM_RSA_PKCS, Mechanism::RsaPkcs)];
        let offered = both.into_iter().filter(|(kind, _)| list.contains(kind) && may_sign(*kind));
        Mechanisms { usable: offered.map(|(_, mechanism)| mechanism).collect(), known: true }
    }

    /// The present information about the slot and its token.
    #[must_use]
    pub(crate) fn slot(&self) -> SlotFacts {
        read_slot(self.functions, self.slot)
    }

    /// The present information about the slot and its token, if the session, its login and the token still exist.
    ///
    /// # Errors
    /// The part that no longer exists.
    pub(crate) fn probe(&self, logged_in: bool) -> Result<SlotFacts, Fault> {
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

    /// Logs in, once.
    ///
    /// # Errors
    /// The error of `C_Login`, except that the user is already logged in.
    pub(crate) fn login(&self, pin: &UserPin) -> Result<LoginOutcome, Fault> {
        self.c_login(CKU_USER, pin, &["CKR_USER_ALREADY_LOGGED_IN"])
    }

    /// The context-specific login of an always-authenticate key, after `C_SignInit` (PKCS#11 3.0 section 5.6.8). Modules that store the
    /// attribute without enforcing it return that no login is possible.
    ///
    /// # Errors
    /// The error of `C_Login`, except those values.
    pub(crate) fn context_login(&self, pin: &UserPin) -> Result<LoginOutcome, Fault> {
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
    pub(crate) fn objects(&mut self) -> Result<TokenObjects, Fault> {
        let (mechanisms, found) = self.reader().objects()?;
        self.found = found;
        Ok(mechanisms)
    }

    /// The evidence about a key, by its number from [`Pkcs11Session::objects`].
    ///
    /// # Errors
    /// The error of the module, or when there is no such number.
    pub(crate) fn describe(&self, number: u64) -> Result<Description, Fault> {
        self.reader().describe(self.found(number, "C_GetAttributeValue")?)
    }

    fn reader(&self) -> ObjectReader<'_> {
        ObjectReader { functions: self.functions, session: self.handle }
    }

    /// The handle of an object, by its number from [`Pkcs11Session::objects`].
    pub(super) fn found(&self, number: u64, call: &str) -> Result<CK_OBJECT_HANDLE, Fault> {
        let found = usize::try_from(number).ok().and_then(|number| self.found.get(number));
        found.copied().ok_or_else(|| Fault::malformed(call, "no such object"))
    }

    /// Logs out and closes, and ignores the results.
    pub(crate) fn close(self, logged_in: bool) {
        if logged_in {
            let _ = self.functions.logout(self.handle);
        }
    }
}

impl Drop for Pkcs11Session<'_> {
    fn drop(&mut self) {
        let _ = self.functions.close_session(self.handle);
    }
}
