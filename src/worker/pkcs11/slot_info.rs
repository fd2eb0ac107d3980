//! What a module reports about a slot and its token. Runs in the worker.

use cryptoki::slot::TokenInfo;
use cryptoki_sys::{
    CK_SLOT_INFO, CK_TOKEN_INFO, CK_VERSION, CKF_HW_SLOT, CKF_LOGIN_REQUIRED, CKF_PROTECTED_AUTHENTICATION_PATH,
    CKF_TOKEN_INITIALIZED, CKF_TOKEN_PRESENT, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED,
    CKF_USER_PIN_LOCKED, CKF_USER_PIN_TO_BE_CHANGED,
};

use super::raw::Functions;
use crate::facts::{PinState, Slot as SlotFacts, Token};
use crate::fault::Fault;
use crate::selector::PADDING;

/// Whether both the slot and its token report that there is none.
pub(super) fn is_empty(functions: &Functions, slot: u64) -> bool {
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
            let parse_error = TokenInfo::try_from(info).err();
            (
                Some(token(&info, hardware)),
                parse_error.map(|error| format!("C_GetTokenInfo: the answer does not parse: {error}")),
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

pub(super) fn version(version: CK_VERSION) -> String {
    format!("{}.{}", version.major, version.minor)
}

/// A blank-padded field. Some modules end it with NUL, and old bytes may follow.
pub(super) fn padded(field: &[u8]) -> String {
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).trim_end_matches(PADDING).to_owned()
}
