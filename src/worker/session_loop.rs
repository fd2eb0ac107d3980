//! The requests of one session, until the parent asks for another session or for the end.
//!
//! Runs in the worker. A message is made here, at the last moment before its signature.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::channel::{Channel, WorkerExit};
use super::sandbox::SandboxState;
use crate::cba::{Message, Version};
use crate::facts::Mechanism;
use crate::fault::Fault;
use crate::worker::pkcs11::{LoginOutcome, Pkcs11Session, SigningKey, UserPin};
use crate::worker_protocol::{WorkerReply, WorkerRequest};

/// Answers until the parent asks for another session or for the end, and returns that request.
pub(super) fn run_session(
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
                // The parent meanwhile selects a key, so this costs no time.
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
