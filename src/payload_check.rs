//! The checks of a payload before it is handed out, from our own token or from an agent.
//!
//! PURE. Results of the token and payloads of an agent get the same check of length, time and signature. The policy's rules of token and
//! key are not here: a payload does not show them.

use crate::cba::received::Received;
use crate::cba::verify::Freshness;
use crate::cba::{self, UncheckedPayload, VerifiedPayload, Version, Violation, message};
use crate::certificate::Certificate;
use crate::error::{Explain, Kind};
use crate::policy::{self, PayloadChoice, Policy, PolicyRefusal};

/// Clock corrections during a token's work, in seconds.
pub const CLOCK_TOLERANCE: u64 = 5;

/// The reason why a payload is discarded.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The version differs from the requested one.
    #[error("the agent's payload is {0}")]
    Version(Version),
    /// The signed bytes fail the check.
    #[error(transparent)]
    Result(#[from] BadResult),
    /// The client's policy refuses the payload.
    #[error("the agent's payload was discarded")]
    Policy(#[source] PolicyRefusal),
}

/// The result differs from the request.
#[derive(Debug, thiserror::Error)]
#[error("the token's result was discarded")]
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
        vec!["treat this as an alarm: module, token or memory is faulty or compromised; nothing was printed".into()]
    }
}

/// Checks an agent's payload like a result of the own token. Returns it with the policy's warnings.
///
/// # Errors
/// When its version differs from `choice`, it does not verify, or the policy refuses its version or certificate.
pub fn check_received(
    received: &Received,
    choice: PayloadChoice,
    policy: &Policy,
    freshness: Freshness,
) -> Result<(VerifiedPayload, Vec<String>), PayloadError> {
    let Received { version, certificate, .. } = received;
    if *version != choice.version {
        return Err(PayloadError::Version(*version));
    }
    let payload = check_result(choice.version, received.payload(), certificate, freshness)?;
    let decision = policy::decide_payload(policy, choice, certificate, freshness.now);
    Ok((payload, decision.allowed().map_err(PayloadError::Policy)?))
}

/// Checks a result: exactly 100 bytes, fresh, and signed by the certificate's key.
///
/// # Errors
/// The first broken rule.
pub(crate) fn check_result(
    version: Version,
    payload: UncheckedPayload,
    certificate: &Certificate,
    freshness: Freshness,
) -> Result<VerifiedPayload, BadResult> {
    let found = payload.message.len();
    if found != message::LEN {
        return Err(BadResult(Violation::Length { found }));
    }
    cba::verify(version, payload, certificate, freshness).map_err(BadResult)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::leaf;
    use crate::policy::Breach;

    const MESSAGE: &[u8] = include_bytes!("../tests/data/message-v2.bin");
    const SIGNATURE: &[u8] = include_bytes!("../tests/data/signature-v2.bin");
    const MADE: u64 = 1_893_456_000;
    const FRESHNESS: Freshness = Freshness { now: MADE, max_age: 300, max_ahead: 5 };

    fn payload(message: &[u8], signature: &[u8]) -> UncheckedPayload {
        UncheckedPayload { message: message.to_vec(), signature: signature.to_vec() }
    }

    fn result(message: &[u8], signature: &[u8]) -> Result<VerifiedPayload, BadResult> {
        check_result(Version::V2, payload(message, signature), &leaf(), FRESHNESS)
    }

    #[test]
    fn a_good_result_passes() {
        assert!(result(MESSAGE, SIGNATURE).is_ok());
    }

    #[test]
    fn a_message_of_another_length_is_refused_even_for_v1() {
        for (message, found) in [(&MESSAGE[..99], 99), (&[MESSAGE, &[0]].concat(), 101), (&[], 0)] {
            let payload = payload(message, SIGNATURE);
            let BadResult(violation) = check_result(Version::V1, payload, &leaf(), FRESHNESS).unwrap_err();
            assert_eq!(violation, Violation::Length { found });
        }
    }

    #[test]
    fn a_bad_result_is_an_alarm() {
        let error = result(MESSAGE, &[1; 256]).unwrap_err();
        assert_eq!(error.kind(), Kind::SignatureInvalid);
        assert!(error.hints()[0].contains("alarm") && error.hints().len() == 1, "{:?}", error.hints());
        let error = PayloadError::Result(error);
        assert_eq!(error.kind(), Kind::SignatureInvalid);
        assert!(error.hints()[0].contains("alarm"));
    }

    #[test]
    fn each_payload_error_has_its_kind_and_its_hint() {
        let version = PayloadError::Version(Version::V1);
        assert_eq!(version.kind(), Kind::SignatureInvalid);
        assert!(version.hints()[0].contains("this socket"), "{:?}", version.hints());
        let refused = PayloadError::Policy(PolicyRefusal(vec![Breach::FromFile]));
        assert_eq!(refused.kind(), Kind::Policy);
        assert_eq!(refused.hints(), PolicyRefusal(vec![Breach::FromFile]).hints());
        assert!(!refused.hints().is_empty());
    }

    #[test]
    fn an_agents_payload_is_checked_like_a_result_and_by_the_policy() {
        let received = |version, signature: &[u8]| Received {
            version,
            message: MESSAGE.to_vec(),
            signature: signature.to_vec(),
            certificate: leaf(),
            encoding: crate::certificate::HeaderEncoding::Der,
            url: None,
        };
        let check = |received: &Received, version, policy: &Policy| {
            check_received(received, PayloadChoice { version, by_flag: true }, policy, FRESHNESS)
        };
        let good = received(Version::V2, SIGNATURE);
        assert_eq!(check(&good, Version::V2, &Policy::default()).unwrap().1, [""; 0]);
        assert!(matches!(check(&good, Version::V1, &Policy::default()), Err(PayloadError::Version(Version::V2))));
        let forged = received(Version::V2, &[1; 256]);
        assert!(matches!(check(&forged, Version::V2, &Policy::default()), Err(PayloadError::Result(_))));
        let strict = Policy { min_rsa_bits: 4096, ..Policy::default() };
        assert!(matches!(check(&good, Version::V2, &strict), Err(PayloadError::Policy(_))));
        let mut silent = good;
        silent.certificate.emails.clear();
        assert_eq!(check(&silent, Version::V2, &Policy::default()).unwrap().1.len(), 1);
    }
}
