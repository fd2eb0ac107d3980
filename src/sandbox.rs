//! What a worker may no longer do once it holds a module: a fixed profile for each module that is known by name.
//!
//! [`confine`] comes before the module is loaded, since a library's constructors run as it is loaded; [`tighten`] after
//! the login, on all threads, when the module has what it needs. Files and signals are Landlock's, system calls
//! seccomp's; each as far as the kernel has it, and what it has not is said by [`Confinement`]. A module that is not
//! known runs without a sandbox: nobody could say what it needs. Deliberately absent: a sandbox of the front, whose
//! filter every worker would inherit; its unit file confines it.

use std::path::Path;

use crate::facts::{Confinement, Gap};

// Filters are written for the architectures that the library can compile them for.
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    path = "sandbox/no_calls.rs"
)]
mod calls;
mod files;
mod gaps;
mod places;
pub mod profile;

pub use places::{TokenStore, token_store};
pub use profile::Profile;

/// `sandbox.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The profile of the module, where one is known.
    #[default]
    Module,
    /// None.
    Off,
}

/// Their names.
pub const MODES: [(&str, Mode); 2] = [("module", Mode::Module), ("off", Mode::Off)];

/// Why a worker could not be confined although the kernel has the means.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The front named a profile that this program has not.
    #[error("no sandbox profile '{0}'")]
    Unknown(String),
    /// The rules for files were refused.
    #[error("the sandbox for files failed: {0}")]
    Files(#[from] landlock::RulesetError),
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
    let landlock_abi = files::confine(profile, module)?;
    let system_calls = calls::confine(profile)?;
    Ok(InForce { landlock_abi, system_calls })
}

/// Which parts of the sandbox a kernel put in force.
#[derive(Clone, Copy, Debug)]
pub struct InForce {
    /// By which of Landlock's interfaces files are confined; `None` where the kernel has none.
    pub landlock_abi: Option<u32>,
    /// Whether system calls are filtered.
    pub system_calls: bool,
}

/// What these parts confine of a profile, and what they leave open.
#[must_use]
pub fn judge(profile: &Profile, in_force: InForce) -> Confinement {
    let InForce { landlock_abi: files, system_calls: calls } = in_force;
    let gaps: Vec<Gap> = gaps::of(profile, &places::families(profile), in_force);
    Confinement { profile: profile.name, files, calls, gaps }
}

/// Takes from all threads of this process what is not needed after the login: new code, new processes, and new sockets
/// where the profile needs no more of them.
///
/// # Errors
/// When the kernel refuses what it has.
pub fn tighten(profile: &Profile) -> Result<(), SandboxError> {
    calls::tighten(profile)
}
