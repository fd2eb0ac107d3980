//! The first steps of every process: no more rights than its caller, no core dump, no debugger, and no descriptors for
//! its children.
//!
//! Runs in both processes.

use std::io;
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::error::{Error, Kind, Result};

pub(crate) mod clock;
pub(crate) mod descriptors;
pub(crate) mod environment;
pub(crate) mod input_file;
pub(crate) mod landlock_support;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod names;
pub(crate) mod peer_groups;
mod privileges;
pub(crate) mod standard_streams;
pub(crate) mod subordinate_ids;

/// Refuses to run with more rights than the caller. Every process does this first.
///
/// # Errors
/// When the program runs set-user-ID or similar.
pub fn refuse_privileges() -> Result<()> {
    if privileges::exceed_the_callers() {
        let message = "refused to run set-user-ID, set-group-ID or with file capabilities (AT_SECURE)";
        return Err(Error::new(Kind::Unexpected, message)
            .hint("remove these rights from the file, and give the user that runs it access to the token"));
    }
    Ok(())
}

/// Turns a write beyond the file size limit (RLIMIT_FSIZE) into an error instead of the end of the process.
///
/// # Errors
/// The kernel's error.
pub fn ignore_file_size_signal() -> Result<()> {
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()).map_err(failed("hold SIGXFSZ"))?;
    Ok(())
}

/// Prepares a process that may use a token: hardens it, then keeps the caller's descriptors from workers.
///
/// # Errors
/// When the kernel refuses one of the steps.
pub fn prepare() -> Result<()> {
    // A umask without the owner's rights would lock this program out of its own files.
    let umask = rustix::process::umask(Mode::RWXU);
    rustix::process::umask(umask.difference(Mode::RWXU));
    harden().map_err(failed("protect the memory of this process"))?;
    descriptors::keep_from_children().map_err(|error| {
        let kind = error.kind();
        let error = failed("mark inherited descriptors")(error);
        match kind {
            // The kernel hides them from a process whose program file is executable but not readable.
            io::ErrorKind::PermissionDenied => {
                error.hint("the user who runs the program must be able to read its file")
            }
            io::ErrorKind::NotFound => error.hint("/proc must be mounted, as root: `mount -t proc proc /proc`"),
            _ => error,
        }
    })
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::new(Kind::Unexpected, format!("cannot {what}: {error}"))
}

/// Makes the process not dumpable, with a core size of 0, since it holds a PIN. Programs that it starts can gain no rights.
pub(crate) fn harden() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}
