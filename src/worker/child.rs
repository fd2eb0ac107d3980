//! The process of a worker: how it is started, watched, killed and waited for, and what becomes of its output.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use zeroize::Zeroizing;

use crate::deadline::Deadline;
use crate::printable::printable_bytes;

/// How long a killed process may take to be gone; one in the depths of a driver takes for ever.
const GONE: Duration = Duration::from_secs(2);

/// Variables by which vendors' modules write logs that hold the PIN.
pub(super) const MODULE_DEBUG: [&str; 19] = [
    "CKNFAST_DEBUG",
    "CKNFAST_DEBUGFILE",
    "CS_PKCS11_LOG",
    "KRYOPTIC_LOG",
    "MUSCLE_DEBUG",
    "OPENCRYPTOKI_TRACE_LEVEL",
    "OPENSC_DEBUG",
    "P11_KIT_DEBUG",
    "P11_KIT_STRICT",
    "PCSCLITE_DEBUG",
    "PKCS11SPY",
    "PKCS11SPY_OUTPUT",
    "PKCS11_PROVIDER_DEBUG",
    "RUST_LOG",
    "TPM2_PKCS11_LOG_LEVEL",
    "TSS2_LOG",
    "YKCS11_DBG",
    "YKPIV_DEBUG",
    "YUBIHSM_PKCS11_DBG",
];

/// Variables by which the front talks to systemd; a module has no business there.
const SERVICE: [&str; 6] =
    ["LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// How to start a worker.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// Variables in which the user put a PIN; the worker does not get them.
    pub pin_variables: Vec<OsString>,
    /// Whether vendors' debug variables reach the module.
    pub module_debug: bool,
}

impl Launch {
    /// What the worker inherits of this process's environment. A PIN's copy is wiped and not only left out.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let is_withheld = |name: &OsStr| {
            SERVICE.iter().any(|other| name == *other)
                || (!self.module_debug && MODULE_DEBUG.iter().any(|other| name == *other))
        };
        let mut inherited = Vec::new();
        for (name, value) in std::env::vars_os() {
            if self.pin_variables.contains(&name) {
                drop(Zeroizing::new(value.into_vec()));
            } else if !is_withheld(&name) {
                inherited.push((name, value));
            }
        }
        inherited
    }
}

/// A started process, in a process group of its own, killed with all of that group when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Readable once the process has ended; none on kernels before 5.3.
    ended: Option<OwnedFd>,
    /// Ends when the module's output was logged to its end.
    output: Receiver<()>,
    reaped: bool,
}

/// What [`Process::wait_for`] saw first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The descriptor can be read.
    Readable,
    /// The process has ended, and there is nothing to read.
    Ended,
    /// The time is up.
    TimedOut,
}

impl Process {
    /// Starts this program as a worker, with a socket as its standard input.
    ///
    /// The file is `/proc/self/exe`: after an upgrade the path on disk is another program, or gone.
    pub(super) fn start(launch: &Launch, socket: UnixStream) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("cba-agent")
            .arg("worker")
            .stdin(OwnedFd::from(socket))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A group of its own: Ctrl-C goes to the front, and a kill reaches what the module forked.
        command.process_group(0);
        command.env_clear().envs(launch.environment());
        let mut child = command.spawn()?;
        // It holds a copy of the child's socket; without it, the end of the child is seen.
        drop(command);
        let (done, output) = channel();
        let streams: [Option<Box<dyn io::Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let done = done.clone();
            std::thread::spawn(move || log_output(stream, &done));
        }
        let mut process = Self { child, ended: None, output, reaped: false };
        process.ended = process.pid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(process)
    }

    /// Waits until the descriptor can be read, the process has ended, or so long; without a limit where none is given.
    pub(super) fn wait_for(&self, descriptor: impl AsFd, most: Option<Duration>) -> io::Result<Event> {
        let descriptor = descriptor.as_fd();
        let mut watched = vec![PollFd::new(&descriptor, PollFlags::IN)];
        watched.extend(self.ended.as_ref().map(|ended| PollFd::new(ended, PollFlags::IN)));
        let timeout = most.map(TryInto::try_into).transpose().map_err(io::Error::other)?;
        match poll(&mut watched, timeout.as_ref()) {
            Ok(0) => Ok(Event::TimedOut),
            // What was written before the end is still there to be read.
            Ok(_) if !watched[0].revents().is_empty() => Ok(Event::Readable),
            Ok(_) => Ok(Event::Ended),
            Err(rustix::io::Errno::INTR) => Ok(Event::TimedOut),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the process has ended by itself within so long.
    pub(super) fn ends_within(&self, patience: Duration) -> bool {
        let Some(ended) = &self.ended else { return false };
        let Ok(timeout) = patience.try_into() else { return false };
        poll(&mut [PollFd::new(ended, PollFlags::IN)], Some(&timeout)).is_ok_and(|count| count > 0)
    }

    /// How the process ended, for an error; kills whatever is left of it and of what it started.
    pub(super) fn end(&mut self) -> String {
        self.ends_within(GONE);
        self.kill();
        self.reap().map_or_else(|| "it cannot be ended".into(), |status| describe(&status))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Not yet waited for, so the number is still the child's, and its group's.
    fn kill(&mut self) {
        if let (Some(pid), false) = (self.pid(), self.reaped) {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = self.child.kill();
        }
    }

    /// `None` for a process that not even a kill ends in time.
    fn reap(&mut self) -> Option<ExitStatus> {
        if self.ended.is_some() && !self.ends_within(GONE) {
            return None;
        }
        let status = self.child.wait().ok();
        self.reaped = status.is_some();
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            self.reap();
        }
        // What the module said last may explain its end; a process that it left behind must not hold us up.
        let patience = Deadline::after(Duration::from_millis(200));
        while let Some(left) = patience.left() {
            if self.output.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
    }
}

fn describe(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(signal)) => format!("killed by signal {signal}"),
        (Some(code), _) => format!("exit status {code}"),
        _ => "no exit status".into(),
    }
}

/// Logs a stream of the child line by line, each line bounded; never mixed into the front's own output raw.
fn log_output(mut stream: Box<dyn io::Read + Send>, _done: &Sender<()>) {
    const LINE: usize = 400;
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            break;
        }
        for &byte in &buffer[..read] {
            if byte == b'\n' || pending.len() == LINE {
                log_line(&mut pending);
            }
            if byte != b'\n' {
                pending.push(byte);
            }
        }
    }
    log_line(&mut pending);
}

fn log_line(pending: &mut Vec<u8>) {
    if !pending.is_empty() {
        tracing::debug!(target: "cba_agent::module", "module: {}", printable_bytes(pending));
        pending.clear();
    }
}
