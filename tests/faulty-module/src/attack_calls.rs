//! System calls that affect more than the process: inodes, the parent, other processes, and sockets of unusual families.
//!
//! A successful call changes nothing except files of `FAULTY_PREY`.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::io::Write as _;
use std::ptr::{null, null_mut};

/// Makes each call, and reports its name and result.
///
/// # Safety
/// `secret` and `readable` are paths: a file of the prey, and a file that every profile may read.
pub(crate) unsafe fn all(secret: &CStr, readable: &CStr, say: &dyn Fn(&str, c_long)) {
    // SAFETY: as the caller promises; every other pointer is to a local.
    unsafe {
        inodes(secret.as_ptr(), say);
        open_files(secret.as_ptr(), readable.as_ptr(), say);
        parent(say);
        own_end(say);
        sockets(say);
    }
}

unsafe fn inodes(secret: *const c_char, say: &dyn Fn(&str, c_long)) {
    const FCHMODAT2: c_long = 452;
    const AT_EMPTY_PATH: c_int = 0x1000;
    // SAFETY: paths that end with null, and locals.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        {
            say("chmod", libc::syscall(libc::SYS_chmod, secret, 0o600));
            say("chown", libc::syscall(libc::SYS_chown, secret, -1, -1));
            say("lchown", libc::syscall(libc::SYS_lchown, secret, -1, -1));
            say("utime", libc::syscall(libc::SYS_utime, secret, null::<c_void>()));
            say("utimes", libc::syscall(libc::SYS_utimes, secret, null::<c_void>()));
            say("futimesat", libc::syscall(libc::SYS_futimesat, libc::AT_FDCWD, secret, null::<c_void>()));
        }
        say("fchmodat", libc::syscall(libc::SYS_fchmodat, libc::AT_FDCWD, secret, 0o600));
        say("fchmodat2", libc::syscall(FCHMODAT2, libc::AT_FDCWD, secret, 0o600, 0));
        let place = libc::open(secret, libc::O_PATH);
        say("fchmodat2 without a path", libc::syscall(FCHMODAT2, place, c"".as_ptr(), 0o600, AT_EMPTY_PATH));
        say("fchownat", libc::syscall(libc::SYS_fchownat, libc::AT_FDCWD, secret, -1, -1, 0));
        say("utimensat", libc::syscall(libc::SYS_utimensat, libc::AT_FDCWD, secret, null::<c_void>(), 0));
        let (name, value) = (c"user.cba".as_ptr(), c"x".as_ptr());
        say("setxattr", libc::syscall(libc::SYS_setxattr, secret, name, value, 1, 0));
        say("lsetxattr", libc::syscall(libc::SYS_lsetxattr, secret, name, value, 1, 0));
        say("removexattr", libc::syscall(libc::SYS_removexattr, secret, name));
        let set = [value as u64, 1];
        say("setxattrat", libc::syscall(463, libc::AT_FDCWD, secret, 0, name, set.as_ptr(), 16_usize));
        say("removexattrat", libc::syscall(466, libc::AT_FDCWD, secret, 0, name));
        say("truncate", libc::syscall(libc::SYS_truncate, secret, 3));
    }
}

unsafe fn open_files(secret: *const c_char, readable: *const c_char, say: &dyn Fn(&str, c_long)) {
    const NEITHER: c_int = libc::O_ACCMODE;
    // SAFETY: paths that end with null, and locals.
    unsafe {
        // Landlock checks no right for a file that is opened for neither reading nor writing.
        say("open for neither", libc::open(secret, NEITHER).into());
        say("truncate by opening for neither", libc::open(secret, NEITHER | libc::O_TRUNC).into());
        // A read-only or empty file loses nothing.
        say("truncate by opening to read", libc::open(secret, libc::O_RDONLY | libc::O_TRUNC).into());
        let file = libc::open(readable, libc::O_RDONLY);
        let mut status: libc::stat = std::mem::zeroed();
        libc::fstat(file, &mut status);
        say("fchmod", libc::fchmod(file, status.st_mode | libc::S_IWOTH).into());
        libc::fchmod(file, status.st_mode);
        const NOBODY: libc::uid_t = 65534;
        say("fchown", libc::fchown(file, NOBODY, status.st_gid).into());
        libc::fchown(file, status.st_uid, status.st_gid);
        let now = [libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT }; 2];
        say("futimens", libc::futimens(file, now.as_ptr()).into());
        say("fsetxattr", libc::fsetxattr(file, c"user.cba".as_ptr(), c"x".as_ptr().cast(), 1, 0).into());
        say("fremovexattr", libc::fremovexattr(file, c"user.cba".as_ptr()).into());
        let mut flags: c_long = 0;
        libc::ioctl(file, 0x8008_6601, &mut flags);
        say("file attributes", libc::ioctl(file, 0x4008_6602, &flags).into());
        say("lease", libc::fcntl(file, libc::F_SETLEASE, libc::F_RDLCK).into());
        libc::fcntl(file, libc::F_SETLEASE, libc::F_UNLCK);
        let parent = libc::getppid();
        let mut pipe = [0; 2];
        libc::pipe(pipe.as_mut_ptr());
        say("signal by a descriptor", libc::fcntl(pipe[0], libc::F_SETOWN, parent).into());
        say("signal's number", libc::fcntl(pipe[0], 10, libc::SIGURG).into());
        let mut pair = [0; 2];
        libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr());
        say("signal by a command", libc::ioctl(if pair[0] > 0 { pair[0] } else { file }, 0x8901, &parent).into());
        for descriptor in [file, pipe[0], pipe[1], pair[0], pair[1]] {
            if descriptor > 2 {
                libc::close(descriptor);
            }
        }
    }
}

unsafe fn parent(say: &dyn Fn(&str, c_long)) {
    // SAFETY: locals.
    unsafe {
        let parent = libc::getppid();
        let mut limit = [0_u64; 2];
        let own = limit.as_mut_ptr();
        libc::syscall(libc::SYS_prlimit64, parent, libc::RLIMIT_CORE, null::<u64>(), own);
        say("limits", libc::syscall(libc::SYS_prlimit64, parent, libc::RLIMIT_CORE, own, null::<u64>()));
        let mut mask = [0_u8; 128];
        libc::syscall(libc::SYS_sched_getaffinity, parent, mask.len(), mask.as_mut_ptr());
        say("affinity", libc::syscall(libc::SYS_sched_setaffinity, parent, mask.len(), mask.as_ptr()));
        let zero = 0_i32;
        say("scheduler", libc::syscall(libc::SYS_sched_setscheduler, parent, libc::SCHED_OTHER, &zero));
        say("scheduler's parameters", libc::syscall(libc::SYS_sched_setparam, parent, &zero));
        let mut attributes: libc::sched_attr = std::mem::zeroed();
        let size = size_of::<libc::sched_attr>();
        libc::syscall(libc::SYS_sched_getattr, parent, &mut attributes, size, 0);
        say("scheduler's attributes", libc::syscall(libc::SYS_sched_setattr, parent, &attributes, 0));
        let nice = 20 - libc::syscall(libc::SYS_getpriority, 0, parent);
        say("priority", libc::syscall(libc::SYS_setpriority, 0, parent, nice));
        say("priority of I/O", libc::syscall(libc::SYS_ioprio_set, 1, parent, 0));
        say("signal to a thread", libc::syscall(libc::SYS_tkill, parent, 0));
        say("signal to a thread of a process", libc::syscall(libc::SYS_tgkill, parent, parent, 0));
        say("process by descriptor", libc::syscall(libc::SYS_pidfd_open, parent, 0));
        say("kcmp", libc::syscall(libc::SYS_kcmp, parent, parent, 0, 0, 1));
    }
}

/// Calls that would let this process outlive its parent.
unsafe fn own_end(say: &dyn Fn(&str, c_long)) {
    // SAFETY: locals. The signal's action is restored.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        let mut ignored: libc::sigaction = std::mem::zeroed();
        ignored.sa_sigaction = libc::SIG_IGN;
        say("ignored signal", libc::sigaction(libc::SIGSTKFLT, &ignored, &mut before).into());
        libc::sigaction(libc::SIGSTKFLT, &before, null_mut());
        let mut signal: c_int = 0;
        libc::prctl(libc::PR_GET_PDEATHSIG, &mut signal);
        // A process without the sandbox has this signal already, so nothing changes.
        say("parent-death signal", libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGSTKFLT).into());
        libc::prctl(libc::PR_SET_PDEATHSIG, signal);
        say("user", libc::syscall(libc::SYS_setresuid, -1, libc::geteuid(), -1));
        say("user for files", libc::syscall(libc::SYS_setfsuid, libc::geteuid()));
        say("group", libc::syscall(libc::SYS_setresgid, -1, libc::getegid(), -1));
    }
}

unsafe fn sockets(say: &dyn Fn(&str, c_long)) {
    const NETLINK_AUDIT: c_int = 9;
    // SAFETY: locals.
    unsafe {
        say("raw socket", libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).into());
        say("audit socket", libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_AUDIT).into());
        let mut pair = [0; 2];
        say("pair", libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, pair.as_mut_ptr()).into());
    }
}

/// Starts a process, if allowed. Both processes ignore and block the signal that ends a worker with its parent. Both
/// end after a while.
pub(crate) fn outlive() {
    // SAFETY: locals; the child makes calls that are allowed after a fork.
    unsafe {
        let mut ignored: libc::sigaction = std::mem::zeroed();
        ignored.sa_sigaction = libc::SIG_IGN;
        libc::sigaction(libc::SIGSTKFLT, &ignored, null_mut());
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &all, null_mut());
        match libc::fork() {
            0 => {
                libc::sleep(60);
                libc::_exit(0);
            }
            child @ 1.. => crate::log().into_iter().for_each(|mut log| writeln!(log, "process {child}").unwrap()),
            _ => {}
        }
    }
}
