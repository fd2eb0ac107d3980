//! A YubiKey's attestation: a certificate by which the device itself says that it made a key and under which terms.
//!
//! PURE. The extensions are Yubico's (arc 1.3.6.1.4.1.41482.3), as its PIV attestation is documented; whether the
//! certificate chains to Yubico's root is for [`super::chain`] to say.

use const_oid::ObjectIdentifier;
use der::Decode as _;
use serde::Serialize;

/// The arc of Yubico's PIV attestation extensions.
const ARC: &str = "1.3.6.1.4.1.41482.3.";

/// What a device states of a key that it attests. What it does not state is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// The device's firmware, as `5.4.3`.
    pub firmware: Option<String>,
    /// The device's serial number.
    pub serial: Option<String>,
    /// When the PIN is wanted: `never`, `once` in a session, or `always`.
    pub pin_policy: Option<&'static str>,
    /// When a touch is wanted: `never`, `always`, or `cached` for 15 seconds.
    pub touch_policy: Option<&'static str>,
    /// Whether the device is of the FIPS series.
    pub fips: bool,
}

/// Whether an extension is one of an attestation.
pub(super) fn is_attestation(extension: ObjectIdentifier) -> bool {
    extension.to_string().starts_with(ARC)
}

/// What a certificate states as an attestation; `None` where it is none.
#[must_use]
pub fn statement(der: &[u8]) -> Option<Statement> {
    let parsed = x509_cert::Certificate::from_der(der).ok()?;
    let extensions = parsed.tbs_certificate().extensions()?;
    let value = |number: u8| {
        let wanted = format!("{ARC}{number}");
        extensions.iter().find(|one| one.extn_id.to_string() == wanted).map(|one| one.extn_value.as_bytes())
    };
    extensions.iter().any(|one| is_attestation(one.extn_id)).then(|| Statement {
        firmware: value(3).and_then(|bytes| <[u8; 3]>::try_from(bytes).ok()).map(|[a, b, c]| format!("{a}.{b}.{c}")),
        serial: value(7).and_then(|bytes| u64::from_der(bytes).ok()).map(|serial| serial.to_string()),
        pin_policy: value(8).and_then(|bytes| policy(bytes.first()?, ["never", "once", "always"])),
        touch_policy: value(8).and_then(|bytes| policy(bytes.get(1)?, ["never", "always", "cached"])),
        fips: value(10).is_some(),
    })
}

fn policy(byte: &u8, names: [&'static str; 3]) -> Option<&'static str> {
    names.get(usize::from(*byte).checked_sub(1)?).copied()
}
