//! The front's end of a worker: start, deadline, kill, end.
//!
//! A handle trusts nothing that comes from the child: frames have a limit, answers a deadline, and an answer of the
//! wrong kind ends the worker. Dropping a handle kills the child and everything that its module started.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::wire::{self, Reply, Request, WireError};
use crate::deadline::Deadline;
use crate::error::{Explain, Kind};
use crate::fault::Fault;
use crate::pin::Pin;
use crate::printable::printable_bytes;

/// How long a worker may take to end in good order.
const END: Duration = Duration::from_secs(2);

/// After this long without an answer to a signature, a person may be awaited.
const TOUCH_NOTICE: Duration = Duration::from_secs(1);

/// Variables by which vendors' modules write logs that hold the PIN.
const MODULE_DEBUG: [&str; 19] = [
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

/// How to start a worker.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The variable in which the user put the PIN; the worker does not get it.
    pub pin_variable: Option<OsString>,
    /// Whether vendors' debug variables reach the module.
    pub module_debug: bool,
}

/// Why a worker gave no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// It could not be started.
    #[error("cannot start the worker process")]
    Spawn(#[source] io::Error),
    /// The program runs with more rights than its caller.
    #[error("refused to run set-user-ID, set-group-ID or with file capabilities (AT_SECURE)")]
    Privileged,
    /// The module said why.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// It ended: the module crashed, or somebody killed it.
    #[error("the process that holds the module ended during {doing}: {how}")]
    Died {
        /// What it was asked.
        doing: &'static str,
        /// Its exit status.
        how: String,
    },
    /// It did not answer in time.
    #[error("the token did not answer within {} during {doing}", humantime::format_duration(*.whole))]
    TimedOut {
        /// What it was asked.
        doing: &'static str,
        /// The whole time that was given.
        whole: Duration,
    },
    /// It answered something else.
    #[error("the worker answered out of turn during {doing}")]
    OutOfTurn {
        /// What it was asked.
        doing: &'static str,
    },
    /// Its frame does not parse.
    #[error("the worker's answer cannot be read")]
    Wire(#[from] WireError),
    /// It is another build, or no cba-agent at all.
    #[error("the worker is not this program (it was started from /proc/self/exe)")]
    Stranger,
}

impl Explain for HandleError {
    fn kind(&self) -> Kind {
        match self {
            Self::Fault(fault) => fault.kind(),
            Self::Spawn(_) | Self::Stranger | Self::Privileged => Kind::Unexpected,
            Self::TimedOut { .. } => Kind::TokenTimeout,
            Self::Died { .. } | Self::OutOfTurn { .. } | Self::Wire(_) => Kind::TokenFailed,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Fault(fault) => fault.hints(),
            Self::TimedOut { .. } => vec![
                "the token may wait for a touch, or may be gone; touch or reinsert it, or allow more with --timeout"
                    .into(),
            ],
            Self::Died { .. } => vec!["run with -v to see what the module itself says; the token is unharmed".into()],
            Self::Privileged => {
                vec!["take the rights from the file; give the user that runs it access to the token".into()]
            }
            Self::Spawn(_) => vec!["/proc must be mounted, and another process must be allowed to start".into()],
            _ => Vec::new(),
        }
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Handle {
    child: Child,
    socket: UnixStream,
    /// Ends when the module's output was logged to its end.
    output: Receiver<()>,
    waiting: Option<fn()>,
}

impl Handle {
    /// Starts a worker. Call it only from a thread that lives as long as the worker may: the child dies with the thread
    /// that started it.
    ///
    /// # Errors
    /// [`HandleError::Spawn`], or [`HandleError::Stranger`] when what runs is not this program.
    pub fn spawn(launch: &Launch, deadline: &Deadline) -> Result<Self, HandleError> {
        if is_privileged().map_err(HandleError::Spawn)? {
            return Err(HandleError::Privileged);
        }
        let (ours, theirs) = UnixStream::pair().map_err(HandleError::Spawn)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("cba-agent")
            .arg("worker")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A group of its own: Ctrl-C goes to the front, and a kill reaches what the module forked.
        command.process_group(0);
        if let Some(variable) = &launch.pin_variable {
            command.env_remove(variable);
        }
        if !launch.module_debug {
            MODULE_DEBUG.iter().for_each(|variable| {
                command.env_remove(variable);
            });
        }
        let mut child = command.spawn().map_err(HandleError::Spawn)?;
        let (done, output) = channel();
        let streams: [Option<Box<dyn io::Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let done = done.clone();
            std::thread::spawn(move || log_output(stream, &done));
        }
        // The command holds a copy of the child's socket until here; without it, the end of the child is seen.
        drop(command);
        let mut handle = Self { child, socket: ours, output, waiting: None };
        match handle.receive("start", deadline) {
            Ok(Reply::Hello { build }) if build == wire::BUILD => Ok(handle),
            Ok(_) | Err(HandleError::Wire(_) | HandleError::Died { .. }) => Err(HandleError::Stranger),
            Err(error) => Err(error),
        }
    }

    /// Calls this once whenever a signature takes more than a second, since a person may be awaited at the token.
    pub fn when_waiting(&mut self, notice: fn()) {
        self.waiting = Some(notice);
    }

    /// Sends a request, with its PIN where it announces one, and waits for the answer.
    ///
    /// # Errors
    /// What the module answered, or why there is no answer.
    pub fn call(&mut self, request: &Request, pin: Option<&Pin>, deadline: &Deadline) -> Result<Reply, HandleError> {
        self.deliver(request, pin)?;
        self.answer(name_of(request), deadline)
    }

    /// Sends a request and does not wait; the answer is had from [`Handle::answer`].
    ///
    /// # Errors
    /// When the worker has ended.
    pub fn post(&mut self, request: &Request) -> Result<(), HandleError> {
        self.deliver(request, None)
    }

    /// The error for an answer of the wrong kind.
    #[must_use]
    pub fn out_of_turn(&self, doing: &'static str) -> HandleError {
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

    /// Ends the worker in good order (logout, finalize), within two seconds; then kills what is left.
    pub fn close(mut self) {
        let deadline = Deadline::after(END);
        if self.call(&Request::Close, None, &deadline).is_ok() {
            // A module may still crash or hang in its destructors; the end of the socket is the end of the process.
            let _ = self.read_exactly(&mut [0], "end", &deadline);
        }
    }

    fn deliver(&mut self, request: &Request, pin: Option<&Pin>) -> Result<(), HandleError> {
        self.send(request, pin).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.died(name_of(request)),
            _ => HandleError::Spawn(error),
        })
    }

    fn send(&mut self, request: &Request, pin: Option<&Pin>) -> io::Result<()> {
        let frame = wire::encode(request).map_err(io::Error::other)?;
        self.socket.write_all(&frame)?;
        let Some(pin) = pin else { return Ok(()) };
        let pin = pin.expose().as_bytes();
        let length = u32::try_from(pin.len()).map_err(io::Error::other)?;
        self.socket.write_all(&length.to_be_bytes())?;
        self.socket.write_all(pin)
    }

    fn receive(&mut self, doing: &'static str, deadline: &Deadline) -> Result<Reply, HandleError> {
        let mut header = [0; 4];
        self.read_exactly(&mut header, doing, deadline)?;
        let mut bytes = vec![0; wire::length(header, wire::LIMIT)?];
        self.read_exactly(&mut bytes, doing, deadline)?;
        Ok(wire::decode(&bytes)?)
    }

    fn read_exactly(&mut self, buffer: &mut [u8], doing: &'static str, deadline: &Deadline) -> Result<(), HandleError> {
        let mut filled = 0;
        let mut notice = self.waiting.filter(|_| doing == "signing").map(|notice| (notice, Instant::now()));
        while filled < buffer.len() {
            let left = deadline.left().ok_or(HandleError::TimedOut { doing, whole: deadline.whole() })?;
            let wait = notice.map_or(left, |(_, since)| {
                left.min(TOUCH_NOTICE.saturating_sub(since.elapsed()).max(Duration::from_millis(1)))
            });
            self.socket.set_read_timeout(Some(wait)).map_err(HandleError::Spawn)?;
            match self.socket.read(&mut buffer[filled..]) {
                Ok(0) => return Err(self.died(doing)),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(self.died(doing)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some((say, _)) = notice.take_if(|(_, since)| since.elapsed() >= TOUCH_NOTICE) {
                        say();
                    }
                }
                Err(error) => return Err(HandleError::Spawn(error)),
            }
        }
        Ok(())
    }

    /// The socket is closed, so the child has ended or is about to.
    fn died(&mut self, doing: &'static str) -> HandleError {
        if !self.exits_within(END) {
            self.kill();
        }
        let how = self.child.wait().map_or_else(|error| error.to_string(), |status| describe(&status));
        HandleError::Died { doing, how }
    }

    fn exits_within(&self, patience: Duration) -> bool {
        let Ok(timeout) = patience.try_into() else { return false };
        let exit = |pid| -> rustix::io::Result<bool> {
            let child = pidfd_open(pid, PidfdFlags::empty())?;
            Ok(poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&timeout))? > 0)
        };
        self.pid().is_some_and(|pid| exit(pid).unwrap_or(false))
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn kill(&mut self) {
        // Not yet waited for, so the number is still the child's.
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.kill();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.kill();
            let _ = self.child.wait();
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

/// `AT_SECURE` of the kernel's auxiliary vector (getauxval(3)): the caller's environment, which names modules and files,
/// must not be trusted by a process with more rights than the caller.
fn is_privileged() -> io::Result<bool> {
    const AT_SECURE: usize = 23;
    const WORD: usize = size_of::<usize>();
    let vector = std::fs::read("/proc/self/auxv")?;
    let words: Vec<usize> =
        vector.chunks_exact(WORD).filter_map(|word| word.try_into().ok().map(usize::from_ne_bytes)).collect();
    Ok(words.chunks_exact(2).any(|pair| pair[0] == AT_SECURE && pair[1] != 0))
}

/// What the front says that it was waiting for.
fn name_of(request: &Request) -> &'static str {
    match request {
        Request::Open { .. } => "loading the module",
        Request::Session { .. } => "opening a session",
        Request::Login(_) => "login",
        Request::Objects => "reading keys and certificates",
        Request::Sign { .. } => "signing",
        Request::Close => "end",
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
