//! The document's facts as titled lists, for the text and the page.
//!
//! PURE.

use super::report::{CertificateReport, CopyReport, KeyReport, Report, TokenReport, Usages};

/// A titled list.
pub(super) struct Section {
    pub(super) title: &'static str,
    /// Name and value.
    pub(super) facts: Vec<(&'static str, String)>,
}

/// Token and certificate, which come first.
pub(super) fn first(report: &Report) -> Vec<Section> {
    let mut all = vec![Section {
        title: "Token",
        facts: report
            .token
            .as_ref()
            .map_or_else(|| vec![("token", NOT_REPORTED.into())], |token| [token_facts(token), pin(report)].concat()),
    }];
    let certificate = report.certificate.as_ref();
    all.extend(certificate.map(|certificate| Section { title: "Certificate", facts: certificate_facts(certificate) }));
    all
}

/// The others, in a fixed order.
pub(super) fn others(report: &Report) -> Vec<Section> {
    let mut all: Vec<Section> = Vec::new();
    all.extend(report.key.as_ref().map(|key| Section { title: "Private key", facts: key_facts(key) }));
    all.extend(
        report.copies.iter().map(|copy| Section { title: "Another object of the key", facts: copy_facts(copy) }),
    );
    all.extend(report.attestation.as_ref().map(|attestation| Section {
        title: "Attestation",
        facts: vec![
            ("states", attestation.words()),
            ("subject", attestation.subject.clone()),
            ("issuer", attestation.issuer.clone()),
            ("SHA-256", attestation.sha256.clone()),
            ("chains to the roots", flag(attestation.trusted, "no roots given")),
            ("matches this token's serial", flag(attestation.of_this_token, "no serial number to compare")),
        ],
    }));
    all.push(Section { title: "Module", facts: module(report) });
    all
}

const NOT_REPORTED: &str = "not reported";

fn yes(value: Option<bool>) -> String {
    flag(value, NOT_REPORTED)
}

fn flag(value: Option<bool>, none: &str) -> String {
    value.map_or(none, |value| if value { "yes" } else { "no" }).to_owned()
}

fn or_not_reported(value: &str) -> String {
    if value.is_empty() { NOT_REPORTED.into() } else { value.into() }
}

fn list<T: AsRef<str>>(names: &[T], none: &str) -> String {
    if names.is_empty() {
        return none.into();
    }
    names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

fn module(report: &Report) -> Vec<(&'static str, String)> {
    let (module, library) = (&report.module, &report.module.library);
    vec![
        ("path", module.path.clone()),
        ("SHA-256", module.sha256.clone().unwrap_or_else(|| "not readable".into())),
        ("library", or_not_reported(&library.description)),
        ("manufacturer", or_not_reported(&library.manufacturer)),
        ("version", or_not_reported(&library.version)),
        ("PKCS#11", or_not_reported(&library.cryptoki)),
        ("sandbox", module.sandbox.as_ref().map_or("none".into(), |sandbox| sandbox.words.clone())),
    ]
}

fn token_facts(token: &TokenReport) -> Vec<(&'static str, String)> {
    vec![
        ("label", or_not_reported(&token.label)),
        ("manufacturer", or_not_reported(&token.manufacturer)),
        ("model", or_not_reported(&token.model)),
        ("serial", or_not_reported(&token.serial)),
        ("firmware", or_not_reported(&token.firmware)),
        ("hardware", yes(token.hardware)),
        ("software", token.software.map_or("no known software token".into(), |name| format!("yes: {name}"))),
        ("login required", yes(Some(token.login_required))),
        ("own PIN pad", yes(Some(token.pinpad))),
    ]
}

fn pin(report: &Report) -> Vec<(&'static str, String)> {
    let Some(pin) = &report.run.pin else { return Vec::new() };
    let state = [
        (!pin.initialized, "never set"),
        (pin.locked, "locked"),
        (pin.final_try, "one try left"),
        (pin.count_low, "a wrong PIN was entered"),
        (pin.to_be_changed, "must be changed"),
    ];
    let state: Vec<&str> = state.into_iter().filter(|(is_so, _)| *is_so).map(|(_, what)| what).collect();
    vec![("user PIN", list(&state, "in order"))]
}

fn usages(usages: &Usages) -> String {
    let all = [
        ("sign", usages.sign),
        ("sign_recover", usages.sign_recover),
        ("decrypt", usages.decrypt),
        ("unwrap", usages.unwrap),
        ("derive", usages.derive),
    ];
    let names: Vec<&str> = all.into_iter().filter(|(_, value)| *value == Some(true)).map(|(name, _)| name).collect();
    list(&names, "none reported")
}

fn copy_facts(copy: &CopyReport) -> Vec<(&'static str, String)> {
    vec![
        ("label", or_not_reported(&copy.label)),
        ("ID", or_not_reported(&copy.id)),
        ("sensitive", yes(copy.sensitive)),
        ("extractable", yes(copy.extractable)),
        ("always sensitive", yes(copy.always_sensitive)),
        ("never extractable", yes(copy.never_extractable)),
        ("generated in the token", yes(copy.local)),
        ("usages", usages(&copy.usages)),
    ]
}

fn key_facts(key: &KeyReport) -> Vec<(&'static str, String)> {
    vec![
        ("label", or_not_reported(&key.label)),
        ("ID", or_not_reported(&key.id)),
        ("type", format!("{} {}", key.r#type, key.bits)),
        ("sensitive", yes(key.sensitive)),
        ("extractable", yes(key.extractable)),
        ("always sensitive", yes(key.always_sensitive)),
        ("never extractable", yes(key.never_extractable)),
        ("generated in the token", yes(key.local)),
        ("generation mechanism", key.generation_mechanism.clone().unwrap_or_else(|| NOT_REPORTED.into())),
        ("PIN for each use", yes(key.always_authenticate)),
        ("hidden before login", yes(key.private)),
        ("modifiable", yes(key.modifiable)),
        ("wrapped by trusted keys only", yes(key.wrap_with_trusted)),
        ("usages", usages(&key.usages)),
        (
            "allowed mechanisms",
            key.allowed_mechanisms.as_ref().map_or(NOT_REPORTED.into(), |all| list(all, "not limited")),
        ),
        ("signs with", key.signs_by.into()),
    ]
}

fn certificate_facts(certificate: &CertificateReport) -> Vec<(&'static str, String)> {
    let above: Vec<&str> = certificate.chain.iter().map(|above| above.subject.as_str()).collect();
    let summary = &certificate.summary;
    vec![
        ("subject", summary.subject.clone()),
        ("issuer", summary.issuer.clone()),
        ("serial", summary.serial.clone()),
        ("alternative names", list(&summary.subject_alternative_names, "none")),
        ("e-mail", list(&summary.emails, "none")),
        ("key usage", summary.key_usage.as_ref().map_or("not limited".into(), |all| list(all, "none"))),
        (
            "extended key usage",
            summary.extended_key_usage.as_ref().map_or("not limited".into(), |all| list(all, "none")),
        ),
        ("valid from", summary.not_before.clone()),
        ("valid until", summary.not_after.clone()),
        ("SHA-256", summary.sha256.clone()),
        ("from", certificate.source.into()),
        ("issuers in the token", list(&above, "nothing")),
    ]
}
