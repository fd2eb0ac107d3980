//! The unsafe corner of `--pin-source fd:N`: a number becomes an owned descriptor.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// Takes over a descriptor that the caller of the process left open for the PIN, so that no worker inherits it.
///
/// # Errors
/// When it is not open, or is standard output or error.
pub(super) fn inherited(number: RawFd) -> io::Result<File> {
    if number == 1 || number == 2 {
        return Err(io::Error::other("standard output and error are no source"));
    }
    // Its name in /proc proves that it is open at all.
    std::fs::metadata(format!("/proc/self/fd/{number}"))?;
    // SAFETY: the descriptor is open, the caller of the process named it for this one use, and PIN sources are read
    // before anything else here opens a file that could have been given the same number.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(number) }))
}
