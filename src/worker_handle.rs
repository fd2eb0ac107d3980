//! The parent's side of a worker: one request at a time, its reply, its deadline.
//!
//! Runs in the parent. A handle trusts nothing that comes from the worker. Frames have a size limit, replies have a
//! deadline, and a reply of the wrong kind ends the worker. Dropping a handle kills the worker and everything that its
//! module started.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::deadline::Deadline;
use crate::pin::Pin;
use crate::worker_protocol::bounds;
use crate::worker_protocol::step::Step;
use crate::worker_protocol::{self, FrameError, FrameKind, HEADER, WorkerReply, WorkerRequest};

mod environment;
mod error;
mod output;
mod process;
mod start;

pub(crate) use environment::{WorkerEnvironment, withheld};
pub(crate) use error::WorkerError;
pub(crate) use output::OutputState;
pub(crate) use process::PrestartedWorker;

use process::{WaitResult, WorkerProcess};

/// The time limit for a worker to log out, finalize and exit.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The size of one read, in bytes. Nearly every reply fits into it.
const CHUNK: usize = 8192;

/// After this time without a reply, the token may be waiting for a person.
const TOUCH_NOTICE: Duration = Duration::from_secs(1);

/// How much of a reply has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyState {
    /// No complete frame yet.
    Pending,
    /// A complete frame: [`WorkerHandle::wait_reply`] does not block.
    Complete,
    /// The worker ended or broke the protocol. [`WorkerHandle::wait_reply`] returns the reason, and may wait for the end of
    /// the process.
    Broken,
}

/// Copies of the descriptors that become readable when the worker sends a reply, writes output or ends. An event loop
/// waits for them.
#[derive(Debug)]
pub(crate) struct WorkerDescriptors {
    pub replies: OwnedFd,
    /// The end of the worker's process; `None` on kernels before 5.3.
    pub end: Option<OwnedFd>,
    /// The output of the module; `None` after its end.
    pub output: Option<OwnedFd>,
}

#[derive(Debug)]
pub(crate) struct WorkerHandle {
    process: WorkerProcess,
    socket: UnixStream,
    /// The function that tells the user that the token may be waiting for a person.
    long_wait_notice: Option<fn()>,
    /// The step of the current request, until its last reply has arrived.
    pending_step: Option<Step>,
    /// Whether the current request includes a login that the worker has not announced yet.
    login_is_due: bool,
    /// Whether the worker announced a login since the last request was sent.
    login_started: bool,
    /// Whether the module writes a debug log, or the parent logs the module's output at the level debug. The worker then
    /// exits normally, so that no line is lost.
    writes_logs: bool,
    /// Bytes of replies that are not decoded yet.
    received: Vec<u8>,
}

impl WorkerHandle {
    /// Sets a function that is called once for each login or signature that takes longer than a second.
    pub(crate) fn on_long_wait(&mut self, notice: fn()) {
        self.long_wait_notice = Some(notice);
    }

    /// The process ID of the worker, for the log.
    #[must_use]
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Whether the worker announced a login since the last request was sent. If not, a PIN in that request used up no
    /// try.
    #[must_use]
    pub(crate) fn login_started(&self) -> bool {
        self.login_started
    }

    /// The step of the current request, until its last reply has arrived.
    #[must_use]
    pub(crate) fn pending_step(&self) -> Option<Step> {
        self.pending_step
    }

    /// Returns the descriptors that an event loop waits for.
    ///
    /// # Errors
    /// When the process has no free descriptor.
    pub(crate) fn descriptors(&self) -> io::Result<WorkerDescriptors> {
        let copy = |descriptor: BorrowedFd<'_>| descriptor.try_clone_to_owned();
        let (end, output) = self.process.descriptors();
        Ok(WorkerDescriptors {
            replies: copy(self.socket.as_fd())?,
            end: end.map(copy).transpose()?,
            output: output.map(copy).transpose()?,
        })
    }

    /// Receives the available part of the reply, and never waits.
    pub(crate) fn poll_reply(&mut self) -> ReplyState {
        let Some(step) = self.pending_step else { return ReplyState::Broken };
        let mut chunk = [0; CHUNK];
        loop {
            match self.frame_end(step) {
                Ok(Some(_)) => return ReplyState::Complete,
                Ok(None) => {}
                Err(_) => return ReplyState::Broken,
            }
            match recv(&self.socket, &mut chunk, RecvFlags::DONTWAIT) {
                Ok((read @ 1.., _)) => self.received.extend_from_slice(&chunk[..read]),
                Err(Errno::AGAIN) => return ReplyState::Pending,
                Err(Errno::INTR) => {}
                _ => return ReplyState::Broken,
            }
        }
    }

    /// The last lines of the module's output. Call this only before the module receives a PIN: later, the output could
    /// contain it.
    #[must_use]
    pub(crate) fn last_lines(&mut self) -> Vec<String> {
        self.process.last_lines()
    }

    /// Logs a part of the module's output.
    pub(crate) fn log_output(&mut self) -> OutputState {
        self.process.log_output()
    }

    /// Sends a request, with the PIN if the request announces one, and waits for the reply.
    ///
    /// # Errors
    /// The module's error, or the reason why there is no reply.
    pub(crate) fn call(
        &mut self,
        request: &WorkerRequest,
        pin: Option<&Pin>,
        deadline: &Deadline,
    ) -> Result<WorkerReply, WorkerError> {
        self.finish_last_request(deadline)?;
        self.deliver(request, pin)?;
        self.wait_reply(deadline)
    }

    /// Sends a request without a PIN, and never waits. If the worker does not take it, [`WorkerHandle::wait_reply`] returns
    /// the error.
    pub(crate) fn send(&mut self, request: &WorkerRequest) {
        debug_assert!(self.pending_step.is_none(), "the last request has no reply yet");
        self.expect(request);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent =
            worker_protocol::encode(request).is_ok_and(|frame| send(&self.socket, &frame, flags) == Ok(frame.len()));
        if !sent {
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Waits for the next reply to the current request.
    pub(crate) fn wait_reply(&mut self, deadline: &Deadline) -> Result<WorkerReply, WorkerError> {
        let Some(step) = self.pending_step else { return Err(self.protocol_error(Step::Start)) };
        let reply = self.receive(step, deadline);
        // After these errors, the reply is still missing. The next call waits for it, and fails if the worker ended.
        let more_follows = matches!(
            &reply,
            Ok(WorkerReply::Confined(_) | WorkerReply::ContextAccepted { .. })
                | Err(WorkerError::Died { .. } | WorkerError::TimedOut { .. } | WorkerError::Socket(_))
        );
        self.pending_step = self.pending_step.filter(|_| more_follows);
        match reply? {
            WorkerReply::Failed(fault) => Err(fault.into()),
            reply => Ok(reply),
        }
    }

    /// Waits for the missing replies to the last request, if there are any, and drops them.
    fn finish_last_request(&mut self, deadline: &Deadline) -> Result<(), WorkerError> {
        while self.pending_step.is_some() {
            match self.wait_reply(deadline) {
                Err(error) if self.pending_step.is_some() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Kills the worker after a reply of the wrong kind, and returns the error.
    #[must_use]
    pub(crate) fn protocol_error(&mut self, step: Step) -> WorkerError {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        self.process.kill();
        WorkerError::ProtocolError { step }
    }

    /// Tells the worker to log out, finalize and exit, within two seconds in total. Then kills what is left.
    pub(crate) fn close(mut self) {
        let deadline = Deadline::after(CLOSE_TIMEOUT);
        if self.pending_step != Some(Step::Close) {
            if self.finish_last_request(&deadline).is_err() {
                return;
            }
            self.start_close();
        }
        if self.wait_reply(&deadline).is_ok() && self.writes_logs {
            self.process.ends_within(deadline.left().unwrap_or_default());
        }
    }

    /// Tells the worker to log out and exit, and does not wait. [`WorkerHandle::close`] waits for it.
    pub(crate) fn start_close(&mut self) {
        self.send(&self.close_request());
    }

    /// Returns the request to close the worker. After finalization, only the exit handlers of the module's libraries are
    /// left, and these may hang or crash. The worker skips them, unless they may still write a part of a log.
    fn close_request(&self) -> WorkerRequest {
        WorkerRequest::Close { skip_exit_handlers: !self.writes_logs }
    }

    fn expect(&mut self, request: &WorkerRequest) {
        self.pending_step = Some(Step::of(request));
        self.login_started = false;
        self.login_is_due = matches!(request, WorkerRequest::Login(_) | WorkerRequest::Sign { context: Some(_), .. });
    }

    fn deliver(&mut self, request: &WorkerRequest, pin: Option<&Pin>) -> Result<(), WorkerError> {
        self.expect(request);
        self.write(request, pin).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.died(Step::of(request)),
            _ => WorkerError::Socket(error),
        })
    }

    fn write(&mut self, request: &WorkerRequest, pin: Option<&Pin>) -> io::Result<()> {
        let frame = worker_protocol::encode(request).map_err(io::Error::other)?;
        let Some(pin) = pin else { return self.socket.write_all(&frame) };
        let pin = pin.expose().as_bytes();
        let header = worker_protocol::header(FrameKind::Pin, pin.len()).map_err(io::Error::other)?;
        // The PIN is sent from its own buffer, so that there is no copy. One call sends all parts, so that the worker
        // wakes up once.
        let parts = [&frame[..], &header, pin];
        let written = self.socket.write_vectored(&parts.map(IoSlice::new))?;
        let total = parts.iter().map(|part| part.len()).sum::<usize>();
        if written == total { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&mut self, step: Step, deadline: &Deadline) -> Result<WorkerReply, WorkerError> {
        loop {
            let end = self.wait_frame(step, deadline)?;
            let frame: Vec<u8> = self.received.drain(..end).skip(HEADER).collect();
            let mut reply = worker_protocol::decode(&frame)?;
            bounds::check(&mut reply)?;
            // The caller gets a login that it did not request, or a second one, and ends the worker.
            if reply != WorkerReply::LoginBegins || !std::mem::take(&mut self.login_is_due) {
                return Ok(reply);
            }
            self.login_started = true;
        }
    }

    /// The end of the first received frame; `None` while it is incomplete.
    fn frame_end(&self, step: Step) -> Result<Option<usize>, FrameError> {
        let Some(header) = self.received.first_chunk::<HEADER>() else { return Ok(None) };
        let end = HEADER + worker_protocol::length(*header, FrameKind::Message, step.reply_limit())?;
        Ok(Some(end).filter(|end| self.received.len() >= *end))
    }

    /// Waits for a complete frame, and returns its end. It reads available data even after the deadline: the reply may have
    /// arrived in time, and the parent may read it late.
    fn wait_frame(&mut self, step: Step, deadline: &Deadline) -> Result<usize, WorkerError> {
        let mut chunk = [0; CHUNK];
        let mut notice =
            self.long_wait_notice.filter(|_| step.waits_for_person()).map(|notice| (notice, Instant::now()));
        loop {
            if let Some(end) = self.frame_end(step)? {
                return Ok(end);
            }
            let left = deadline.left().unwrap_or_default();
            let until_notice = |(_, since): (fn(), Instant)| TOUCH_NOTICE.saturating_sub(since.elapsed());
            let wait = notice.map_or(left, |notice| left.min(until_notice(notice).max(Duration::from_millis(1))));
            match self.process.wait_for(&self.socket, wait).map_err(WorkerError::Socket)? {
                WaitResult::Readable => match self.socket.read(&mut chunk) {
                    Ok(0) => return Err(self.died(step)),
                    Ok(read) => self.received.extend_from_slice(&chunk[..read]),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(self.died(step)),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(WorkerError::Socket(error)),
                },
                WaitResult::Ended => return Err(self.died(step)),
                WaitResult::TimedOut if deadline.left().is_none() => {
                    return Err(WorkerError::TimedOut { step, timeout: deadline.timeout() });
                }
                WaitResult::TimedOut => {
                    if let Some((show_notice, _)) = notice.take_if(|(_, since)| since.elapsed() >= TOUCH_NOTICE) {
                        show_notice();
                    }
                }
            }
        }
    }

    fn died(&mut self, step: Step) -> WorkerError {
        WorkerError::Died { step, how: self.process.end() }
    }
}
