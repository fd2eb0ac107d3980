//! The disposable child that loads a module: its start, its loop, its end.
//!
//! Runs in the worker. It knows one module and one session, and never retries. The parent decides everything:
//! [`crate::worker_protocol`] connects the two, and [`crate::worker_handle`] is the parent's side. Deliberately absent:
//! configuration, logs, files.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::cba::{Message, Version};
use crate::facts::Mechanism;
use crate::fault::Fault;
use crate::sandbox_profile::{EnforcedSandbox, Profile};
use crate::worker::pkcs11::{LoginOutcome, Pkcs11Module, Pkcs11Session, SigningKey, UserPin};
use crate::worker::sandbox::SandboxError;
use crate::worker_protocol::PIN_LIMIT;
use crate::worker_protocol::{FrameKind, LoginMethod, SandboxReport, WorkerReply, WorkerRequest};

pub(crate) mod parent_death;
pub(crate) mod pcsc;
pub(crate) mod pkcs11;
pub(crate) mod sandbox;

/// The reason why a worker could not start or continue. It ends then, and the parent sees its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerExit {
    /// A person started it.
    #[error("`worker` is started by cba-agent itself, with a socket as its standard input")]
    NotAChild,
    #[error("the parent process is gone")]
    Orphan,
    /// The socket or a process attribute failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The parent sent an invalid frame.
    #[error(transparent)]
    Frame(#[from] crate::worker_protocol::FrameError),
    /// The sandbox could not be tightened.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// Runs the worker until the parent closes it or ends.
///
/// # Errors
/// When no parent started it, or the parent ends.
pub(crate) fn run() -> Result<(), WorkerExit> {
    // Before any secret can arrive: exec made the process dumpable again.
    crate::os::harden()?;
    crate::worker::parent_death::end_group_with_parent().map_err(|_| WorkerExit::NotAChild)?;
    let mut channel = Channel::take_stdin()?;
    channel.send(&WorkerReply::Hello { build: crate::worker_protocol::BUILD.into() })?;
    let (module, profile, environment) = match channel.receive()? {
        WorkerRequest::Open { module, profile, environment } => (module, profile, environment),
        WorkerRequest::AskPcscd { socket } => return ask_pcscd(&mut channel, socket),
        _ => return Ok(()),
    };
    let variables = environment.into_iter().flatten().map(|variable| (variable.name, variable.value));
    // No other thread runs yet.
    crate::os::environment::extend(variables);
    let (mut sandbox_state, report) = match confine(profile, &module) {
        Ok(confined) => confined,
        Err(error) => return channel.send(&WorkerReply::Failed(Fault::Sandbox(error.to_string()))),
    };
    if !sandbox_state.ends_with_its_parent {
        crate::worker::parent_death::watch_parent(channel.socket)?;
    }
    // Before the module's first line runs: later, the module could write anything to the socket.
    channel.send(&WorkerReply::Confined(report))?;
    let module = match Pkcs11Module::load(&module) {
        Ok(module) => module,
        Err(fault) => return channel.send(&WorkerReply::Failed(fault)),
    };
    channel.answer(module.slots().map(|slots| WorkerReply::Opened { library: module.library(), slots }))?;
    let mut next = channel.receive()?;
    while let WorkerRequest::Session { slot_id } = next {
        next = match module.open_session(slot_id) {
            Ok(session) => run_session(&mut channel, session, &mut sandbox_state)?,
            Err(fault) => {
                channel.send(&WorkerReply::Failed(fault))?;
                channel.receive()?
            }
        };
    }
    module.finalize();
    channel.send(&WorkerReply::Closed)?;
    if matches!(next, WorkerRequest::Close { at_once: true }) {
        crate::worker::parent_death::end_now();
    }
    Ok(())
}

/// Connects to pcscd through its library, without any module.
fn ask_pcscd(channel: &mut Channel, socket: PathBuf) -> Result<(), WorkerExit> {
    // No other thread runs yet.
    crate::os::environment::extend([(b"PCSCLITE_CSOCK_NAME".to_vec(), socket.into_os_string().into_vec())].into_iter());
    let answer = crate::worker::pcsc::establish_context();
    channel.answer(answer.map(|code| WorkerReply::PcscdAnswered { code }))
}

/// Confines this process before the module's first line runs.
fn confine(profile: Option<String>, module: &Path) -> Result<(SandboxState, Option<SandboxReport>), SandboxError> {
    let Some(name) = profile else { return Ok((SandboxState::default(), None)) };
    let profile = Profile::named(&name).ok_or(SandboxError::Unknown(name))?;
    let EnforcedSandbox { landlock_abi, system_calls } = sandbox::confine(profile, module)?;
    if system_calls {
        crate::worker::parent_death::be_killed_with_parent()?;
    }
    // With the filter, this process has no children, and the kernel ends it even if the module ignores signals.
    let sandbox_state =
        SandboxState { to_tighten: system_calls.then_some(profile), ends_with_its_parent: system_calls };
    Ok((sandbox_state, Some(SandboxReport { profile: profile.name.into(), landlock_abi, system_calls })))
}

/// The remaining confinement of the module.
#[derive(Default)]
struct SandboxState {
    to_tighten: Option<&'static Profile>,
    /// Whether the kernel kills this process with its parent in any case.
    ends_with_its_parent: bool,
}

impl SandboxState {
    /// Once: after the login, when the objects were read or at the next request, and before the first use of a key.
    fn tighten(&mut self) -> Result<(), SandboxError> {
        self.to_tighten.take().map_or(Ok(()), sandbox::tighten)
    }
}

/// Answers until the parent asks for another session or for the end, and returns that request.
fn run_session(
    channel: &mut Channel,
    mut session: Pkcs11Session<'_>,
    sandbox_state: &mut SandboxState,
) -> Result<WorkerRequest, WorkerExit> {
    channel.send(&WorkerReply::Session(session.mechanisms()))?;
    let mut logged_in = false;
    loop {
        let request = channel.receive()?;
        if logged_in && request != WorkerRequest::Objects {
            sandbox_state.tighten()?;
        }
        match request {
            WorkerRequest::Slot => channel.send(&WorkerReply::Slot(session.slot()))?,
            WorkerRequest::Probe => channel.answer(session.probe(logged_in).map(WorkerReply::Slot))?,
            WorkerRequest::Login(how) => {
                let pin = channel.user_pin(how)?;
                channel.send(&WorkerReply::LoginBegins)?;
                let outcome = session.login(&pin);
                logged_in |= outcome == Ok(LoginOutcome::Accepted);
                channel.answer(
                    outcome.map(|outcome| WorkerReply::LoggedIn { checked: outcome == LoginOutcome::Accepted }),
                )?;
            }
            WorkerRequest::Objects => {
                channel.answer(session.objects().map(WorkerReply::Objects))?;
                // Meanwhile the parent chooses among them.
                if logged_in {
                    sandbox_state.tighten()?;
                }
            }
            WorkerRequest::Describe { key } => channel.answer(session.describe(key).map(WorkerReply::Described))?,
            WorkerRequest::Sign { key, mechanism, version, context } => {
                sandbox_state.tighten()?;
                let pin = context.map(|how| channel.user_pin(how)).transpose()?;
                let signed = sign(channel, &session, (key, mechanism, version), pin.as_ref())?;
                channel.answer(signed)?;
            }
            next @ (WorkerRequest::Open { .. }
            | WorkerRequest::AskPcscd { .. }
            | WorkerRequest::Session { .. }
            | WorkerRequest::Close { .. }) => {
                session.close(logged_in);
                return Ok(next);
            }
        }
    }
}

/// Signs one new message. It reports the end of a context-specific login before it makes the message.
fn sign(
    channel: &mut Channel,
    session: &Pkcs11Session<'_>,
    (key, mechanism, version): (u64, Mechanism, Version),
    pin: Option<&UserPin>,
) -> Result<Result<WorkerReply, Fault>, WorkerExit> {
    let mut sent = Ok(());
    let log_in = pin.map(|pin| {
        |session: &Pkcs11Session<'_>| {
            sent = channel.send(&WorkerReply::LoginBegins);
            if sent.is_err() {
                return Err(Fault::Message("the parent process is gone".into()));
            }
            let checked = session.context_login(pin)? == LoginOutcome::Accepted;
            sent = channel.send(&WorkerReply::ContextAccepted { checked });
            Ok(())
        }
    });
    let key = SigningKey::find(session, key, mechanism);
    let signed = key.and_then(|key| key.sign(log_in, || fresh_message(version)));
    sent?;
    Ok(signed.map(|(message, signature)| WorkerReply::Signed {
        message: STANDARD.encode(message.as_bytes()),
        signature: STANDARD.encode(signature),
    }))
}

fn fresh_message(version: Version) -> Result<Message, Fault> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| Fault::Message("the clock is before 1970".into()))?;
    Message::new(version, now.as_secs(), getrandom::fill).map_err(|error| Fault::Message(error.to_string()))
}

/// The worker's end of the socket.
struct Channel {
    /// Open until the process ends, for the thread that watches it.
    socket: &'static UnixStream,
}

impl Channel {
    /// Takes the socket from standard input and replaces it, so that a module cannot read frames.
    fn take_stdin() -> Result<Self, WorkerExit> {
        let stdin = io::stdin();
        let parent = rustix::net::sockopt::socket_peercred(&stdin).map_err(|_| WorkerExit::NotAChild)?.pid;
        if rustix::process::getppid() != Some(parent) {
            return Err(WorkerExit::Orphan);
        }
        let socket = Box::leak(Box::new(UnixStream::from(stdin.as_fd().try_clone_to_owned()?)));
        rustix::stdio::dup2_stdin(File::open("/dev/null")?).map_err(io::Error::from)?;
        Ok(Self { socket })
    }

    fn send(&mut self, reply: &WorkerReply) -> Result<(), WorkerExit> {
        Ok(self.socket.write_all(&crate::worker_protocol::encode(reply)?)?)
    }

    /// Sends the module's result, or a fault if the result is too large for the parent.
    fn answer(&mut self, result: Result<WorkerReply, Fault>) -> Result<(), WorkerExit> {
        let mut reply = result.unwrap_or_else(WorkerReply::Failed);
        let call = match reply {
            WorkerReply::Opened { .. } => "C_GetSlotList",
            WorkerReply::Slot(_) => "C_GetTokenInfo",
            _ => "C_FindObjects",
        };
        let too_much = |what: String| WorkerReply::Failed(Fault::Malformed { call: call.into(), what });
        if let Err(error) = crate::worker_protocol::bounds::check(&mut reply) {
            return self.send(&too_much(error.to_string()));
        }
        match crate::worker_protocol::encode(&reply) {
            Ok(frame) => Ok(self.socket.write_all(&frame)?),
            Err(error) => self.send(&too_much(error.to_string())),
        }
    }

    fn receive(&mut self) -> Result<WorkerRequest, WorkerExit> {
        crate::worker::parent_death::unblock_signal()?;
        let frame = self.frame(FrameKind::Message, crate::worker_protocol::LIMIT)?;
        Ok(crate::worker_protocol::decode(&frame)?)
    }

    fn user_pin(&mut self, how: LoginMethod) -> Result<UserPin, WorkerExit> {
        if how == LoginMethod::Pinpad {
            return Ok(UserPin::Pinpad);
        }
        let bytes = self.frame(FrameKind::Pin, PIN_LIMIT)?;
        let pin = std::str::from_utf8(&bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let pin = SecretString::from(pin);
        crate::os::memory::lock(pin.expose_secret().as_bytes());
        Ok(UserPin::Pin(pin))
    }

    fn frame(&mut self, kind: FrameKind, limit: usize) -> Result<Zeroizing<Vec<u8>>, WorkerExit> {
        let mut header = [0; crate::worker_protocol::HEADER];
        self.socket.read_exact(&mut header)?;
        let mut bytes = Zeroizing::new(vec![0; crate::worker_protocol::length(header, kind, limit)?]);
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
