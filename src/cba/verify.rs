//! The check of a signed message, for the parent's own results and for the `verify` command.
//!
//! PURE. The error names the broken rule, and for known mistakes also the mistake.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents};

use super::message::{LEN, Version, time_of};
use crate::certificate::{Certificate, utc};

/// The conditions for a fresh v2 message.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// The time of the check, seconds of Unix time.
    pub now: u64,
    /// The maximum age of the message, in seconds.
    pub max_age: u64,
    /// The maximum number of seconds that its time may be ahead of the check's clock.
    pub max_ahead: u64,
}

/// The rule that a message or signature breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Violation {
    #[error("the message has {found} bytes, not {LEN}")]
    Length {
        /// Its length in bytes.
        found: usize,
    },
    #[error("the time in the message is in milliseconds, not seconds")]
    Milliseconds,
    #[error("the message is {age} s old, more than {max_age} s (made {made})")]
    Stale {
        /// Its age in seconds.
        age: u64,
        /// The maximum age, in seconds.
        max_age: u64,
        /// Its time in UTC.
        made: String,
    },
    #[error("the time in the message is {ahead} s ahead of this clock ({made})")]
    Ahead {
        /// The difference, in seconds.
        ahead: u64,
        /// Its time in UTC.
        made: String,
    },
    #[error("the signature has {found} bytes, but the certificate's key needs {expected}")]
    SignatureLength {
        /// Its length in bytes.
        found: usize,
        /// The length of the modulus in bytes.
        expected: usize,
    },
    /// The signature is over other bytes, or by another algorithm or key.
    #[error("the signature does not verify: {0}")]
    Signature(&'static str),
}

/// What a worker or an agent returned as a message and its signature. Nothing is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UncheckedPayload {
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
}

/// A payload that [`verify`] accepted. Only that function makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPayload {
    version: Version,
    payload: UncheckedPayload,
}

impl VerifiedPayload {
    /// The version that it was accepted as.
    #[must_use]
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    #[must_use]
    pub(crate) fn message(&self) -> &[u8] {
        &self.payload.message
    }

    #[must_use]
    pub(crate) fn signature(&self) -> &[u8] {
        &self.payload.signature
    }

    /// A payload of these bytes, for tests of what comes after the check.
    #[cfg(test)]
    pub(super) fn of_test(version: Version, message: &[u8], signature: &[u8]) -> Self {
        Self { version, payload: UncheckedPayload { message: message.to_vec(), signature: signature.to_vec() } }
    }
}

/// Checks message and signature against a certificate: length, time (v2), signature (RFC 8017 section 8.2, SHA-512).
///
/// # Errors
/// The first broken rule.
pub(crate) fn verify(
    version: Version,
    payload: UncheckedPayload,
    certificate: &Certificate,
    freshness: Freshness,
) -> Result<VerifiedPayload, Violation> {
    let (message, signature) = (&payload.message[..], &payload.signature[..]);
    check_message(version, message, freshness)?;
    if signature.len() != certificate.modulus.len() {
        return Err(Violation::SignatureLength { found: signature.len(), expected: certificate.modulus.len() });
    }
    if !verifies(&signature::RSA_PKCS1_2048_8192_SHA512, certificate, message, signature) {
        return Err(Violation::Signature(diagnosis(certificate, message, signature)));
    }
    Ok(VerifiedPayload { version, payload })
}

/// Pads or cuts a signature to the length of the key's modulus. RFC 8017 section 8.2.1 requires this length; some
/// drivers drop leading zeros, others add one. Other signatures stay unchanged.
#[must_use]
pub(crate) fn to_key_length(signature: Vec<u8>, length: usize) -> Vec<u8> {
    let zeros = signature.iter().take_while(|byte| **byte == 0).count();
    let number = &signature[zeros..];
    match length.checked_sub(number.len()) {
        Some(missing) => [&vec![0; missing], number].concat(),
        None => signature,
    }
}

fn check_message(version: Version, message: &[u8], freshness: Freshness) -> Result<(), Violation> {
    // v1 clients sign 100 bytes or more; v2 is exactly 100.
    let length_is_right = match version {
        Version::V1 => message.len() >= LEN,
        Version::V2 => message.len() == LEN,
    };
    if !length_is_right {
        return Err(Violation::Length { found: message.len() });
    }
    let (Version::V2, Some(time)) = (version, time_of(message)) else {
        return Ok(());
    };
    let Freshness { now, max_age, max_ahead } = freshness;
    // As seconds, this number means the year 5138. A lower one may be the seconds of a host whose clock is near 1970.
    let in_milliseconds = |time: u64| time > 100_000_000_000 && (time / 1000).abs_diff(now) < 10 * 365 * 86_400;
    if time > now.saturating_add(max_ahead) {
        return Err(if in_milliseconds(time) {
            Violation::Milliseconds
        } else {
            Violation::Ahead { ahead: time - now, made: utc(time) }
        });
    }
    let age = now.saturating_sub(time);
    if age > max_age {
        return Err(Violation::Stale { age, max_age, made: utc(time) });
    }
    Ok(())
}

fn verifies(algorithm: &'static RsaParameters, certificate: &Certificate, message: &[u8], signature: &[u8]) -> bool {
    let key = RsaPublicKeyComponents { n: &certificate.modulus, e: &certificate.exponent };
    key.verify(algorithm, message, signature).is_ok()
}

/// Names the mistake behind a wrong signature.
fn diagnosis(certificate: &Certificate, message: &[u8], bytes: &[u8]) -> &'static str {
    if !(2048..=8192).contains(&certificate.bits()) {
        return "the certificate's key must have 2048 to 8192 bits";
    }
    let text = STANDARD.encode(message);
    let tries: [(&RsaParameters, &[u8], &str); 5] = [
        (&signature::RSA_PKCS1_2048_8192_SHA512, text.as_bytes(), "it is over the base64 text, not over its bytes"),
        (&signature::RSA_PKCS1_2048_8192_SHA256, message, "it is by SHA-256, not by SHA-512"),
        (&signature::RSA_PKCS1_2048_8192_SHA384, message, "it is by SHA-384, not by SHA-512"),
        (&signature::RSA_PSS_2048_8192_SHA512, message, "it is RSASSA-PSS, not PKCS#1 v1.5"),
        (&signature::RSA_PSS_2048_8192_SHA256, message, "it is RSASSA-PSS with SHA-256, not PKCS#1 v1.5 with SHA-512"),
    ];
    tries
        .into_iter()
        .find(|(algorithm, data, _)| verifies(algorithm, certificate, data, bytes))
        .map_or("it is by another key or over another message", |(_, _, mistake)| mistake)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::leaf;

    const MESSAGE: &[u8] = include_bytes!("../../tests/data/message-v2.bin");
    const SIGNATURE: &[u8] = include_bytes!("../../tests/data/signature-v2.bin");
    const MADE: u64 = 1_893_456_000;

    #[test]
    fn leading_zeros_alone_are_added_and_taken_away() {
        let same = |signature: &[u8], expected: &[u8]| assert_eq!(to_key_length(signature.to_vec(), 4), expected);
        same(&[1, 2, 3, 4], &[1, 2, 3, 4]);
        same(&[0, 1, 2, 3, 4], &[1, 2, 3, 4]);
        same(&[0, 0, 0, 2, 3, 4], &[0, 2, 3, 4]);
        same(&[2, 3, 4], &[0, 2, 3, 4]);
        same(&[], &[0, 0, 0, 0]);
        same(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
        same(&[1, 2, 3, 4, 0], &[1, 2, 3, 4, 0]);
    }

    fn at(now: u64) -> Freshness {
        Freshness { now, max_age: 300, max_ahead: 5 }
    }

    fn check(message: &[u8], signature: &[u8], now: u64) -> Result<(), Violation> {
        check_as(Version::V2, message, signature, at(now))
    }

    fn check_as(version: Version, message: &[u8], signature: &[u8], freshness: Freshness) -> Result<(), Violation> {
        let payload = UncheckedPayload { message: message.to_vec(), signature: signature.to_vec() };
        let verified = verify(version, payload, &leaf(), freshness)?;
        assert_eq!(verified, VerifiedPayload::of_test(version, message, signature));
        Ok(())
    }

    #[test]
    fn accepts_what_openssl_signed() {
        assert_eq!(check(MESSAGE, SIGNATURE, MADE + 10), Ok(()));
        assert_eq!(check_as(Version::V1, MESSAGE, SIGNATURE, at(0)), Ok(()), "v1 has no time");
    }

    #[test]
    fn refuses_the_known_mistakes_by_name() {
        for (signature, word) in [
            (&include_bytes!("../../tests/data/signature-over-base64.bin")[..], "base64"),
            (include_bytes!("../../tests/data/signature-sha256.bin"), "SHA-256"),
            (include_bytes!("../../tests/data/signature-pss.bin"), "PSS"),
        ] {
            let violation = check(MESSAGE, signature, MADE).unwrap_err();
            assert!(matches!(violation, Violation::Signature(_)), "{violation}");
            assert!(violation.to_string().contains(word), "{violation}");
        }
    }

    #[test]
    fn refuses_every_single_changed_byte() {
        for at in 0..SIGNATURE.len() {
            let mut signature = SIGNATURE.to_vec();
            signature[at] ^= 1;
            assert!(check(MESSAGE, &signature, MADE).is_err(), "signature byte {at}");
        }
        for at in 8..MESSAGE.len() {
            let mut message = MESSAGE.to_vec();
            message[at] ^= 1;
            assert!(check(&message, SIGNATURE, MADE).is_err(), "message byte {at}");
        }
    }

    #[test]
    fn refuses_stale_future_and_millisecond_times() {
        assert!(matches!(check(MESSAGE, SIGNATURE, MADE + 301), Err(Violation::Stale { age: 301, .. })));
        assert!(matches!(check(MESSAGE, SIGNATURE, MADE - 6), Err(Violation::Ahead { ahead: 6, .. })));
        let mut message = MESSAGE.to_vec();
        message[..8].copy_from_slice(&(MADE * 1000).to_be_bytes());
        assert_eq!(check(&message, SIGNATURE, MADE), Err(Violation::Milliseconds));
    }

    #[test]
    fn refuses_99_and_101_bytes_and_short_signatures() {
        assert_eq!(check(&MESSAGE[..99], SIGNATURE, MADE), Err(Violation::Length { found: 99 }));
        assert_eq!(check(&[MESSAGE, &[0]].concat(), SIGNATURE, MADE), Err(Violation::Length { found: 101 }));
        let short = check(MESSAGE, &SIGNATURE[1..], MADE);
        assert_eq!(short, Err(Violation::SignatureLength { found: 255, expected: 256 }));
    }

    #[test]
    fn the_limits_of_age_belong_to_the_payload_that_is_good() {
        let at = |time: u64, now: u64| {
            let mut message = MESSAGE.to_vec();
            message[..8].copy_from_slice(&time.to_be_bytes());
            check_message(Version::V2, &message, Freshness { now, max_age: 300, max_ahead: 5 })
        };
        assert_eq!((at(MADE, MADE + 300), at(MADE, MADE - 5), at(MADE, MADE)), (Ok(()), Ok(()), Ok(())));
        assert!(matches!(at(MADE, MADE + 301), Err(Violation::Stale { age: 301, max_age: 300, .. })));
        assert!(matches!(at(MADE, MADE - 6), Err(Violation::Ahead { ahead: 6, .. })));
        let ten_years = 10 * 365 * 86_400;
        for (time, is_milliseconds) in [
            (MADE * 1000, true),
            ((MADE + ten_years - 1) * 1000, true),
            ((MADE + ten_years) * 1000, false),
            ((MADE - ten_years + 1) * 1000, true),
            (u64::MAX, false),
        ] {
            let error = at(time, MADE).unwrap_err();
            assert_eq!(error == Violation::Milliseconds, is_milliseconds, "{time}: {error}");
        }
        // A host whose clock starts in 1970.
        assert!(matches!(at(MADE, 0), Err(Violation::Ahead { ahead: MADE, .. })));
        let v1 = |length| check_message(Version::V1, &vec![0; length], Freshness { now: 0, max_age: 0, max_ahead: 0 });
        assert_eq!((v1(100), v1(101), v1(99)), (Ok(()), Ok(()), Err(Violation::Length { found: 99 })));
    }

    #[test]
    fn a_foreign_signature_and_a_foreign_key_are_named() {
        assert_eq!(diagnosis(&leaf(), MESSAGE, &[1; 256]), "it is by another key or over another message");
        let mut small = leaf();
        small.modulus.truncate(255);
        assert_eq!(diagnosis(&small, MESSAGE, SIGNATURE), "the certificate's key must have 2048 to 8192 bits");
        let mut large = leaf();
        large.modulus = vec![0xff; 1025];
        assert_eq!(diagnosis(&large, MESSAGE, SIGNATURE), "the certificate's key must have 2048 to 8192 bits");
    }
}
