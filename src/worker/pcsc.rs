//! Connects to pcscd like a smart card module: through the installed libpcsclite, with its protocol.
//!
//! Runs in the worker, which ends afterwards. Deliberately absent: readers and cards.
//!
//! Unsafe code: it loads a library, and calls two of its functions by address.

#![allow(unsafe_code)]

use std::ffi::{c_long, c_ulong, c_void};
use std::ptr;

use libloading::Library;

use crate::fault::Fault;
use crate::text::printable;

const LIBRARY: &str = "libpcsclite.so.1";

/// `SCARD_SCOPE_SYSTEM` of winscard.h.
const SCOPE: c_ulong = 2;

type EstablishContext = unsafe extern "C" fn(c_ulong, *const c_void, *const c_void, *mut c_long) -> c_long;
type ReleaseContext = unsafe extern "C" fn(c_long) -> c_long;

/// Returns the result of `SCardEstablishContext`.
///
/// # Errors
/// When the library cannot be loaded.
pub(crate) fn establish_context() -> Result<u32, Fault> {
    let failed = |error: libloading::Error| Fault::Load(printable(&error.to_string()));
    let mut context = 0;
    // SAFETY: the functions have these types in PC/SC lite's winscard.h, and the pointer outlives the call.
    let value = unsafe {
        let library = Library::new(LIBRARY).map_err(failed)?;
        let establish = *library.get::<EstablishContext>(b"SCardEstablishContext\0").map_err(failed)?;
        let value = establish(SCOPE, ptr::null(), ptr::null(), &mut context);
        if value == 0 {
            if let Ok(release) = library.get::<ReleaseContext>(b"SCardReleaseContext\0") {
                release(context);
            }
        }
        value
    };
    // The codes are 32 bits wide on every platform; a long may be wider.
    Ok(value as u32)
}
