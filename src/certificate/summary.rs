//! The facts about a certificate that `list`, `certificate` and `custody` print as JSON. PURE.

use serde::Serialize;

use super::Certificate;
use crate::text::hex;

/// The members in this order. Each command flattens them into its own object.
#[derive(Debug, Serialize)]
pub(crate) struct CertificateSummary {
    /// The subject's name (RFC 4514), escaped for a terminal.
    pub subject: String,
    /// The issuer's name (RFC 4514), escaped for a terminal.
    pub issuer: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// The alternative names, each with its kind before a colon.
    pub subject_alternative_names: Vec<String>,
    /// The e-mail addresses of the subject.
    pub emails: Vec<String>,
    /// The names of RFC 5280 section 4.2.1.3; `None` without the extension.
    pub key_usage: Option<Vec<&'static str>>,
    /// Names or object identifiers; `None` without the extension.
    pub extended_key_usage: Option<Vec<String>>,
    /// Start of validity, RFC 3339 in UTC.
    pub not_before: String,
    /// End of validity, RFC 3339 in UTC.
    pub not_after: String,
    /// The SHA-256 of the DER, in hexadecimal.
    pub sha256: String,
}

impl Certificate {
    /// The facts for a JSON document.
    #[must_use]
    pub(crate) fn summary(&self) -> CertificateSummary {
        CertificateSummary {
            subject: self.subject.clone(),
            issuer: self.issuer.clone(),
            serial: self.serial.clone(),
            subject_alternative_names: self.alternative_names.clone(),
            emails: self.emails.clone(),
            key_usage: self.key_usage_names(),
            extended_key_usage: self.extended_key_usage.clone(),
            not_before: self.valid_from.clone(),
            not_after: self.valid_until.clone(),
            sha256: hex(&self.sha256()),
        }
    }
}
