//! The front's judgement, and the only way to a payload: policy before, check after.
//!
//! Runs in the parent. The worker is told to sign only after the policy allowed it on the worker's own facts; its
//! result becomes a request only after the same check as `verify`'s and the policy once more. Neither module nor worker
//! is trusted.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::audit::chain::{Caller, Entry, Event, Payload};
use crate::cba::Request;
use crate::cba::verify::Freshness;
use crate::certificate::Certificate;
use crate::config::Config;
use crate::custody::Evidence;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::Mechanism;
use crate::identity::Identity;
use crate::payload_check::{CLOCK_TOLERANCE, check_result};
use crate::policy::{self, Order, Subject, Wish};
use crate::session::evidence::Described;
use crate::session::{Failure, Login, Reached, evidence, now, warn_before_end};
use crate::text::hex;
use crate::worker_handle::{Descriptors, HandleError, Progress, Rest};
use crate::worker_protocol::{Authentication, Reply, Request as WorkerRequest};

/// What should be noticed once a day by whoever reads the log of a service.
const NOTICE_AGAIN: u64 = 86_400;

/// A worker that is logged in and has an identity: it signs fresh messages, and nothing else.
#[derive(Debug)]
pub struct Signer {
    reached: Reached,
    login: Login,
    identity: Identity,
    mechanism: Mechanism,
    with_context: bool,
    has_signed: bool,
    /// Since when the token makes what [`Signer::sign`] has not asked for yet, in order.
    begun: VecDeque<Instant>,
    noticed: Option<u64>,
}

impl Signer {
    /// Judges what needs no PIN, logs in, chooses the identity, and judges that.
    ///
    /// # Errors
    /// When the policy refuses, the login fails, or there is no one identity; the worker has ended then.
    pub fn ready(
        mut reached: Reached,
        mut login: Login,
        file: Option<Certificate>,
        config: &Config,
        wish: Wish,
    ) -> Result<Self> {
        let prepared = judge_early(&reached, config, wish).and_then(|mechanism| {
            login.login(&mut reached, config)?;
            let identity = reached.identity(config, file)?;
            judge(&reached, &identity, config, mechanism, wish)?;
            Ok((mechanism, identity))
        });
        match prepared {
            Ok((mechanism, identity)) => {
                let with_context = identity.key.always_authenticate == Some(true);
                let (has_signed, begun, noticed) = (false, VecDeque::new(), None);
                Ok(Self { reached, login, identity, mechanism, with_context, has_signed, begun, noticed })
            }
            Err(error) => {
                // Logged out before the token's lock is given back.
                reached.end(Some(&error));
                drop(login);
                Err(error)
            }
        }
    }

    /// The chosen identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The token and its module.
    #[must_use]
    pub fn reached(&self) -> &Reached {
        &self.reached
    }

    /// What is known of the key and of what holds it, with the digest of the module's file; what is evidence alone is asked
    /// for `in_detail`.
    ///
    /// # Errors
    /// What the token answered.
    pub fn evidence(&mut self, module_sha256: Option<String>, in_detail: bool) -> Result<Evidence> {
        let described = if in_detail { self.reached.describe(&self.identity)? } else { Described::default() };
        let held = evidence::held(&self.identity, self.mechanism, described);
        Ok(Evidence { held: Some(held), ..self.reached.evidence(module_sha256) })
    }

    /// The record of what came of somebody's request for a payload.
    #[must_use]
    pub fn entry(&self, caller: Caller, wish: Wish, result: Result<&Request, Kind>) -> Entry {
        let payload = Payload {
            token_serial: self.reached.slot.token.as_ref().map(|token| token.serial.clone()),
            certificate_sha256: Some(hex(&self.identity.certificate.sha256())),
            payload_version: wish.version.to_string(),
            message_sha256: result.ok().map(Request::message_sha256),
            mechanism: Some(self.mechanism.name()),
        };
        let outcome = result.map_or_else(Kind::name, |_| "ok");
        Entry { time: now(), event: Event::Sign { caller, payload }, outcome }
    }

    /// Whether each signature needs a login of its own.
    #[must_use]
    pub fn always_authenticates(&self) -> bool {
        self.with_context
    }

    /// Gives the token's lock back, for a service that stays logged in; each further login takes it again.
    pub fn release(&mut self) {
        self.login.release();
    }

    /// The time for what comes next.
    pub fn allow(&mut self, deadline: Deadline) {
        self.reached.deadline = deadline;
    }

    /// What to wait for in a loop.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn descriptors(&self) -> io::Result<Descriptors> {
        self.reached.opened.handle.descriptors()
    }

    /// Logs what the module has printed, some of it at a time.
    pub fn log_output(&mut self) -> Rest {
        self.reached.opened.handle.log_output()
    }

    /// Has the token begin what [`Signer::sign`] is asked for next, or after what was begun before, where the policy allows
    /// it; the token's own failures show there. It cannot for a key that wants a login for each signature.
    ///
    /// # Errors
    /// When the policy refuses.
    pub fn begin(&mut self, config: &Config, wish: Wish) -> Result<bool> {
        if self.with_context {
            return Ok(false);
        }
        self.allowed(config, wish)?;
        let (key, mechanism, version) = (self.identity.key.handle, self.mechanism, wish.version);
        self.reached.opened.handle.foresee(WorkerRequest::Sign { key, mechanism, version, context: None });
        self.begun.push_back(Instant::now());
        Ok(true)
    }

    /// What has come of what was begun, as far as it is there.
    pub fn look(&mut self) -> Progress {
        self.reached.opened.handle.look()
    }

    /// Asks the token whether it is still there and still the same, and the policy whether it would let it sign, without
    /// a signature.
    ///
    /// # Errors
    /// What is no longer so; the worker is of no use then, save where it is the policy that refuses.
    pub fn probe(&mut self, config: &Config, wish: Wish) -> Result<()> {
        self.reached.probe()?;
        self.judge(config, wish).map(drop)
    }

    /// Has the token sign one fresh message, and returns the request that carries it.
    ///
    /// # Errors
    /// When the policy refuses, the token fails, or its result does not hold.
    pub fn sign(&mut self, config: &Config, wish: Wish) -> Result<Request> {
        self.sign_and(config, wish, |_| {})
    }

    /// The same for the last time: the worker begins to end while its result is looked at. [`Signer::end`] is next.
    ///
    /// # Errors
    /// As [`Signer::sign`].
    pub fn sign_last(&mut self, config: &Config, wish: Wish) -> Result<Request> {
        self.sign_and(config, wish, |reached| reached.opened.handle.begin_to_close())
    }

    fn sign_and(&mut self, config: &Config, wish: Wish, then: impl FnOnce(&mut Reached)) -> Result<Request> {
        let begun = self.begun.pop_front();
        let start = begun.map_or_else(|| self.allowed(config, wish).map(|()| Instant::now()), Ok)?;
        let (message, signature) = self.signature(config, wish)?;
        then(&mut self.reached);
        let freshness =
            Freshness { now: now(), max_age: start.elapsed().as_secs() + CLOCK_TOLERANCE, max_ahead: CLOCK_TOLERANCE };
        let certificate = &self.identity.certificate;
        let signature = crate::cba::verify::to_key_length(signature, certificate.modulus.len());
        check_result(wish.version, (&message, &signature), certificate, freshness)?;
        self.judge(config, wish)?;
        self.has_signed = true;
        tracing::debug!("signed by {} and verified", self.mechanism.name());
        let sign = &config.sign;
        let certificate = (certificate, sign.header_encoding);
        Ok(Request::new(&sign.auth_url, certificate, wish.version, (&message, &signature)))
    }

    /// Ends the worker in good order, where the error allows it, and then gives the token's lock back.
    pub fn end(self, error: Option<&Error>) {
        self.reached.end(error);
        drop(self.login);
    }

    /// Message and signature, by the mechanism and with the login that turn out to be needed.
    fn signature(&mut self, config: &Config, wish: Wish) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut result = self.order(config, wish);
        if self.mechanism == Mechanism::Sha512RsaPkcs && is_fault(&result, &["C_SignInit"], "CKR_MECHANISM_INVALID") {
            self.mechanism = Mechanism::RsaPkcs;
            self.begun.clear();
            self.judge(config, wish)?;
            result = self.order(config, wish);
        }
        let signing = ["C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal"];
        let first = !self.has_signed && !self.with_context;
        if is_fault(&result, &signing, "CKR_USER_NOT_LOGGED_IN") && first && self.login.can_repeat() {
            // The key wants a login of its own, whatever its attribute says; some modules drop the first one over it.
            self.with_context = true;
            self.begun.clear();
            self.start_over(config)?;
            result = self.order(config, wish);
        }
        result.map_err(|failure| match failure {
            Failure::Worker(error) => {
                let error = Error::from(error).context(format_args!("cannot sign with {}", self.reached.name()));
                self.reached.hint_at_the_key(error, self.identity.certificate.bits())
            }
            Failure::Other(error) => error,
        })
    }

    /// Orders one signature, with the context-specific login where it is needed.
    fn order(&mut self, config: &Config, wish: Wish) -> Signed {
        let (key, mechanism, version) = (self.identity.key.handle, self.mechanism, wish.version);
        let request = |context: Option<Authentication>| WorkerRequest::Sign { key, mechanism, version, context };
        let doing = "signing";
        let reached = &mut self.reached;
        let reply = if self.with_context {
            self.login.for_context(reached, config).map_err(Failure::Other)?;
            self.login.authenticate(reached, |how| request(Some(how)), "login for the signature refused")?;
            reached.opened.handle.answer(doing, &reached.deadline)
        } else {
            reached.opened.handle.call(&request(None), None, &reached.deadline)
        };
        match reply.map_err(Failure::Worker)? {
            Reply::Signed { message, signature } => {
                let decode = |text: &str| STANDARD.decode(text);
                let both =
                    decode(&message).and_then(|message| decode(&signature).map(|signature| (message, signature)));
                both.map_err(|_| Failure::Worker(reached.opened.handle.out_of_turn(doing)))
            }
            _ => Err(Failure::Worker(reached.opened.handle.out_of_turn(doing))),
        }
    }

    /// A new session, a new login with the PIN that was accepted, and the same identity again.
    fn start_over(&mut self, config: &Config) -> Result<()> {
        self.reached.open_session_again()?;
        self.login.again(&mut self.reached, config)?;
        let file = self.identity.from_file.then(|| self.identity.certificate.clone());
        let identity = self.reached.identity(config, file)?;
        if identity.certificate != self.identity.certificate {
            return Err(Error::new(Kind::TokenFailed, "the token shows another identity than a moment ago"));
        }
        self.identity = identity;
        Ok(())
    }

    /// The policy's word before a signature; what it warns of is said.
    fn allowed(&mut self, config: &Config, wish: Wish) -> Result<()> {
        let warnings = self.judge(config, wish)?;
        self.notice(&warnings, config);
        Ok(())
    }

    /// Says what is allowed and worth a word: once for a command, once a day for a service.
    fn notice(&mut self, warnings: &[String], config: &Config) {
        let now = now();
        if self.noticed.is_none_or(|noticed| now.saturating_sub(noticed) >= NOTICE_AGAIN) {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            for weaker in config.policy.weaker_than_default() {
                tracing::debug!("the policy is weaker than the defaults: {weaker}");
            }
            warn_before_end(&self.identity.certificate, config.sign.warn_before, now);
            self.noticed = Some(now);
        }
    }

    fn judge(&self, config: &Config, wish: Wish) -> Result<Vec<String>> {
        judge(&self.reached, &self.identity, config, self.mechanism, wish)
    }
}

/// What the policy says of a signature; the warnings, where it allows it.
fn judge(
    reached: &Reached,
    identity: &Identity,
    config: &Config,
    mechanism: Mechanism,
    wish: Wish,
) -> Result<Vec<String>> {
    let order = order_of(reached, identity.from_file, mechanism, wish);
    let Identity { key, copies, certificate, .. } = identity;
    Ok(policy::decide(&config.policy, &Subject { order, key, copies, certificate, now: now() }).allowed()?)
}

type Signed = Result<(Vec<u8>, Vec<u8>), Failure>;

/// Judges before any login what needs none: the version, the token, the mechanism, and where the certificate comes from.
fn judge_early(reached: &Reached, config: &Config, wish: Wish) -> Result<Mechanism> {
    let mechanism = first_mechanism(reached)?;
    let order = order_of(reached, config.certificate_file.is_some(), mechanism, wish);
    policy::decide_order(&config.policy, &order).allowed()?;
    Ok(mechanism)
}

fn order_of(reached: &Reached, certificate_from_file: bool, mechanism: Mechanism, wish: Wish) -> Order<'_> {
    let (version, version_by_flag) = (wish.version, wish.by_flag);
    Order { token: reached.slot.token.as_ref(), certificate_from_file, version, version_by_flag, mechanism }
}

/// How a token is to sign, by what it offers.
///
/// # Errors
/// When it offers neither way.
pub fn first_mechanism(reached: &Reached) -> Result<Mechanism> {
    if !reached.session.mechanisms_known {
        return Ok(Mechanism::Sha512RsaPkcs);
    }
    let none = || {
        Error::new(Kind::Unsuitable, format!("{} offers neither CKM_SHA512_RSA_PKCS nor CKM_RSA_PKCS", reached.name()))
            .hint(reached.whole_commands("`pkcs11-tool --list-mechanisms` shows what it has"))
    };
    reached.session.mechanisms.first().copied().ok_or_else(none)
}

/// Whether one of these calls answered this value.
fn is_fault(result: &Signed, calls: &[&str], value: &str) -> bool {
    let Err(Failure::Worker(HandleError::Fault(fault))) = result else { return false };
    calls.iter().any(|call| fault.is(call, value))
}
