//! seccomp: system calls that no module needs, answered with `EPERM`.
//!
//! A list of what is refused and not of what is allowed: closed libraries and other C libraries than this one make calls
//! that nobody here has seen. What is on it opens the way out of the process: other programs, other processes' memory,
//! the kernel's larger interfaces, and io_uring, which does by itself what the other rules forbid.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads, sock_filter,
};

use super::SandboxError;
use super::places::families;
use super::profile::{Family, Profile};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refused whatever the arguments are.
const REFUSED: [c_long; 65] = [
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes: their memory, descriptors and order of work.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Out of the group and session in which the front ends it.
    libc::SYS_setsid,
    libc::SYS_setpgid,
    // Callers of its own.
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // Does the same without a system call for each.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The kernel's larger interfaces.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_lookup_dcookie,
    libc::SYS_syslog,
    libc::SYS_personality,
    libc::SYS_vhangup,
    // Keys that other processes keep in the kernel.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Namespaces, mounts, and files by their handles, which no path rule sees.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // The host itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_nfsservctl,
];

/// Refused to the calling thread's whole process, from now on; `false` where the kernel has no filters.
pub(super) fn confine(profile: &Profile) -> Result<bool, SandboxError> {
    let Ok(architecture) = TargetArch::try_from(ARCH) else { return Ok(false) };
    let mut rules: Rules = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend(
        [libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib].map(|call| (call, Vec::new())),
    );
    #[cfg(not(target_arch = "riscv64"))]
    rules.insert(libc::SYS_kexec_file_load, Vec::new());
    sockets(&mut rules, &families(profile));
    signals(&mut rules);
    attributes(&mut rules);
    namespaces(&mut rules);
    install(rules, architecture)
}

/// Refused to all threads from now on.
pub(super) fn tighten(profile: &Profile) -> Result<(), SandboxError> {
    let Ok(architecture) = TargetArch::try_from(ARCH) else { return Ok(()) };
    let mut rules = Rules::new();
    let code = u64::try_from(libc::PROT_EXEC).unwrap_or_default();
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.insert(call, vec![rule(&[(2, Op::MaskedEq(code), code)])]);
    }
    let shared_code = u64::try_from(libc::SHM_EXEC).unwrap_or_default();
    rules.insert(libc::SYS_shmat, vec![rule(&[(2, Op::MaskedEq(shared_code), shared_code)])]);
    rules.insert(libc::SYS_memfd_create, Vec::new());
    let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or_default();
    rules.insert(libc::SYS_clone, vec![rule(&[(0, Op::MaskedEq(thread), 0)])]);
    #[cfg(target_arch = "x86_64")]
    rules.extend([libc::SYS_fork, libc::SYS_vfork].map(|call| (call, Vec::new())));
    if !profile.sockets_after_login {
        rules.insert(libc::SYS_socket, Vec::new());
    }
    install(rules, architecture).map(drop)
}

/// Any family but these.
fn sockets(rules: &mut Rules, families: &[Family]) {
    let mut numbers = Vec::new();
    for family in families {
        match family {
            Family::Unix => numbers.push(libc::AF_UNIX),
            Family::Internet => numbers.extend([libc::AF_INET, libc::AF_INET6]),
            Family::Netlink => numbers.push(libc::AF_NETLINK),
        }
    }
    let others: Vec<(u8, Op, u64)> =
        numbers.into_iter().filter_map(|number| Some((0, Op::Ne, u64::try_from(number).ok()?))).collect();
    let refused = if others.is_empty() { Vec::new() } else { vec![rule(&others)] };
    rules.insert(libc::SYS_socket, refused);
}

/// To any process but this one, and its group by `kill(0)`; Landlock forbids it too, from Linux 6.12 on.
fn signals(rules: &mut Rules) {
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_kill, vec![rule(&[(0, Op::Ne, own), (0, Op::Ne, 0)])]);
    for call in [libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo] {
        rules.insert(call, vec![rule(&[(0, Op::Ne, own)])]);
    }
}

/// What this process did to itself stays: no core, no debugger, an end with the front.
fn attributes(rules: &mut Rules) {
    let attributes = [libc::PR_SET_DUMPABLE, libc::PR_SET_PDEATHSIG, libc::PR_SET_PTRACER];
    let each = attributes.into_iter().filter_map(|attribute| u64::try_from(attribute).ok());
    rules.insert(libc::SYS_prctl, each.map(|attribute| rule(&[(0, Op::Eq, attribute)])).collect());
}

fn namespaces(rules: &mut Rules) {
    let flags = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let each = flags.into_iter().filter_map(|flag| u64::try_from(flag).ok());
    rules.insert(libc::SYS_clone, each.map(|flag| rule(&[(0, Op::MaskedEq(flag), flag)])).collect());
}

/// All of these conditions at once; arguments of 32 bits.
fn rule(conditions: &[(u8, Op, u64)]) -> SeccompRule {
    let all: Result<Vec<SeccompCondition>, _> = conditions
        .iter()
        .map(|(argument, operator, value)| SeccompCondition::new(*argument, Len::Dword, operator.clone(), *value))
        .collect();
    // invariant: there are six arguments, and no list here is empty
    #[allow(clippy::unwrap_used)]
    all.and_then(SeccompRule::new).unwrap()
}

/// Installs a filter on all threads; `false` where the kernel has none.
fn install(rules: Rules, architecture: TargetArch) -> Result<bool, SandboxError> {
    let failed = |error: seccompiler::Error| SandboxError::Calls(error.to_string());
    let rules = compile(rules, architecture).map_err(|error| failed(seccompiler::Error::Backend(error)))?;
    let program = [beforehand().as_slice(), &rules].concat();
    match apply_filter_all_threads(&program) {
        Ok(()) => Ok(true),
        // Not built in, or forbidden by the filter of a container.
        Err(seccompiler::Error::Seccomp(error))
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
        {
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The rules as a program. The library compiles those that look at arguments; its form of one that does not is five
/// instructions, all in one row, and these are the many.
fn compile(mut rules: Rules, architecture: TargetArch) -> Result<BpfProgram, BackendError> {
    let is_plain = |(call, conditions): (&i64, &Vec<_>)| u32::try_from(*call).ok().filter(|_| conditions.is_empty());
    let plain: Vec<u32> = rules.iter().filter_map(is_plain).collect();
    rules.retain(|_, conditions| !conditions.is_empty());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal(libc::EPERM), architecture)?;
    let conditional: BpfProgram = filter.try_into()?;
    Ok([refuse_each(&plain), conditional].concat())
}

/// Refuses these calls, which are sorted, and goes on with all others. In sections by number, of which a call meets one: when
/// a filter is installed, the kernel translates each instruction, and tries each call that there is.
fn refuse_each(calls: &[u32]) -> BpfProgram {
    const SECTION: usize = 8;
    let mut program = BpfProgram::new();
    for section in calls.chunks(SECTION) {
        // invariant: not more than `SECTION`
        #[allow(clippy::cast_possible_truncation)]
        let length = section.len() as u8;
        let lower = u32::try_from(program.len()).unwrap_or_default();
        // The highest section is the first, so this one goes before those that are there.
        let mut sections = vec![jump(JUMP_IF_NOT_BELOW, section[0], 0, length + 2)];
        let compared = section.iter().zip((0..length).rev());
        sections.extend(compared.map(|(call, left)| jump(JUMP_IF_EQUAL, *call, left, u8::from(left == 0))));
        sections.extend([answer(refusal(libc::EPERM)), jump(JUMP, lower, 0, 0)]);
        sections.append(&mut program);
        program = sections;
    }
    program.insert(0, LOAD_NUMBER);
    program
}

/// Instructions before the rules, which know one answer only.
///
/// `clone3`: its flags stand in memory, where no filter sees them; on `ENOSYS` the C library takes clone(2). And x86-64's
/// second interface, of 32-bit pointers: no library for the first one calls it, and rules for its numbers would double the
/// filter.
fn beforehand() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let mut program = vec![LOAD_NUMBER];
    if let Ok(call) = u32::try_from(libc::SYS_clone3) {
        program.extend([jump(JUMP_IF_EQUAL, call, 0, 1), answer(refusal(libc::ENOSYS))]);
    }
    if cfg!(target_arch = "x86_64") {
        program.extend([jump(JUMP_IF_SET, X32, 0, 1), answer(refusal(libc::EPERM))]);
    }
    program
}

fn refusal(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno.unsigned_abs())
}

// Opcodes of linux/bpf_common.h.
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_NOT_BELOW: u16 = 0x35;
const JUMP_IF_SET: u16 = 0x45;

/// The number of the call, at offset 0 of `struct seccomp_data`.
const LOAD_NUMBER: sock_filter = sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };

/// Leaves out `jt` instructions where the loaded value compares so with `k`, and else `jf`.
fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn answer(action: SeccompAction) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: action.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program answers to a call, as the kernel runs it, and after how many instructions.
    fn run(program: &[sock_filter], data: [u32; 16]) -> (u32, usize) {
        let (mut value, mut at) = (0, 0);
        for count in 1.. {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            let jump = |holds| usize::from(if holds { jt } else { jf });
            at += 1 + match code {
                0x20 => {
                    value = data[k as usize / 4];
                    0
                }
                0x54 => {
                    value &= k;
                    0
                }
                JUMP => k as usize,
                RETURN => return (k, count),
                JUMP_IF_EQUAL => jump(value == k),
                JUMP_IF_NOT_BELOW => jump(value >= k),
                0x25 => jump(value > k),
                JUMP_IF_SET => jump(value & k != 0),
                other => panic!("opcode {other:#x}"),
            };
        }
        unreachable!()
    }

    #[test]
    fn in_sections_each_call_is_answered_as_by_the_whole_and_sooner() {
        let architecture = TargetArch::try_from(ARCH).unwrap();
        let mut rules: Rules = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
        sockets(&mut rules, &[Family::Unix, Family::Netlink]);
        signals(&mut rules);
        attributes(&mut rules);
        namespaces(&mut rules);
        let whole =
            SeccompFilter::new(rules.clone(), SeccompAction::Allow, refusal(libc::EPERM), architecture).unwrap();
        let whole: BpfProgram = whole.try_into().unwrap();
        let sections = compile(rules.clone(), architecture).unwrap();
        // The architecture is in every program's own first comparison.
        let known = whole.iter().find(|instruction| instruction.code == JUMP_IF_EQUAL).unwrap().k;
        let (mut before, mut after) = (0, 0);
        for call in (0..600).chain([1 << 29, u32::MAX]) {
            for argument in [0, 1, 4, 9, 38, 0x1000_0000, 0x2000_0000, 0x5961_6d61, std::process::id()] {
                let data = std::array::from_fn(|at| match at {
                    0 => call,
                    1 => known,
                    _ if at % 2 == 0 => argument,
                    _ => 0,
                });
                let (whole, sections) = (run(&whole, data), run(&sections, data));
                assert_eq!(whole.0, sections.0, "call {call} with {argument}");
                before += whole.1;
                after += sections.1;
            }
        }
        assert!(after * 3 < before, "{after} instructions, {before} as a whole");
        let mut foreign = [0; 16];
        foreign[1] = known ^ 1;
        assert_eq!(run(&whole, foreign).0, run(&sections, foreign).0);
        assert!(sections.len() * 3 < whole.len() * 2, "{} instructions of {}", sections.len(), whole.len());
    }
}
