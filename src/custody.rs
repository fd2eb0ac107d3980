//! Evidence for a key-custody policy: the facts about token, key and certificate, checked against each rule.
//!
//! PURE. The document's members have a stable order, and values that change between runs are separate in `run`. Its schema is
//! `docs/custody.schema.json`. [`text`] and [`html`] show the same document to people.

use serde::Serialize;

use crate::certificate::chain::{self, Roots};
use crate::certificate::{Certificate, CertificateSummary, utc};
use crate::error::Explain as _;
use crate::facts::{Confinement, Gap, KeyDetail, KeyObject, Library, Mechanism, PinState, Token};
use crate::policy::{self, Order, Policy, Refused, Subject, Wish};
use crate::text::{hex, printable, printable_bytes};

mod attestation_check;
mod beside;
pub(crate) mod html;
mod rules;
mod sections;
#[cfg(test)]
mod tests;
pub(crate) mod text;

pub(crate) use attestation_check::Attestation;
pub(crate) use rules::{Row, RuleVerdict};

/// The version of the document's format. It changes if a member is removed or changes its meaning.
const FORM: &str = "cba-agent-custody-1";

/// The facts about a key, its token and its module.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    /// The module's canonical path.
    pub module: String,
    /// The SHA-256 of its file, if it can be read.
    pub module_sha256: Option<String>,
    /// The reason why other users could change it, if they could.
    pub module_open: Option<String>,
    /// The module's information about itself.
    pub library: Library,
    /// The sandbox of the worker.
    pub confinement: Option<Confinement>,
    /// The token, if it reports anything.
    pub token: Option<Token>,
    /// The content of the token; `None` if the policy forbids to send it a PIN.
    pub held: Option<KeyEvidence>,
}

/// A key, its certificate, and other objects of the token.
#[derive(Clone, Debug)]
pub(crate) struct KeyEvidence {
    /// The private key.
    pub key: KeyObject,
    /// Further attributes of the key.
    pub detail: KeyDetail,
    /// Other private key objects of the same key.
    pub copies: Vec<KeyCopy>,
    /// Its certificate.
    pub certificate: Certificate,
    /// Whether the certificate is from a file and not from the token.
    pub from_file: bool,
    /// The mechanism of signatures.
    pub mechanism: Mechanism,
    /// All certificates of the token, DER without padding.
    pub others: Vec<Vec<u8>>,
    /// Keys and certificates under the key's ID that belong to another key, by kind and name.
    pub same_id: Vec<String>,
    /// Certificates of the token that cannot be read, each with its reason.
    pub unreadable: Vec<String>,
}

/// Another private key object of the same key.
#[derive(Clone, Debug)]
pub(crate) struct KeyCopy {
    /// The object.
    pub key: KeyObject,
    /// Further attributes of the object.
    pub detail: KeyDetail,
}

/// The sources of the rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicySources {
    /// The files that were read.
    pub files: Vec<String>,
    /// Each key of `[policy]` that is set, with its value and its origin.
    pub settings: Vec<String>,
}

/// Trusted roots. `None`: no check.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// For the certificate.
    pub roots: Option<Roots>,
    /// For the token's attestation of the key.
    pub attestation_roots: Option<Roots>,
}

/// The rules and circumstances for the check.
#[derive(Debug)]
pub(crate) struct Measure<'a> {
    /// The rules.
    pub policy: &'a Policy,
    /// The sources of the rules.
    pub sources: PolicySources,
    /// The payload to sign.
    pub wish: Wish,
    /// The trusted roots.
    pub trust: &'a Trust,
    /// Seconds of Unix time.
    pub now: u64,
    /// The host's name.
    pub host: String,
}

/// Evidence and verdict.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    form: &'static str,
    /// `allowed` or `refused`.
    verdict: &'static str,
    refusals: Vec<String>,
    warnings: Vec<String>,
    rules: Vec<Row>,
    module: ModuleReport,
    token: Option<TokenReport>,
    key: Option<KeyReport>,
    certificate: Option<CertificateReport>,
    attestation: Option<Attestation>,
    copies: Vec<CopyReport>,
    run: Run,
    /// The hints for the policy's refusals.
    #[serde(skip)]
    hints: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ModuleReport {
    path: String,
    sha256: Option<String>,
    library: Library,
    sandbox: Option<Sandbox>,
}

#[derive(Debug, Serialize)]
struct Sandbox {
    profile: &'static str,
    landlock_abi: Option<u32>,
    system_calls: bool,
    not_confined: Vec<Gap>,
    #[serde(skip)]
    words: String,
}

#[derive(Debug, Serialize)]
struct TokenReport {
    label: String,
    manufacturer: String,
    model: String,
    serial: String,
    firmware: String,
    hardware: Option<bool>,
    initialized: bool,
    login_required: bool,
    pinpad: bool,
    /// The name of the program, if the token is a known software token.
    software: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct CopyReport {
    label: String,
    id: String,
    sensitive: Option<bool>,
    extractable: Option<bool>,
    always_sensitive: Option<bool>,
    never_extractable: Option<bool>,
    local: Option<bool>,
    usages: Usages,
}

#[derive(Debug, Serialize)]
struct KeyReport {
    label: String,
    id: String,
    r#type: &'static str,
    bits: usize,
    sensitive: Option<bool>,
    extractable: Option<bool>,
    always_sensitive: Option<bool>,
    never_extractable: Option<bool>,
    local: Option<bool>,
    generation_mechanism: Option<String>,
    always_authenticate: Option<bool>,
    private: Option<bool>,
    modifiable: Option<bool>,
    wrap_with_trusted: Option<bool>,
    usages: Usages,
    allowed_mechanisms: Option<Vec<String>>,
    signs_by: &'static str,
}

#[derive(Debug, Serialize)]
struct Usages {
    sign: Option<bool>,
    sign_recover: Option<bool>,
    decrypt: Option<bool>,
    unwrap: Option<bool>,
    derive: Option<bool>,
}

#[derive(Debug, Serialize)]
struct CertificateReport {
    #[serde(flatten)]
    summary: CertificateSummary,
    /// `token` or `file`.
    source: &'static str,
    /// The issuers of the certificate in the token, nearest first.
    chain: Vec<Above>,
    #[serde(skip)]
    validity: (u64, u64),
}

#[derive(Debug, Serialize)]
struct Above {
    subject: String,
    not_after: String,
    sha256: String,
}

/// Values that change between runs.
#[derive(Debug, Serialize)]
struct Run {
    time: String,
    host: String,
    agent: &'static str,
    pin: Option<PinState>,
    policy_files: Vec<String>,
    policy_settings: Vec<String>,
    #[serde(skip)]
    now: u64,
}

impl Report {
    /// Checks the evidence against the criteria.
    #[must_use]
    pub(crate) fn new(evidence: &Evidence, measure: &Measure<'_>) -> Self {
        let Evidence { token, held, .. } = evidence;
        let attestation = held.as_ref().and_then(|held| Attestation::find(held, token.as_ref(), measure));
        let rules = rules::rows(evidence, attestation.as_ref(), measure);
        let reasons = |verdict| {
            let of = rules.iter().filter(move |row: &&Row| row.verdict == verdict);
            of.filter_map(|row| row.reason.clone()).collect::<Vec<_>>()
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
            key: held.as_ref().map(key_report),
            certificate: held.as_ref().map(|held| certificate_report(held, measure.now)),
            attestation,
            copies: held.iter().flat_map(|held| held.copies.iter().map(copy_report)).collect(),
            run: Run {
                time: utc(measure.now),
                host: printable(&measure.host),
                agent: env!("CARGO_PKG_VERSION"),
                pin: token.as_ref().map(|token| token.pin),
                policy_files: measure.sources.files.iter().map(|file| printable(file)).collect(),
                policy_settings: measure.sources.settings.iter().map(|setting| printable(setting)).collect(),
                now: measure.now,
            },
            hints: Refused(decide(evidence, measure).refusals).hints(),
            rules,
        }
    }

    /// The verdict, for people.
    fn headline(&self) -> &'static str {
        if self.refusals.is_empty() { "allowed to sign Anaplan logins" } else { "not allowed to sign Anaplan logins" }
    }

    /// The protection of the token, which the verdict does not cover.
    fn protection(&self) -> Option<String> {
        let name = self.token.as_ref()?.software?;
        Some(format!("software token: no hardware protection ({name})"))
    }

    /// The sources of the rules.
    fn sources(&self) -> String {
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

/// The policy's decision about the evidence; about the token only, if it must not get a PIN.
fn decide(evidence: &Evidence, measure: &Measure<'_>) -> policy::Decision {
    let (Measure { policy, wish, now, .. }, token) = (measure, evidence.token.as_ref());
    let Some(KeyEvidence { key, certificate, from_file, mechanism, .. }) = &evidence.held else {
        return policy::decide_token(policy, token);
    };
    let order = Order {
        token,
        certificate_from_file: *from_file,
        version: wish.version,
        version_by_flag: wish.by_flag,
        mechanism: *mechanism,
    };
    let copies: Vec<KeyObject> =
        evidence.held.iter().flat_map(|held| &held.copies).map(|copy| copy.key.clone()).collect();
    policy::decide(policy, &Subject { order, key, copies: &copies, certificate, now: *now })
}

fn sandbox(confinement: &Confinement) -> Sandbox {
    Sandbox {
        profile: confinement.profile,
        landlock_abi: confinement.files,
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

fn key_report(held: &KeyEvidence) -> KeyReport {
    let KeyEvidence { key, detail, certificate, mechanism, .. } = held;
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

fn certificate_report(held: &KeyEvidence, now: u64) -> CertificateReport {
    let certificate = &held.certificate;
    let above = |found: chain::Authority| Above {
        subject: found.subject,
        not_after: found.valid_until,
        sha256: hex(&found.sha256),
    };
    CertificateReport {
        summary: certificate.summary(),
        source: if held.from_file { "file" } else { "token" },
        chain: chain::above(certificate, &held.others(), now).into_iter().map(above).collect(),
        validity: (certificate.not_before, certificate.not_after),
    }
}

impl KeyEvidence {
    fn others(&self) -> Vec<&[u8]> {
        self.others.iter().map(Vec::as_slice).collect()
    }
}
