//! What a worker may no longer do once it holds a module: a fixed profile for each module that is known by name.
//!
//! [`confine`] comes before the module is loaded, since a library's constructors run as it is loaded; [`tighten`] after
//! the login, on all threads, when the module has what it needs. Files and signals are Landlock's, system calls
//! seccomp's; each as far as the kernel has it, and what it has not is said by [`crate::facts::Confinement`]. A module that is not
//! known runs without a sandbox: nobody could say what it needs. Deliberately absent: a sandbox of the front, whose
//! filter every worker would inherit; its unit file confines it.

use std::path::Path;

use crate::sandbox_profile::{InForce, Profile};

mod landlock;
// Filters are written for the architectures that the library can compile them for.
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    path = "sandbox/no_seccomp.rs"
)]
mod seccomp;

/// Why a worker could not be confined although the kernel has the means.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The front named a profile that this program has not.
    #[error("no sandbox profile '{0}'")]
    Unknown(String),
    /// The rules for files were refused.
    #[error("the sandbox for files failed: {0}")]
    Files(#[from] ::landlock::RulesetError),
    /// The filter of system calls was refused.
    #[error("the sandbox for system calls failed: {0}")]
    Calls(String),
    /// The signal at the parent's end was refused.
    #[error("the worker cannot be made to end with its parent: {0}")]
    ParentDeath(#[from] std::io::Error),
}

/// Confines this process, whose only thread calls it, to a profile, for as long as it lives.
///
/// # Errors
/// When a part of it fails that the kernel has.
pub fn confine(profile: &Profile, module: &Path) -> Result<InForce, SandboxError> {
    let landlock_abi = landlock::confine(profile, module)?;
    let system_calls = seccomp::confine(profile)?;
    Ok(InForce { landlock_abi, system_calls })
}

/// Takes from all threads of this process what is not needed after the login: new code, new processes, and new sockets
/// where the profile needs no more of them.
///
/// # Errors
/// When the kernel refuses what it has.
pub fn tighten(profile: &Profile) -> Result<(), SandboxError> {
    seccomp::tighten(profile)
}
