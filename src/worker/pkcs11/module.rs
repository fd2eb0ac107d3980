//! A loaded and initialised module, its slots and tokens. Runs in the worker.

use std::path::Path;

use cryptoki::slot::TokenInfo;
use cryptoki_sys::{
    CK_SLOT_INFO, CK_TOKEN_INFO, CK_VERSION, CKF_HW_SLOT, CKF_LOGIN_REQUIRED, CKF_OS_LOCKING_OK,
    CKF_PROTECTED_AUTHENTICATION_PATH, CKF_TOKEN_INITIALIZED, CKF_TOKEN_PRESENT, CKF_USER_PIN_COUNT_LOW,
    CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED, CKF_USER_PIN_TO_BE_CHANGED,
};

use super::raw::Functions;
use super::session::Pkcs11Session;
use crate::facts::{Library, PinState, Slot as SlotFacts, Token};
use crate::fault::Fault;
use crate::selector::PADDING;

/// A module after `C_Initialize`.
pub(crate) struct Pkcs11Module {
    functions: Functions,
}

impl Pkcs11Module {
    /// Loads a module file and initialises it for this single thread.
    ///
    /// # Errors
    /// [`Fault::Load`], or the error of `C_Initialize`.
    pub(crate) fn load(path: &Path) -> Result<Self, Fault> {
        let functions = Functions::load(path)?;
        match functions.initialize(CKF_OS_LOCKING_OK) {
            // A module that cannot lock gets a second call without locks: one thread needs none (section 5.4.1).
            Err(fault) if ["CKR_CANT_LOCK", "CKR_NEED_TO_CREATE_THREADS"].contains(&fault.ckr()) => {
                functions.initialize(0)?;
            }
            other => other?,
        }
        Ok(Self { functions })
    }

    /// The module's information about itself; empty if there is none.
    #[must_use]
    pub(crate) fn library(&self) -> Library {
        let Ok(info) = self.functions.info() else { return Library::default() };
        Library {
            cryptoki: version(info.cryptokiVersion),
            manufacturer: padded(&info.manufacturerID),
            description: padded(&info.libraryDescription),
            version: version(info.libraryVersion),
        }
    }

    /// The slots with a token, in the module's order, each with the readable information.
    ///
    /// # Errors
    /// The error of `C_GetSlotList`.
    pub(crate) fn slots(&self) -> Result<Vec<SlotFacts>, Fault> {
        // Some modules also list empty readers.
        let slots = self.functions.slots()?.into_iter().filter(|slot| !is_empty(&self.functions, *slot));
        Ok(slots.map(|slot| read_slot(&self.functions, slot)).collect())
    }

    /// Opens a read-only session.
    ///
    /// # Errors
    /// The error of `C_OpenSession`.
    pub(crate) fn open_session(&self, slot_id: u64) -> Result<Pkcs11Session<'_>, Fault> {
        Ok(Pkcs11Session::new(&self.functions, slot_id, self.functions.open_session(slot_id)?))
    }

    /// Ends the use of the module, and ignores its result.
    pub(crate) fn finalize(&self) {
        let _ = self.functions.finalize();
    }
}

/// Whether both the slot and its token report that there is none.
fn is_empty(functions: &Functions, slot: u64) -> bool {
    functions.slot_info(slot).is_ok_and(|info| info.flags & CKF_TOKEN_PRESENT == 0)
        && functions.token_info(slot).is_err_and(|fault| fault.ckr() == "CKR_TOKEN_NOT_PRESENT")
}

/// The readable information about a slot and its token.
pub(super) fn read_slot(functions: &Functions, slot: u64) -> SlotFacts {
    let slot_info = functions.slot_info(slot).ok();
    let hardware = slot_info.map(|info| info.flags & CKF_HW_SLOT != 0);
    let (token, error) = match whole_token_info(functions, slot) {
        Ok(info) => {
            // The library's parser checks the fields that are not needed here, such as the clock.
            let odd = TokenInfo::try_from(info).err();
            (
                Some(token(&info, hardware)),
                odd.map(|error| format!("C_GetTokenInfo: the answer does not parse: {error}")),
            )
        }
        Err(fault) => (None, Some(fault.to_string())),
    };
    let field = |of: fn(&CK_SLOT_INFO) -> &[u8]| slot_info.as_ref().map(|info| padded(of(info))).unwrap_or_default();
    let description = field(|info| &info.slotDescription);
    let manufacturer = field(|info| &info.manufacturerID);
    SlotFacts { id: slot, description, manufacturer, token, error }
}

/// A module with tokens in files hides a token while another process writes it. Then the call is repeated.
fn whole_token_info(functions: &Functions, slot: u64) -> Result<CK_TOKEN_INFO, Fault> {
    const READINGS: usize = 4;
    let mut info = functions.token_info(slot)?;
    for _ in 1..READINGS {
        if info.flags & CKF_TOKEN_INITIALIZED == 0 || !padded(&info.serialNumber).is_empty() {
            break;
        }
        info = functions.token_info(slot)?;
    }
    Ok(info)
}

fn token(info: &CK_TOKEN_INFO, hardware: Option<bool>) -> Token {
    let has = |flag| info.flags & flag != 0;
    Token {
        label: padded(&info.label),
        manufacturer: padded(&info.manufacturerID),
        model: padded(&info.model),
        serial: padded(&info.serialNumber),
        firmware: version(info.firmwareVersion),
        hardware,
        initialized: has(CKF_TOKEN_INITIALIZED),
        login_required: has(CKF_LOGIN_REQUIRED),
        pin: PinState {
            initialized: has(CKF_USER_PIN_INITIALIZED),
            count_low: has(CKF_USER_PIN_COUNT_LOW),
            final_try: has(CKF_USER_PIN_FINAL_TRY),
            locked: has(CKF_USER_PIN_LOCKED),
            to_be_changed: has(CKF_USER_PIN_TO_BE_CHANGED),
        },
        pinpad: has(CKF_PROTECTED_AUTHENTICATION_PATH),
    }
}

fn version(version: CK_VERSION) -> String {
    format!("{}.{}", version.major, version.minor)
}

/// A blank-padded field; some modules pad with NUL.
fn padded(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim_end_matches(PADDING).to_owned()
}
