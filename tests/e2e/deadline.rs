//! Waits of tests. Every wait ends: if the event does not happen, the test fails and names the caller.
//!
//! This file sets no speed requirement: `PATIENCE` only ends a test that would hang.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Longer than any event in these tests takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Repeats until the condition is true. For files and `/proc`, which have no events.
#[track_caller]
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "this did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for the end of a process. Kills it and fails if it does not end.
pub(crate) trait Finish {
    #[track_caller]
    fn finish(self) -> Output;
}

impl Finish for &mut Command {
    /// Runs the command without input, and returns its output.
    #[track_caller]
    fn finish(self) -> Output {
        let program = self.get_program().to_owned();
        let child = self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        child.unwrap_or_else(|error| panic!("{program:?} cannot run: {error}")).finish()
    }
}

impl Finish for Child {
    #[track_caller]
    fn finish(mut self) -> Output {
        drop(self.stdin.take());
        let (stdout, stderr) = (self.stdout.take().map(read), self.stderr.take().map(read));
        let ended = ended_in_time(&mut self);
        let collect = |output: Option<Receiver<Vec<u8>>>| {
            let output = output.map(|output| output.recv_timeout(PATIENCE));
            output.transpose().expect("a process that outlived the command keeps its output open").unwrap_or_default()
        };
        let (stdout, stderr) = (collect(stdout), collect(stderr));
        let said = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        let status = ended.unwrap_or_else(|| panic!("killed: it did not end within {PATIENCE:?}: {said:?}"));
        Output { status, stdout, stderr }
    }
}

/// The status of a process without its output.
#[track_caller]
pub(crate) fn status(child: &mut Child) -> ExitStatus {
    ended_in_time(child).unwrap_or_else(|| panic!("killed: it did not end within {PATIENCE:?}"))
}

fn read(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        let _ = send.send(all);
    });
    receive
}

/// `None` where the process had to be killed.
fn ended_in_time(child: &mut Child) -> Option<ExitStatus> {
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    let end = Instant::now() + PATIENCE;
    // A process that was already waited for has no descriptor.
    if let Ok(process) = pidfd_open(id, PidfdFlags::empty()) {
        while child.try_wait().unwrap().is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            let left = Timespec::try_from(left).unwrap();
            // A signal may interrupt it, so it is repeated.
            let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left));
        }
    }
    Some(child.wait().unwrap())
}
