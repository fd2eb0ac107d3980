//! The worker's end of the socket, and the reasons why a worker ends.
//!
//! Runs in the worker.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::worker::pkcs11::UserPin;
use crate::worker::sandbox::SandboxError;
use crate::worker_protocol::PIN_LIMIT;
use crate::worker_protocol::{FrameKind, LoginMethod, WorkerReply, WorkerRequest};

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

/// The worker's end of the socket.
pub(super) struct Channel {
    /// Open until the process ends, for the thread that watches it.
    pub(super) socket: &'static UnixStream,
}

impl Channel {
    /// Takes the socket from standard input and replaces it, so that a module cannot read frames.
    pub(super) fn take_stdin() -> Result<Self, WorkerExit> {
        let stdin = io::stdin();
        let parent = rustix::net::sockopt::socket_peercred(&stdin).map_err(|_| WorkerExit::NotAChild)?.pid;
        if rustix::process::getppid() != Some(parent) {
            return Err(WorkerExit::Orphan);
        }
        let socket = Box::leak(Box::new(UnixStream::from(stdin.as_fd().try_clone_to_owned()?)));
        rustix::stdio::dup2_stdin(File::open("/dev/null")?).map_err(io::Error::from)?;
        Ok(Self { socket })
    }

    pub(super) fn send(&mut self, reply: &WorkerReply) -> Result<(), WorkerExit> {
        Ok(self.socket.write_all(&crate::worker_protocol::encode(reply)?)?)
    }

    /// Sends the module's result, or a fault if the result is too large for the parent.
    pub(super) fn answer(&mut self, result: Result<WorkerReply, Fault>) -> Result<(), WorkerExit> {
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

    pub(super) fn receive(&mut self) -> Result<WorkerRequest, WorkerExit> {
        crate::worker::parent_death::unblock_signal()?;
        let frame = self.frame(FrameKind::Message, crate::worker_protocol::LIMIT)?;
        Ok(crate::worker_protocol::decode(&frame)?)
    }

    pub(super) fn user_pin(&mut self, how: LoginMethod) -> Result<UserPin, WorkerExit> {
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
