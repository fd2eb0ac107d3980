//! Writes lines to stderr on a separate thread.
//!
//! Runs in both processes. Stderr may be full, closed, slow or never read. The program must not end, wait or sign late
//! because of that. So a caller only puts its line into a bounded queue. The thread writes the lines in order, and
//! reports how many were lost. Deliberately absent: the format of a line.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// The size of the queue in bytes. A line beyond it is lost.
const QUEUE: usize = 1 << 20;

/// The cost of a line in the queue, besides its bytes.
const LINE: usize = 64;

/// The text that reports lost lines.
pub(super) type Notice = fn(lost: u64) -> String;

/// The queue and its thread, which starts with the first line.
pub(super) struct Writer {
    state: Mutex<QueueState>,
    changed: Condvar,
}

struct QueueState {
    lines: VecDeque<LogLine>,
    bytes: usize,
    /// Lines that were lost since the last one in the queue.
    lost: u64,
    notice: Notice,
    thread: WriterThread,
    /// Whether the thread writes a line. It looks into the queue again afterwards, so nobody has to wake it.
    is_writing: bool,
    /// The number of threads in [`Writer::flush`], which a written line wakes.
    flushing: usize,
}

/// A line, and the number of lines that were lost before it.
struct LogLine {
    text: String,
    lost: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriterThread {
    NotStarted,
    Running(thread::ThreadId),
    /// The system could not start a thread: the lines wait for [`Writer::flush`].
    Refused,
}

impl Writer {
    pub(super) const fn new(notice: Notice) -> Self {
        Self {
            state: Mutex::new(QueueState {
                lines: VecDeque::new(),
                bytes: 0,
                lost: 0,
                notice,
                thread: WriterThread::NotStarted,
                is_writing: false,
                flushing: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Sets the text that reports lost lines from now on.
    pub(super) fn report_lost_lines_by(&self, notice: Notice) {
        self.lock().notice = notice;
    }

    /// Puts a line into the queue. A full queue accepts only urgent lines.
    pub(super) fn push(&'static self, text: String, urgent: bool) {
        let mut state = self.lock();
        let bytes = text.len() + LINE;
        if state.bytes + bytes > QUEUE && !urgent {
            state.lost += 1;
        } else {
            state.bytes += bytes;
            let lost = std::mem::take(&mut state.lost);
            state.lines.push_back(LogLine { text, lost });
        }
        if state.thread == WriterThread::NotStarted {
            let started = thread::Builder::new().name("log".into()).spawn(|| self.run());
            state.thread =
                started.map_or(WriterThread::Refused, |started| WriterThread::Running(started.thread().id()));
        }
        let thread_waits = !state.is_writing;
        drop(state);
        if thread_waits {
            self.changed.notify_all();
        }
    }

    /// Waits until everything is written, but no longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        if state.thread == WriterThread::Running(thread::current().id()) {
            return;
        }
        if state.thread == WriterThread::Refused {
            while let Some((text, _)) = state.next(0) {
                write_until(end, rustix::stdio::stderr(), text.as_bytes());
            }
        }
        state.flushing += 1;
        while !state.lines.is_empty() || state.lost > 0 || state.is_writing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.thread == WriterThread::NotStarted {
                break;
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        state.flushing -= 1;
    }

    fn run(&self) {
        // Other threads handle signals. SIGTTOU and SIGXFSZ would stop or end the process because of a log line.
        let _ = SigSet::all().thread_block();
        self.write_all_to(rustix::stdio::stderr());
    }

    /// Writes the lines in the queue, and all later ones.
    fn write_all_to(&self, stderr: BorrowedFd<'_>) {
        let (mut failed, mut is_in_a_line) = (0, false);
        loop {
            let (text, lines) = self.wait_for_a_line(failed);
            // A failed write may have left the beginning of a line.
            let text = if is_in_a_line { format!("\n{text}") } else { text };
            let written = write(stderr, text.as_bytes());
            failed = if written == text.len() { 0 } else { lines };
            if written > 0 {
                is_in_a_line = text.as_bytes()[written - 1] != b'\n';
            }
        }
    }

    /// The next line with the notice before it, and the number of lines that are lost if it cannot be written.
    fn wait_for_a_line(&self, failed: u64) -> (String, u64) {
        let mut state = self.lock();
        state.is_writing = false;
        if state.flushing > 0 {
            self.changed.notify_all();
        }
        loop {
            if let Some(next) = state.next(failed) {
                state.is_writing = true;
                return next;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    fn next(&mut self, failed: u64) -> Option<(String, u64)> {
        let line = self.lines.pop_front();
        if line.is_none() && self.lost == 0 {
            return None;
        }
        let lost = failed + line.as_ref().map_or_else(|| std::mem::take(&mut self.lost), |line| line.lost);
        let notice = if lost > 0 { (self.notice)(lost) } else { String::new() };
        let Some(LogLine { text, .. }) = line else { return Some((notice, lost)) };
        self.bytes -= text.len() + LINE;
        Some((notice + &text, lost + 1))
    }
}

/// Writes until the end or the first error, and returns how many bytes were written.
fn write(stderr: BorrowedFd<'_>, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(stderr, &bytes[written..]) {
            Ok(more @ 1..) => written += more,
            Err(Errno::INTR) => {}
            // Another process made this open file non-blocking.
            Err(Errno::AGAIN) => _ = poll(&mut [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)], None),
            Ok(0) | Err(_) => break,
        }
    }
    written
}

/// Writes without a thread, in pieces that fit into a pipe, and gives up at `end`.
pub(super) fn write_until(end: Instant, stderr: BorrowedFd<'_>, bytes: &[u8]) {
    for piece in bytes.chunks(512) {
        let Ok(left) = end.saturating_duration_since(Instant::now()).try_into() else { return };
        let mut watched = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
        let has_room = poll(&mut watched, Some(&left)).is_ok_and(|ready| ready > 0);
        if !has_room || write(stderr, piece) < piece.len() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead as _, BufReader};
    use std::os::fd::AsFd as _;

    use super::*;

    /// Lines go into an unread pipe until lines are lost. Then the test reads the pipe.
    #[test]
    fn a_reader_that_stops_loses_lines_which_are_counted_and_no_line_is_out_of_order() {
        let (reading, writing) = rustix::pipe::pipe().unwrap();
        let writer: &'static Writer = Box::leak(Box::new(Writer::new(|lost| format!("{lost} lost\n"))));
        writer.lock().thread = WriterThread::Running(thread::current().id());
        thread::spawn(move || writer.write_all_to(writing.as_fd()));
        let mut sent = 0_u64;
        while writer.lock().lost < 100 {
            writer.push(format!("line {sent} {}\n", "x".repeat(1000)), false);
            sent += 1;
        }
        let mut lines = BufReader::new(File::from(reading)).lines().map(Result::unwrap);
        let (mut next, mut lost) = (0, 0);
        while next < sent {
            let line = lines.next().unwrap();
            match line.strip_suffix(" lost") {
                Some(count) => {
                    let count: u64 = count.parse().unwrap();
                    next += count;
                    lost += count;
                }
                None => {
                    assert_eq!(line.split(' ').nth(1).unwrap(), next.to_string());
                    next += 1;
                }
            }
        }
        // Also those that were lost before the thread had written its first lines.
        assert!(next == sent && lost >= 100, "{next} {sent} {lost}");
    }

    #[test]
    fn a_line_after_failed_writes_begins_on_its_own_line_and_reports_them() {
        let writer = Writer::new(|lost| format!("{lost} lost\n"));
        let mut state = writer.lock();
        state.lines.push_back(LogLine { text: "a\n".into(), lost: 2 });
        state.bytes += 2 + LINE;
        assert_eq!(state.next(3), Some(("5 lost\na\n".into(), 6)));
        assert_eq!(state.next(6), None);
    }
}
