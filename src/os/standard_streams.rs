//! Unsafe code for closed standard streams: which of stdin, stdout and stderr were closed at the start of the program.
//!
//! Runs in both processes. Rust's runtime opens `/dev/null` to replace a closed one before `main`, for reading and
//! writing. After that, a closed stdout looks like one that the caller redirected to `/dev/null`. So the check runs
//! earlier, as a constructor of the program.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

/// One bit for each descriptor from 0 to 2 that was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// The loader calls this before it calls `main`.
#[used]
// SAFETY: the section contains pointers to functions of this type. On platforms that pass arguments, C's calling convention
// lets the function ignore them.
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = look;

extern "C" fn look() {
    for number in 0..3 {
        // SAFETY: the call changes nothing, and any number is valid. Rust's runtime has not started, so nothing of it is used here:
        // no allocation, no thread, no panic.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << number, Ordering::Relaxed);
        }
    }
}

/// Whether the caller started the program with this descriptor closed.
#[must_use]
pub(crate) fn was_closed(number: u8) -> bool {
    CLOSED.load(Ordering::Relaxed) & 1_u8.checked_shl(number.into()).unwrap_or(0) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constructor_runs_and_finds_the_streams_of_a_test_open() {
        assert_eq!((0..10).filter(|number| was_closed(*number)).count(), 0);
        look();
        assert!(!was_closed(1));
    }
}
