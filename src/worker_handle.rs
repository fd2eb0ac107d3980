//! The front's end of a worker: requests, answers, deadlines.
//!
//! Runs in the parent. A handle trusts nothing that comes from the child: frames have a limit, answers a deadline, and
//! an answer of the wrong kind ends the worker. Dropping a handle kills the child and everything that its module
//! started.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::deadline::Deadline;
use crate::pin::Pin;
use crate::worker_protocol::bounds;
use crate::worker_protocol::{self, Reply, Request, SandboxReport, Variable, WireError};

mod error;
mod output;
mod process;

pub use error::HandleError;
pub use output::Rest;
pub use process::{Launch, Spare};

use process::{Event, MODULE_DEBUG, Process};

/// How long a worker may take to end in good order.
const END: Duration = Duration::from_secs(2);

/// The length of a frame, before it.
const HEADER: usize = 4;

/// What is read at once, in bytes: nearly every answer.
const CHUNK: usize = 8192;

/// After this long without an answer, a person may be awaited at the token.
const TOUCH_NOTICE: Duration = Duration::from_secs(1);

/// What has come of a request that was foreseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing yet, or not all of it.
    None,
    /// A whole answer that begins as a signature does, so that the call for it will not wait.
    Signed,
    /// A failure, or the end, or what nobody asked for: the call may wait, and so may what follows from it.
    Other,
}

/// What can be read when a worker has something to say: for a loop that waits for much else, in copies.
#[derive(Debug)]
pub struct Descriptors {
    /// Its answers.
    pub answers: OwnedFd,
    /// Its end; none on kernels before 5.3.
    pub end: Option<OwnedFd>,
    /// What its module prints; none once that has ended.
    pub output: Option<OwnedFd>,
}

/// What a worker is to load.
#[derive(Clone, Debug)]
pub struct Load {
    /// The module's absolute path.
    pub module: PathBuf,
    /// The sandbox profile for it, where there is one.
    pub profile: Option<String>,
}

/// A running worker.
#[derive(Debug)]
pub struct Handle {
    process: Process,
    socket: UnixStream,
    waiting: Option<fn()>,
    /// Requests that were sent before anybody asked for their answers.
    ahead: VecDeque<Request>,
    /// Whether the worker told the module to log in since the last request.
    login_begun: bool,
    /// Whether the module's output or its debug log is wanted to its end.
    writes_logs: bool,
    /// What was read and not yet looked at: mostly a whole frame with its length.
    read: Vec<u8>,
}

impl Handle {
    /// Starts a worker, or takes one that was started before, and has it load a module, whose answer is had from
    /// [`Handle::answer`]. Call it only from a thread that lives as long as the worker may: the child dies with the thread
    /// that started it.
    ///
    /// # Errors
    /// [`HandleError::Spawn`], or [`HandleError::Stranger`] when what runs is not this program.
    pub fn spawn(launch: &Launch, spare: Option<Spare>, load: Load, deadline: &Deadline) -> Result<Self, HandleError> {
        let Load { module, profile } = load;
        match spare {
            Some(spare) => {
                let environment = launch.environment().into_iter().map(Variable::from).collect();
                Self::begin(launch, spare, &Request::Open { module, profile, environment: Some(environment) }, deadline)
            }
            None => {
                let open = Request::Open { module, profile, environment: None };
                Self::begin(launch, Self::process_for(launch)?, &open, deadline)
            }
        }
    }

    /// Has a worker ask pcscd through the installed libpcsclite, which finds it at this socket; the worker ends with it.
    ///
    /// # Errors
    /// As [`Handle::spawn`], or when there is no such library.
    pub fn ask_pcscd(launch: &Launch, socket: &Path, deadline: &Deadline) -> Result<u32, HandleError> {
        let request = Request::AskPcscd { socket: socket.to_owned() };
        let mut handle = Self::begin(launch, Self::process_for(launch)?, &request, deadline)?;
        let doing = "asking pcscd";
        match handle.receive(doing, deadline)? {
            Reply::PcscdAnswered { code } => Ok(code),
            Reply::Failed(fault) => Err(fault.into()),
            _ => Err(handle.out_of_turn(doing)),
        }
    }

    fn process_for(launch: &Launch) -> Result<Spare, HandleError> {
        let (socket, theirs) = UnixStream::pair().map_err(HandleError::Spawn)?;
        let process = Process::start(launch.environment(), theirs).map_err(HandleError::Spawn)?;
        Ok(Spare { process, socket })
    }

    /// Sends a started worker its first request, and sees that it is this program.
    fn begin(launch: &Launch, started: Spare, request: &Request, deadline: &Deadline) -> Result<Self, HandleError> {
        let Spare { process, socket } = started;
        let writes_logs = launch.module_debug || tracing::enabled!(tracing::Level::DEBUG);
        let (waiting, ahead, login_begun, read) = (None, VecDeque::new(), false, Vec::new());
        let mut handle = Self { process, socket, waiting, ahead, login_begun, writes_logs, read };
        handle.deliver(request, None)?;
        match handle.receive("start", deadline) {
            Ok(Reply::Hello { build }) if build == worker_protocol::BUILD => Ok(handle),
            Ok(_) | Err(HandleError::Wire(_)) => Err(HandleError::Stranger),
            Err(error) => Err(error),
        }
    }

    /// Calls this once whenever a login or a signature takes more than a second.
    pub fn when_waiting(&mut self, notice: fn()) {
        self.waiting = Some(notice);
    }

    /// The worker's process, for the log.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Whether the module was told to log in since the last request; if not, a PIN that was sent has spent no try.
    #[must_use]
    pub fn login_begun(&self) -> bool {
        self.login_begun
    }

    /// What to wait for in a loop.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn descriptors(&self) -> io::Result<Descriptors> {
        let copy = |descriptor: BorrowedFd<'_>| descriptor.try_clone_to_owned();
        let (end, output) = self.process.descriptors();
        Ok(Descriptors {
            answers: copy(self.socket.as_fd())?,
            end: end.map(copy).transpose()?,
            output: output.map(copy).transpose()?,
        })
    }

    /// Reads what is there of an answer, without waiting.
    pub fn look(&mut self) -> Progress {
        let mut chunk = [0; CHUNK];
        if self.ahead.is_empty() {
            return Progress::Other;
        }
        loop {
            match self.frame_end() {
                Ok(Some(end)) if end <= CHUNK && worker_protocol::is_signed(&self.read[HEADER..end]) => {
                    return Progress::Signed;
                }
                Ok(None) if self.read.len() < CHUNK => {}
                _ => return Progress::Other,
            }
            match recv(&self.socket, &mut chunk, RecvFlags::DONTWAIT) {
                Ok((read @ 1.., _)) => self.read.extend_from_slice(&chunk[..read]),
                Err(Errno::AGAIN) => return Progress::None,
                Err(Errno::INTR) => {}
                _ => return Progress::Other,
            }
        }
    }

    /// The last lines that the module has printed. Ask only before it was given a PIN.
    #[must_use]
    pub fn last_lines(&mut self) -> Vec<String> {
        self.process.last_lines()
    }

    /// Logs what the module has printed, some of it at a time.
    pub fn log_output(&mut self) -> Rest {
        self.process.log_output()
    }

    /// Sends a request, with its PIN where it announces one, and waits for the answer.
    ///
    /// # Errors
    /// What the module answered, or why there is no answer.
    pub fn call(&mut self, request: &Request, pin: Option<&Pin>, deadline: &Deadline) -> Result<Reply, HandleError> {
        while let Some(ahead) = self.ahead.pop_front() {
            if ahead == *request {
                return self.answer(name_of(request), deadline);
            }
            // What was foreseen did not come.
            self.receive(name_of(&ahead), deadline)?;
        }
        self.deliver(request, pin)?;
        self.answer(name_of(request), deadline)
    }

    /// Has the worker begin what [`Handle::call`] will most likely be asked for next, or after what was foreseen before.
    /// What fails here fails there.
    pub fn foresee(&mut self, request: Request) {
        self.login_begun = false;
        // Never waits: a worker that reads nothing is none.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent =
            worker_protocol::encode(&request).is_ok_and(|frame| send(&self.socket, &frame, flags) == Ok(frame.len()));
        if sent {
            self.ahead.push_back(request);
        } else {
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Ends the worker for an answer of the wrong kind.
    #[must_use]
    pub fn out_of_turn(&mut self, doing: &'static str) -> HandleError {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        self.process.kill();
        HandleError::OutOfTurn { doing }
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub fn answer(&mut self, doing: &'static str, deadline: &Deadline) -> Result<Reply, HandleError> {
        match self.receive(doing, deadline)? {
            Reply::Failed(fault) => Err(fault.into()),
            reply => Ok(reply),
        }
    }

    /// The sandbox that the worker put itself in before it loaded the module. The first answer after [`Handle::spawn`].
    ///
    /// # Errors
    /// As [`Handle::call`], and where the worker reports another profile than was asked for.
    pub fn sandbox(
        &mut self,
        profile: Option<&str>,
        deadline: &Deadline,
    ) -> Result<Option<SandboxReport>, HandleError> {
        match self.answer(LOADING, deadline)? {
            Reply::Confined(report) if report.as_ref().map(|report| report.profile.as_str()) == profile => Ok(report),
            _ => Err(self.out_of_turn(LOADING)),
        }
    }

    /// Ends the worker in good order (logout, finalize), within two seconds in all; then kills what is left.
    pub fn close(mut self) {
        let deadline = Deadline::after(END);
        if self.call(&self.farewell(), None, &deadline).is_ok() && self.writes_logs {
            self.process.ends_within(deadline.left().unwrap_or_default());
        }
    }

    /// Has the worker begin to end, for [`Handle::close`] to wait for.
    pub fn begin_to_close(&mut self) {
        self.foresee(self.farewell());
    }

    /// Once the module is finalised, all that is left is the end of the libraries that it loaded, which may hang or crash:
    /// the worker is killed instead, save where somebody reads what they held back.
    fn farewell(&self) -> Request {
        Request::Close { at_once: !self.writes_logs }
    }

    fn deliver(&mut self, request: &Request, pin: Option<&Pin>) -> Result<(), HandleError> {
        self.send(request, pin).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.died(name_of(request)),
            _ => HandleError::Socket(error),
        })
    }

    fn send(&mut self, request: &Request, pin: Option<&Pin>) -> io::Result<()> {
        self.login_begun = false;
        let frame = worker_protocol::encode(request).map_err(io::Error::other)?;
        let Some(pin) = pin else { return self.socket.write_all(&frame) };
        let pin = pin.expose().as_bytes();
        let length = u32::try_from(pin.len()).map_err(io::Error::other)?.to_be_bytes();
        // From where it lies, and at once: the worker is woken once.
        let parts = [&frame[..], &length, pin];
        let written = self.socket.write_vectored(&parts.map(IoSlice::new))?;
        let whole = parts.iter().map(|part| part.len()).sum::<usize>();
        if written == whole { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&mut self, doing: &'static str, deadline: &Deadline) -> Result<Reply, HandleError> {
        loop {
            let end = self.read_frame(doing, deadline)?;
            let frame: Vec<u8> = self.read.drain(..end).skip(HEADER).collect();
            let mut reply = worker_protocol::decode(&frame)?;
            bounds::check(&mut reply)?;
            match reply {
                Reply::LoginBegins if !self.login_begun => self.login_begun = true,
                reply => return Ok(reply),
            }
        }
    }

    /// Where the first frame ends in what was read, once it is there whole.
    fn frame_end(&self) -> Result<Option<usize>, WireError> {
        let Some(header) = self.read.first_chunk::<HEADER>() else { return Ok(None) };
        let end = HEADER + worker_protocol::length(*header, worker_protocol::LIMIT)?;
        Ok(Some(end).filter(|end| self.read.len() >= *end))
    }

    /// Waits for a whole frame, and returns its end. Reads what is there even when the time is up: an answer in time may be
    /// looked at late.
    fn read_frame(&mut self, doing: &'static str, deadline: &Deadline) -> Result<usize, HandleError> {
        let mut chunk = [0; CHUNK];
        let mut notice = self.waiting.filter(|_| awaits_a_person(doing)).map(|notice| (notice, Instant::now()));
        loop {
            if let Some(end) = self.frame_end()? {
                return Ok(end);
            }
            let left = deadline.left().unwrap_or_default();
            let until_notice = |(_, since): (fn(), Instant)| TOUCH_NOTICE.saturating_sub(since.elapsed());
            let wait = notice.map_or(left, |notice| left.min(until_notice(notice).max(Duration::from_millis(1))));
            match self.process.wait_for(&self.socket, wait).map_err(HandleError::Socket)? {
                Event::Readable => match self.socket.read(&mut chunk) {
                    Ok(0) => return Err(self.died(doing)),
                    Ok(read) => self.read.extend_from_slice(&chunk[..read]),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(self.died(doing)),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(HandleError::Socket(error)),
                },
                Event::Ended => return Err(self.died(doing)),
                Event::TimedOut if deadline.left().is_none() => {
                    return Err(HandleError::TimedOut { doing, whole: deadline.whole() });
                }
                Event::TimedOut => {
                    if let Some((say, _)) = notice.take_if(|(_, since)| since.elapsed() >= TOUCH_NOTICE) {
                        say();
                    }
                }
            }
        }
    }

    fn died(&mut self, doing: &'static str) -> HandleError {
        HandleError::Died { doing, how: self.process.end() }
    }
}

/// Variables for vendors' debug logs that are set and kept from modules, for a hint.
#[must_use]
pub fn withheld() -> Vec<&'static str> {
    MODULE_DEBUG.into_iter().filter(|variable| std::env::var_os(variable).is_some()).collect()
}

fn awaits_a_person(doing: &str) -> bool {
    doing == LOGIN || doing == SIGNING
}

/// What is waited for where a worker's first request was to load a module.
pub const LOADING: &str = "loading the module";

const LOGIN: &str = "login";
const SIGNING: &str = "signing";

/// What the front says that it was waiting for.
fn name_of(request: &Request) -> &'static str {
    match request {
        Request::Open { .. } | Request::AskPcscd { .. } => LOADING,
        Request::Session { .. } => "opening a session",
        Request::Slot | Request::Probe => "reading the token's state",
        Request::Login(_) => LOGIN,
        Request::Objects => "reading keys and certificates",
        Request::Describe { .. } => "reading the key",
        Request::Sign { .. } => SIGNING,
        Request::Close { .. } => "end",
    }
}
