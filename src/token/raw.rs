//! The unsafe corner: the three calls that the PKCS#11 library cannot make as they are needed.
//!
//! `C_Sign` after a context login: the library offers `C_SignUpdate` there, which single-part mechanisms refuse, or a
//! `C_Sign` that leaves no gap for the login. Called here with a buffer that any signature fits, it also needs no
//! length query, which some modules answer wrongly. `C_GetTokenInfo`: the library drops a whole answer for one odd clock
//! field, and with it the flags that say whether a PIN may be tried. `C_GetAttributeValue` of many attributes: the library
//! hides what the module answered to it, and takes what was never written for zero.
//!
//! The module is loaded once more for it, which shares the first load's state in most modules and not in p11-kit's,
//! which hand out a new state with each function list; [`Raw::shares`] tells.

#![allow(unsafe_code)]

use std::path::Path;
use std::ptr;

use cryptoki::context::Function;
use cryptoki::error::{Error, Rv};
use cryptoki::object::{Attribute, AttributeType};
use cryptoki_sys::{
    CK_ATTRIBUTE, CK_C_GetAttributeValue, CK_C_GetSessionInfo, CK_C_GetTokenInfo, CK_C_Sign, CK_FUNCTION_LIST,
    CK_INTERFACE, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG,
    CKR_BUFFER_TOO_SMALL, CKR_OK,
};

/// Room for the signature of a 32768-bit key.
const BUFFER: usize = 4096;

/// What a buffer holds that no module has written to; no truth value, no type of key or certificate.
const UNWRITTEN: u8 = 0xa5;

/// Function pointers of a loaded module, with the library that they point into.
pub(super) struct Raw {
    sign: CK_C_Sign,
    token_info: CK_C_GetTokenInfo,
    session_info: CK_C_GetSessionInfo,
    attribute_value: CK_C_GetAttributeValue,
    _library: cryptoki_sys::Pkcs11,
}

impl Raw {
    /// Loads the module once more, which shares the first load's state, and takes the same function list as the library:
    /// that of `C_GetInterface` where it is of version 3, else that of `C_GetFunctionList`.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        // SAFETY: the file was loaded a moment ago by the PKCS#11 library, so its constructors have run; the lists live
        // as long as the library, which this value holds; only pointers that were checked are followed.
        unsafe {
            let library = cryptoki_sys::Pkcs11::new(path).map_err(Error::LibraryLoading)?;
            let mut list: *const CK_FUNCTION_LIST = ptr::null();
            if library.C_GetInterface.is_ok() {
                let mut interface: *mut CK_INTERFACE = ptr::null_mut();
                let value = library.C_GetInterface(ptr::null_mut(), ptr::null_mut(), &mut interface, 0);
                if value == CKR_OK && !interface.is_null() {
                    let found: *const CK_FUNCTION_LIST = (*interface).pFunctionList.cast();
                    if !found.is_null() && (*found).version.major >= 3 {
                        list = found;
                    }
                }
            }
            if list.is_null() {
                let mut found: *mut CK_FUNCTION_LIST = ptr::null_mut();
                Rv::from(library.C_GetFunctionList(&mut found)).into_result(Function::GetFunctionList)?;
                list = found;
            }
            if list.is_null() {
                return Err(Error::NullFunctionPointer);
            }
            Ok(Self {
                sign: (*list).C_Sign,
                token_info: (*list).C_GetTokenInfo,
                session_info: (*list).C_GetSessionInfo,
                attribute_value: (*list).C_GetAttributeValue,
                _library: library,
            })
        }
    }

    /// Whether a session that the PKCS#11 library opened is known here too.
    pub(super) fn shares(&self, session: CK_SESSION_HANDLE, slot: CK_SLOT_ID) -> bool {
        let Some(session_info) = self.session_info else { return false };
        let mut info = CK_SESSION_INFO::default();
        // SAFETY: the structure is the standard's, and outlives the call.
        let value = unsafe { session_info(session, &mut info) };
        value == CKR_OK && info.slotID == slot
    }

    /// `C_Sign` (PKCS#11 3.0 section 5.13.2): one part, the operation is over afterwards.
    pub(super) fn sign(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Result<Vec<u8>, Error> {
        let sign = self.sign.ok_or(Error::NullFunctionPointer)?;
        let mut data = data.to_vec();
        let length = CK_ULONG::try_from(data.len()).map_err(Error::TryFromInt)?;
        let mut attempt = |room: usize| -> Result<(CK_RV, Vec<u8>, usize), Error> {
            let mut signature = vec![0; room];
            let mut written = CK_ULONG::try_from(room).map_err(Error::TryFromInt)?;
            // SAFETY: both buffers are as long as said and outlive the call.
            let value = unsafe { sign(session, data.as_mut_ptr(), length, signature.as_mut_ptr(), &mut written) };
            Ok((value, signature, usize::try_from(written).map_err(Error::TryFromInt)?))
        };
        let mut answer = attempt(BUFFER)?;
        if answer.0 == CKR_BUFFER_TOO_SMALL && (1..=BUFFER * 16).contains(&answer.2) {
            // The operation stays active (section 5.2); such a module wants exactly the room that it named.
            answer = attempt(answer.2)?;
        }
        let (value, mut signature, written) = answer;
        Rv::from(value).into_result(Function::Sign)?;
        if written > signature.len() {
            return Err(Error::InvalidValue);
        }
        signature.truncate(written);
        Ok(signature)
    }

    /// `C_GetAttributeValue` (PKCS#11 3.0 section 5.7.5) of many attributes at once. `None` unless the module answered
    /// `CKR_OK` and wrote each value whole: then they are to be asked for one by one, which tells what is wrong with which.
    pub(super) fn attributes(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        kinds: &[AttributeType],
    ) -> Option<Vec<Attribute>> {
        let attribute_value = self.attribute_value?;
        let mut values: Vec<Vec<u8>> = kinds.iter().map(|kind| vec![UNWRITTEN; room(*kind)]).collect();
        let asked = kinds.iter().zip(&mut values).map(|(kind, value)| CK_ATTRIBUTE {
            type_: (*kind).into(),
            pValue: value.as_mut_ptr().cast(),
            ulValueLen: value.len() as CK_ULONG,
        });
        let mut template: Vec<CK_ATTRIBUTE> = asked.collect();
        let count = CK_ULONG::try_from(template.len()).ok()?;
        // SAFETY: each buffer is as long as said; template and buffers outlive the call.
        if unsafe { attribute_value(session, object, template.as_mut_ptr(), count) } != CKR_OK {
            return None;
        }
        let answers = template.iter().zip(&mut values).zip(kinds);
        let parsed = answers.map(|((answer, value), kind)| {
            let length = usize::try_from(answer.ulValueLen).ok().filter(|length| *length <= value.len())?;
            value.truncate(length);
            if length > 0 && value.iter().all(|byte| *byte == UNWRITTEN) {
                return None;
            }
            let (type_, pointer) = ((*kind).into(), value.as_mut_ptr().cast());
            Attribute::try_from(CK_ATTRIBUTE { type_, pValue: pointer, ulValueLen: answer.ulValueLen }).ok()
        });
        parsed.collect()
    }

    /// `C_GetTokenInfo` without any parsing of the clock.
    pub(super) fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, Error> {
        let token_info = self.token_info.ok_or(Error::NullFunctionPointer)?;
        let mut info = CK_TOKEN_INFO::default();
        // SAFETY: the structure is the standard's, and outlives the call.
        let value = unsafe { token_info(slot, &mut info) };
        Rv::from(value).into_result(Function::GetTokenInfo)?;
        Ok(info)
    }
}

/// Room for an attribute's value in bytes; a longer one is had by asking for it alone.
fn room(kind: AttributeType) -> usize {
    match kind {
        AttributeType::KeyType | AttributeType::CertificateType => size_of::<CK_ULONG>(),
        AttributeType::Label | AttributeType::Id => 256,
        AttributeType::Modulus => 2048,
        AttributeType::Value => 8192,
        _ => 1,
    }
}
