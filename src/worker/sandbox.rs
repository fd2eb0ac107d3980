//! The restrictions of a worker with a module: a fixed profile for each module with a known name. Runs in the worker.
//!
//! [`confine`] runs before the module is loaded, since loading runs a library's constructors. [`tighten`] runs after the login, on all
//! threads, when the module has what it needs. Landlock confines files and signals, seccomp confines system calls, each as far as the
//! kernel supports it; [`crate::facts::Confinement`] reports the rest. An unknown module runs without a sandbox: its needs are unknown.
//! Deliberately absent: a sandbox of the parent, whose filter every worker would inherit; its unit file confines it.

use std::path::Path;

use crate::sandbox_profile::{EnforcedSandbox, Profile};

mod error;
mod landlock;
// Filters exist for the architectures that the library supports.
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    path = "sandbox/no_seccomp.rs"
)]
mod seccomp;

pub(crate) use error::SandboxError;

/// Confines this process to a profile for its whole life. Its only thread calls it.
///
/// # Errors
/// When a part fails that the kernel supports.
pub(crate) fn confine(profile: &Profile, module: &Path) -> Result<EnforcedSandbox, SandboxError> {
    let landlock_abi = landlock::confine(profile, module)?;
    let system_calls = seccomp::confine(profile)?;
    Ok(EnforcedSandbox { landlock_abi, system_calls })
}

/// Takes from all threads what is not needed after the login: new code, new processes, and new sockets if the profile needs no more of
/// them.
///
/// # Errors
/// When the kernel refuses a part that it supports.
pub(crate) fn tighten(profile: &Profile) -> Result<(), SandboxError> {
    seccomp::tighten(profile)
}

/// The remaining confinement of the module.
#[derive(Default)]
pub(super) struct SandboxState {
    pub(super) pending_profile: Option<&'static Profile>,
    /// Whether the kernel kills this process with its parent in any case.
    pub(super) ends_with_its_parent: bool,
}

impl SandboxState {
    /// Once: after the login, when the objects were read or at the next request, and before the first use of a key.
    pub(super) fn tighten(&mut self) -> Result<(), SandboxError> {
        self.pending_profile.take().map_or(Ok(()), tighten)
    }
}
