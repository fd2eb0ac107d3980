//! Answers of real modules that violate the standard: flags, clocks, missing attributes, padded values, ignored
//! attributes.

use cryptoki_sys::*;

use crate::{PLAN, REAL, fill};

/// The token flag with this name.
fn token_flag(name: &str) -> CK_FLAGS {
    match name {
        "CKF_LOGIN_REQUIRED" => CKF_LOGIN_REQUIRED,
        "CKF_PROTECTED_AUTHENTICATION_PATH" => CKF_PROTECTED_AUTHENTICATION_PATH,
        "CKF_USER_PIN_COUNT_LOW" => CKF_USER_PIN_COUNT_LOW,
        "CKF_USER_PIN_FINAL_TRY" => CKF_USER_PIN_FINAL_TRY,
        "CKF_USER_PIN_INITIALIZED" => CKF_USER_PIN_INITIALIZED,
        "CKF_USER_PIN_LOCKED" => CKF_USER_PIN_LOCKED,
        "CKF_USER_PIN_TO_BE_CHANGED" => CKF_USER_PIN_TO_BE_CHANGED,
        _ => panic!("no flag {name}"),
    }
}

/// The attribute with this name.
fn attribute_type(name: &str) -> CK_ATTRIBUTE_TYPE {
    match name {
        "CKA_ALLOWED_MECHANISMS" => CKA_ALLOWED_MECHANISMS,
        "CKA_ALWAYS_AUTHENTICATE" => CKA_ALWAYS_AUTHENTICATE,
        "CKA_ALWAYS_SENSITIVE" => CKA_ALWAYS_SENSITIVE,
        "CKA_DECRYPT" => CKA_DECRYPT,
        "CKA_DERIVE" => CKA_DERIVE,
        "CKA_EXTRACTABLE" => CKA_EXTRACTABLE,
        "CKA_LOCAL" => CKA_LOCAL,
        "CKA_MODULUS" => CKA_MODULUS,
        "CKA_NEVER_EXTRACTABLE" => CKA_NEVER_EXTRACTABLE,
        "CKA_SENSITIVE" => CKA_SENSITIVE,
        "CKA_SIGN" => CKA_SIGN,
        "CKA_SIGN_RECOVER" => CKA_SIGN_RECOVER,
        "CKA_UNWRAP" => CKA_UNWRAP,
        _ => panic!("no attribute {name}"),
    }
}

/// `C_GetTokenInfo` with the flags, serial, label and clock of the rules.
pub(crate) unsafe extern "C" fn token_info(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR) -> CK_RV {
    if let Some(value) = PLAN.enter("C_GetTokenInfo").and_then(|fault| fault.before()) {
        return value;
    }
    if slot == EMPTY && PLAN.has("empty-reader") {
        return CKR_TOKEN_NOT_PRESENT;
    }
    // SAFETY: the structure is the caller's, and valid by the standard.
    unsafe {
        let value = REAL.1.C_GetTokenInfo.map_or(CKR_FUNCTION_NOT_SUPPORTED, |real| real(slot, info));
        if value != CKR_OK || (*info).flags & CKF_TOKEN_INITIALIZED == 0 {
            return value;
        }
        PLAN.values("flags+").for_each(|text| (*info).flags |= token_flag(text));
        if PLAN.calls.lock().unwrap().get("C_GetTokenInfo").is_some_and(|count| *count > 1) {
            PLAN.values("late+").for_each(|text| (*info).flags |= token_flag(text));
        }
        PLAN.values("flags-").for_each(|text| (*info).flags &= !token_flag(text));
        PLAN.values("serial=").for_each(|text| fill(&mut (*info).serialNumber, text));
        let readings = PLAN.calls.lock().unwrap().get("C_GetTokenInfo").copied().unwrap_or(0);
        if PLAN.values("blank:").any(|text| readings <= text.parse().expect("a number")) {
            fill(&mut (*info).serialNumber, "");
        }
        PLAN.values("label=").for_each(|text| fill(&mut (*info).label, text));
        if PLAN.has("latin1") {
            (&mut (*info).label)[..4].copy_from_slice(b"caf\xe9");
        }
        if PLAN.has("pad:rest") {
            let end = (*info).label.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
            (&mut (*info).label)[end..end + 6].copy_from_slice(b"\0Other");
        }
        if PLAN.has("pad:nul") {
            let info = &mut *info;
            for field in [&mut info.label[..], &mut info.manufacturerID, &mut info.model, &mut info.serialNumber] {
                let end = field.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
                field[end..].fill(0);
            }
        }
        if PLAN.has("clock") {
            (*info).flags |= CKF_CLOCK_ON_TOKEN;
            fill(&mut (*info).utcTime, "not a time");
        }
    }
    CKR_OK
}

/// An empty reader before the others, for any caller.
const EMPTY: CK_SLOT_ID = 0;

/// `C_GetSlotList` with an empty reader, if a rule asks for it.
pub(crate) unsafe extern "C" fn slot_list(present: CK_BBOOL, slots: CK_SLOT_ID_PTR, count: CK_ULONG_PTR) -> CK_RV {
    if let Some(value) = PLAN.enter("C_GetSlotList").and_then(|fault| fault.before()) {
        return value;
    }
    let Some(real) = REAL.1.C_GetSlotList else { return CKR_FUNCTION_NOT_SUPPORTED };
    let more = CK_ULONG::from(PLAN.has("empty-reader"));
    // SAFETY: the buffers are the caller's, and as long as said.
    unsafe {
        if PLAN.has("twice") {
            let value = real(present, slots, count);
            let once = *count as usize;
            *count *= 2;
            if !slots.is_null() {
                std::slice::from_raw_parts_mut(slots, 2 * once).copy_within(..once, once);
            }
            return value;
        }
        if slots.is_null() || more == 0 {
            let value = real(present, slots, count);
            *count += more;
            return value;
        }
        *count -= more;
        let value = real(present, slots.add(1), count);
        *slots = EMPTY;
        *count += more;
        value
    }
}

/// `C_GetSlotInfo` with an empty reader, if a rule asks for it.
pub(crate) unsafe extern "C" fn slot_info(slot: CK_SLOT_ID, info: CK_SLOT_INFO_PTR) -> CK_RV {
    if let Some(value) = PLAN.enter("C_GetSlotInfo").and_then(|fault| fault.before()) {
        return value;
    }
    // SAFETY: the structure is the caller's, and valid by the standard.
    unsafe {
        if slot == EMPTY && PLAN.has("empty-reader") {
            *info = CK_SLOT_INFO::default();
            fill(&mut (*info).slotDescription, "Laptop reader");
            return CKR_OK;
        }
        REAL.1.C_GetSlotInfo.map_or(CKR_FUNCTION_NOT_SUPPORTED, |real| real(slot, info))
    }
}

/// `C_GetInfo` with the library version of a rule.
pub(crate) unsafe extern "C" fn info(info: CK_INFO_PTR) -> CK_RV {
    if let Some(value) = PLAN.enter("C_GetInfo").and_then(|fault| fault.before()) {
        return value;
    }
    // SAFETY: the structure is the caller's, and valid by the standard.
    unsafe {
        let value = REAL.1.C_GetInfo.map_or(CKR_FUNCTION_NOT_SUPPORTED, |real| real(info));
        for version in PLAN.values("library:") {
            let (major, minor) = version.split_once('.').expect("library:MAJOR.MINOR");
            let number = |text: &str| text.parse().expect("a number");
            (*info).libraryVersion = CK_VERSION { major: number(major), minor: number(minor) };
        }
        value
    }
}

/// `C_GetMechanismList` without the mechanisms that rules remove.
pub(crate) unsafe extern "C" fn mechanism_list(
    slot: CK_SLOT_ID,
    list: CK_MECHANISM_TYPE_PTR,
    count: CK_ULONG_PTR,
) -> CK_RV {
    if let Some(value) = PLAN.enter("C_GetMechanismList").and_then(|fault| fault.before()) {
        return value;
    }
    // SAFETY: the buffers are the caller's, and as long as said.
    unsafe {
        let value = REAL.1.C_GetMechanismList.map_or(CKR_FUNCTION_NOT_SUPPORTED, |real| real(slot, list, count));
        if value != CKR_OK || list.is_null() {
            return value;
        }
        let gone: Vec<CK_MECHANISM_TYPE> = PLAN
            .values("nomech:")
            .map(|text| CK_MECHANISM_TYPE::from_str_radix(text, 16).expect("hexadecimal"))
            .collect();
        let all = std::slice::from_raw_parts_mut(list, *count as usize);
        let kept: Vec<CK_MECHANISM_TYPE> = all.iter().copied().filter(|kind| !gone.contains(kind)).collect();
        all[..kept.len()].copy_from_slice(&kept);
        *count = kept.len() as CK_ULONG;
    }
    CKR_OK
}

/// `C_GetMechanismInfo` without flags, if a rule asks for it.
pub(crate) unsafe extern "C" fn mechanism_info(
    slot: CK_SLOT_ID,
    kind: CK_MECHANISM_TYPE,
    info: CK_MECHANISM_INFO_PTR,
) -> CK_RV {
    if let Some(value) = PLAN.enter("C_GetMechanismInfo").and_then(|fault| fault.before()) {
        return value;
    }
    // SAFETY: the structure is the caller's, and valid by the standard.
    unsafe {
        let value = REAL.1.C_GetMechanismInfo.map_or(CKR_FUNCTION_NOT_SUPPORTED, |real| real(slot, kind, info));
        if PLAN.has("mechanisms:no-flags") {
            (*info).flags = 0;
        }
        value
    }
}

/// `C_GetAttributeValue` with the private keys' attributes and the certificates' padding of the rules.
pub(crate) unsafe extern "C" fn attribute_value(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    if let Some(value) = PLAN.enter("C_GetAttributeValue").and_then(|fault| fault.before()) {
        return value;
    }
    let Some(real) = REAL.1.C_GetAttributeValue else { return CKR_FUNCTION_NOT_SUPPORTED };
    // SAFETY: the template is the caller's, and as long as said.
    unsafe {
        let mut class: CK_OBJECT_CLASS = 0;
        let mut ask = CK_ATTRIBUTE {
            type_: CKA_CLASS,
            pValue: (&raw mut class).cast(),
            ulValueLen: size_of::<CK_OBJECT_CLASS>() as CK_ULONG,
        };
        real(session, object, &mut ask, 1);
        let asked = std::slice::from_raw_parts_mut(template, count as usize);
        let room: Vec<CK_ULONG> = asked.iter().map(|one| one.ulValueLen).collect();
        let count = if PLAN.has("few") { count.min(1) } else { count };
        let mut value = real(session, object, template, count);
        for (one, room) in asked.iter_mut().zip(room) {
            if class == CKO_CERTIFICATE && one.type_ == CKA_VALUE && PLAN.has("pad") {
                value = pad(one, room, |again| real(session, object, again, 1));
            }
            if class == CKO_CERTIFICATE && one.type_ == CKA_VALUE {
                for path in PLAN.values("certificate:") {
                    value = give(one, room, &std::fs::read(path).expect("the certificate's file"));
                }
            }
            if class != CKO_PRIVATE_KEY {
                continue;
            }
            for rule in PLAN.values("attr:") {
                let (kind, new) = rule.split_once('=').expect("attr:KIND=VALUE");
                if attribute_type(kind) != one.type_ {
                    continue;
                }
                if new == "missing" {
                    one.ulValueLen = CK_UNAVAILABLE_INFORMATION;
                    value = CKR_ATTRIBUTE_TYPE_INVALID;
                } else {
                    one.ulValueLen = 1;
                    value = CKR_OK;
                    if !one.pValue.is_null() {
                        *one.pValue.cast::<u8>() = new.parse().expect("a byte");
                    }
                }
            }
        }
        value
    }
}

/// Returns these bytes as a module does.
unsafe fn give(one: &mut CK_ATTRIBUTE, room: CK_ULONG, bytes: &[u8]) -> CK_RV {
    one.ulValueLen = bytes.len() as CK_ULONG;
    if one.pValue.is_null() {
        return CKR_OK;
    }
    if room < one.ulValueLen {
        one.ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return CKR_BUFFER_TOO_SMALL;
    }
    // SAFETY: there is room for all of them.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), one.pValue.cast(), bytes.len()) };
    CKR_OK
}

const PADDING: CK_ULONG = 64;

unsafe fn pad(one: &mut CK_ATTRIBUTE, room: CK_ULONG, mut real: impl FnMut(&mut CK_ATTRIBUTE) -> CK_RV) -> CK_RV {
    let mut query = CK_ATTRIBUTE { type_: one.type_, pValue: std::ptr::null_mut(), ulValueLen: 0 };
    let value = real(&mut query);
    let padded = query.ulValueLen + PADDING;
    one.ulValueLen = padded;
    if value != CKR_OK || one.pValue.is_null() || room < padded {
        return value;
    }
    // SAFETY: there is room for the value and the padding.
    unsafe {
        std::slice::from_raw_parts_mut(one.pValue.cast::<u8>(), padded as usize).fill(0);
    }
    one.ulValueLen = query.ulValueLen;
    let value = real(one);
    one.ulValueLen = padded;
    value
}
