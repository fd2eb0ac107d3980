//! The attacks of a hostile module, at its load and at `C_Sign`. It prints one line for each on stderr, such as `attack at load: exec:
//! EPERM`, or `done` for a successful attack.
//!
//! `FAULTY_AGENT` is the socket of another agent, which is asked for a payload. `FAULTY_PREY` is a directory with `secret`, a file to read,
//! `prey`, a file to change, and room for a new file. A successful attack changes nothing else.

use std::ffi::{CString, c_int, c_long, c_void};
use std::io::{Error, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::ptr::{null, null_mut};

/// Runs when the library is loaded, before `dlopen` returns.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn at_load() {
        if std::env::var("FAULTY").is_ok_and(|rules| rules.contains("attack")) {
            all("load");
        }
    }
    at_load
};

/// Tries everything; after the load also in a separate thread.
pub(crate) fn all(when: &str) {
    let prey = |name: &str| CString::new(std::env::var("FAULTY_PREY").expect("FAULTY_PREY") + "/" + name).unwrap();
    let (secret, new, program) = (prey("secret"), prey(when), c"/bin/true");
    let say = |what: &str, result: c_long| {
        let error = Error::last_os_error().raw_os_error().unwrap_or_default();
        let how = match (result, error) {
            (0.., _) => "done".to_owned(),
            (_, libc::EPERM) => "EPERM".to_owned(),
            (_, libc::EACCES) => "EACCES".to_owned(),
            (_, other) => format!("errno {other}"),
        };
        eprintln!("attack at {when}: {what}: {how}");
    };
    // SAFETY: system calls with valid pointers, or none. Their results are not used.
    unsafe {
        let parent = libc::getppid();
        let mut byte = 0_u8;
        let own = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let other = libc::iovec { iov_base: (&raw const parent as *mut c_int).cast(), iov_len: 1 };
        say("read", libc::open(secret.as_ptr(), libc::O_RDONLY).into());
        say("write", libc::open(new.as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o600).into());
        // The loader holds its lock while it loads, and a new thread would wait for it.
        if when != "load" {
            std::thread::scope(|scope| {
                scope.spawn(|| say("read in a thread", libc::open(secret.as_ptr(), libc::O_RDONLY).into()));
            });
        }
        say(
            "memory file",
            libc::open(CString::new(format!("/proc/{parent}/mem")).unwrap().as_ptr(), libc::O_RDONLY).into(),
        );
        say("internet", libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0).into());
        say("packet", libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).into());
        say("unix", libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).into());
        say("ptrace", libc::ptrace(libc::PTRACE_SEIZE, parent, null_mut::<c_void>(), null_mut::<c_void>()));
        // An error about an unmapped address means that the read was allowed.
        let read = libc::process_vm_readv(parent, &own, 1, &other, 1, 0) as c_long;
        let unmapped = read < 0 && Error::last_os_error().raw_os_error() == Some(libc::EFAULT);
        say("process_vm_readv", if unmapped { 0 } else { read });
        say("signal", libc::kill(parent, 0).into());
        say("io_uring", libc::syscall(libc::SYS_io_uring_setup, 1, [0_u8; 120].as_mut_ptr()));
        say("namespace", libc::unshare(libc::CLONE_NEWUTS).into());
        say("dumpable", libc::prctl(libc::PR_SET_DUMPABLE, 1).into());
        #[cfg(target_arch = "x86_64")]
        say("x32", libc::syscall(0x4000_0000 | libc::SYS_ptrace, libc::PTRACE_SEIZE, parent, 0, 0));
        let readable = CString::new(std::env::var("CBA_AGENT_MODULE").expect("CBA_AGENT_MODULE")).unwrap();
        crate::attack_calls::all(&prey("prey"), &readable, &say);
        let code = libc::PROT_READ | libc::PROT_EXEC;
        let mapped = libc::mmap(null_mut(), 4096, code, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        say("new code", if mapped == libc::MAP_FAILED { -1 } else { 0 });
        say("process", fork());
        say("exec", exec(program.as_ptr()));
    }
    if let Ok(socket) = std::env::var("FAULTY_AGENT") {
        eprintln!("attack at {when}: another agent: {}", ask(&socket).unwrap_or_else(|error| error.to_string()));
    }
}

/// The status line of an agent's answer to a request for a payload.
fn ask(socket: &str) -> std::io::Result<String> {
    let mut agent = UnixStream::connect(socket)?;
    agent.write_all(b"POST /sign HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")?;
    let mut answer = String::new();
    agent.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// A child that ends at once.
unsafe fn fork() -> c_long {
    // SAFETY: the child makes one system call that is allowed after a fork.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(0),
            child if child > 0 => libc::waitpid(child, null_mut(), 0).into(),
            failed => failed.into(),
        }
    }
}

/// Runs a program in a child with shared memory, as posix_spawn(3) does, so that its error is visible.
unsafe fn exec(program: *const libc::c_char) -> c_long {
    // SAFETY: the arguments end with null. The call does not return on success, so a child makes it.
    unsafe {
        let mut child = 0;
        let error = libc::posix_spawn(
            &mut child,
            program,
            null(),
            null(),
            [program.cast_mut(), null_mut()].as_ptr(),
            [null_mut()].as_ptr(),
        );
        if error == 0 {
            return libc::waitpid(child, null_mut(), 0).into();
        }
        *libc::__errno_location() = error;
        -1
    }
}
