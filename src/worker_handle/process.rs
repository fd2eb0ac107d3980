//! The process of a worker: how the parent starts, watches, kills and reaps it.
//!
//! Runs in the parent.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::output::{Output, OutputState};
use crate::os::environment::{INJECTED, LOADER};

/// The time limit for the end of a killed process. A process that hangs in a driver may never end.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// A worker that is started before its module is known, so that its start takes no time later. It gets only the
/// variables that the loader reads: it is not known yet which variable contains a PIN.
#[derive(Debug)]
pub(crate) struct PrestartedWorker {
    pub(super) process: WorkerProcess,
    pub(super) socket: UnixStream,
}

impl PrestartedWorker {
    /// Returns `None` if a variable of `INJECTED` is set, or if no worker can be started: the later start reports the error.
    #[must_use]
    pub(crate) fn start() -> Option<Self> {
        if INJECTED.iter().any(|name| std::env::var_os(name).is_some()) {
            return None;
        }
        let environment = LOADER.into_iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
        let (socket, theirs) = UnixStream::pair().ok()?;
        let process = WorkerProcess::start(environment.collect(), theirs).ok()?;
        Some(Self { process, socket })
    }
}

/// A started process in a separate process group. Dropping it kills the whole group.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    child: Child,
    /// Readable once the process has ended; `None` on kernels before 5.3.
    ended: Option<OwnedFd>,
    output: Output,
    reaped: bool,
}

/// The first event that [`WorkerProcess::wait_for`] sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitResult {
    Readable,
    /// The process has ended, and there is no more data.
    Ended,
    TimedOut,
}

impl WorkerProcess {
    /// Starts this program as a worker, with a socket as its standard input.
    ///
    /// It runs `/proc/self/exe`: after an upgrade, the path on disk is another program or missing.
    pub(super) fn start(environment: Vec<(OsString, OsString)>, socket: UnixStream) -> io::Result<Self> {
        let (output, theirs) = Output::pipe()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("cba-agent").arg("worker").stdin(OwnedFd::from(socket)).stdout(theirs.try_clone()?).stderr(theirs);
        // In a separate group, Ctrl-C reaches only the parent, and a kill also reaches processes that the module
        // forked.
        command.process_group(0);
        command.env_clear().envs(environment);
        let child = command.spawn()?;
        // The command holds copies of the child's descriptors. The parent sees the child's end only without them.
        drop(command);
        let mut process = Self { child, ended: None, output, reaped: false };
        process.ended = process.pid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(process)
    }

    /// Returns the descriptor for the end of the process, and the one for its output.
    pub(super) fn descriptors(&self) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        (self.ended.as_ref().map(AsFd::as_fd), self.output.pipe_to_poll().map(AsFd::as_fd))
    }

    /// The last lines of the output. Output that is still in the pipe is read first.
    pub(super) fn last_lines(&mut self) -> Vec<String> {
        while self.output.log() == OutputState::MoreMayFollow {}
        self.output.last_lines()
    }

    /// Logs a part of the output.
    pub(super) fn log_output(&mut self) -> OutputState {
        self.output.log()
    }

    /// Waits until the descriptor is readable, the process has ended, or the time is up. Meanwhile it logs the output.
    pub(super) fn wait_for(&mut self, descriptor: impl AsFd, most: Duration) -> io::Result<WaitResult> {
        self.wait(Some(descriptor.as_fd()), most)
    }

    /// Whether the process ends without a kill in this time. Meanwhile it logs the output.
    pub(super) fn ends_within(&mut self, patience: Duration) -> bool {
        self.ended.is_some() && matches!(self.wait(None, patience), Ok(WaitResult::Ended))
    }

    fn wait(&mut self, descriptor: Option<BorrowedFd<'_>>, most: Duration) -> io::Result<WaitResult> {
        let start = Instant::now();
        loop {
            let left = most.saturating_sub(start.elapsed());
            let timeout = left.try_into().map_err(io::Error::other)?;
            let (ended, output) = self.descriptors();
            // Data that was written before the end can still be read, so it comes first.
            let sources = [(descriptor, Some(WaitResult::Readable)), (ended, Some(WaitResult::Ended)), (output, None)];
            let sources = sources.into_iter().filter_map(|(source, result)| Some((source?, result)));
            let (mut watched, results): (Vec<_>, Vec<_>) =
                sources.map(|(source, result)| (PollFd::from_borrowed_fd(source, PollFlags::IN), result)).unzip();
            match poll(&mut watched, Some(&timeout)) {
                Ok(0) => return Ok(WaitResult::TimedOut),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            let mut ready = watched.iter().zip(results).filter(|(watched, _)| !watched.revents().is_empty());
            if let Some(result) = ready.find_map(|(_, result)| result) {
                return Ok(result);
            }
            if left.is_zero() {
                return Ok(WaitResult::TimedOut);
            }
            self.output.log();
        }
    }

    /// Describes the end of the process, for an error. Kills what is left of the process and of its children.
    pub(super) fn end(&mut self) -> String {
        self.ends_within(EXIT_TIMEOUT);
        self.kill();
        self.reap().map_or_else(|| "it cannot be ended".into(), |status| describe(&status))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Kills what is left of the process and of its children, and does not wait. The process is not reaped yet, so its
    /// ID still belongs to this child and its group.
    pub(super) fn kill(&mut self) {
        if let (Some(pid), false) = (self.pid(), self.reaped) {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = self.child.kill();
        }
    }

    /// Returns `None` if the process does not end in time even after a kill.
    fn reap(&mut self) -> Option<ExitStatus> {
        if self.ended.is_some() && !self.ends_within(EXIT_TIMEOUT) {
            return None;
        }
        let status = self.child.wait().ok();
        self.reaped = status.is_some();
        status
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            self.reap();
        }
        // The last output may explain the end. A process that the module left behind must not block the parent.
        self.output.log_to_the_end(Duration::from_millis(200));
    }
}

fn describe(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(signal)) => format!("killed by signal {signal}"),
        (Some(code), _) => format!("exit status {code}"),
        _ => "no exit status".into(),
    }
}
