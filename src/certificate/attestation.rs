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
pub(crate) struct Statement {
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
pub(crate) fn statement(der: &[u8]) -> Option<Statement> {
    let fields = Fields::read(der).ok()?;
    let value = |number: u8| {
        let wanted = [ARC, &[number]].concat();
        fields.values(&wanted).next().and_then(Result::ok)
    };
    fields.extensions.iter().any(|extension| is_attestation(extension.oid)).then(|| Statement {
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

#[cfg(test)]
pub(crate) mod tests {
    use der::Encode as _;

    use super::*;
    use crate::certificate::tests::leaf;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, high, low], content].concat()
    }

    /// A certificate with these extensions (OID and value) and a public key.
    fn certificate(extensions: &[(&[u8], &[u8])], key: &[u8]) -> Vec<u8> {
        let one = |(oid, value): &(&[u8], &[u8])| tlv(0x30, &[tlv(6, oid), tlv(4, value)].concat());
        let extensions: Vec<u8> = extensions.iter().flat_map(one).collect();
        let time = tlv(0x17, b"250101000000Z");
        let parts = [
            tlv(0xa0, &[2, 1, 2]),
            tlv(2, &[1]),
            tlv(0x30, &[]),
            tlv(0x30, &[]),
            tlv(0x30, &[time.clone(), time].concat()),
            tlv(0x30, &[]),
            key.to_vec(),
            tlv(0xa3, &tlv(0x30, &extensions)),
        ];
        tlv(0x30, &[tlv(0x30, &parts.concat()), tlv(0x30, &[]), tlv(3, &[0])].concat())
    }

    /// An attestation of the leaf's key with extensions of the arc: number and value.
    pub(crate) fn of_leaf(all: &[(u8, &[u8])]) -> Vec<u8> {
        let oids: Vec<Vec<u8>> = all.iter().map(|(number, _)| [ARC, &[*number]].concat()).collect();
        let all: Vec<(&[u8], &[u8])> = oids.iter().zip(all).map(|(oid, (_, value))| (oid.as_slice(), *value)).collect();
        let parsed = x509_cert::Certificate::from_der(leaf().der()).unwrap();
        certificate(&all, &parsed.tbs_certificate().subject_public_key_info().to_der().unwrap())
    }

    fn of_yubico(all: &[(u8, &[u8])]) -> Option<Statement> {
        statement(&of_leaf(all))
    }

    #[test]
    fn each_statement_of_a_device_is_read() {
        let wanted = Statement {
            firmware: Some("5.4.3".into()),
            serial: Some("16909060".into()),
            pin_policy: Some("once"),
            touch_policy: Some("cached"),
            fips: true,
        };
        let read = of_yubico(&[(3, &[5, 4, 3]), (7, &[2, 4, 1, 2, 3, 4]), (8, &[2, 3]), (10, &[])]);
        assert_eq!(read, Some(wanted));
        for (byte, pin, touch) in
            [(0, None, None), (1, Some("never"), Some("never")), (3, Some("always"), Some("cached")), (4, None, None)]
        {
            let read = of_yubico(&[(8, &[byte, byte])]).unwrap();
            assert_eq!((read.pin_policy, read.touch_policy), (pin, touch), "{byte}");
        }
        assert_eq!(of_yubico(&[(8, &[1])]).unwrap().touch_policy, None);
        assert_eq!(of_yubico(&[(8, &[2, 2])]).unwrap().touch_policy, Some("always"));
    }

    #[test]
    fn what_a_device_does_not_state_or_states_oddly_is_none() {
        let silent = of_yubico(&[(9, b"x")]).unwrap();
        assert_eq!(silent, Statement::default());
        assert_eq!(of_yubico(&[(3, &[5, 4])]).unwrap().firmware, None);
        for serial in [&[2, 1, 0xff][..], &[4, 1, 7], &[], &[2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(of_yubico(&[(7, serial)]).unwrap().serial, None, "{serial:?}");
        }
    }

    #[test]
    fn another_certificate_is_no_attestation() {
        assert_eq!(statement(&certificate(&[], &tlv(0x30, &[]))), None);
        assert_eq!(statement(&certificate(&[(ARC, b"x")], &tlv(0x30, &[]))), None, "the arc itself");
        assert_eq!(statement(&certificate(&[(&[0x2a, 3], b"x")], &tlv(0x30, &[]))), None);
        assert_eq!(statement(b"text"), None);
    }
}
