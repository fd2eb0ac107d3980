//! What the process does to itself before anything else: no more rights than its caller, no core, no debugger, and no
//! descriptors for its children.

use std::io;
use std::sync::Arc;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::error::{Error, Kind, Result};

pub mod clock;
pub mod descriptors;
pub mod environment;
pub mod memory;
pub mod peer_groups;
mod privileges;
pub mod scheduling;
pub mod standard_streams;
pub mod subordinate_ids;

/// Refuses to run with more rights than the caller has. It comes before everything else in every process.
///
/// # Errors
/// When the program runs set-user-ID or the like.
pub fn refuse_privileges() -> Result<()> {
    if privileges::exceed_the_callers() {
        let message = "refused to run set-user-ID, set-group-ID or with file capabilities (AT_SECURE)";
        return Err(Error::new(Kind::Unexpected, message)
            .hint("take the rights from the file; give the user that runs it access to the token"));
    }
    Ok(())
}

/// Has a file at its limit (RLIMIT_FSIZE) be an error of the write, not the end of the process.
///
/// # Errors
/// What the kernel answered.
pub fn survive_file_limits() -> Result<()> {
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()).map_err(failed("hold SIGXFSZ"))?;
    Ok(())
}

/// Prepares a process that may reach a token: hardens it, then keeps the caller's descriptors from workers.
///
/// # Errors
/// When the kernel refuses one of the steps.
pub fn prepare() -> Result<()> {
    harden().map_err(failed("protect the memory of this process"))?;
    descriptors::keep_from_children().map_err(|error| {
        let is_hidden = error.kind() == io::ErrorKind::PermissionDenied;
        let error = failed("mark inherited descriptors")(error);
        // The kernel hides them from a process whose program file may be run and not read.
        if is_hidden { error.hint("the user who runs the program must be able to read its file") } else { error }
    })
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::new(Kind::Unexpected, format!("cannot {what}: {error}"))
}

/// Makes the process undumpable and gives it a core size of 0, since it holds a PIN; and no program that it may start
/// gets more rights than it has.
///
/// # Errors
/// What the kernel answered.
pub fn harden() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}
