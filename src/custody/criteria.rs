//! The criteria of a report, and the policy's decision about the evidence.
//!
//! PURE.

use super::evidence::{Evidence, KeyEvidence};
use crate::certificate::chain::Roots;
use crate::facts::KeyObject;
use crate::policy::{self, PayloadChoice, Policy, PreLoginFacts, SigningFacts};

#[derive(Clone, Debug, Default)]
pub(crate) struct PolicySources {
    /// The files that were read.
    pub files: Vec<String>,
    /// Each key of `[policy]` that is set, with its value and its origin.
    pub settings: Vec<String>,
}

/// Trusted roots. `None`: no check.
#[derive(Debug, Default)]
pub(crate) struct TrustedRoots {
    /// For the certificate.
    pub roots: Option<Roots>,
    /// For the token's attestation of the key.
    pub attestation_roots: Option<Roots>,
}

/// The rules and circumstances for the check.
#[derive(Debug)]
pub(crate) struct Criteria<'a> {
    pub policy: &'a Policy,
    pub sources: PolicySources,
    /// The payload to sign.
    pub choice: PayloadChoice,
    pub trusted_roots: &'a TrustedRoots,
    /// Seconds of Unix time.
    pub now: u64,
    /// The host's name.
    pub host: String,
}

/// The policy's decision about the evidence; about the token only, if it must not get a PIN.
pub(super) fn decide(evidence: &Evidence, criteria: &Criteria<'_>) -> policy::Decision {
    let (Criteria { policy, choice, now, .. }, token) = (criteria, evidence.token.as_ref());
    let Some(KeyEvidence { key, certificate, from_file, mechanism, .. }) = &evidence.key else {
        return policy::decide_token(policy, token);
    };
    let before_login =
        PreLoginFacts { token, certificate_from_file: *from_file, choice: *choice, mechanism: *mechanism };
    let copies: Vec<KeyObject> =
        evidence.key.iter().flat_map(|key_evidence| &key_evidence.copies).map(|copy| copy.key.clone()).collect();
    policy::decide(policy, &SigningFacts { before_login, key, copies: &copies, certificate, now: *now })
}
