//! Unsafe code for the environment: variables that arrive after the start of the process.
//!
//! Runs in both processes.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// Variables that the loader and the C library read at the start of a program. None of them can be a PIN source.
pub(crate) const LOADER: [&str; 10] = [
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

/// Variables that load code into every program. That code may read any other variable at its start.
pub(crate) const INJECTED: [&str; 3] = ["LD_AUDIT", "LD_PRELOAD", "LD_PROFILE"];

/// Sets variables, and ignores invalid ones. Call it while no other thread runs.
pub(crate) fn extend(variables: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
    for (name, value) in variables {
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
            continue;
        }
        // SAFETY: the caller has one thread, so nobody reads the environment at the same time.
        unsafe { std::env::set_var(OsString::from_vec(name), OsString::from_vec(value)) };
    }
}
