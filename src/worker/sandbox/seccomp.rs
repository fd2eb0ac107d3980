//! seccomp: the system calls of a worker, in two steps. Runs in the worker.
//!
//! A tested module has an allow list: other calls return `ENOSYS`. Other modules are closed libraries with unknown calls, so they have a
//! deny list. Both return `EPERM` for calls that affect more than the process, or that Landlock does not check. No call ends the process.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use seccompiler::{TargetArch, apply_filter_all_threads};

use super::SandboxError;
use crate::sandbox_profile::paths::socket_families;
use crate::sandbox_profile::{CallFilter, Profile, SocketFamily};

mod arguments;
mod bpf;
mod lists;

use arguments::{ArgumentRules, WorkerIds, numbers};
use bpf::{CallAnswer, Table};

/// Filters the system calls of this process from now on. Returns `false` if the kernel has no filters.
pub(super) fn confine(profile: &Profile) -> Result<bool, SandboxError> {
    let families = socket_families(profile);
    let user = rustix::process::geteuid().as_raw();
    let rules = arguments::from_the_start(profile, &families, WorkerIds { process: std::process::id(), user });
    install(&table(profile, &families, &rules), rules)
}

/// Refuses calls to all threads that only the start needs.
pub(super) fn tighten(profile: &Profile) -> Result<(), SandboxError> {
    let rules = arguments::after_the_login(profile);
    let mut named = BTreeMap::new();
    insert_rules(&mut named, &rules);
    let with_arguments = rules.into_iter().filter(|(_, each)| !each.is_empty()).collect();
    install(&Table::denying(named), with_arguments).map(drop)
}

/// The answer to each call. A later insertion replaces an earlier one.
fn table(profile: &Profile, families: &[SocketFamily], rules: &ArgumentRules) -> Table {
    let mut named = BTreeMap::new();
    let mut insert = |list, answer| named.extend(numbers(list).map(|call| (call, answer)));
    let is_listed = profile.calls == CallFilter::AllowList;
    if is_listed {
        insert(lists::ALLOWED, CallAnswer::Allow);
        insert(lists::ALLOWED_HERE, CallAnswer::Allow);
        insert(lists::SCHEDULING, CallAnswer::Refuse);
        insert(&[libc::SYS_setpriority], CallAnswer::Refuse);
    }
    insert(lists::SOCKETS, if families.is_empty() { CallAnswer::Refuse } else { CallAnswer::Allow });
    if !families.is_empty() {
        insert(lists::MESSAGES_TO_MANY, CallAnswer::Allow);
    }
    insert(lists::REFUSED, CallAnswer::Refuse);
    insert(lists::REFUSED_HERE, CallAnswer::Refuse);
    insert(lists::UNSEEN, CallAnswer::Missing);
    insert(lists::OWNER_AND_MODE, CallAnswer::Refuse);
    insert_rules(&mut named, rules);
    if is_listed { Table::allowing(named) } else { Table::denying(named) }
}

fn insert_rules(named: &mut BTreeMap<u32, CallAnswer>, rules: &ArgumentRules) {
    for (call, each) in rules {
        let answer = if each.is_empty() { CallAnswer::Refuse } else { CallAnswer::CheckArguments };
        named.extend(u32::try_from(*call).ok().map(|call| (call, answer)));
    }
}

/// Installs a filter on all threads. Returns `false` if the kernel has none.
fn install(table: &Table, rules: ArgumentRules) -> Result<bool, SandboxError> {
    let Ok(architecture) = TargetArch::try_from(ARCH) else { return Ok(false) };
    let failed = |error: seccompiler::Error| SandboxError::CallFilter(error.to_string());
    let program =
        bpf::compile(table, rules, architecture).map_err(|error| failed(seccompiler::Error::Backend(error)))?;
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

#[cfg(test)]
mod tests {
    use seccompiler::SeccompAction;

    use super::bpf::emulator::{run, run_on};
    use super::*;
    use crate::sandbox_profile::PROFILES;

    fn program(name: &str) -> Vec<seccompiler::sock_filter> {
        let profile = Profile::named(name).unwrap();
        let own = WorkerIds { process: std::process::id(), user: 7 };
        let rules = arguments::from_the_start(profile, profile.families, own);
        let table = table(profile, profile.families, &rules);
        bpf::compile(&table, rules, TargetArch::try_from(ARCH).unwrap()).unwrap()
    }

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;

    fn refused(errno: i32) -> u32 {
        SeccompAction::Errno(errno.unsigned_abs()).into()
    }

    #[test]
    fn each_profile_answers_each_call_as_its_lists_say() {
        for profile in PROFILES {
            let program = program(profile.name);
            let answer = |call: u32| run(&program, call, [0; 6]).0;
            for call in numbers(lists::REFUSED).chain(numbers(lists::REFUSED_HERE)) {
                assert_eq!(answer(call), refused(libc::EPERM), "{}: {call}", profile.name);
            }
            // By name, so that a call that is missing in the list shows.
            for call in [
                libc::SYS_execve,
                libc::SYS_ptrace,
                libc::SYS_process_vm_readv,
                libc::SYS_process_vm_writev,
                libc::SYS_pidfd_getfd,
                libc::SYS_setsid,
                libc::SYS_io_uring_setup,
                libc::SYS_bpf,
                libc::SYS_mount,
            ] {
                assert_eq!(answer(u32::try_from(call).unwrap()), refused(libc::EPERM), "{}: {call}", profile.name);
            }
            for call in numbers(lists::UNSEEN) {
                assert_eq!(answer(call), refused(libc::ENOSYS), "{}: {call}", profile.name);
            }
            for call in [lists::FIRST_UNKNOWN, 1000, 1 << 29] {
                assert_eq!(answer(call), refused(libc::ENOSYS), "{}: {call}", profile.name);
            }
            let unlisted = u32::try_from(libc::SYS_inotify_init1).unwrap();
            let expected = if profile.calls == CallFilter::AllowList { refused(libc::ENOSYS) } else { ALLOWED };
            assert_eq!(answer(unlisted), expected, "{}", profile.name);
            let read = u32::try_from(libc::SYS_read).unwrap();
            assert_eq!(answer(read), ALLOWED);
            assert_eq!(run_on(&program, read, 0, [0; 6]).0, refused(libc::EPERM), "another architecture");
        }
    }

    #[test]
    fn a_call_is_judged_by_the_arguments_that_the_kernel_looks_at() {
        let own = u64::from(std::process::id());
        let (neither, truncated) = (libc::O_ACCMODE as u64, libc::O_TRUNC as u64);
        // The kernel ignores the upper half of a 64-bit flag, so it must change nothing.
        let high = 1 << 40;
        let of_every_profile = [
            (libc::SYS_openat, [0, 0, 0, 0, 0, 0], true),
            (libc::SYS_openat, [0, 0, 1 | truncated, 0, 0, 0], true),
            (libc::SYS_openat, [0, 0, truncated, 0, 0, 0], false),
            (libc::SYS_openat, [0, 0, neither, 0, 0, 0], false),
            (libc::SYS_openat, [0, 0, neither | high, 0, 0, 0], false),
            (libc::SYS_kill, [own, 0, 0, 0, 0, 0], true),
            (libc::SYS_kill, [own + 1, 0, 0, 0, 0, 0], false),
            (libc::SYS_kill, [u64::MAX, 0, 0, 0, 0, 0], false),
            (libc::SYS_prlimit64, [0, 0, 0, 0, 0, 0], true),
            (libc::SYS_prlimit64, [1, 0, 0, 0, 0, 0], false),
            (libc::SYS_rt_sigaction, [libc::SIGTERM as u64, 0, 0, 0, 0, 0], true),
            (libc::SYS_rt_sigaction, [libc::SIGSTKFLT as u64 | high, 0, 0, 0, 0, 0], false),
            (libc::SYS_prctl, [libc::PR_SET_NAME as u64, 0, 0, 0, 0, 0], true),
            (libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64 | high, 1, 0, 0, 0, 0], false),
            (libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64, 0, 0, 0, 0], true),
            (libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, 0, 0, 0, 0, 0], false),
            (libc::SYS_clone, [libc::CLONE_THREAD as u64, 0, 0, 0, 0, 0], true),
            (libc::SYS_clone, [libc::CLONE_VM as u64, 0, 0, 0, 0, 0], false),
            (libc::SYS_clone, [(libc::CLONE_THREAD | libc::CLONE_NEWNET) as u64, 0, 0, 0, 0, 0], false),
            (libc::SYS_fcntl, [0, libc::F_SETLK as u64, 0, 0, 0, 0], true),
            (libc::SYS_fcntl, [0, libc::F_SETOWN as u64, 0, 0, 0, 0], false),
            (libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0], true),
            (libc::SYS_ioctl, [0, 0x4008_6602, 0, 0, 0, 0], false),
            (libc::SYS_socket, [libc::AF_PACKET as u64, 0, 0, 0, 0, 0], false),
            (libc::SYS_sched_setaffinity, [1, 0, 0, 0, 0, 0], false),
            (libc::SYS_setpriority, [2, 0, 0, 0, 0, 0], false),
            (libc::SYS_fchmod, [0, 0o4600, 0, 0, 0, 0], false),
            (libc::SYS_fchown, [0, 0, 0, 0, 0, 0], false),
        ];
        for profile in PROFILES {
            check(profile.name, &of_every_profile);
        }
        let unix = libc::AF_UNIX as u64;
        check(
            "softhsm2",
            &[
                (libc::SYS_socket, [unix, 1, 0, 0, 0, 0], false),
                (libc::SYS_socketpair, [unix, 2, 0, 0, 0, 0], false),
                (libc::SYS_sendto, [4, 0, 1, 0, 0, 0], true),
                (libc::SYS_sendto, [4, 0, 1, 0, high, 0], false),
                (libc::SYS_fchmod, [0, 0o600, 0, 0, 0, 0], false),
            ],
        );
        let internet = libc::AF_INET as u64;
        check(
            "luna",
            &[
                (libc::SYS_socket, [unix, 1, 0, 0, 0, 0], true),
                (libc::SYS_socket, [internet, 1 | libc::SOCK_CLOEXEC as u64, 0, 0, 0, 0], true),
                (libc::SYS_socket, [internet, 3 | libc::SOCK_CLOEXEC as u64, 1, 0, 0, 0], false),
                (libc::SYS_socket, [libc::AF_NETLINK as u64, 3, 0, 0, 0, 0], true),
                (libc::SYS_socket, [libc::AF_NETLINK as u64, 3, 9, 0, 0, 0], false),
                (libc::SYS_sched_setaffinity, [own, 0, 0, 0, 0, 0], true),
                (libc::SYS_setpriority, [0, 0, 5, 0, 0, 0], true),
                (libc::SYS_fchmod, [0, 0o660, 0, 0, 0, 0], true),
                (libc::SYS_fchown, [0, u64::from(u32::MAX), 7, 0, 0, 0], true),
                (libc::SYS_fchown, [0, 7, 8, 0, 0, 0], true),
            ],
        );
    }

    fn check(name: &str, cases: &[(libc::c_long, [u64; 6], bool)]) {
        let program = program(name);
        for (call, arguments, is_allowed) in cases {
            let (answer, _) = run(&program, u32::try_from(*call).unwrap(), *arguments);
            let expected = if *is_allowed { ALLOWED } else { refused(libc::EPERM) };
            assert_eq!(answer, expected, "{name}: call {call} with {arguments:x?}");
        }
    }

    #[test]
    fn a_call_meets_few_instructions() {
        for profile in PROFILES {
            let program = program(profile.name);
            let plain = (0..lists::FIRST_UNKNOWN).map(|call| run(&program, call, [0; 6]).1);
            let (count, sum) = plain.fold((0, 0), |(count, sum), one| (count + 1, sum + one));
            assert!(sum / count < 20, "{}: {sum} instructions for {count} calls", profile.name);
            assert!(program.len() < 800, "{}: {} instructions", profile.name, program.len());
        }
    }
}
