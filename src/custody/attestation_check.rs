//! Selects the token's certificate that attests the key, and checks its chain to trusted roots.
//!
//! PURE. The modulus decides; an equal ID is not enough.

use serde::Serialize;

use super::criteria::Criteria;
use super::evidence::KeyEvidence;
use crate::certificate::Certificate;
use crate::certificate::attestation::{Statement, statement};
use crate::facts::Token;
use crate::text::hex;

/// The number of attestations of one key that are checked; a token has one.
const CONSIDERED: usize = 16;

/// The device's own statement that it made the key.
#[derive(Debug, Serialize)]
pub(crate) struct Attestation {
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) sha256: String,
    #[serde(flatten)]
    statement: Statement,
    /// Whether it chains to `--attestation-roots`; `None` without roots.
    pub(super) trusted: Option<bool>,
    /// Whether it names the token's serial number; `None` if either has none.
    pub(super) of_this_token: Option<bool>,
    #[serde(skip)]
    pub(super) distrust: Option<String>,
}

impl Attestation {
    /// The attestation of the key. Of several, a possibly genuine one of another device comes first, since then the key
    /// is also elsewhere. Next comes a trusted one of this token.
    pub(super) fn find(key_evidence: &KeyEvidence, token: Option<&Token>, criteria: &Criteria<'_>) -> Option<Self> {
        let of_key = |der: &&Vec<u8>| {
            let certificate = Certificate::from_der(der).ok()?;
            let of_key = certificate.modulus == key_evidence.certificate.modulus;
            of_key.then(|| statement(der)).flatten().map(|statement| (certificate, statement))
        };
        let all = key_evidence.others.iter().filter_map(|der| of_key(&der)).take(CONSIDERED);
        let mut all: Vec<Self> =
            all.map(|(one, statement)| Self::judge(&one, statement, key_evidence, token, criteria)).collect();
        all.sort_by_key(|one| match one {
            one if one.is_of_another_device() => 0,
            Self { trusted: Some(true), of_this_token: Some(true), .. } => 1,
            Self { trusted: Some(true), .. } => 2,
            _ => 3,
        });
        all.into_iter().next()
    }

    fn judge(
        certificate: &Certificate,
        statement: Statement,
        key_evidence: &KeyEvidence,
        token: Option<&Token>,
        criteria: &Criteria<'_>,
    ) -> Self {
        let roots = criteria.trusted_roots.attestation_roots.as_ref();
        let checked = roots.map(|roots| roots.check(certificate, &key_evidence.others(), criteria.now));
        let number = |serial: &str| serial.trim_start_matches('0').to_owned();
        let named = token.map(|token| token.serial.trim()).filter(|serial| !serial.is_empty());
        Self {
            subject: certificate.subject.clone(),
            issuer: certificate.issuer.clone(),
            sha256: hex(&certificate.sha256()),
            of_this_token: statement
                .serial
                .as_deref()
                .zip(named)
                .map(|(stated, named)| number(stated) == number(named)),
            statement,
            trusted: checked.as_ref().map(Result::is_ok),
            distrust: checked.and_then(Result::err).map(|error| error.to_string()),
        }
    }

    /// Whether it names another device than the token, and does not appear to be forged.
    pub(super) fn is_of_another_device(&self) -> bool {
        self.of_this_token == Some(false) && self.trusted != Some(false)
    }

    /// The serial number of the device.
    pub(super) fn device(&self) -> &str {
        self.statement.serial.as_deref().unwrap_or("without a serial number")
    }

    /// The statement in words.
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
        if words.is_empty() { "no details of the device".into() } else { words.join(", ") }
    }
}
