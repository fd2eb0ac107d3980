//! The disposable child that loads a module: its start and its end.
//!
//! Runs in the worker. It knows one module and one session, and never retries. The parent decides everything:
//! [`crate::worker_protocol`] connects the two, and [`crate::worker_handle`] is the parent's side. Deliberately absent:
//! configuration, logs, files.

use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::sandbox_profile::{EnforcedSandbox, Profile};
use crate::worker::pkcs11::Pkcs11Module;
use crate::worker::sandbox::SandboxError;
use crate::worker_protocol::{SandboxReport, WorkerReply, WorkerRequest};

mod channel;
pub(crate) mod parent_death;
pub(crate) mod pcsc;
pub(crate) mod pkcs11;
pub(crate) mod sandbox;
mod session_loop;

pub(crate) use channel::WorkerExit;

use channel::Channel;
use sandbox::SandboxState;
use session_loop::run_session;

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
    if matches!(next, WorkerRequest::Close { skip_exit_handlers: true }) {
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
    // The filter of system calls lets this process start no children, so the kernel must kill only this process. The
    // module cannot prevent that.
    let sandbox_state =
        SandboxState { pending_profile: system_calls.then_some(profile), ends_with_its_parent: system_calls };
    Ok((sandbox_state, Some(SandboxReport { profile: profile.name.into(), landlock_abi, system_calls })))
}
