//! The unsafe corner of the clock's state: the one system call that says whether anything keeps it right.

#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;

/// Whether the kernel's clock is synchronised, by adjtimex(2).
///
/// # Errors
/// What the kernel answered; some sandboxes forbid the call.
pub fn is_synchronised() -> io::Result<bool> {
    // SAFETY: all zeros is a valid `timex`, which asks for nothing to be changed; the kernel writes within it.
    let (state, clock) = unsafe {
        let mut clock: libc::timex = zeroed();
        (libc::adjtimex(&raw mut clock), clock)
    };
    match state {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0),
    }
}
