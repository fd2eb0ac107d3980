//! A loaded and initialised module, its slots and tokens.

use std::path::Path;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki_sys::{
    CKF_LOGIN_REQUIRED, CKF_PROTECTED_AUTHENTICATION_PATH, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW,
    CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED, CKF_USER_PIN_TO_BE_CHANGED,
};

use super::raw::Raw;
use super::session::Session;
use super::{ckr_name, fault};
use crate::facts::{Library, Slot as SlotFacts, Token};
use crate::fault::Fault;

/// A module after `C_Initialize`.
pub struct Module {
    context: Pkcs11,
    raw: Raw,
}

impl Module {
    /// Loads a module file and initialises it for this one thread.
    ///
    /// # Errors
    /// [`Fault::Load`], or what `C_Initialize` answered.
    pub fn load(path: &Path) -> Result<Self, Fault> {
        let context = Pkcs11::new(path).map_err(fault("C_GetFunctionList"))?;
        let raw = Raw::load(path).map_err(fault("C_GetFunctionList"))?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // A module that cannot lock is asked again without: one thread needs no locks (section 5.4.1).
            Err(Error::Pkcs11(RvError::CantLock | RvError::NeedToCreateThreads, _)) => {
                context.initialize(CInitializeArgs::new(CInitializeFlags::empty())).map_err(fault("C_Initialize"))?;
            }
            other => other.map_err(fault("C_Initialize"))?,
        }
        Ok(Self { context, raw })
    }

    /// What the module says of itself; empty where it does not.
    #[must_use]
    pub fn library(&self) -> Library {
        let Ok(info) = self.context.get_library_info() else { return Library::default() };
        Library {
            cryptoki: info.cryptoki_version().to_string(),
            manufacturer: trimmed(info.manufacturer_id()),
            description: trimmed(info.library_description()),
            version: info.library_version().to_string(),
        }
    }

    /// The slots that hold a token, in the module's order, each with what could be read of it.
    ///
    /// # Errors
    /// What `C_GetSlotList` answered.
    pub fn slots(&self) -> Result<Vec<SlotFacts>, Fault> {
        let slots = self.context.get_slots_with_token().map_err(fault("C_GetSlotList"))?;
        Ok(slots.into_iter().map(|slot| read_slot(&self.context, &self.raw, slot)).collect())
    }

    /// Opens a read-only session.
    ///
    /// # Errors
    /// What `C_OpenSession` answered.
    pub fn open_session(&self, slot_id: u64) -> Result<Session<'_>, Fault> {
        let slot = Slot::try_from(slot_id).map_err(fault("C_OpenSession"))?;
        let session = self.context.open_ro_session(slot).map_err(fault("C_OpenSession"))?;
        Ok(Session::new(&self.context, &self.raw, slot, session))
    }

    /// Ends the use of the module, which is unloaded when this is dropped; what it answers no longer matters.
    pub fn finalize(&self) {
        let _ = self.context.clone().finalize();
    }
}

/// What a slot and its token say of themselves, as far as it can be read.
pub(super) fn read_slot(context: &Pkcs11, raw: &Raw, slot: Slot) -> SlotFacts {
    let hardware = context.get_slot_info(slot).ok().map(|info| info.hardware_slot());
    let (token, error) = match whole_token_info(context, slot) {
        Ok(info) => (Some(token(&info, hardware)), None),
        Err(Error::Pkcs11(value, _)) => (None, Some(format!("C_GetTokenInfo: {}", ckr_name(value)))),
        Err(other) => {
            (raw_token(raw, slot, hardware), Some(format!("C_GetTokenInfo: the answer does not parse: {other}")))
        }
    };
    SlotFacts { id: slot.id(), token, error }
}

/// A module whose tokens are files leaves out what it cannot read while another process writes; it is asked again then.
fn whole_token_info(context: &Pkcs11, slot: Slot) -> Result<TokenInfo, Error> {
    const READINGS: usize = 4;
    let mut info = context.get_token_info(slot)?;
    for _ in 1..READINGS {
        if !info.token_initialized() || !trimmed(info.serial_number()).is_empty() {
            break;
        }
        info = context.get_token_info(slot)?;
    }
    Ok(info)
}

/// What can be saved of an answer that the library does not parse.
fn raw_token(raw: &Raw, slot: Slot, hardware: Option<bool>) -> Option<Token> {
    let info = raw.token_info(slot.id()).ok()?;
    let has = |flag| info.flags & flag != 0;
    Some(Token {
        label: padded(&info.label),
        manufacturer: padded(&info.manufacturerID),
        model: padded(&info.model),
        serial: padded(&info.serialNumber),
        firmware: format!("{}.{}", info.firmwareVersion.major, info.firmwareVersion.minor),
        hardware,
        initialized: has(CKF_TOKEN_INITIALIZED),
        login_required: has(CKF_LOGIN_REQUIRED),
        pin_initialized: has(CKF_USER_PIN_INITIALIZED),
        pin_count_low: has(CKF_USER_PIN_COUNT_LOW),
        pin_final_try: has(CKF_USER_PIN_FINAL_TRY),
        pin_locked: has(CKF_USER_PIN_LOCKED),
        pin_to_be_changed: has(CKF_USER_PIN_TO_BE_CHANGED),
        pinpad: has(CKF_PROTECTED_AUTHENTICATION_PATH),
    })
}

fn token(info: &TokenInfo, hardware: Option<bool>) -> Token {
    Token {
        label: trimmed(info.label()),
        manufacturer: trimmed(info.manufacturer_id()),
        model: trimmed(info.model()),
        serial: trimmed(info.serial_number()),
        firmware: info.firmware_version().to_string(),
        hardware,
        initialized: info.token_initialized(),
        login_required: info.login_required(),
        pin_initialized: info.user_pin_initialized(),
        pin_count_low: info.user_pin_count_low(),
        pin_final_try: info.user_pin_final_try(),
        pin_locked: info.user_pin_locked(),
        pin_to_be_changed: info.user_pin_to_be_changed(),
        pinpad: info.protected_authentication_path(),
    }
}

/// A blank-padded field; some modules pad with NUL.
fn padded(field: &[u8]) -> String {
    trimmed(&String::from_utf8_lossy(field))
}

fn trimmed(text: &str) -> String {
    text.trim_end_matches([' ', '\0']).to_owned()
}
