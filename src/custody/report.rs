//! The document: evidence and verdict, in members of a stable order.
//!
//! PURE.

use serde::Serialize;

use super::attestation_check::Attestation;
use super::criteria::{Criteria, decide};
use super::evidence::{Evidence, KeyCopy, KeyEvidence};
use super::rule_result::{RuleResult, RuleVerdict};
use super::rules;
use crate::certificate::{CertificateSummary, chain, utc};
use crate::error::Explain as _;
use crate::facts::{Confinement, Gap, KeyDetail, KeyObject, Library, PinState, Token};
use crate::policy::PolicyRefusal;
use crate::text::{hex, printable, printable_bytes};

/// The version of the document's format. It changes if a member is removed or changes its meaning.
const FORM: &str = "cba-agent-custody-1";

/// Evidence and verdict.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(super) form: &'static str,
    /// `allowed` or `refused`.
    pub(super) verdict: &'static str,
    pub(super) refusals: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) rules: Vec<RuleResult>,
    pub(super) module: ModuleReport,
    pub(super) token: Option<TokenReport>,
    pub(super) key: Option<KeyReport>,
    pub(super) certificate: Option<CertificateReport>,
    pub(super) attestation: Option<Attestation>,
    pub(super) copies: Vec<CopyReport>,
    pub(super) run: Run,
    /// The hints for the policy's refusals.
    #[serde(skip)]
    pub(super) hints: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ModuleReport {
    pub path: String,
    pub sha256: Option<String>,
    pub library: Library,
    pub sandbox: Option<Sandbox>,
}

#[derive(Debug, Serialize)]
pub(super) struct Sandbox {
    pub profile: &'static str,
    pub landlock_abi: Option<u32>,
    pub system_calls: bool,
    pub not_confined: Vec<Gap>,
    #[serde(skip)]
    pub words: String,
}

#[derive(Debug, Serialize)]
pub(super) struct TokenReport {
    pub label: String,
    pub manufacturer: String,
    pub model: String,
    pub serial: String,
    pub firmware: String,
    pub hardware: Option<bool>,
    pub initialized: bool,
    pub login_required: bool,
    pub pinpad: bool,
    /// The name of the program, if the token is a known software token.
    pub software: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct CopyReport {
    pub label: String,
    pub id: String,
    pub sensitive: Option<bool>,
    pub extractable: Option<bool>,
    pub always_sensitive: Option<bool>,
    pub never_extractable: Option<bool>,
    pub local: Option<bool>,
    pub usages: Usages,
}

#[derive(Debug, Serialize)]
pub(super) struct KeyReport {
    pub label: String,
    pub id: String,
    pub r#type: &'static str,
    pub bits: usize,
    pub sensitive: Option<bool>,
    pub extractable: Option<bool>,
    pub always_sensitive: Option<bool>,
    pub never_extractable: Option<bool>,
    pub local: Option<bool>,
    pub generation_mechanism: Option<String>,
    pub always_authenticate: Option<bool>,
    pub private: Option<bool>,
    pub modifiable: Option<bool>,
    pub wrap_with_trusted: Option<bool>,
    pub usages: Usages,
    pub allowed_mechanisms: Option<Vec<String>>,
    pub signs_by: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Usages {
    pub sign: Option<bool>,
    pub sign_recover: Option<bool>,
    pub decrypt: Option<bool>,
    pub unwrap: Option<bool>,
    pub derive: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct CertificateReport {
    #[serde(flatten)]
    pub summary: CertificateSummary,
    /// `token` or `file`.
    pub source: &'static str,
    /// The issuers of the certificate in the token, nearest first.
    pub chain: Vec<IssuerReport>,
    #[serde(skip)]
    pub validity: (u64, u64),
}

#[derive(Debug, Serialize)]
pub(super) struct IssuerReport {
    pub subject: String,
    pub not_after: String,
    pub sha256: String,
}

/// Values that change between runs.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    pub time: String,
    pub host: String,
    pub agent: &'static str,
    pub pin: Option<PinState>,
    pub policy_files: Vec<String>,
    pub policy_settings: Vec<String>,
    #[serde(skip)]
    pub now: u64,
}

impl Report {
    /// Checks the evidence against the criteria.
    #[must_use]
    pub(crate) fn new(evidence: &Evidence, criteria: &Criteria<'_>) -> Self {
        let Evidence { token, key: key_evidence, .. } = evidence;
        let attestation =
            key_evidence.as_ref().and_then(|key_evidence| Attestation::find(key_evidence, token.as_ref(), criteria));
        let rules = rules::rows(evidence, attestation.as_ref(), criteria);
        let reasons = |verdict| {
            let results = rules.iter().filter(move |row: &&RuleResult| row.verdict == verdict);
            results.filter_map(|row| row.reason.clone()).collect::<Vec<_>>()
        };
        let refusals = reasons(RuleVerdict::Broken);
        Self {
            form: FORM,
            verdict: if refusals.is_empty() { "allowed" } else { "refused" },
            refusals,
            warnings: reasons(RuleVerdict::Warning),
            module: ModuleReport {
                path: printable(&evidence.module),
                sha256: evidence.module_sha256.clone(),
                library: library(&evidence.library),
                sandbox: evidence.confinement.as_ref().map(sandbox),
            },
            token: token.as_ref().map(token_report),
            key: key_evidence.as_ref().map(key_report),
            certificate: key_evidence.as_ref().map(|key_evidence| certificate_report(key_evidence, criteria.now)),
            attestation,
            copies: key_evidence.iter().flat_map(|key_evidence| key_evidence.copies.iter().map(copy_report)).collect(),
            run: Run {
                time: utc(criteria.now),
                host: printable(&criteria.host),
                agent: env!("CARGO_PKG_VERSION"),
                pin: token.as_ref().map(|token| token.pin),
                policy_files: criteria.sources.files.iter().map(|file| printable(file)).collect(),
                policy_settings: criteria.sources.settings.iter().map(|setting| printable(setting)).collect(),
                now: criteria.now,
            },
            hints: PolicyRefusal(decide(evidence, criteria).refusals).hints(),
            rules,
        }
    }

    /// The verdict, for people.
    pub(super) fn headline(&self) -> &'static str {
        if self.refusals.is_empty() { "allowed to sign Anaplan logins" } else { "not allowed to sign Anaplan logins" }
    }

    /// The protection of the token, which the verdict does not cover.
    pub(super) fn protection(&self) -> Option<String> {
        let name = self.token.as_ref()?.software?;
        Some(format!("software token: no hardware protection ({name})"))
    }

    pub(super) fn sources(&self) -> String {
        let Run { policy_files, policy_settings, .. } = &self.run;
        let files = match policy_files.as_slice() {
            [] => "no file was read".to_owned(),
            files => format!("read from {}", files.join(" and ")),
        };
        match policy_settings.as_slice() {
            [] => format!("{files}; every rule has its default"),
            settings => format!("{files}; set are {}", settings.join("; ")),
        }
    }

    /// The hints for the policy's refusals.
    #[must_use]
    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The reasons of the policy's refusal; empty if it allows.
    #[must_use]
    pub(crate) fn refusals(&self) -> &[String] {
        &self.refusals
    }
}

fn sandbox(confinement: &Confinement) -> Sandbox {
    Sandbox {
        profile: confinement.profile,
        landlock_abi: confinement.files.ok(),
        system_calls: confinement.calls,
        not_confined: confinement.gaps.clone(),
        words: confinement.to_string(),
    }
}

fn library(library: &Library) -> Library {
    Library {
        cryptoki: printable(&library.cryptoki),
        manufacturer: printable(&library.manufacturer),
        description: printable(&library.description),
        version: printable(&library.version),
    }
}

fn token_report(token: &Token) -> TokenReport {
    TokenReport {
        label: printable(&token.label),
        manufacturer: printable(&token.manufacturer),
        model: printable(&token.model),
        serial: printable(&token.serial),
        firmware: printable(&token.firmware),
        hardware: token.hardware,
        initialized: token.initialized,
        login_required: token.login_required,
        pinpad: token.pinpad,
        software: token.software_name(),
    }
}

fn key_report(key_evidence: &KeyEvidence) -> KeyReport {
    let KeyEvidence { key, detail, certificate, mechanism, .. } = key_evidence;
    let allowed = detail.allowed_mechanisms.as_ref();
    KeyReport {
        label: printable_bytes(&key.label),
        id: hex(&key.id),
        r#type: "RSA",
        bits: certificate.bits(),
        sensitive: key.sensitive,
        extractable: key.extractable,
        always_sensitive: key.always_sensitive,
        never_extractable: key.never_extractable,
        local: key.local,
        generation_mechanism: detail.key_generation_mechanism.map(|mechanism| mechanism.to_string()),
        always_authenticate: key.always_authenticate,
        private: detail.private,
        modifiable: detail.modifiable,
        wrap_with_trusted: detail.wrap_with_trusted,
        usages: usages(key, detail),
        allowed_mechanisms: allowed.map(|all| all.iter().map(ToString::to_string).collect()),
        signs_by: mechanism.name(),
    }
}

fn copy_report(copy: &KeyCopy) -> CopyReport {
    let KeyCopy { key, detail } = copy;
    CopyReport {
        label: printable_bytes(&key.label),
        id: hex(&key.id),
        sensitive: key.sensitive,
        extractable: key.extractable,
        always_sensitive: key.always_sensitive,
        never_extractable: key.never_extractable,
        local: key.local,
        usages: usages(key, detail),
    }
}

fn usages(key: &KeyObject, detail: &KeyDetail) -> Usages {
    Usages {
        sign: key.sign,
        sign_recover: detail.sign_recover,
        decrypt: detail.decrypt,
        unwrap: detail.unwrap,
        derive: detail.derive,
    }
}

fn certificate_report(key_evidence: &KeyEvidence, now: u64) -> CertificateReport {
    let certificate = &key_evidence.certificate;
    let above = |found: chain::Authority| IssuerReport {
        subject: found.subject,
        not_after: found.valid_until,
        sha256: hex(&found.sha256),
    };
    CertificateReport {
        summary: certificate.summary(),
        source: if key_evidence.from_file { "file" } else { "token" },
        chain: chain::above(certificate, &key_evidence.others(), now).into_iter().map(above).collect(),
        validity: (certificate.not_before, certificate.not_after),
    }
}
