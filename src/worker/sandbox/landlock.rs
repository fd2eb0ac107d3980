//! Landlock: the files that a worker can use, the processes that it can signal, and no TCP port. Runs in the worker.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
};

use super::SandboxError;
use crate::sandbox_profile::paths::{library_directories, log_files, paths, socket_families, token_directories};
use crate::sandbox_profile::{EVERY_READ, EVERY_WRITE, Profile, SocketFamily, network_reads};

/// The rules use this version of the kernel's interface. An older kernel enforces the rules that it knows.
const WRITTEN_FOR: ABI = ABI::V9;

/// Confines the calling thread and its children. Returns the version of Landlock's interface; `None` if the kernel has
/// none or it is not enabled.
pub(super) fn confine(profile: &Profile, module: &Path) -> Result<Option<u32>, SandboxError> {
    let mut network: BitFlags<AccessNet> = AccessNet::BindTcp.into();
    if !socket_families(profile).contains(&SocketFamily::Internet) {
        network |= AccessNet::ConnectTcp;
    }
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(WRITTEN_FOR))?
        .handle_access(network)?
        .scope(Scope::from_all(WRITTEN_FOR))?
        .create()?;
    let status = allow(ruleset, profile, module)?.restrict_self()?;
    Ok(match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => Some(effective_abi as u32),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => None,
    })
}

fn allow(ruleset: RulesetCreated, profile: &Profile, module: &Path) -> Result<RulesetCreated, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    // Excluded: executing existing files, creating devices, and commands to devices.
    let write = AccessFs::from_write(WRITTEN_FOR)
        & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev | AccessFs::ResolveUnix);
    let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    ruleset
        .add_rules(path_beneath_rules([module], read))?
        .add_rules(path_beneath_rules(library_directories(), read))?
        .add_rules(path_beneath_rules(paths(&EVERY_READ), read))?
        .add_rules(path_beneath_rules(paths(network_reads(profile)), read))?
        .add_rules(path_beneath_rules(paths(profile.reads), read))?
        .add_rules(path_beneath_rules(paths(&EVERY_WRITE), read | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(paths(profile.writes), read | write))?
        .add_rules(path_beneath_rules(token_directories(profile), read | write))?
        .add_rules(path_beneath_rules(log_files(profile), read | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(paths(profile.devices), device))?
        .add_rules(path_beneath_rules(paths(profile.sockets), AccessFs::ResolveUnix))
}
