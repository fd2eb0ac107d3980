//! System calls that are refused depending on their arguments.
//!
//! PURE. A filter sees numbers and no memory, so a rule checks a number: a process, a flag, a command.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompRule};

use super::lists::{SCHEDULING, SOCKETS};
use crate::sandbox_profile::{CallFilter, Profile, SocketFamily};

/// The rules for each call. The call is refused if one rule matches.
pub(super) type ArgumentRules = BTreeMap<i64, Vec<SeccompRule>>;

/// The process for the rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerIds {
    pub(super) process: u32,
    pub(super) user: u32,
}

pub(super) fn from_the_start(profile: &Profile, families: &[SocketFamily], ids: WorkerIds) -> ArgumentRules {
    let mut rules = ArgumentRules::new();
    processes(&mut rules, u64::from(ids.process));
    attributes(&mut rules);
    opening(&mut rules);
    descriptors(&mut rules, profile, families);
    sockets(&mut rules, families);
    if profile.calls == CallFilter::DenyList {
        scheduling(&mut rules, u64::from(ids.process));
    }
    if profile.sets_modes {
        modes(&mut rules, u64::from(ids.user));
    }
    rules
}

/// The additional rules after the login: no new code, and no sockets if the profile needs no more of them.
pub(super) fn after_the_login(profile: &Profile) -> ArgumentRules {
    let mut rules = ArgumentRules::new();
    let code = unsigned(libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.insert(call, vec![all(&[(2, Op::MaskedEq(code), code)])]);
    }
    let shared_code = unsigned(libc::SHM_EXEC);
    rules.insert(libc::SYS_shmat, vec![all(&[(2, Op::MaskedEq(shared_code), shared_code)])]);
    rules.insert(libc::SYS_memfd_create, Vec::new());
    if !profile.sockets_after_login {
        rules.extend(SOCKETS.iter().map(|call| (*call, Vec::new())));
        rules.insert(libc::SYS_sendto, vec![to_an_address()]);
    }
    rules
}

/// Other processes: none is started, signalled, or limited.
fn processes(rules: &mut ArgumentRules, worker: u64) {
    let thread = unsigned(libc::CLONE_THREAD);
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let no_thread = all(&[(0, Op::MaskedEq(thread), 0)]);
    let each = namespaces.map(unsigned).map(|flag| all(&[(0, Op::MaskedEq(flag), flag)]));
    rules.insert(libc::SYS_clone, std::iter::once(no_thread).chain(each).collect());
    // Zero means the group, which contains only this process.
    rules.insert(libc::SYS_kill, vec![all(&[(0, Op::Ne, worker), (0, Op::Ne, 0)])]);
    for call in [libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo] {
        rules.insert(call, vec![all(&[(0, Op::Ne, worker)])]);
    }
    rules.insert(libc::SYS_prlimit64, vec![all(&[(0, Op::Ne, worker), (0, Op::Ne, 0)])]);
}

/// The worker's own settings stay: no core, no debugger, the end with its parent.
fn attributes(rules: &mut ArgumentRules) {
    const PR_GET_AUXV: c_int = 0x4155_5856;
    // libc has these two only for x86-64, but every architecture's kernel has them.
    const PR_GET_SPECULATION_CTRL: c_int = 52;
    const PR_SET_SPECULATION_CTRL: c_int = 53;
    let harmless = [
        libc::PR_GET_PDEATHSIG,
        libc::PR_SET_PDEATHSIG,
        libc::PR_GET_DUMPABLE,
        libc::PR_GET_KEEPCAPS,
        libc::PR_SET_NAME,
        libc::PR_GET_NAME,
        libc::PR_GET_SECCOMP,
        libc::PR_CAPBSET_READ,
        libc::PR_SET_TIMERSLACK,
        libc::PR_GET_TIMERSLACK,
        libc::PR_SET_NO_NEW_PRIVS,
        libc::PR_GET_NO_NEW_PRIVS,
        libc::PR_GET_TID_ADDRESS,
        libc::PR_SET_THP_DISABLE,
        libc::PR_GET_THP_DISABLE,
        PR_GET_SPECULATION_CTRL,
        PR_SET_SPECULATION_CTRL,
        libc::PR_SET_VMA,
        // 64-bit ARM's functions for every program: vector lengths, pointer keys, tagged addresses.
        50,
        51,
        54,
        55,
        56,
        PR_GET_AUXV,
    ];
    let any_other: Vec<_> = harmless.map(|option| (0, Op::Ne, unsigned(option))).into();
    let weaker = [(0, Op::Eq, unsigned(libc::PR_SET_PDEATHSIG)), (1, Op::Ne, unsigned(libc::SIGKILL))];
    rules.insert(libc::SYS_prctl, vec![all(&any_other), all(&weaker)]);
    // A worker whose calls are not filtered yet ends by this signal when its parent ends. Its handler must stay.
    rules.insert(libc::SYS_rt_sigaction, vec![all(&[(0, Op::Eq, unsigned(libc::SIGSTKFLT))])]);
}

/// Two ways to open a file that Landlock does not check correctly.
fn opening(rules: &mut ArgumentRules) {
    // For neither reading nor writing: Landlock then checks no right, and the descriptor still allows commands, locks
    // and fchmod(2).
    let neither = unsigned(libc::O_ACCMODE);
    // For reading, with truncation: it counts as writing only since Linux 6.2.
    let truncated = unsigned(libc::O_TRUNC);
    let flags = |argument| {
        let both = Op::MaskedEq(neither | truncated);
        vec![all(&[(argument, Op::MaskedEq(neither), neither)]), all(&[(argument, both, truncated)])]
    };
    rules.insert(libc::SYS_openat, flags(2));
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, flags(1));
}

/// Commands to descriptors. Signals through a descriptor's owner reach other processes.
fn descriptors(rules: &mut ArgumentRules, profile: &Profile, families: &[SocketFamily]) {
    const F_SETSIG: c_int = 10;
    const F_SETOWN_EX: c_int = 15;
    const F_SETDELEG: c_int = 1040;
    let refused = [libc::F_SETOWN, F_SETSIG, F_SETOWN_EX, libc::F_SETLEASE, libc::F_NOTIFY, F_SETDELEG];
    rules.insert(libc::SYS_fcntl, refused.map(|command| all(&[(1, Op::Eq, unsigned(command))])).into());
    let commands = match profile.calls {
        CallFilter::AllowList => {
            let interfaces = if families.contains(&SocketFamily::Internet) { INTERFACES } else { &[] };
            let allowed = HARMLESS_COMMANDS.iter().chain(interfaces);
            vec![all(&allowed.map(|command| (1, Op::Ne, *command)).collect::<Vec<_>>())]
        }
        CallFilter::DenyList => REFUSED_COMMANDS.iter().map(|command| all(&[(1, Op::Eq, *command)])).collect(),
    };
    rules.insert(libc::SYS_ioctl, commands);
}

/// ioctl(2) on terminals, pipes and sockets, as made by the C library and every program: TCGETS, TCGETS2, TIOCOUTQ,
/// TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
const HARMLESS_COMMANDS: &[u64] = &[0x5401, 0x802c_542a, 0x5411, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];

/// A resolver's requests about network interfaces: SIOCGIFNAME, -CONF, -FLAGS, -ADDR, -NETMASK, -MTU, -HWADDR, -INDEX.
const INTERFACES: &[u64] = &[0x8910, 0x8912, 0x8913, 0x8915, 0x891b, 0x8921, 0x8927, 0x8933];

/// For profiles with devices, whose commands are unknown: a descriptor's owner (FIOSETOWN, SIOCSPGRP), a terminal
/// (TIOCSCTTY, TIOCSTI, TIOCLINUX), and attributes of a file or file system (FS_IOC_SETFLAGS in two sizes, -SETVERSION,
/// -FSSETXATTR, -SETFSLABEL, -SET_ENCRYPTION_POLICY, -ENABLE_VERITY, -SHUTDOWN, FIFREEZE, FITHAW, FITRIM).
const REFUSED_COMMANDS: &[u64] = &[
    0x8901,
    0x8902,
    0x540e,
    0x5412,
    0x541c,
    0x4008_6602,
    0x4004_6602,
    0x4008_7602,
    0x401c_5820,
    0x4100_9432,
    0x800c_6613,
    0x4080_6685,
    0x8004_587d,
    0xc004_5877,
    0xc004_5878,
    0xc018_5879,
];

/// Families outside the profile; and for its own families, uses beyond its daemons and servers.
fn sockets(rules: &mut ArgumentRules, families: &[SocketFamily]) {
    if families.is_empty() {
        // Calls that create sockets are refused separately. This rule is for the socket to the parent.
        rules.insert(libc::SYS_sendto, vec![to_an_address()]);
        return;
    }
    let mut allowed = Vec::new();
    let mut refused = Vec::new();
    for family in families {
        match family {
            SocketFamily::Unix => allowed.push(libc::AF_UNIX),
            SocketFamily::Internet => {
                const TYPE: u64 = 0xf;
                const SOCK_PACKET: c_int = 10;
                for family in [libc::AF_INET, libc::AF_INET6] {
                    allowed.push(family);
                    refused
                        .extend([libc::SOCK_RAW, SOCK_PACKET].map(|kind| {
                            all(&[(0, Op::Eq, unsigned(family)), (1, Op::MaskedEq(TYPE), unsigned(kind))])
                        }));
                }
            }
            SocketFamily::Netlink => {
                allowed.push(libc::AF_NETLINK);
                let protocols = [libc::NETLINK_ROUTE, libc::NETLINK_KOBJECT_UEVENT];
                let others = protocols.map(|protocol| (2, Op::Ne, unsigned(protocol)));
                let family = (0, Op::Eq, unsigned(libc::AF_NETLINK));
                refused.push(all(&[&[family][..], &others].concat()));
            }
        }
    }
    refused.push(all(&allowed.into_iter().map(|family| (0, Op::Ne, unsigned(family))).collect::<Vec<_>>()));
    rules.insert(libc::SYS_socket, refused);
}

/// Other processes, and all processes of a group or user.
fn scheduling(rules: &mut ArgumentRules, worker: u64) {
    for call in SCHEDULING {
        rules.insert(*call, vec![all(&[(0, Op::Ne, worker), (0, Op::Ne, 0)])]);
    }
    let others = all(&[(1, Op::Ne, worker), (1, Op::Ne, 0)]);
    rules.insert(libc::SYS_setpriority, vec![all(&[(0, Op::Ne, u64::from(libc::PRIO_PROCESS))]), others]);
}

/// fchmod(2) and fchown(2) for a module that shares its files with a group: no set-ID or sticky bit, no write
/// permission for all users, and no other owner.
fn modes(rules: &mut ArgumentRules, user: u64) {
    let refused = [libc::S_ISUID, libc::S_ISGID, libc::S_ISVTX, libc::S_IWOTH].map(u64::from);
    rules.insert(libc::SYS_fchmod, refused.map(|bit| all(&[(1, Op::MaskedEq(bit), bit)])).into());
    rules.insert(libc::SYS_fchown, vec![all(&[(1, Op::Ne, u64::from(u32::MAX)), (1, Op::Ne, user)])]);
}

/// The fifth argument of sendto(2) is a pointer.
fn to_an_address() -> SeccompRule {
    // invariant: there are six arguments, and the list is not empty
    #[allow(clippy::unwrap_used)]
    SeccompCondition::new(4, Len::Qword, Op::Ne, 0).and_then(|condition| SeccompRule::new(vec![condition])).unwrap()
}

/// All of these conditions together, on arguments that the kernel reads as 32 bits.
fn all(conditions: &[(u8, Op, u64)]) -> SeccompRule {
    let all: Result<Vec<SeccompCondition>, _> = conditions
        .iter()
        .map(|(argument, operator, value)| SeccompCondition::new(*argument, Len::Dword, operator.clone(), *value))
        .collect();
    // invariant: there are six arguments, and no list here is empty
    #[allow(clippy::unwrap_used)]
    all.and_then(SeccompRule::new).unwrap()
}

/// A kernel constant, as a filter compares it.
fn unsigned(number: c_int) -> u64 {
    u64::from(u32::from_ne_bytes(number.to_ne_bytes()))
}

/// Calls of a list, as the keys of [`ArgumentRules`].
pub(super) fn numbers(list: &[c_long]) -> impl Iterator<Item = u32> {
    list.iter().filter_map(|call| u32::try_from(*call).ok())
}
