//! Unsafe code that asks the kernel why it has no Landlock. The library that confines a worker tells only that there is none.
//!
//! Runs in both processes.

#![allow(unsafe_code)]

/// `LANDLOCK_CREATE_RULESET_VERSION` (landlock_create_ruleset(2)).
const ASK_FOR_VERSION: u32 = 1;

/// The kernel's error for a question about Landlock; `None` if it answers.
#[must_use]
pub(crate) fn refusal() -> Option<i32> {
    // SAFETY: with this flag and no attributes, the kernel returns a number, and neither reads memory nor makes a rule set.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, ASK_FOR_VERSION)
    };
    if answer < 0 { std::io::Error::last_os_error().raw_os_error() } else { None }
}

/// Whether a filter of system calls is on this process: that of a container, or of a service (proc_pid_status(5)).
#[must_use]
pub(crate) fn calls_are_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}
