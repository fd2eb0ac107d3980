//! The token as the worker sees it. Only this module uses a PKCS#11 library. Runs in the worker.
//!
//! It signs only [`crate::cba::Message`]s, reads only public attributes, and never retries: after a failure the parent ends the worker.

mod entry_point;
mod module;
mod objects;
mod raw;
mod session;
mod signing_key;
mod slot_info;

pub(crate) use module::Pkcs11Module;
pub(crate) use session::{LoginOutcome, Pkcs11Session, UserPin};
pub(crate) use signing_key::SigningKey;

use cryptoki::error::{Rv, RvError};
use cryptoki_sys::CK_RV;

/// The standard's name of a return value (PKCS#11 3.0 section 5.1).
fn ckr_name(value: CK_RV) -> String {
    match Rv::from(value) {
        Rv::Ok => "CKR_OK".into(),
        Rv::Error(RvError::VendorDefined(code)) => format!("CKR_VENDOR_DEFINED({code:#x})"),
        Rv::Error(RvError::UnknownErrorCode(code)) => format!("CKR({code:#x})"),
        Rv::Error(named) => {
            // The library's names are the standard's in another case; its Display is a paragraph of text.
            let mut name = String::from("CKR");
            for c in format!("{named:?}").chars() {
                if c.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(c.to_ascii_uppercase());
            }
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_values_have_their_standard_names() {
        for (value, name) in [
            (0xa0, "CKR_PIN_INCORRECT"),
            (0x102, "CKR_USER_PIN_NOT_INITIALIZED"),
            (0x3, "CKR_SLOT_ID_INVALID"),
            (0xa2, "CKR_PIN_LEN_RANGE"),
            (0x54, "CKR_FUNCTION_NOT_SUPPORTED"),
            (0x8000_0001, "CKR_VENDOR_DEFINED(0x80000001)"),
        ] {
            assert_eq!(ckr_name(value), name);
        }
    }
}
