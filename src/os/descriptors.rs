//! Unsafe code for inherited descriptors, which the caller names by number.
//!
//! Runs in both processes.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::io::{FdFlags, fcntl_setfd};

use super::standard_streams;

/// The inherited descriptors except the standard ones, once they are known.
static INHERITED: OnceLock<Vec<RawFd>> = OnceLock::new();

/// Marks every inherited descriptor except the standard ones close-on-exec, so that no worker gets them. Call it before this process opens
/// a descriptor.
///
/// # Errors
/// When `/proc/self/fd` cannot be read.
pub(crate) fn keep_from_children() -> io::Result<()> {
    let numbers: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    let is_open = |number: &RawFd| {
        // SAFETY: borrowed for this call only. The descriptor that read the directory is closed by now, and a number that is not
        // open only causes an error.
        let descriptor = unsafe { BorrowedFd::borrow_raw(*number) };
        fcntl_setfd(descriptor, FdFlags::CLOEXEC).is_ok()
    };
    INHERITED.get_or_init(|| numbers.into_iter().filter(is_open).collect());
    Ok(())
}

/// Takes over a descriptor that the caller passed, once.
///
/// # Errors
/// When it is not open, is standard output or error, or belongs to this process instead of the caller.
pub fn take(number: RawFd) -> io::Result<File> {
    if number == 1 || number == 2 {
        return Err(io::Error::other("standard output and error cannot be a source"));
    }
    // The caller had closed it. Rust's runtime then opened another file as descriptor 0.
    if number == 0 && standard_streams::was_closed(0) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    if number > 2 && INHERITED.get().is_some_and(|inherited| !inherited.contains(&number)) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // Its name in /proc proves that it is open.
    std::fs::metadata(format!("/proc/self/fd/{number}"))?;
    // SAFETY: the descriptor is open, and the caller passed it for this single use.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(number) });
    fcntl_setfd(&file, FdFlags::CLOEXEC)?;
    Ok(file)
}
