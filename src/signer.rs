//! The front's judgement, and the only way to a payload: policy before, check after.
//!
//! The worker is told to sign only after the policy allowed it on the worker's own facts; its result becomes a request
//! only after the same check as `verify`'s and the policy once more. Neither module nor worker is trusted.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cba::verify::Freshness;
use crate::cba::{self, Request, Violation};
use crate::config::Config;
use crate::error::{Error, Explain, Kind, Result};
use crate::facts::Mechanism;
use crate::identity::Identity;
use crate::policy::{self, Order, Subject};
use crate::reach::{Failure, Login, Reached, now, warn_before_end};
use crate::worker::HandleError;
use crate::worker::wire::{Authentication, Reply, Request as WorkerRequest};

/// Clocks may be corrected while a token works, by so many seconds.
const CLOCK_TOLERANCE: u64 = 5;

/// The token's result is not what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the token's result was thrown away")]
pub struct BadResult(#[source] Violation);

impl Explain for BadResult {
    fn kind(&self) -> Kind {
        Kind::SignatureInvalid
    }

    fn hints(&self) -> Vec<String> {
        vec!["treat this as an alarm: module, token or memory is faulty or was taken over; nothing was printed".into()]
    }
}

/// Judges before any login what needs none: the version, the token, the mechanism, and where the certificate comes from.
///
/// # Errors
/// When the policy refuses, or the token has no mechanism to sign with.
pub fn judge_early(reached: &Reached, config: &Config) -> Result<()> {
    let mechanism = first_mechanism(reached)?;
    let order = Order {
        token: reached.slot.token.as_ref(),
        certificate_from_file: config.certificate_file.is_some(),
        version: config.sign.version,
        version_by_flag: config.sign.version_by_flag,
        mechanism,
    };
    policy::decide_order(&config.policy, &order).allowed().map(drop).map_err(Error::from)
}

/// Has the token sign one fresh message, and returns the request that carries it.
///
/// # Errors
/// When the policy refuses, the token fails, or its result does not hold.
pub fn sign(reached: &mut Reached, login: &mut Login, identity: &Identity, config: &Config) -> Result<Request> {
    let mut mechanism = first_mechanism(reached)?;
    for warning in judge(reached, identity, config, mechanism)? {
        tracing::warn!("{warning}");
    }
    warn_before_end(&identity.certificate, config.sign.warn_before, now());
    let mut with_context = identity.key.always_authenticate == Some(true);
    let mut identity = identity.clone();
    let start = Instant::now();
    let mut result = order(reached, login, &identity, config, (mechanism, with_context));
    if mechanism == Mechanism::Sha512RsaPkcs && is_fault(&result, &["C_SignInit"], "CKR_MECHANISM_INVALID") {
        mechanism = Mechanism::RsaPkcs;
        let _ = judge(reached, &identity, config, mechanism)?;
        result = order(reached, login, &identity, config, (mechanism, with_context));
    }
    let signing = ["C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal"];
    if is_fault(&result, &signing, "CKR_USER_NOT_LOGGED_IN") && !with_context && login.can_repeat() {
        // The key wants a login of its own, whatever its attribute says; some modules drop the first one over it.
        with_context = true;
        identity = start_over(reached, login, &identity, config)?;
        result = order(reached, login, &identity, config, (mechanism, with_context));
    }
    let (message, signature) = result.map_err(|failure| match failure {
        Failure::Worker(error) => Error::from(error).context(format_args!("cannot sign with {}", reached.name())),
        Failure::Other(error) => error,
    })?;
    let freshness =
        Freshness { now: now(), max_age: start.elapsed().as_secs() + CLOCK_TOLERANCE, max_ahead: CLOCK_TOLERANCE };
    let sign = &config.sign;
    check(sign.version, (&message, &signature), &identity, freshness)?;
    let _ = judge(reached, &identity, config, mechanism)?;
    tracing::debug!("signed by {} and verified", mechanism.name());
    let certificate = (&identity.certificate, sign.header_encoding);
    Ok(Request::new(&sign.auth_url, certificate, sign.version, (&message, &signature)))
}

/// A result is accepted only whole: exactly 100 bytes, fresh, and signed by the key of the certificate.
fn check(
    version: cba::Version,
    (message, signature): (&[u8], &[u8]),
    identity: &Identity,
    freshness: Freshness,
) -> Result<(), BadResult> {
    if message.len() != cba::message::LEN {
        return Err(BadResult(Violation::Length { found: message.len() }));
    }
    cba::verify(version, (message, signature), &identity.certificate, freshness).map_err(BadResult)
}

type Signed = Result<(Vec<u8>, Vec<u8>), Failure>;

/// Whether one of these calls answered this value.
fn is_fault(result: &Signed, calls: &[&str], value: &str) -> bool {
    let Err(Failure::Worker(HandleError::Fault(fault))) = result else { return false };
    calls.iter().any(|call| fault.is(call, value))
}

/// Orders one signature, with the context-specific login where it is asked for.
fn order(
    reached: &mut Reached,
    login: &mut Login,
    identity: &Identity,
    config: &Config,
    (mechanism, with_context): (Mechanism, bool),
) -> Signed {
    let request = |context: Option<Authentication>| WorkerRequest::Sign {
        key: identity.key.handle,
        mechanism,
        version: config.sign.version,
        context,
    };
    let doing = "signing";
    let reply = if with_context {
        login.for_context(reached, config).map_err(Failure::Other)?;
        login.authenticate(reached, |how| request(Some(how)), "login for the signature refused")?;
        reached.opened.handle.answer(doing, &reached.deadline)
    } else {
        reached.opened.handle.call(&request(None), None, &reached.deadline)
    };
    match reply.map_err(Failure::Worker)? {
        Reply::Signed { message, signature } => {
            let decode = |text: &str| STANDARD.decode(text);
            let both = decode(&message).and_then(|message| decode(&signature).map(|signature| (message, signature)));
            both.map_err(|_| Failure::Worker(reached.opened.handle.out_of_turn(doing)))
        }
        _ => Err(Failure::Worker(reached.opened.handle.out_of_turn(doing))),
    }
}

/// A new session, a new login with the PIN that was accepted, and the same identity again.
fn start_over(reached: &mut Reached, login: &mut Login, before: &Identity, config: &Config) -> Result<Identity> {
    let slot_id = reached.slot.id;
    let reply = reached.opened.handle.call(&WorkerRequest::Session { slot_id }, None, &reached.deadline);
    let context = || format!("cannot open a session on {}", reached.name());
    let reply = reply.map_err(|error| Error::from(error).context(context()))?;
    if !matches!(reply, Reply::Session(_)) {
        return Err(reached.opened.handle.out_of_turn("opening a session").into());
    }
    login.again(reached)?;
    let file = before.from_file.then(|| before.certificate.clone());
    let identity = reached.identity(config, file)?;
    if identity.certificate != before.certificate {
        return Err(Error::new(Kind::TokenFailed, "the token shows another identity than a moment ago"));
    }
    Ok(identity)
}

fn first_mechanism(reached: &Reached) -> Result<Mechanism> {
    if !reached.session.mechanisms_known {
        return Ok(Mechanism::Sha512RsaPkcs);
    }
    let none = || {
        Error::new(Kind::Unsuitable, format!("{} offers neither CKM_SHA512_RSA_PKCS nor CKM_RSA_PKCS", reached.name()))
            .hint("`pkcs11-tool --list-mechanisms` shows what it has")
    };
    reached.session.mechanisms.first().copied().ok_or_else(none)
}

fn judge(reached: &Reached, identity: &Identity, config: &Config, mechanism: Mechanism) -> Result<Vec<String>> {
    let decision = policy::decide(
        &config.policy,
        &Subject {
            order: Order {
                token: reached.slot.token.as_ref(),
                certificate_from_file: identity.from_file,
                version: config.sign.version,
                version_by_flag: config.sign.version_by_flag,
                mechanism,
            },
            key: &identity.key,
            certificate: &identity.certificate,
            now: now(),
        },
    );
    Ok(decision.allowed()?)
}
