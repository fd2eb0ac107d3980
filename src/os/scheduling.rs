//! The unsafe corner of the scheduler: how long a thread's turns on a processor are.

#![allow(unsafe_code)]

use std::io;

/// The shortest that the kernel grants, in nanoseconds.
const TURN: u64 = 100_000;

/// Asks for short turns, and so for one soon, for the calling thread and not for what it starts (sched_setattr(2), Linux
/// 6.12). Its share of the processor stays what it was. For threads that do little at a time while workers, which keep a
/// processor busy for as long as a signature takes, would have them wait for the end of it.
///
/// # Errors
/// What the kernel answered; some sandboxes forbid the call.
pub fn take_short_turns() -> io::Result<()> {
    // SAFETY: all zeros is a valid `sched_attr`; the kernel writes and reads within the size that is given.
    unsafe {
        let mut attributes: libc::sched_attr = std::mem::zeroed();
        let size = u32::try_from(size_of::<libc::sched_attr>()).map_err(io::Error::other)?;
        checked(libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0))?;
        if attributes.sched_policy != libc::SCHED_OTHER.unsigned_abs() || attributes.sched_nice < 0 {
            // Somebody chose another policy, with turns of its own, or a niceness that a worker would not inherit then.
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
