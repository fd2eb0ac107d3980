//! Loads a module's file, and takes its function list from that file only.
//!
//! Runs in the worker. `dlsym` also searches the libraries that a module is linked to. Such a library may be a PKCS#11 module too
//! (libp11-kit exports `C_GetInterface` since 0.25). The worker would then show that library's tokens instead of the module's. So a symbol
//! counts only if `dladdr` reports the module's own file.
//!
//! The agent calls only functions of PKCS#11 2.40, and every module must export `C_GetFunctionList` for those (PKCS#11 3.0 section 5.4.4).
//! `C_GetInterface` is used only if a module has no usable `C_GetFunctionList`: several modules export it and return an error.
//!
//! Unsafe code: loading a library runs its constructors, and its entry points must be called by address.

#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_void};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::ptr;

use cryptoki_sys::{CK_C_GetFunctionList, CK_C_GetInterface, CK_FUNCTION_LIST, CK_INTERFACE, CKR_OK};
use libloading::Library;

use super::ckr_name;
use crate::fault::Fault;
use crate::text::printable;

const FUNCTION_LIST: &CStr = c"C_GetFunctionList";
const INTERFACE: &CStr = c"C_GetInterface";

/// The standard's interface (PKCS#11 3.0 section 3.6). A vendor's own interface may have any functions.
const STANDARD: &CStr = c"PKCS 11";

/// The result of a symbol lookup.
enum Symbol<T> {
    /// A symbol of the module.
    Own(T),
    /// A symbol of a linked library.
    OfLibrary(PathBuf),
    None,
}

/// Loads the file and returns its functions, which are valid as long as the library is.
///
/// # Errors
/// [`Fault::Load`] if the file is not a module; else the error of the entry points.
pub(super) fn load(path: &Path) -> Result<(Library, CK_FUNCTION_LIST), Fault> {
    // SAFETY: the user selected this module. Its constructors run here, in a process without secrets.
    let library = unsafe { Library::new(path) }.map_err(|error| Fault::Load(printable(&error.to_string())))?;
    let list = match function_list(&library, path) {
        Ok(list) => list,
        Err(fault) => interface(&library, path).ok_or(fault)?,
    };
    Ok((library, list))
}

fn function_list(library: &Library, path: &Path) -> Result<CK_FUNCTION_LIST, Fault> {
    let symbol: Symbol<CK_C_GetFunctionList> =
        own(library, path, FUNCTION_LIST, |found| found.map(|function| function as *const c_void));
    let function = match symbol {
        Symbol::Own(Some(function)) => function,
        Symbol::OfLibrary(other) => {
            return Err(Fault::NoEntryPoint { library: Some(printable(&other.display().to_string())) });
        }
        Symbol::Own(None) | Symbol::None => return Err(Fault::NoEntryPoint { library: None }),
    };
    let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
    // SAFETY: the function has this type in the standard, and the pointer outlives the call.
    let value = unsafe { function(&mut list) };
    if value != CKR_OK {
        return Err(Fault::call("C_GetFunctionList", ckr_name(value)));
    }
    // SAFETY: in the standard, a pointer that is not null points to a function list.
    let list = unsafe { list.as_ref() };
    list.copied().ok_or_else(|| Fault::malformed("C_GetFunctionList", "the module returned no function list"))
}

/// The functions of the standard's interface, if the module has one with a known version.
fn interface(library: &Library, path: &Path) -> Option<CK_FUNCTION_LIST> {
    let symbol: Symbol<CK_C_GetInterface> =
        own(library, path, INTERFACE, |found| found.map(|function| function as *const c_void));
    let Symbol::Own(Some(function)) = symbol else { return None };
    let mut interface: *mut CK_INTERFACE = ptr::null_mut();
    // SAFETY: the function has this type in the standard, and the pointers outlive the call. A module does not write to
    // the name.
    let value = unsafe { function(STANDARD.as_ptr().cast_mut().cast(), ptr::null_mut(), &mut interface, 0) };
    if value != CKR_OK {
        return None;
    }
    // SAFETY: pointers that are not null point to an interface, and to a list that begins with its version. The lists of
    // 3.x begin with that of 2.40.
    let list = unsafe { interface.as_ref()?.pFunctionList.cast::<CK_FUNCTION_LIST>().as_ref()? };
    (2..=3).contains(&list.version.major).then_some(*list)
}

/// Looks up a symbol and its file.
fn own<T: Copy>(library: &Library, path: &Path, name: &CStr, address: fn(T) -> Option<*const c_void>) -> Symbol<T> {
    // SAFETY: the callers name the type that the standard gives this symbol.
    let Ok(found) = (unsafe { library.get::<T>(name.to_bytes_with_nul()) }) else { return Symbol::None };
    match address(*found).and_then(file_of) {
        Some(file) if is_same_file(&file, path) => Symbol::Own(*found),
        Some(other) => Symbol::OfLibrary(other),
        None => Symbol::None,
    }
}

/// The loaded file at an address.
fn file_of(address: *const c_void) -> Option<PathBuf> {
    // SAFETY: all members are numbers and pointers, for which zero is valid; dladdr(3) only reads the address's number;
    // the name is valid as long as the file is loaded.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let found = libc::dladdr(address, &mut info) != 0 && !info.dli_fname.is_null();
        found.then(|| PathBuf::from(OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes())))
    }
}

/// The loader knows a file by the name of its first load, which may be a link to it.
fn is_same_file(found: &Path, module: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    found == module || identity(found).is_some_and(|found| Some(found) == identity(module))
}
