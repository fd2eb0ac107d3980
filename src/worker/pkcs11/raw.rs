//! The calls of a module: each PKCS#11 function that the agent needs, with checked arguments and results.
//!
//! Runs in the worker. The PKCS#11 library cannot make these calls, since it loads a module itself and does not accept the function list of
//! [`super::entry_point`]. It also hides results: a whole token because of one unusual clock field, or an attribute that was never written.
//! `C_Sign` gets a buffer for any signature, so it needs no length query, which some modules answer wrongly.
//!
//! Unsafe code: calls through function pointers into the module.

#![allow(unsafe_code)]

use std::path::Path;
use std::ptr;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_C_INITIALIZE_ARGS, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM,
    CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_OBJECT_CLASS, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO,
    CK_SLOT_ID, CK_SLOT_INFO, CK_TOKEN_INFO, CK_TRUE, CK_ULONG, CK_USER_TYPE, CKA_CERTIFICATE_TYPE, CKA_CLASS, CKA_ID,
    CKA_KEY_TYPE, CKA_LABEL, CKA_MODULUS, CKA_VALUE, CKF_SERIAL_SESSION, CKR_BUFFER_TOO_SMALL, CKR_OK,
};
use libloading::Library;

use super::{ckr_name, entry_point};
use crate::fault::Fault;

/// Room for the signature of a 32768-bit key.
const BUFFER: usize = 4096;

/// The content of a buffer before the call: not a truth value, and not a type of key or certificate.
const UNWRITTEN: u8 = 0xa5;

/// The maximum number of slots or mechanisms, or of bytes of one attribute.
const COUNT_LIMIT: usize = 1 << 20;

/// The maximum number of readings of a list that grows between the length query and the reading.
const READINGS: usize = 4;

/// The functions of a loaded module, with their library.
pub(super) struct Functions {
    list: CK_FUNCTION_LIST,
    _library: Library,
}

/// Calls one function. Any result except `CKR_OK` is a fault. The callers pass pointers to memory that outlives the
/// call and has the given size.
macro_rules! call {
    ($functions:ident.$name:ident($($argument:expr),* $(,)?)) => {{
        let function = $functions.list.$name.ok_or_else(|| missing(stringify!($name)))?;
        // SAFETY: the function has this type in the standard; for the arguments see above.
        checked(stringify!($name), unsafe { function($($argument),*) })
    }};
}

impl Functions {
    /// Loads a module's file.
    pub(super) fn load(path: &Path) -> Result<Self, Fault> {
        let (library, list) = entry_point::load(path)?;
        Ok(Self { list, _library: library })
    }

    /// `C_Initialize` with these flags.
    pub(super) fn initialize(&self, flags: CK_FLAGS) -> Result<(), Fault> {
        let mut arguments = CK_C_INITIALIZE_ARGS { flags, ..CK_C_INITIALIZE_ARGS::default() };
        call!(self.C_Initialize(ptr::from_mut(&mut arguments).cast()))
    }

    /// `C_Finalize`.
    pub(super) fn finalize(&self) -> Result<(), Fault> {
        call!(self.C_Finalize(ptr::null_mut()))
    }

    /// `C_GetInfo`.
    pub(super) fn info(&self) -> Result<CK_INFO, Fault> {
        let mut info = CK_INFO::default();
        call!(self.C_GetInfo(&mut info))?;
        Ok(info)
    }

    /// `C_GetSlotList`, with only the slots that have a token.
    pub(super) fn slots(&self) -> Result<Vec<CK_SLOT_ID>, Fault> {
        let read = |slots: *mut CK_SLOT_ID, count: &mut CK_ULONG| call!(self.C_GetSlotList(CK_TRUE, slots, count));
        list("C_GetSlotList", read)
    }

    /// `C_GetSlotInfo`.
    pub(super) fn slot_info(&self, slot: CK_SLOT_ID) -> Result<CK_SLOT_INFO, Fault> {
        let mut info = CK_SLOT_INFO::default();
        call!(self.C_GetSlotInfo(slot, &mut info))?;
        Ok(info)
    }

    /// `C_GetTokenInfo`.
    pub(super) fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, Fault> {
        let mut info = CK_TOKEN_INFO::default();
        call!(self.C_GetTokenInfo(slot, &mut info))?;
        Ok(info)
    }

    /// `C_GetMechanismList`.
    pub(super) fn mechanisms(&self, slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>, Fault> {
        list("C_GetMechanismList", |mechanisms, count| call!(self.C_GetMechanismList(slot, mechanisms, count)))
    }

    /// `C_GetMechanismInfo`.
    pub(super) fn mechanism_info(
        &self,
        slot: CK_SLOT_ID,
        mechanism: CK_MECHANISM_TYPE,
    ) -> Result<CK_MECHANISM_INFO, Fault> {
        let mut info = CK_MECHANISM_INFO::default();
        call!(self.C_GetMechanismInfo(slot, mechanism, &mut info))?;
        Ok(info)
    }

    /// `C_OpenSession`, read-only.
    pub(super) fn open_session(&self, slot: CK_SLOT_ID) -> Result<CK_SESSION_HANDLE, Fault> {
        let mut session = 0;
        call!(self.C_OpenSession(slot, CKF_SERIAL_SESSION, ptr::null_mut(), None, &mut session))?;
        Ok(session)
    }

    /// `C_CloseSession`.
    pub(super) fn close_session(&self, session: CK_SESSION_HANDLE) -> Result<(), Fault> {
        call!(self.C_CloseSession(session))
    }

    /// `C_GetSessionInfo`.
    pub(super) fn session_info(&self, session: CK_SESSION_HANDLE) -> Result<CK_SESSION_INFO, Fault> {
        let mut info = CK_SESSION_INFO::default();
        call!(self.C_GetSessionInfo(session, &mut info))?;
        Ok(info)
    }

    /// `C_Login`. Without a PIN, the token asks for it itself.
    pub(super) fn login(&self, session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: Option<&str>) -> Result<(), Fault> {
        // A module does not write to the PIN.
        let start = pin.map_or(ptr::null_mut(), |pin| pin.as_ptr().cast_mut());
        call!(self.C_Login(session, user, start, length(pin.unwrap_or_default().len())?))
    }

    /// `C_Logout`.
    pub(super) fn logout(&self, session: CK_SESSION_HANDLE) -> Result<(), Fault> {
        call!(self.C_Logout(session))
    }

    /// The objects of one class.
    pub(super) fn find(
        &self,
        session: CK_SESSION_HANDLE,
        mut class: CK_OBJECT_CLASS,
    ) -> Result<Vec<CK_OBJECT_HANDLE>, Fault> {
        const AT_ONCE: usize = 64;
        let mut template = CK_ATTRIBUTE {
            type_: CKA_CLASS,
            pValue: ptr::from_mut(&mut class).cast(),
            ulValueLen: length(size_of::<CK_OBJECT_CLASS>())?,
        };
        call!(self.C_FindObjectsInit(session, &mut template, 1))?;
        let mut found = Vec::new();
        let read = |found: &mut Vec<CK_OBJECT_HANDLE>| loop {
            let (mut some, mut count) = ([0; AT_ONCE], 0);
            call!(self.C_FindObjects(session, some.as_mut_ptr(), length(AT_ONCE)?, &mut count))?;
            let some = usize::try_from(count).ok().and_then(|count| some.get(..count));
            match some {
                Some([]) => return Ok(()),
                Some(some) if found.len() < COUNT_LIMIT => found.extend_from_slice(some),
                _ => return Err(Fault::malformed("C_FindObjects", "the module returned too many objects")),
            }
        };
        let result = read(&mut found);
        let end = call!(self.C_FindObjectsFinal(session));
        result.and(end).map(|()| found)
    }

    /// `C_GetAttributeValue` of many attributes in one call. `None` unless the module returned `CKR_OK` and wrote each
    /// value completely. Then [`Functions::attribute`] finds the problem.
    pub(super) fn attributes(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        kinds: &[CK_ATTRIBUTE_TYPE],
    ) -> Option<Vec<Vec<u8>>> {
        let mut values: Vec<Vec<u8>> = kinds.iter().map(|kind| vec![UNWRITTEN; room(*kind)]).collect();
        let attributes = kinds.iter().zip(&mut values).map(|(kind, value)| attribute(*kind, value));
        let mut template: Vec<CK_ATTRIBUTE> = attributes.collect();
        self.read(session, object, &mut template).ok()?;
        for (answer, value) in template.iter().zip(&mut values) {
            let length = usize::try_from(answer.ulValueLen).ok().filter(|length| *length <= value.len())?;
            value.truncate(length);
            if length > 0 && value.iter().all(|byte| *byte == UNWRITTEN) {
                return None;
            }
        }
        Some(values)
    }

    /// `C_GetAttributeValue` of one attribute, of any length.
    pub(super) fn attribute(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        kind: CK_ATTRIBUTE_TYPE,
    ) -> Result<Vec<u8>, Fault> {
        let mut query = [CK_ATTRIBUTE { type_: kind, pValue: ptr::null_mut(), ulValueLen: 0 }];
        self.read(session, object, &mut query)?;
        let too_long =
            || Fault::malformed("C_GetAttributeValue", "the module returned no length, or an impossible one");
        let room =
            usize::try_from(query[0].ulValueLen).ok().filter(|room| *room <= COUNT_LIMIT).ok_or_else(too_long)?;
        let mut value = vec![UNWRITTEN; room];
        let mut template = [attribute(kind, &mut value)];
        self.read(session, object, &mut template)?;
        let written = usize::try_from(template[0].ulValueLen).ok().filter(|written| *written <= room);
        value.truncate(written.ok_or_else(too_long)?);
        Ok(value)
    }

    /// `C_SignInit` with a mechanism that has no parameter.
    pub(super) fn sign_init(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        key: CK_OBJECT_HANDLE,
    ) -> Result<(), Fault> {
        let mut mechanism = CK_MECHANISM { mechanism, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        call!(self.C_SignInit(session, &mut mechanism, key))
    }

    /// `C_Sign` (PKCS#11 3.0 section 5.13.2) in one part, which ends the operation.
    pub(super) fn sign(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Result<Vec<u8>, Fault> {
        const CALL: &str = "C_Sign";
        let sign = self.list.C_Sign.ok_or_else(|| missing(CALL))?;
        let mut data = data.to_vec();
        let data_length = length(data.len())?;
        let mut attempt = |room: usize| -> Result<(CK_RV, Vec<u8>, usize), Fault> {
            let mut signature = vec![0; room];
            let mut written = length(room)?;
            // SAFETY: both buffers have the given length and outlive the call.
            let value = unsafe { sign(session, data.as_mut_ptr(), data_length, signature.as_mut_ptr(), &mut written) };
            Ok((value, signature, usize::try_from(written).unwrap_or(usize::MAX)))
        };
        let mut answer = attempt(BUFFER)?;
        if answer.0 == CKR_BUFFER_TOO_SMALL && (1..=BUFFER * 16).contains(&answer.2) {
            // The operation stays active (section 5.2). Such a module needs exactly the length that it returned.
            answer = attempt(answer.2)?;
        }
        let (value, mut signature, written) = answer;
        checked(CALL, value)?;
        if written > signature.len() {
            return Err(Fault::malformed(CALL, "the module returned a length beyond the buffer"));
        }
        signature.truncate(written);
        Ok(signature)
    }

    fn read(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        template: &mut [CK_ATTRIBUTE],
    ) -> Result<(), Fault> {
        call!(self.C_GetAttributeValue(session, object, template.as_mut_ptr(), length(template.len())?))
    }
}

/// Reads a list after a length query. The list may grow in between.
fn list(
    call: &'static str,
    read: impl Fn(*mut CK_ULONG, &mut CK_ULONG) -> Result<(), Fault>,
) -> Result<Vec<CK_ULONG>, Fault> {
    let mut result = Ok(());
    for _ in 0..READINGS {
        let mut count = 0;
        read(ptr::null_mut(), &mut count)?;
        let room = usize::try_from(count).ok().filter(|room| *room <= COUNT_LIMIT);
        let room = room.ok_or_else(|| Fault::malformed(call, "the module returned an impossible length"))?;
        let mut values = vec![0; room];
        result = if room == 0 { Ok(()) } else { read(values.as_mut_ptr(), &mut count) };
        match &result {
            Ok(()) => {
                values.truncate(usize::try_from(count).unwrap_or(usize::MAX));
                return Ok(values);
            }
            Err(fault) if fault.is(call, "CKR_BUFFER_TOO_SMALL") => {}
            Err(_) => break,
        }
    }
    result.map(|()| Vec::new())
}

/// The buffer size for an attribute's value in bytes. A longer value is read separately.
fn room(kind: CK_ATTRIBUTE_TYPE) -> usize {
    match kind {
        CKA_KEY_TYPE | CKA_CERTIFICATE_TYPE => size_of::<CK_ULONG>(),
        CKA_LABEL | CKA_ID => 256,
        CKA_MODULUS => 2048,
        CKA_VALUE => 8192,
        _ => 1,
    }
}

fn attribute(kind: CK_ATTRIBUTE_TYPE, value: &mut [u8]) -> CK_ATTRIBUTE {
    // The length of a buffer fits an unsigned long on Linux.
    CK_ATTRIBUTE { type_: kind, pValue: value.as_mut_ptr().cast(), ulValueLen: value.len() as CK_ULONG }
}

fn length(length: usize) -> Result<CK_ULONG, Fault> {
    CK_ULONG::try_from(length).map_err(|_| Fault::Message("a buffer is too long".into()))
}

fn missing(call: &str) -> Fault {
    Fault::malformed(call, "the module has no such function")
}

fn checked(call: &str, value: CK_RV) -> Result<(), Fault> {
    if value == CKR_OK { Ok(()) } else { Err(Fault::call(call, ckr_name(value))) }
}
