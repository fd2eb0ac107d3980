//! A YubiKey's attestation: a certificate by which the device itself says that it made a key and under which terms.
//!
//! PURE. The extensions are Yubico's (arc 1.3.6.1.4.1.41482.3), as its PIV attestation is documented; whether the
//! certificate chains to Yubico's root is for [`super::chain`] to say.

use serde::Serialize;

use super::ber::{Element, unsigned};
use super::fields::Fields;

/// The arc of Yubico's PIV attestation extensions, 1.3.6.1.4.1.41482.3, in DER without tag and length.
const ARC: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xc4, 0x0a, 0x03];

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

/// Whether an extension is one of an attestation, by its object identifier in DER.
pub(super) fn is_attestation(oid: &[u8]) -> bool {
    oid.len() > ARC.len() && oid.starts_with(ARC)
}

/// What a certificate states as an attestation; `None` where it is none.
#[must_use]
pub fn statement(der: &[u8]) -> Option<Statement> {
    let fields = Fields::read(der).ok()?;
    let value = |number: u8| {
        let wanted = [ARC, &[number]].concat();
        fields.values(&wanted).next().and_then(Result::ok)
    };
    fields.extensions.iter().any(|one| is_attestation(one.oid)).then(|| Statement {
        firmware: value(3).and_then(|bytes| <[u8; 3]>::try_from(bytes).ok()).map(|[a, b, c]| format!("{a}.{b}.{c}")),
        serial: value(7).and_then(number).map(|serial| serial.to_string()),
        pin_policy: value(8).and_then(|bytes| policy(bytes.first()?, ["never", "once", "always"])),
        touch_policy: value(8).and_then(|bytes| policy(bytes.get(1)?, ["never", "always", "cached"])),
        fips: value(10).is_some(),
    })
}

/// An `INTEGER` that is not negative.
fn number(bytes: &[u8]) -> Option<u64> {
    let (digits, is_negative) = unsigned(Element::first(bytes).ok()?).ok()?;
    let fits = !is_negative && digits.len() <= 8;
    fits.then(|| digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn policy(byte: &u8, names: [&'static str; 3]) -> Option<&'static str> {
    names.get(usize::from(*byte).checked_sub(1)?).copied()
}
