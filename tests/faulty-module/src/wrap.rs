//! The function list: every call counted, logged, and failed as planned.

use std::io::Write as _;

use cryptoki_sys::*;

use crate::deviations;
use crate::{Fault, PLAN, REAL};

macro_rules! wrap {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        $(
            #[allow(non_snake_case)]
            unsafe extern "C" fn $name($($argument: $kind),*) -> CK_RV {
                let fault = PLAN.enter(stringify!($name));
                if let Some(value) = fault.as_ref().and_then(Fault::before) {
                    return value;
                }
                // SAFETY: the arguments are handed on as they came.
                let value = REAL.1.$name.map_or(CKR_FUNCTION_NOT_SUPPORTED, |real| unsafe { real($($argument),*) });
                fault.as_ref().and_then(Fault::after).unwrap_or(value)
            }
        )*

        /// The module's function list.
        pub(crate) fn list() -> CK_FUNCTION_LIST {
            let mut list = REAL.1;
            $(list.$name = Some($name);)*
            list.C_GetFunctionList = Some(crate::C_GetFunctionList);
            list.C_Sign = Some(sign);
            list.C_Login = Some(login);
            list.C_GetInfo = Some(deviations::info);
            list.C_GetSlotList = Some(deviations::slot_list);
            list.C_GetSlotInfo = Some(deviations::slot_info);
            list.C_OpenSession = Some(open_session);
            list.C_SignInit = Some(sign_init);
            list.C_GetTokenInfo = Some(deviations::token_info);
            list.C_GetAttributeValue = Some(deviations::attribute_value);
            list.C_GetMechanismList = Some(deviations::mechanism_list);
            list.C_GetMechanismInfo = Some(deviations::mechanism_info);
            list
        }
    };
}

wrap! {
    C_Initialize(arguments: CK_VOID_PTR);
    C_Finalize(reserved: CK_VOID_PTR);
    C_CloseSession(session: CK_SESSION_HANDLE);
    C_CloseAllSessions(slot: CK_SLOT_ID);
    C_GetSessionInfo(session: CK_SESSION_HANDLE, info: CK_SESSION_INFO_PTR);
    C_Logout(session: CK_SESSION_HANDLE);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG);
    C_FindObjects(session: CK_SESSION_HANDLE, found: CK_OBJECT_HANDLE_PTR, most: CK_ULONG, count: CK_ULONG_PTR);
    C_FindObjectsFinal(session: CK_SESSION_HANDLE);
    C_CreateObject(session: CK_SESSION_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, object: CK_OBJECT_HANDLE_PTR);
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
    C_SignUpdate(session: CK_SESSION_HANDLE, part: CK_BYTE_PTR, length: CK_ULONG);
    C_SignFinal(session: CK_SESSION_HANDLE, signature: CK_BYTE_PTR, length: CK_ULONG_PTR);
}

unsafe extern "C" fn open_session(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: CK_VOID_PTR,
    notify: CK_NOTIFY,
    session: CK_SESSION_HANDLE_PTR,
) -> CK_RV {
    if let Some(value) = PLAN.enter("C_OpenSession").and_then(|fault| fault.before()) {
        return value;
    }
    // SAFETY: the arguments are handed on as they came, and the session is there after CKR_OK.
    unsafe {
        let open = REAL.1.C_OpenSession.expect("C_OpenSession");
        let value = open(slot, flags, application, notify, session);
        if value == CKR_OK && PLAN.has("autologin") {
            let mut pin = std::env::var("FAULTY_PIN").expect("FAULTY_PIN").into_bytes();
            REAL.1.C_Login.expect("C_Login")(*session, CKU_USER, pin.as_mut_ptr(), pin.len() as CK_ULONG);
        }
        value
    }
}

/// With another private key from the second call on, like a handle after a reset.
unsafe extern "C" fn sign_init(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    if let Some(value) = PLAN.enter("C_SignInit").and_then(|fault| fault.before()) {
        return value;
    }
    let count = PLAN.calls.lock().unwrap().get("C_SignInit").copied().unwrap_or(0);
    let key = if PLAN.has("other-key") && count > 1 { unsafe { other_key(session, key) } } else { key };
    // SAFETY: the arguments are handed on as they came.
    REAL.1.C_SignInit.map_or(CKR_FUNCTION_NOT_SUPPORTED, |real| unsafe { real(session, mechanism, key) })
}

/// Another private key.
unsafe fn other_key(session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
    let (mut class, mut found, mut count) = (CKO_PRIVATE_KEY, [0; 8], 0);
    let length = size_of::<CK_OBJECT_CLASS>() as CK_ULONG;
    let mut template = CK_ATTRIBUTE { type_: CKA_CLASS, pValue: (&raw mut class).cast(), ulValueLen: length };
    // SAFETY: the buffers are as long as said, and outlive the calls.
    unsafe {
        REAL.1.C_FindObjectsInit.unwrap()(session, &mut template, 1);
        REAL.1.C_FindObjects.unwrap()(session, found.as_mut_ptr(), 8, &mut count);
        REAL.1.C_FindObjectsFinal.unwrap()(session);
    }
    found[..count as usize].iter().copied().find(|other| *other != key).unwrap_or(key)
}

unsafe extern "C" fn sign(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    length: CK_ULONG,
    signature: CK_BYTE_PTR,
    written: CK_ULONG_PTR,
) -> CK_RV {
    let fault = PLAN.enter("C_Sign");
    if PLAN.has("attack") {
        crate::attack::all("signing");
    }
    if let Some(value) = fault.as_ref().and_then(Fault::before) {
        return value;
    }
    // SAFETY: the arguments are handed on as they came, and the output is as long as the real module says.
    unsafe {
        const EXACT: CK_ULONG = 256;
        if PLAN.has("exact") && *written != EXACT {
            *written = EXACT;
            return CKR_BUFFER_TOO_SMALL;
        }
        if let Some(Fault::Repeat(of_all)) = fault {
            crate::frames::repeat(of_all);
        }
        let value =
            REAL.1.C_Sign.map_or(CKR_FUNCTION_NOT_SUPPORTED, |real| real(session, data, length, signature, written));
        if matches!(fault, Some(Fault::Repeat(_))) && value == CKR_OK && !signature.is_null() {
            let message = std::slice::from_raw_parts(data, length as usize);
            crate::frames::remember(message, std::slice::from_raw_parts(signature, *written as usize));
        }
        if matches!(fault, Some(Fault::Corrupt)) && value == CKR_OK && !signature.is_null() {
            *signature.add(7) ^= 1;
        }
        if value == CKR_OK && !signature.is_null() {
            change_length(fault.as_ref(), signature, written);
        }
        value
    }
}

/// Imitates drivers that treat a signature as a number.
unsafe fn change_length(fault: Option<&Fault>, signature: CK_BYTE_PTR, written: CK_ULONG_PTR) {
    // SAFETY: the signature is as long as said, and the caller's buffer has room for one more byte.
    unsafe {
        let own = std::slice::from_raw_parts(signature, *written as usize).to_vec();
        let zeros = own.iter().take_while(|byte| **byte == 0).count();
        let new = match fault {
            Some(Fault::Strip) if zeros > 0 => {
                writeln!(crate::log().expect("FAULTY_LOG"), "stripped").unwrap();
                own[zeros..].to_vec()
            }
            Some(Fault::Widen) => [&[0], &own[..]].concat(),
            _ => return,
        };
        std::ptr::copy_nonoverlapping(new.as_ptr(), signature, new.len());
        *written = new.len() as CK_ULONG;
    }
}

unsafe extern "C" fn login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    length: CK_ULONG,
) -> CK_RV {
    if let Some(value) = PLAN.enter("C_Login").and_then(|fault| fault.before()) {
        return value;
    }
    if PLAN.has("unenforced") && user == CKU_CONTEXT_SPECIFIC {
        return CKR_USER_TYPE_INVALID;
    }
    // SAFETY: the arguments are handed on as they came.
    REAL.1.C_Login.map_or(CKR_FUNCTION_NOT_SUPPORTED, |real| unsafe { real(session, user, pin, length) })
}
