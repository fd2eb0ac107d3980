//! What helps where a limit of the host refuses a process, a thread or a descriptor.
//!
//! Runs in both processes.

use std::io;

use rustix::io::Errno;

/// The hint for the limit of open files.
pub(crate) const OPEN_FILES: &str =
    "`ulimit -n` shows how many files a process may open; LimitNOFILE= in the unit sets it";

const PROCESSES: &str =
    "`ulimit -u` shows how many processes and threads this user may have; LimitNPROC= and TasksMax= in the unit set it";

/// The hint for an error of the kernel; `None` if no limit is the cause.
#[must_use]
pub(crate) fn hint(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => Some(OPEN_FILES),
        Some(Errno::AGAIN) => Some(PROCESSES),
        _ => None,
    }
}
