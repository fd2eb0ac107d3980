//! A session that is logged in and has an identity. It signs fresh messages, and nothing else.
//!
//! Runs in the parent. It decides nothing: each signature needs a [`Permit`], and each result is unchecked.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::evidence::{self, KeyDescriptions};
use super::{SignError, SlotSession, TokenSession};
use crate::cba::UncheckedPayload;
use crate::config::Config;
use crate::custody::Evidence;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::Mechanism;
use crate::identity::Identity;
use crate::policy::Permit;
use crate::worker_handle::{OutputState, ReplyState, WorkerDescriptors, WorkerError};
use crate::worker_protocol::step::Step;
use crate::worker_protocol::{LoginMethod, WorkerReply, WorkerRequest};

/// The payload that a worker made, or the reason why there is none.
pub(crate) type Signed = Result<UncheckedPayload, SignError>;

/// A logged-in session with a selected identity.
#[derive(Debug)]
pub(crate) struct SigningSession {
    session: TokenSession,
    identity: Identity,
    mechanism: Mechanism,
    context_login: bool,
    has_signed: bool,
}

impl SigningSession {
    pub(crate) fn new(session: TokenSession, identity: Identity, mechanism: Mechanism) -> Self {
        let context_login = identity.key.always_authenticate == Some(true);
        Self { session, identity, mechanism, context_login, has_signed: false }
    }

    #[must_use]
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The token and its module.
    #[must_use]
    pub(crate) fn slot_session(&self) -> &SlotSession {
        &self.session.slot
    }

    /// The mechanism that the key signs with.
    #[must_use]
    pub(crate) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Whether each signature needs a login.
    #[must_use]
    pub(crate) fn always_authenticates(&self) -> bool {
        self.context_login
    }

    /// Reads the evidence about the key and its token. `in_detail` also reads attributes that serve only as evidence.
    pub(crate) fn evidence(&mut self, module_sha256: Option<String>, in_detail: bool) -> Result<Evidence> {
        let described =
            if in_detail { self.session.slot.describe(&self.identity)? } else { KeyDescriptions::default() };
        let key_evidence = evidence::key_evidence(&self.identity, self.mechanism, described);
        Ok(Evidence { key: Some(key_evidence), ..self.session.slot.evidence(module_sha256) })
    }

    /// Releases the token's lock, for a service that stays logged in. Each later login takes the lock again.
    pub(crate) fn release(&mut self) {
        self.session.login.release();
    }

    /// Sets the deadline of the next calls.
    pub(crate) fn allow(&mut self, deadline: Deadline) {
        self.session.slot.deadline = deadline;
    }

    /// Descriptors to wait for in an event loop.
    ///
    /// # Errors
    /// When the process has no free descriptor.
    pub(crate) fn descriptors(&self) -> io::Result<WorkerDescriptors> {
        self.session.slot.module.handle.descriptors()
    }

    /// Logs a part of the module's output.
    pub(crate) fn log_output(&mut self) -> OutputState {
        self.session.slot.module.handle.log_output()
    }

    /// Sends the request to sign, and does not wait for the reply. The key must not need a login for it.
    pub(crate) fn send_sign(&mut self, permit: &Permit) {
        let request = sign_request(permit, None);
        self.session.slot.module.handle.send(&request);
    }

    /// Sends the request to check the token, and does not wait for the reply.
    pub(crate) fn send_probe(&mut self) {
        self.session.slot.module.handle.send(&WorkerRequest::Probe);
    }

    /// Receives the available part of a reply, and never waits.
    pub(crate) fn poll_reply(&mut self) -> ReplyState {
        self.session.slot.module.handle.poll_reply()
    }

    /// Waits for the reply to [`SigningSession::send_sign`].
    pub(crate) fn signed(&mut self) -> Signed {
        let handle = &mut self.session.slot.module.handle;
        let payload = match handle.wait_reply(&self.session.slot.deadline).map_err(SignError::Worker)? {
            WorkerReply::Signed { message, signature } => decoded(&message, &signature),
            _ => None,
        };
        self.has_signed |= payload.is_some();
        payload.ok_or_else(|| SignError::Worker(handle.protocol_error(Step::Sign)))
    }

    /// Waits for the reply to [`SigningSession::send_probe`].
    ///
    /// # Errors
    /// When the token, the session or the login no longer exists.
    pub(crate) fn probed(&mut self) -> Result<()> {
        self.session.slot.probed()
    }

    /// Makes the key sign one fresh message, and waits for the result. If each signature needs a login, it logs in
    /// first.
    pub(crate) fn sign(&mut self, permit: &Permit, config: &Config) -> Signed {
        if self.context_login {
            self.session.log_in_for(|how| sign_request(permit, Some(how)), config)?;
        } else {
            self.send_sign(permit);
        }
        self.signed()
    }

    /// Whether the module rejects `CKM_SHA512_RSA_PKCS`. If so, the session uses `CKM_RSA_PKCS` from now on.
    pub(crate) fn uses_other_mechanism(&mut self, result: &Signed) -> bool {
        let is_other =
            self.mechanism == Mechanism::Sha512RsaPkcs && is_fault(result, &["C_SignInit"], "CKR_MECHANISM_INVALID");
        if is_other {
            self.mechanism = Mechanism::RsaPkcs;
        }
        is_other
    }

    /// Whether the first signature shows that the key needs a login for each signature, although its attribute denies
    /// it.
    pub(crate) fn wants_context_login(&self, result: &Signed) -> bool {
        let signing = ["C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal"];
        is_fault(result, &signing, "CKR_USER_NOT_LOGGED_IN")
            && !self.has_signed
            && !self.context_login
            && self.session.login.can_repeat()
    }

    /// Opens a new session, logs in again with the accepted PIN, and selects the same identity. Some modules drop the
    /// first login if the signature needs another one.
    pub(crate) fn start_over(&mut self, config: &Config) -> Result<()> {
        self.context_login = true;
        self.session.start_over(config)?;
        let file = self.identity.from_file.then(|| self.identity.certificate.clone());
        let identity = self.session.slot.identity(config, file)?;
        if identity.certificate != self.identity.certificate {
            return Err(Error::new(Kind::TokenFailed, "the token shows another identity than at the last login"));
        }
        self.identity = identity;
        Ok(())
    }

    /// Turns a failed signature into an error with hints.
    pub(crate) fn explain(&self, failure: SignError) -> Error {
        match failure {
            SignError::Worker(error) => {
                let error = Error::from(error).context(format_args!("cannot sign with {}", self.session.slot.name()));
                self.session.slot.hint_at_the_key(error, self.identity.certificate.bits())
            }
            SignError::Other(error) => error,
        }
    }

    /// Tells the worker to log out while the parent checks its result. Call [`SigningSession::end`] next.
    pub(crate) fn start_close(&mut self) {
        self.session.slot.module.handle.start_close();
    }

    /// Ends the worker, with a logout if the error allows it, and then releases the token's lock.
    pub(crate) fn end(self, error: Option<&Error>) {
        self.session.end(error);
    }
}

fn sign_request(permit: &Permit, context: Option<LoginMethod>) -> WorkerRequest {
    WorkerRequest::Sign { key: permit.key(), mechanism: permit.mechanism(), version: permit.choice().version, context }
}

fn decoded(message: &str, signature: &str) -> Option<UncheckedPayload> {
    let (message, signature) = (STANDARD.decode(message).ok()?, STANDARD.decode(signature).ok()?);
    Some(UncheckedPayload { message, signature })
}

/// Whether one of these calls returned this value.
fn is_fault(result: &Signed, calls: &[&str], value: &str) -> bool {
    let Err(SignError::Worker(WorkerError::Fault(fault))) = result else { return false };
    calls.iter().any(|call| fault.is(call, value))
}
