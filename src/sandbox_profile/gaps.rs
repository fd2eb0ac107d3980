//! The parts of a sandbox that an older kernel, or one without Landlock, leaves open.
//!
//! PURE. Landlock grew over the years. The system call filter replaces some rules that an older one lacks. Everything that neither of them
//! confines is a gap.

use super::EnforcedSandbox;
use super::{CallFilter, Profile, SocketFamily};
use crate::facts::{Confinement, Gap, NoLandlock};

/// The parts that are confined for a profile, and the gaps. `why_not` gives the reason if Landlock is not in force.
#[must_use]
pub(crate) fn judge(
    profile: &Profile,
    families: &[SocketFamily],
    in_force: EnforcedSandbox,
    why_not: impl FnOnce() -> NoLandlock,
) -> Confinement {
    let EnforcedSandbox { landlock_abi, system_calls: calls } = in_force;
    let gaps: Vec<Gap> = of(profile, families, in_force);
    Confinement { profile: profile.name, files: landlock_abi.ok_or_else(why_not), calls, gaps }
}

/// The gaps of a profile with these families of sockets.
fn of(profile: &Profile, families: &[SocketFamily], in_force: EnforcedSandbox) -> Vec<Gap> {
    let EnforcedSandbox { landlock_abi, system_calls } = in_force;
    let is_before = |abi| landlock_abi.is_none_or(|version| version < abi);
    let has = |family| !system_calls || families.contains(&family);
    let gaps = [
        (landlock_abi.is_none(), Gap::Files),
        (!system_calls, Gap::SystemCalls),
        // The filter refuses truncate(2), and opening a file for reading with truncation.
        (is_before(3) && !system_calls, Gap::Truncation),
        (is_before(4) && has(SocketFamily::Internet), Gap::TcpPorts),
        // An allow list of system calls also limits commands to devices.
        (is_before(5) && (!system_calls || profile.calls == CallFilter::DenyList), Gap::DeviceCommands),
        (is_before(6) && !system_calls, Gap::Signals),
        (is_before(6) && has(SocketFamily::Unix), Gap::AbstractSockets),
        (is_before(9) && has(SocketFamily::Unix), Gap::UnixSockets),
    ];
    gaps.into_iter().filter_map(|(is_open, gap)| is_open.then_some(gap)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(name: &str, landlock_abi: Option<u32>, system_calls: bool) -> Vec<Gap> {
        let profile = Profile::named(name).unwrap();
        of(profile, profile.families, EnforcedSandbox { landlock_abi, system_calls })
    }

    #[test]
    fn each_kernel_leaves_open_what_neither_landlock_nor_the_filter_confines() {
        assert_eq!(gaps("softhsm2", Some(1), true), []);
        assert_eq!(gaps("softhsm2", None, true), [Gap::Files]);
        assert_eq!(gaps("opensc", Some(9), true), []);
        assert_eq!(gaps("opensc", Some(7), true), [Gap::UnixSockets]);
        assert_eq!(gaps("opensc", Some(2), true), [Gap::AbstractSockets, Gap::UnixSockets]);
        let network = [Gap::TcpPorts, Gap::DeviceCommands, Gap::AbstractSockets, Gap::UnixSockets];
        assert_eq!(gaps("luna", Some(3), true), network);
        let without_a_filter =
            [Gap::SystemCalls, Gap::Truncation, Gap::TcpPorts, Gap::DeviceCommands, Gap::Signals, Gap::AbstractSockets];
        assert_eq!(gaps("softhsm2", Some(2), false), [&without_a_filter[..], &[Gap::UnixSockets]].concat());
        assert_eq!(gaps("softhsm2", Some(9), false), [Gap::SystemCalls]);
    }
}
