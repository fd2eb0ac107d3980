//! The output of a module. The parent reads it while it waits for the worker, and logs it line by line, escaped and
//! apart from its own output.
//!
//! Runs in the parent.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::text::printable_bytes;

/// The parent's end of the pipe that is a worker's standard output and standard error.
#[derive(Debug)]
pub(super) struct Output {
    /// `None` after its end.
    pipe: Option<OwnedFd>,
    /// The beginning of a line whose end has not arrived.
    pending: Vec<u8>,
    /// The last lines, escaped.
    last: VecDeque<String>,
}

/// The number of lines that are kept for an error.
const KEPT_LINES: usize = 3;

/// The state of the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputState {
    /// There may be more to read.
    MoreMayFollow,
    /// Nothing at present.
    Empty,
    /// The pipe has ended.
    Ended,
}

impl Output {
    /// Returns both ends, the worker's second.
    pub(super) fn pipe() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // Only our end: a module may expect its output to block when the pipe is full.
        rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::NONBLOCK)?;
        Ok((Self { pipe: Some(ours), pending: Vec::new(), last: VecDeque::new() }, theirs))
    }

    /// The descriptor to poll in addition to others; `None` after its end.
    pub(super) fn pipe_to_poll(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref()
    }

    /// Logs the available output, a limited amount at a time.
    pub(super) fn log(&mut self) -> OutputState {
        let mut buffer = [0; 4096];
        let Some(pipe) = &self.pipe else { return OutputState::Ended };
        match rustix::io::read(pipe, &mut buffer) {
            Ok(read @ 1..) => self.take(&buffer[..read]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return OutputState::Empty,
            Ok(0) | Err(_) => {
                self.end();
                return OutputState::Ended;
            }
        }
        OutputState::MoreMayFollow
    }

    /// Logs the remaining output, to the end of the pipe or until the time limit: an orphaned process may keep the pipe
    /// open.
    pub(super) fn log_to_the_end(&mut self, patience: Duration) {
        let patience = Deadline::after(patience);
        while let (Some(pipe), Some(left)) = (&self.pipe, patience.left()) {
            let timeout = left.try_into().ok();
            match poll(&mut [PollFd::new(pipe, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) => break,
                Ok(_) => _ = self.log(),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.end();
    }

    /// The last lines, in order.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.last.iter().rev().cloned().collect()
    }

    fn end(&mut self) {
        self.pipe = None;
        self.log_line();
    }

    /// The length of lines is limited.
    fn take(&mut self, bytes: &[u8]) {
        const LINE: usize = 400;
        for &byte in bytes {
            if byte == b'\n' || self.pending.len() == LINE {
                self.log_line();
            }
            if byte != b'\n' {
                self.pending.push(byte);
            }
        }
    }

    fn log_line(&mut self) {
        if !self.pending.is_empty() {
            let line = printable_bytes(&self.pending).to_string();
            tracing::debug!(target: "cba_agent::module", "module: {line}");
            self.pending.clear();
            self.last.truncate(KEPT_LINES - 1);
            self.last.push_front(line);
        }
    }
}
