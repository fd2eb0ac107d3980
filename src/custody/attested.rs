//! Which of a token's certificates attests the key, and whether it chains to roots that are trusted to attest.
//!
//! PURE. The modulus decides which; a shared ID proves nothing.

use serde::Serialize;

use super::{Held, Measure};
use crate::certificate::Certificate;
use crate::certificate::attestation::{Statement, statement};
use crate::printable::hex;

/// Attestations of one key that are looked at; a token has one.
const CONSIDERED: usize = 16;

/// A device's own word that it made the key.
#[derive(Debug, Serialize)]
pub struct Attestation {
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) sha256: String,
    #[serde(flatten)]
    statement: Statement,
    /// Whether it chains to `--attestation-roots`; `None` where none are given.
    pub(super) trusted: Option<bool>,
    #[serde(skip)]
    pub(super) distrust: Option<String>,
}

impl Attestation {
    /// The attestation of the key in hand; of several the first that is trusted.
    pub(super) fn find(held: &Held, measure: &Measure<'_>) -> Option<Self> {
        let of_key = |der: &&Vec<u8>| {
            let certificate = Certificate::from_der(der).ok()?;
            let of_key = certificate.modulus == held.certificate.modulus;
            of_key.then(|| statement(der)).flatten().map(|statement| (certificate, statement))
        };
        let all = held.others.iter().filter_map(|der| of_key(&der)).take(CONSIDERED);
        let all: Vec<Self> = all.map(|(one, statement)| Self::judge(&one, statement, held, measure)).collect();
        let best = all.iter().position(|one| one.trusted == Some(true)).unwrap_or(0);
        all.into_iter().nth(best)
    }

    fn judge(certificate: &Certificate, statement: Statement, held: &Held, measure: &Measure<'_>) -> Self {
        let roots = measure.trust.attestation_roots.as_ref();
        let checked = roots.map(|roots| roots.check(certificate, &held.others(), measure.now));
        Self {
            subject: certificate.subject.clone(),
            issuer: certificate.issuer.clone(),
            sha256: hex(&certificate.sha256()),
            statement,
            trusted: checked.as_ref().map(Result::is_ok),
            distrust: checked.and_then(Result::err).map(|error| error.to_string()),
        }
    }

    /// What is attested, for a person.
    pub(super) fn words(&self) -> String {
        let Statement { firmware, serial, pin_policy, touch_policy, fips } = &self.statement;
        let words = [
            serial.as_ref().map(|serial| format!("device {serial}")),
            firmware.as_ref().map(|firmware| format!("firmware {firmware}")),
            pin_policy.map(|when| format!("PIN {when}")),
            touch_policy.map(|when| format!("touch {when}")),
            fips.then(|| "FIPS series".to_owned()),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        if words.is_empty() { "nothing but the key".into() } else { words.join(", ") }
    }
}
