//! Unsafe code for the kernel's information on privileges.
//!
//! Runs in both processes.

#![allow(unsafe_code)]

/// Whether the process has more rights than its caller: a set-user-ID or set-group-ID program, or one with file
/// capabilities (`AT_SECURE`, getauxval(3)). Then the caller's environment, which names modules and files, cannot be
/// trusted.
#[must_use]
pub(super) fn exceed_the_callers() -> bool {
    // SAFETY: the call reads a value that the kernel passed to the process. Any number is valid.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
