//! A YubiKey's attestation: a certificate in which the device states that it made a key, and on which terms.
//!
//! PURE. The extensions are Yubico's (arc 1.3.6.1.4.1.41482.3), as documented for PIV attestation. [`super::chain`] checks the chain to
//! Yubico's root.

use der::Decode as _;
use serde::Serialize;

use super::fields::Fields;

/// The arc of Yubico's PIV attestation extensions, 1.3.6.1.4.1.41482.3, in DER without tag and length.
const ARC: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xc4, 0x0a, 0x03];

/// The device's statements about an attested key. A missing statement is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// The device's firmware, such as `5.4.3`.
    pub firmware: Option<String>,
    /// The device's serial number.
    pub serial: Option<String>,
    /// When the device asks for the PIN: `never`, `once` in a session, or `always`.
    pub pin_policy: Option<&'static str>,
    /// When the device asks for a touch: `never`, `always`, or `cached` for 15 seconds.
    pub touch_policy: Option<&'static str>,
    /// Whether the device belongs to the FIPS series.
    pub fips: bool,
}

/// Whether an extension belongs to an attestation, by its object identifier in DER.
pub(super) fn is_attestation(oid: &[u8]) -> bool {
    oid.len() > ARC.len() && oid.starts_with(ARC)
}

/// The statements of an attestation; `None` for other certificates.
#[must_use]
pub fn statement(der: &[u8]) -> Option<Statement> {
    let fields = Fields::read(der).ok()?;
    let value = |number: u8| {
        let wanted = [ARC, &[number]].concat();
        fields.values(&wanted).next().and_then(Result::ok)
    };
    fields.extensions.iter().any(|one| is_attestation(one.oid)).then(|| Statement {
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
