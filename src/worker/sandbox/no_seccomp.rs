//! The replacement for the system call filter on architectures without one: it does nothing and reports it.
//!
//! Runs in the worker.

use super::SandboxError;
use crate::sandbox_profile::Profile;

pub(super) fn confine(_profile: &Profile) -> Result<bool, SandboxError> {
    Ok(false)
}

pub(super) fn tighten(_profile: &Profile) -> Result<(), SandboxError> {
    Ok(())
}
