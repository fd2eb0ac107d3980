//! Checks each rule against the facts. The texts are in `rule`.
//!
//! PURE.

use super::{
    Breach, CertificateSource, MAX_RSA_BITS, PayloadChoice, Policy, PreLoginFacts, Requirement, SigningFacts,
    is_hardware,
};
use crate::cba::Version;
use crate::certificate::Certificate;
use crate::error::{Explain, Kind};
use crate::facts::{KeyObject, Token};

/// The policy's decision.
#[must_use = "a decision must be checked"]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Broken rules; empty means allowed.
    pub(crate) refusals: Vec<Breach>,
    /// Warnings about an allowed signature.
    pub(crate) warnings: Vec<Breach>,
}

/// The policy refuses, for these reasons.
#[derive(Debug, thiserror::Error)]
#[error("refused by policy: {}", reasons(.0).join("; "))]
pub struct PolicyRefusal(pub(crate) Vec<Breach>);

impl Explain for PolicyRefusal {
    fn kind(&self) -> Kind {
        Kind::Policy
    }

    fn hints(&self) -> Vec<String> {
        let mut hints: Vec<String> = Vec::new();
        for hint in self.0.iter().map(Breach::hint) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        hints
    }
}

fn reasons(breaches: &[Breach]) -> Vec<String> {
    breaches.iter().map(Breach::reason).collect()
}

impl Decision {
    /// The warnings, if it is allowed.
    ///
    /// # Errors
    /// All breaches, if it is refused.
    pub fn allowed(self) -> Result<Vec<String>, PolicyRefusal> {
        if self.refusals.is_empty() { Ok(reasons(&self.warnings)) } else { Err(PolicyRefusal(self.refusals)) }
    }

    fn refuse_if(&mut self, broken: bool, breach: impl FnOnce() -> Breach) {
        if broken {
            self.refusals.push(breach());
        }
    }

    fn warn_if(&mut self, is_doubtful: bool, breach: impl FnOnce() -> Breach) {
        if is_doubtful {
            self.warnings.push(breach());
        }
    }
}

/// Checks the facts against the policy.
pub(crate) fn decide(policy: &Policy, facts: &SigningFacts<'_>) -> Decision {
    let mut decision = decide_before_login(policy, &facts.before_login);
    for requirement in &policy.require {
        let holds = requirement.holds(facts.key, facts.before_login.token);
        decision.refuse_if(holds != Some(true), || of_requirement(*requirement, holds));
    }
    for copy in facts.copies {
        for requirement in &policy.require {
            let holds = requirement.holds(copy, facts.before_login.token);
            let is_broken = holds != Some(true) && *requirement != Requirement::HardwareToken;
            decision.refuse_if(is_broken, || Breach::Copy(copy.name(), Box::new(of_requirement(*requirement, holds))));
        }
    }
    decision.warnings.extend(left_out(policy, facts.key, facts.before_login.token));
    for copy in facts.copies {
        let breaches = left_out(policy, copy, facts.before_login.token).into_iter();
        decision.warnings.extend(breaches.map(|breach| Breach::Copy(copy.name(), Box::new(breach))));
    }
    judge_pinned_certificate(policy, facts.certificate, facts.now, &mut decision);
    decision
}

fn of_requirement(requirement: Requirement, holds: Option<bool>) -> Breach {
    if holds.is_some() { Breach::Requirement(requirement) } else { Breach::NotReported(requirement) }
}

/// The default requirements that the configured list leaves out and that the key does not prove.
pub(crate) fn left_out(policy: &Policy, key: &KeyObject, token: Option<&Token>) -> Vec<Breach> {
    let missing = Policy::DEFAULT_REQUIRE.into_iter().filter(|requirement| !policy.require.contains(requirement));
    missing
        .filter_map(|requirement| match requirement.holds(key, token) {
            Some(true) => None,
            holds => Some(Breach::LeftOut { requirement, is_reported: holds.is_some() }),
        })
        .collect()
}

/// Checks the facts before a login against the policy.
pub(crate) fn decide_before_login(policy: &Policy, before_login: &PreLoginFacts<'_>) -> Decision {
    let mut decision = decide_token(policy, before_login.token);
    judge_version(policy, before_login.choice, &mut decision);
    let is_other = policy.mechanism.is_some_and(|wanted| wanted != before_login.mechanism);
    decision.refuse_if(is_other, || Breach::Mechanism(before_login.mechanism));
    let from_file = before_login.certificate_from_file && policy.certificate_source == CertificateSource::Token;
    decision.refuse_if(from_file, || Breach::FromFile);
    decision
}

/// Checks everything against the policy that is known before a login, except the certificate's own rules, for `doctor`.
pub(crate) fn decide_without_login(
    policy: &Policy,
    facts: &PreLoginFacts<'_>,
    certificate: Option<&Certificate>,
) -> Decision {
    const HARDWARE: Requirement = Requirement::HardwareToken;
    let mut decision = decide_before_login(policy, facts);
    if policy.require.contains(&HARDWARE) {
        let holds = is_hardware(facts.token);
        decision.refuse_if(holds != Some(true), || of_requirement(HARDWARE, holds));
    }
    if let Some(certificate) = certificate {
        judge_pins(policy, certificate, &mut decision);
    }
    decision
}

/// Checks only a version against the policy, before an agent is asked for it.
pub(crate) fn decide_version(policy: &Policy, choice: PayloadChoice) -> Decision {
    let mut decision = Decision::default();
    judge_version(policy, choice, &mut decision);
    decision
}

/// Checks version and certificate of another process's payload against the policy. A payload does not show the facts of
/// token and key.
pub fn decide_payload(policy: &Policy, choice: PayloadChoice, certificate: &Certificate, now: u64) -> Decision {
    let mut decision = decide_version(policy, choice);
    judge_pinned_certificate(policy, certificate, now, &mut decision);
    decision
}

/// Checks only a token against the policy: whether it may get a PIN.
pub(crate) fn decide_token(policy: &Policy, token: Option<&Token>) -> Decision {
    let mut decision = Decision::default();
    if let Some(serials) = &policy.token_serials {
        let serial = token.map(|token| token.serial.as_str());
        let pinned = serial.is_some_and(|serial| serials.iter().any(|pinned| pinned == serial));
        decision.refuse_if(!pinned, || Breach::Serial(serial.map(str::to_owned)));
    }
    decision
}

/// Checks only a certificate against the policy's certificate rules, as `verify` does.
pub(crate) fn decide_certificate(policy: &Policy, certificate: &Certificate, now: u64) -> Decision {
    let mut decision = Decision::default();
    judge_certificate(policy, certificate, now, &mut decision);
    decision
}

fn judge_version(policy: &Policy, choice: PayloadChoice, decision: &mut Decision) {
    match &policy.payload_versions {
        Some(versions) => decision
            .refuse_if(!versions.contains(&choice.version), || Breach::Version(choice.version, versions.clone())),
        None => decision.refuse_if(choice.version == Version::V1 && !choice.by_flag, || Breach::V1WithoutFlag),
    }
}

fn judge_pinned_certificate(policy: &Policy, certificate: &Certificate, now: u64, decision: &mut Decision) {
    judge_pins(policy, certificate, decision);
    judge_certificate(policy, certificate, now, decision);
}

fn judge_pins(policy: &Policy, certificate: &Certificate, decision: &mut Decision) {
    if let Some(pins) = &policy.certificate_sha256 {
        let fingerprint = certificate.sha256();
        decision.refuse_if(pins.iter().all(|pin| pin[..] != fingerprint), || Breach::NotPinned(fingerprint));
    }
}

fn judge_certificate(policy: &Policy, certificate: &Certificate, now: u64, decision: &mut Decision) {
    let validity = if now < certificate.not_before {
        Some(Breach::NotYetValid(certificate.not_before))
    } else if now > certificate.not_after {
        Some(Breach::Expired(certificate.not_after))
    } else {
        None
    };
    match validity {
        Some(breach) if policy.enforce_validity => decision.refusals.push(breach),
        Some(breach) => decision.warnings.push(breach),
        None => {}
    }
    let (bits, least) = (certificate.bits(), policy.min_rsa_bits);
    decision.refuse_if(bits < least, || Breach::TooSmall { bits, least });
    decision.refuse_if(bits > MAX_RSA_BITS, || Breach::TooLarge(bits));
    let cannot_sign = certificate.key_usage.is_some_and(|usage| !usage.digital_signature());
    decision.refuse_if(cannot_sign, || Breach::KeyUsage);
    decision.refuse_if(certificate.is_ca, || Breach::Ca);
    judge_extended_key_usage(policy, certificate, decision);
    decision.warn_if(certificate.emails.is_empty(), || Breach::NoEmail);
    decision.warn_if(certificate.is_self_issued(), || Breach::SelfSigned);
    decision.warn_if(!certificate.deviations.is_empty(), || Breach::Form(certificate.deviations.clone()));
}

fn judge_extended_key_usage(policy: &Policy, certificate: &Certificate, decision: &mut Decision) {
    let Some(has) = &certificate.extended_key_usage else {
        return decision.warn_if(true, || Breach::NoExtendedKeyUsage);
    };
    let allowed = &policy.extended_key_usage;
    decision.refuse_if(!has.iter().any(|usage| allowed.contains(usage)), || Breach::ExtendedKeyUsage {
        has: has.clone(),
        allowed: allowed.clone(),
    });
}

#[cfg(test)]
mod tests;
