//! Unsafe code for the scheduler: the length of a thread's time slices.
//!
//! Runs in both processes.

#![allow(unsafe_code)]

use std::io;

/// The shortest slice that the kernel grants, in nanoseconds.
const TURN: u64 = 100_000;

/// Asks for short time slices, and so for an early one, for the calling thread only (sched_setattr(2), Linux 6.12). Its share of the
/// processor stays the same. It is for threads with short work beside workers, which use a processor for a whole signature.
///
/// # Errors
/// The kernel's error; some sandboxes forbid the call.
pub fn take_short_turns() -> io::Result<()> {
    // SAFETY: all zeros is a valid `sched_attr`. The kernel reads and writes within the given size.
    unsafe {
        let mut attributes: libc::sched_attr = std::mem::zeroed();
        let size = u32::try_from(size_of::<libc::sched_attr>()).map_err(io::Error::other)?;
        checked(libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0))?;
        if attributes.sched_policy != libc::SCHED_OTHER.unsigned_abs() || attributes.sched_nice < 0 {
            // Somebody selected another policy with its own slices, or a niceness that a worker would then not inherit.
            return Ok(());
        }
        attributes.sched_runtime = TURN;
        attributes.sched_flags = u64::from(libc::SCHED_FLAG_RESET_ON_FORK.unsigned_abs());
        checked(libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0))
    }
}

fn checked(answer: libc::c_long) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
