//! Unsafe code for memory that must not reach the disk.
//!
//! Runs in both processes.

#![allow(unsafe_code)]

/// Keeps a buffer out of swap, as far as the process may lock memory. It stays locked until the process ends.
///
/// It locks only the buffer's pages: locking everything, as `mlockall(MCL_FUTURE)` does, would prevent loading a module.
pub(crate) fn lock(buffer: &[u8]) {
    // SAFETY: the range is that of a live slice. The kernel only marks its pages.
    let locked = unsafe { rustix::mm::mlock(buffer.as_ptr().cast_mut().cast(), buffer.len()) };
    if let Err(error) = locked {
        tracing::debug!("the PIN's memory cannot be locked: {error}");
    }
}
