//! What must hold for a payload before it is handed out, from our own token or from an agent.
//!
//! PURE. The token's own results and the payloads of an agent go through the same check of length, time and signature. The
//! policy's rules of token and key are not here: a payload does not show them.

use crate::cba::received::Received;
use crate::cba::verify::Freshness;
use crate::cba::{self, Version, Violation, message};
use crate::certificate::Certificate;
use crate::error::{Explain, Kind};
use crate::policy::{self, Policy, Refused, Wish};

/// Clocks may be corrected while a token works, by so many seconds.
pub const CLOCK_TOLERANCE: u64 = 5;

/// Why a payload is thrown away.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not the version that was asked for.
    #[error("the agent's payload is {0}")]
    Version(Version),
    /// The signed bytes do not hold.
    #[error(transparent)]
    Result(#[from] BadResult),
    /// The policy of this side refuses what the agent signed.
    #[error("the agent's payload was thrown away")]
    Policy(#[source] Refused),
}

/// The result is not what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the token's result was thrown away")]
pub struct BadResult(#[source] Violation);

impl Explain for PayloadError {
    fn kind(&self) -> Kind {
        match self {
            Self::Version(_) => Kind::SignatureInvalid,
            Self::Result(error) => error.kind(),
            Self::Policy(refused) => refused.kind(),
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Version(_) => {
                vec!["do not trust the process that listens on this socket; no payload was printed".into()]
            }
            Self::Result(error) => error.hints(),
            Self::Policy(refused) => refused.hints(),
        }
    }
}

impl Explain for BadResult {
    fn kind(&self) -> Kind {
        Kind::SignatureInvalid
    }

    fn hints(&self) -> Vec<String> {
        vec!["treat this as an alarm: module, token or memory is faulty or was taken over; nothing was printed".into()]
    }
}

/// Checks what an agent gave as a result of the own token is checked, and returns the policy's warnings.
///
/// # Errors
/// When it is another version than `wish`, does not verify, or the policy refuses its version or certificate.
pub fn check_received(
    received: &Received,
    wish: Wish,
    policy: &Policy,
    freshness: Freshness,
) -> Result<Vec<String>, PayloadError> {
    let Received { version, message, signature, certificate, .. } = received;
    if *version != wish.version {
        return Err(PayloadError::Version(*version));
    }
    check_result(wish.version, (message, signature), certificate, freshness)?;
    let decision = policy::decide_payload(policy, wish, certificate, freshness.now);
    decision.allowed().map_err(PayloadError::Policy)
}

/// Checks a result: exactly 100 bytes, fresh, and signed by the key of the certificate.
///
/// # Errors
/// The first rule that is broken.
pub fn check_result(
    version: Version,
    (message, signature): (&[u8], &[u8]),
    certificate: &Certificate,
    freshness: Freshness,
) -> Result<(), BadResult> {
    if message.len() != message::LEN {
        return Err(BadResult(Violation::Length { found: message.len() }));
    }
    cba::verify(version, (message, signature), certificate, freshness).map_err(BadResult)
}
