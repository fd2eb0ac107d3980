//! A loaded and initialised module, its slots and tokens.

use std::path::Path;

use cryptoki::slot::TokenInfo;
use cryptoki_sys::{
    CK_SLOT_INFO, CK_TOKEN_INFO, CK_VERSION, CKF_HW_SLOT, CKF_LOGIN_REQUIRED, CKF_OS_LOCKING_OK,
    CKF_PROTECTED_AUTHENTICATION_PATH, CKF_TOKEN_INITIALIZED, CKF_TOKEN_PRESENT, CKF_USER_PIN_COUNT_LOW,
    CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED, CKF_USER_PIN_TO_BE_CHANGED,
};

use super::raw::Functions;
use super::session::Session;
use crate::facts::{Library, PinState, Slot as SlotFacts, Token};
use crate::fault::Fault;
use crate::selector::PADDING;

/// A module after `C_Initialize`.
pub struct Module {
    functions: Functions,
}

impl Module {
    /// Loads a module file and initialises it for this one thread.
    ///
    /// # Errors
    /// [`Fault::Load`], or what `C_Initialize` answered.
    pub fn load(path: &Path) -> Result<Self, Fault> {
        let functions = Functions::load(path)?;
        match functions.initialize(CKF_OS_LOCKING_OK) {
            // A module that cannot lock is asked again without: one thread needs no locks (section 5.4.1).
            Err(fault) if ["CKR_CANT_LOCK", "CKR_NEED_TO_CREATE_THREADS"].contains(&fault.ckr()) => {
                functions.initialize(0)?;
            }
            other => other?,
        }
        Ok(Self { functions })
    }

    /// What the module says of itself; empty where it does not.
    #[must_use]
    pub fn library(&self) -> Library {
        let Ok(info) = self.functions.info() else { return Library::default() };
        Library {
            cryptoki: version(info.cryptokiVersion),
            manufacturer: padded(&info.manufacturerID),
            description: padded(&info.libraryDescription),
            version: version(info.libraryVersion),
        }
    }

    /// The slots that hold a token, in the module's order, each with what could be read of it.
    ///
    /// # Errors
    /// What `C_GetSlotList` answered.
    pub fn slots(&self) -> Result<Vec<SlotFacts>, Fault> {
        // Some modules list empty readers too.
        let slots = self.functions.slots()?.into_iter().filter(|slot| !is_empty(&self.functions, *slot));
        Ok(slots.map(|slot| read_slot(&self.functions, slot)).collect())
    }

    /// Opens a read-only session.
    ///
    /// # Errors
    /// What `C_OpenSession` answered.
    pub fn open_session(&self, slot_id: u64) -> Result<Session<'_>, Fault> {
        Ok(Session::new(&self.functions, slot_id, self.functions.open_session(slot_id)?))
    }

    /// Ends the use of the module; what it answers no longer matters.
    pub fn finalize(&self) {
        let _ = self.functions.finalize();
    }
}

/// Whether both the slot and its token say that there is none.
fn is_empty(functions: &Functions, slot: u64) -> bool {
    functions.slot_info(slot).is_ok_and(|info| info.flags & CKF_TOKEN_PRESENT == 0)
        && functions.token_info(slot).is_err_and(|fault| fault.ckr() == "CKR_TOKEN_NOT_PRESENT")
}

/// What a slot and its token say of themselves, as far as it can be read.
pub(super) fn read_slot(functions: &Functions, slot: u64) -> SlotFacts {
    let slot_info = functions.slot_info(slot).ok();
    let hardware = slot_info.map(|info| info.flags & CKF_HW_SLOT != 0);
    let (token, error) = match whole_token_info(functions, slot) {
        Ok(info) => {
            // The library's parser judges the fields that are not needed here, such as the clock.
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

/// A module whose tokens are files leaves out what it cannot read while another process writes; it is asked again then.
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
