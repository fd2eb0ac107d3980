//! Evidence for a key-custody policy: what the token says of itself, its key and its certificate, against each rule.
//!
//! PURE. The order of members is stable; what changes from run to run stands apart in `run`.

use serde::Serialize;

use crate::certificate::{Certificate, utc};
use crate::facts::{Key, Library, Mechanism, Token};
use crate::policy::{self, Order, Policy, Requirement, Subject, Wish};
use crate::printable::{hex, printable_bytes};

/// What is known of the holder of a key.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The module's canonical path.
    pub module: String,
    /// The SHA-256 of its file, where it can be read.
    pub module_sha256: Option<String>,
    /// What it says of itself.
    pub library: Library,
    /// The token, where it says anything of itself.
    pub token: Option<Token>,
    /// The private key.
    pub key: Key,
    /// Its certificate.
    pub certificate: Certificate,
    /// Whether the certificate is from a file and not from the token.
    pub from_file: bool,
    /// How the token signs.
    pub mechanism: Mechanism,
}

/// When and by what the evidence was judged.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// UTC.
    pub time: String,
    /// The host's name.
    pub host: String,
    /// This program's version.
    pub agent: &'static str,
}

/// One thing that a policy may require of a key.
#[derive(Clone, Debug, Serialize)]
struct Rule {
    rule: &'static str,
    required: bool,
    /// `None`: the token does not report it, so it is not proven.
    proven: Option<bool>,
}

/// Evidence and verdict.
#[derive(Debug, Serialize)]
pub struct Report {
    verdict: &'static str,
    refusals: Vec<String>,
    warnings: Vec<String>,
    module: Module,
    token: Option<Token>,
    key: KeyReport,
    certificate: CertificateReport,
    mechanism: &'static str,
    rules: Vec<Rule>,
    run: Run,
}

#[derive(Debug, Serialize)]
struct Module {
    path: String,
    sha256: Option<String>,
    library: Library,
}

#[derive(Debug, Serialize)]
struct KeyReport {
    label: String,
    id: String,
    kind: &'static str,
    bits: usize,
    sensitive: Option<bool>,
    extractable: Option<bool>,
    always_sensitive: Option<bool>,
    never_extractable: Option<bool>,
    local: Option<bool>,
    always_authenticate: Option<bool>,
    sign: Option<bool>,
}

#[derive(Debug, Serialize)]
struct CertificateReport {
    subject: String,
    issuer: String,
    serial: String,
    emails: Vec<String>,
    not_before: String,
    not_after: String,
    sha256: String,
    source: &'static str,
}

/// Holds the evidence against the policy.
#[must_use]
pub fn report(evidence: &Evidence, policy: &Policy, wish: Wish, now: u64, run: Run) -> Report {
    let Evidence { key, certificate, token, .. } = evidence;
    let order = Order {
        token: token.as_ref(),
        certificate_from_file: evidence.from_file,
        version: wish.version,
        version_by_flag: wish.by_flag,
        mechanism: evidence.mechanism,
    };
    let decision = policy::decide(policy, &Subject { order, key, certificate, now });
    let rule = |(name, requirement): (&'static str, Requirement)| Rule {
        rule: name,
        required: policy.require.contains(&requirement),
        proven: requirement.holds(key, token.as_ref()),
    };
    Report {
        verdict: if decision.refusals.is_empty() { "allowed" } else { "refused" },
        refusals: decision.refusals,
        warnings: decision.warnings,
        module: Module {
            path: evidence.module.clone(),
            sha256: evidence.module_sha256.clone(),
            library: evidence.library.clone(),
        },
        token: token.clone(),
        key: key_report(key, certificate),
        certificate: certificate_report(certificate, evidence.from_file),
        mechanism: evidence.mechanism.name(),
        rules: Requirement::NAMES.into_iter().map(rule).collect(),
        run,
    }
}

fn key_report(key: &Key, certificate: &Certificate) -> KeyReport {
    KeyReport {
        label: printable_bytes(&key.label),
        id: hex(&key.id),
        kind: "RSA",
        bits: certificate.bits(),
        sensitive: key.sensitive,
        extractable: key.extractable,
        always_sensitive: key.always_sensitive,
        never_extractable: key.never_extractable,
        local: key.local,
        always_authenticate: key.always_authenticate,
        sign: key.sign,
    }
}

fn certificate_report(certificate: &Certificate, from_file: bool) -> CertificateReport {
    CertificateReport {
        subject: certificate.subject.clone(),
        issuer: certificate.issuer.clone(),
        serial: certificate.serial.clone(),
        emails: certificate.emails.clone(),
        not_before: utc(certificate.not_before),
        not_after: utc(certificate.not_after),
        sha256: hex(&certificate.sha256()),
        source: if from_file { "file" } else { "token" },
    }
}
