//! The unsafe corner of the environment: variables that come after the start of the process.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// Variables that the loader and the C library read as a program starts. No PIN is taken from one of these.
pub const LOADER: [&str; 10] = [
    "GLIBC_TUNABLES",
    "LD_BIND_NOW",
    "LD_DEBUG",
    "LD_DEBUG_OUTPUT",
    "LD_LIBRARY_PATH",
    "LD_SHOW_AUXV",
    "LD_VERBOSE",
    "LD_WARN",
    "MALLOC_ARENA_MAX",
    "MALLOC_CHECK_",
];

/// Variables that load code into every program, which may read any other variable as it starts.
pub const INJECTED: [&str; 3] = ["LD_AUDIT", "LD_PRELOAD", "LD_PROFILE"];

/// Sets variables; what cannot be one is passed over. To be called while no other thread runs.
pub fn extend(variables: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
    for (name, value) in variables {
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
            continue;
        }
        // SAFETY: the caller has one thread, so that nobody reads the environment meanwhile.
        unsafe { std::env::set_var(OsString::from_vec(name), OsString::from_vec(value)) };
    }
}
