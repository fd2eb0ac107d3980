//! What the process does to itself before anything else: no more rights than its caller, no core, no debugger, and no
//! descriptors for its children.

use std::io;
use std::sync::Arc;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::error::{Error, Kind, Result};

pub mod clock;
pub mod death;
pub mod descriptors;
pub mod environment;
pub mod memory;
pub mod peer_groups;
pub mod subordinate_ids;
pub mod turns;

/// Prepares the front: refuses rights beyond the caller's, then hardens, then keeps the caller's descriptors from workers.
///
/// # Errors
/// When the program runs set-user-ID or the like, or the kernel refuses one of the steps.
pub fn prepare() -> Result<()> {
    let failed =
        |what: &'static str| move |error: io::Error| Error::new(Kind::Unexpected, format!("cannot {what}: {error}"));
    // Read before hardening, after which the file belongs to root.
    if is_privileged().map_err(failed("read /proc/self/auxv"))? {
        let message = "refused to run set-user-ID, set-group-ID or with file capabilities (AT_SECURE)";
        return Err(Error::new(Kind::Unexpected, message)
            .hint("take the rights from the file; give the user that runs it access to the token"));
    }
    // A file at its limit (RLIMIT_FSIZE) is an error to be told, not the end of the process.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()).map_err(failed("hold SIGXFSZ"))?;
    harden().map_err(failed("protect the memory of this process"))?;
    descriptors::keep_from_children().map_err(failed("mark inherited descriptors"))
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

/// `AT_SECURE` of the kernel's auxiliary vector (getauxval(3)): the caller's environment, which names modules and files,
/// must not be trusted by a process with more rights than the caller.
fn is_privileged() -> io::Result<bool> {
    const AT_SECURE: usize = 23;
    const WORD: usize = size_of::<usize>();
    let vector = match std::fs::read("/proc/self/auxv") {
        Ok(vector) => vector,
        // The kernel hides it from a process that is undumpable from the start: a privileged one, or one whose file may
        // be run and not read. Which of the two cannot be told.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(io::Error::other(
                "the program's file must be readable to whoever runs it, and neither set-user-ID nor set-group-ID",
            ));
        }
        Err(error) => return Err(error),
    };
    let words: Vec<usize> =
        vector.chunks_exact(WORD).filter_map(|word| word.try_into().ok().map(usize::from_ne_bytes)).collect();
    Ok(words.chunks_exact(2).any(|pair| pair[0] == AT_SECURE && pair[1] != 0))
}
