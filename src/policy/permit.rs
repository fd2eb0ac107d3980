//! The permission for one signature.
//!
//! PURE.

use super::{PayloadChoice, Policy, PolicyRefusal, PreLoginFacts, SigningFacts, decide};
use crate::facts::Mechanism;

/// The policy's permission for one signature. It can only be made by [`permit`], from all facts, after the login.
#[must_use]
#[derive(Debug)]
pub(crate) struct Permit {
    choice: PayloadChoice,
    mechanism: Mechanism,
    key: u64,
    given: u64,
    warnings: Vec<String>,
}

/// Decides whether this key may sign now.
///
/// # Errors
/// All rules that are broken.
pub(crate) fn permit(policy: &Policy, facts: &SigningFacts<'_>) -> Result<Permit, PolicyRefusal> {
    let warnings = decide(policy, facts).allowed()?;
    let PreLoginFacts { choice, mechanism, .. } = facts.before_login;
    Ok(Permit { choice, mechanism, key: facts.key.handle, given: facts.now, warnings })
}

impl Permit {
    /// What may be signed.
    #[must_use]
    pub(crate) fn choice(&self) -> PayloadChoice {
        self.choice
    }

    /// How it may be signed.
    #[must_use]
    pub(crate) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The worker's number of the key.
    #[must_use]
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// When it was given, in seconds of Unix time. A message that is older was not made for it.
    #[must_use]
    pub(crate) fn given(&self) -> u64 {
        self.given
    }

    /// What the policy allows and warns of.
    #[must_use]
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
