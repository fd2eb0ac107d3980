//! The clock of this host: the time, and unsafe code for the system call that reports whether the clock is synchronised.
//!
//! Runs in both processes.

#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time of this host's clock, in seconds of Unix time.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The build time of this program, in seconds of Unix time; see `build.rs`. 0 if it is not a number.
#[must_use]
pub(crate) fn build_time() -> u64 {
    env!("CBA_AGENT_BUILT").parse().unwrap_or(0)
}

/// Whether the kernel's clock is synchronised, by adjtimex(2).
///
/// # Errors
/// The kernel's error; some sandboxes forbid the call.
pub(crate) fn is_synchronised() -> io::Result<bool> {
    // SAFETY: all zeros is a valid `timex` that changes nothing; the kernel writes within it.
    let (state, clock) = unsafe {
        let mut clock: libc::timex = zeroed();
        (libc::adjtimex(&raw mut clock), clock)
    };
    match state {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0),
    }
}
