//! The token, seen from inside the worker: the only room that names a PKCS#11 library.
//!
//! Everything here runs in the disposable child. It signs [`crate::cba::Message`]s and nothing else, reads what is
//! public, and knows no retry: whatever fails, the worker is thrown away.

mod key;
mod module;
mod objects;
mod raw;
mod session;

pub use key::Key;
pub use module::Module;
pub use session::{LoginOutcome, Session, UserPin};

use crate::fault::Fault;
use crate::printable::printable;
use cryptoki::error::{Error, RvError};

/// The standard's name of a return value (PKCS#11 3.0 section 5.1).
fn ckr_name(value: RvError) -> String {
    match value {
        RvError::VendorDefined(code) => format!("CKR_VENDOR_DEFINED({code:#x})"),
        RvError::UnknownErrorCode(code) => format!("CKR({code:#x})"),
        named => {
            // The library's names are the standard's in another case; its Display is a paragraph of prose.
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

/// Translates the library's error; `call` is the function that was meant where the error does not say.
fn fault(call: &'static str) -> impl Fn(Error) -> Fault {
    move |error| match error {
        Error::Pkcs11(value, function) => Fault::call(format!("C_{function:?}"), ckr_name(value)),
        Error::LibraryLoading(cause) => Fault::Load(printable(&cause.to_string())),
        Error::MissingSymbol(symbol) => Fault::Load(format!("it has no {symbol}, so it is no PKCS#11 module")),
        other => Fault::Malformed { call: call.into(), what: printable(&other.to_string()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_values_have_their_standard_names() {
        for (value, name) in [
            (RvError::PinIncorrect, "CKR_PIN_INCORRECT"),
            (RvError::UserPinNotInitialized, "CKR_USER_PIN_NOT_INITIALIZED"),
            (RvError::SlotIdInvalid, "CKR_SLOT_ID_INVALID"),
            (RvError::PinLenRange, "CKR_PIN_LEN_RANGE"),
            (RvError::VendorDefined(0x8000_0001), "CKR_VENDOR_DEFINED(0x80000001)"),
        ] {
            assert_eq!(ckr_name(value), name);
        }
    }
}
