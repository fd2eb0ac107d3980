//! Decides whether the worker may sign, and makes login requests: policy before the signature, checks after it.
//!
//! Runs in the parent. The worker signs only after the policy gave a [`Permit`] for the facts of this worker. Its
//! result becomes a login request only after the check of `verify` and a second decision of the policy. The parent
//! trusts neither module nor worker. This file contains functions only: the session holds the state.

use crate::audit::record::{AuditEvent, AuditRecord, Caller, PayloadFacts};
use crate::cba::verify::{Freshness, to_key_length};
use crate::cba::{LoginRequest, UncheckedPayload};
use crate::certificate::Certificate;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::facts::Mechanism;
use crate::identity::Identity;
use crate::os::clock::now;
use crate::payload_check::{CLOCK_TOLERANCE, check_result};
use crate::policy::{self, PayloadChoice, Permit, PreLoginFacts, SigningFacts};
use crate::session::signing_session::{Signed, SigningSession};
use crate::session::{SlotSession, TokenSession, warn_before_end};
use crate::text::hex;

/// Checks what needs no PIN, logs in, selects the identity, and asks the policy about it.
///
/// # Errors
/// When the policy refuses, the login fails, or not exactly one identity matches. The worker has ended then.
pub(crate) fn ready(
    mut session: TokenSession,
    file: Option<Certificate>,
    config: &Config,
    choice: PayloadChoice,
) -> Result<SigningSession> {
    let prepared = judge_early(&session.slot, config, choice).and_then(|mechanism| {
        session.log_in(config)?;
        let identity = session.slot.identity(config, file)?;
        drop(decide(&session.slot, &identity, config, mechanism, choice)?);
        Ok((mechanism, identity))
    });
    match prepared {
        Ok((mechanism, identity)) => Ok(SigningSession::new(session, identity, mechanism)),
        Err(error) => {
            session.end(Some(&error));
            Err(error)
        }
    }
}

/// Asks the policy whether the session may sign now with this choice of payload.
pub(crate) fn permit(session: &SigningSession, config: &Config, choice: PayloadChoice) -> Result<Permit> {
    decide(session.slot_session(), session.identity(), config, session.mechanism(), choice)
}

/// Warns about notable things that the policy allows, and about a certificate that expires soon.
pub(crate) fn warn(session: &SigningSession, config: &Config, permit: &Permit) {
    permit.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    for weaker in config.policy.weaker_than_default() {
        tracing::debug!("the policy is weaker than the defaults: {weaker}");
    }
    warn_before_end(&session.identity().certificate, config.sign.warn_before, permit.given());
}

/// Makes the session sign, and waits for the result.
pub(crate) fn sign(
    session: &mut SigningSession,
    config: &Config,
    permit: Permit,
) -> Result<(Permit, UncheckedPayload)> {
    let result = session.sign(&permit, config);
    recovered(session, config, permit, result)
}

/// Signs once more if the first result shows that the key needs another mechanism or a login for each signature.
///
/// # Errors
/// When the policy refuses the other mechanism, or the token fails.
pub(crate) fn recovered(
    session: &mut SigningSession,
    config: &Config,
    mut permit: Permit,
    mut result: Signed,
) -> Result<(Permit, UncheckedPayload)> {
    if session.uses_other_mechanism(&result) {
        permit = self::permit(session, config, permit.choice())?;
        result = session.sign(&permit, config);
    }
    if session.wants_context_login(&result) {
        session.start_over(config)?;
        permit = self::permit(session, config, permit.choice())?;
        result = session.sign(&permit, config);
    }
    match result {
        Ok(payload) => Ok((permit, payload)),
        Err(failure) => Err(session.explain(failure)),
    }
}

/// Makes the only payload of a session. The worker logs out while the parent checks the result. Call
/// [`SigningSession::end`] next.
///
/// # Errors
/// When the policy refuses, the token fails, or the result does not pass the checks.
pub(crate) fn sign_once(session: &mut SigningSession, config: &Config, choice: PayloadChoice) -> Result<LoginRequest> {
    let permit = permit(session, config, choice)?;
    warn(session, config, &permit);
    let (permit, payload) = sign(session, config, permit)?;
    session.start_close();
    accept(session, config, &permit, payload)
}

/// Checks the worker's result against the permit, and turns it into a login request.
///
/// # Errors
/// When the payload is invalid, or the policy no longer allows it.
pub(crate) fn accept(
    session: &SigningSession,
    config: &Config,
    permit: &Permit,
    payload: UncheckedPayload,
) -> Result<LoginRequest> {
    let (now, version) = (now(), permit.choice().version);
    let max_age = now.saturating_sub(permit.given()) + CLOCK_TOLERANCE;
    let freshness = Freshness { now, max_age, max_ahead: CLOCK_TOLERANCE };
    let certificate = &session.identity().certificate;
    let signature = to_key_length(payload.signature, certificate.modulus.len());
    let payload = check_result(version, UncheckedPayload { signature, ..payload }, certificate, freshness)?;
    drop(self::permit(session, config, permit.choice())?);
    tracing::debug!("signed by {} and verified", permit.mechanism().name());
    let sign = &config.sign;
    Ok(LoginRequest::new(&sign.auth_url, (certificate, sign.header_encoding), &payload))
}

/// Returns the audit record of a caller's request for a payload.
#[must_use]
pub(crate) fn record(
    session: &SigningSession,
    caller: Caller,
    choice: PayloadChoice,
    result: Result<&LoginRequest, Kind>,
) -> AuditRecord {
    let payload = PayloadFacts {
        token_serial: session.slot_session().slot.token.as_ref().map(|token| token.serial.clone()),
        certificate_sha256: Some(hex(&session.identity().certificate.sha256())),
        payload_version: choice.version.to_string(),
        message_sha256: result.ok().map(LoginRequest::message_sha256),
        mechanism: Some(session.mechanism().name()),
    };
    let outcome = result.map_or_else(Kind::name, |_| "ok");
    AuditRecord { time: now(), event: AuditEvent::Sign { caller, payload }, outcome }
}

/// Returns the mechanism to try first, from those that the token offers.
///
/// # Errors
/// When the token offers neither of the two mechanisms.
pub(crate) fn first_mechanism(slot_session: &SlotSession) -> Result<Mechanism> {
    if !slot_session.mechanisms.known {
        return Ok(Mechanism::Sha512RsaPkcs);
    }
    let none = || {
        Error::new(
            Kind::Unsuitable,
            format!("{} offers neither CKM_SHA512_RSA_PKCS nor CKM_RSA_PKCS", slot_session.name()),
        )
        .hint(slot_session.whole_commands("`pkcs11-tool --list-mechanisms` shows its mechanisms"))
    };
    slot_session.mechanisms.usable.first().copied().ok_or_else(none)
}

/// Checks before any login what needs no login: version, token, mechanism, and the source of the certificate.
fn judge_early(slot_session: &SlotSession, config: &Config, choice: PayloadChoice) -> Result<Mechanism> {
    let mechanism = first_mechanism(slot_session)?;
    let before_login = pre_login_facts(slot_session, config.certificate_file.is_some(), mechanism, choice);
    policy::decide_before_login(&config.policy, &before_login).allowed()?;
    Ok(mechanism)
}

fn decide(
    slot_session: &SlotSession,
    identity: &Identity,
    config: &Config,
    mechanism: Mechanism,
    choice: PayloadChoice,
) -> Result<Permit> {
    let before_login = pre_login_facts(slot_session, identity.from_file, mechanism, choice);
    let Identity { key, copies, certificate, .. } = identity;
    Ok(policy::permit(&config.policy, &SigningFacts { before_login, key, copies, certificate, now: now() })?)
}

fn pre_login_facts(
    slot_session: &SlotSession,
    certificate_from_file: bool,
    mechanism: Mechanism,
    choice: PayloadChoice,
) -> PreLoginFacts<'_> {
    PreLoginFacts { token: slot_session.slot.token.as_ref(), certificate_from_file, choice, mechanism }
}
