//! The end of a worker with its parent, and the end of all processes that its module started. Runs in the worker.
//! Unsafe code.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group, set_parent_process_death_signal};

/// Modules and other software on Linux do not use this signal. Its default is to end the process.
const PARENT_ENDED: Signal = Signal::STKFLT;

/// Makes the kernel end this process and its group when the thread that started it ends, for any reason.
///
/// # Errors
/// When this process does not lead its group, which then contains others, or the kernel refuses.
pub(crate) fn end_group_with_parent() -> io::Result<()> {
    if getpgrp() != getpid() {
        return Err(io::Error::other("not the leader of a process group"));
    }
    // SAFETY: the action is one system call, which a signal handler may make.
    unsafe { signal_hook::low_level::register(PARENT_ENDED.as_raw(), end_now) }?;
    Ok(set_parent_process_death_signal(Some(PARENT_ENDED))?)
}

/// Makes the kernel kill this process when the thread that started it ends. The process cannot prevent it. For a process that cannot start
/// others: their group is not killed.
pub(crate) fn be_killed_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Ends this process and its group at once.
pub(crate) fn end_now() {
    let _ = kill_current_process_group(Signal::KILL);
}

/// Unblocks the signal in this thread again, since a module may have blocked it.
pub(crate) fn unblock_signal() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(nix::sys::signal::Signal::SIGSTKFLT);
    Ok(signals.thread_unblock()?)
}

/// Starts a thread that waits until the parent's end of the socket closes, and then ends this process and its group. The module cannot
/// prevent that by ignored or blocked signals. A sandbox must be active before: it would not apply to an existing thread.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn watch_parent(socket: &'static UnixStream) -> io::Result<()> {
    unblock_signal()?;
    std::thread::Builder::new().name("parent-watch".into()).spawn(move || {
        loop {
            let mut watched = [PollFd::new(socket, PollFlags::RDHUP)];
            if poll(&mut watched, None).is_ok_and(|closed| closed > 0) {
                end_now();
            }
        }
    })?;
    Ok(())
}
