//! Every rule as a row: its requirement, the finding, and the verdict.
//!
//! PURE. [`crate::policy`] decides; this file has the texts of the findings.

use super::attestation_check::Attestation;
use super::criteria::{Criteria, decide};
use super::evidence::{Evidence, KeyEvidence};
use super::other_checks;
use super::rule_result::{NOTHING, RuleResult, RuleVerdict};
use crate::cba::Version;
use crate::policy::{Breach, CertificateSource, Decision, MAX_RSA_BITS, Policy, Requirement, Rule};
use crate::text::{hex, printable};

/// All rules, in a fixed order.
pub(super) fn rows(evidence: &Evidence, attestation: Option<&Attestation>, criteria: &Criteria<'_>) -> Vec<RuleResult> {
    let decision = decide(evidence, criteria);
    let mut rows: Vec<RuleResult> = Rule::all().map(|rule| row(rule, &decision, evidence, criteria)).collect();
    rows.extend(other_checks::rows(evidence, attestation, criteria));
    rows
}

fn row(rule: Rule, decision: &Decision, evidence: &Evidence, criteria: &Criteria<'_>) -> RuleResult {
    let requires = requires(rule, criteria.policy);
    let reason = |from: &[Breach]| {
        let reasons: Vec<String> = from.iter().filter(|breach| breach.rule() == rule).map(Breach::reason).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    };
    let (verdict, reason) = match (reason(&decision.refusals), reason(&decision.warnings)) {
        (Some(reason), _) => (RuleVerdict::Broken, Some(reason)),
        (None, Some(reason)) => (RuleVerdict::Warning, Some(reason)),
        _ if evidence.key.is_none() && rule != Rule::TokenSerials => (RuleVerdict::NotRead, None),
        _ if requires.is_none() => (RuleVerdict::NotRequired, None),
        _ => (RuleVerdict::Holds, None),
    };
    RuleResult {
        rule: rule.name(),
        means: rule.sentence(),
        requires: requires.unwrap_or_else(|| NOTHING.into()),
        found: found(rule, evidence, criteria).unwrap_or_else(|| "not read".into()),
        verdict,
        reason,
    }
}

/// `None` if the policy has no requirement.
fn requires(rule: Rule, policy: &Policy) -> Option<String> {
    let versions = |versions: &Vec<Version>| versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    match rule {
        Rule::TokenSerials => policy.token_serials.as_ref().map(|serials| printable(&serials.join(" or "))),
        Rule::Require(requirement) => policy.require.contains(&requirement).then(|| "required".into()),
        Rule::Mechanism => policy.mechanism.map(|mechanism| mechanism.name().into()),
        Rule::PayloadVersions => {
            Some(policy.payload_versions.as_ref().map_or("v2; v1 only with --payload-version v1".into(), versions))
        }
        Rule::CertificateSource => Some(match policy.certificate_source {
            CertificateSource::Token => "the token".into(),
            CertificateSource::TokenOrFile => "the token or a file".into(),
        }),
        Rule::CertificateSha256 => policy
            .certificate_sha256
            .as_ref()
            .map(|all| all.iter().map(|fingerprint| hex(fingerprint)).collect::<Vec<_>>().join(" or ")),
        Rule::CertificateValidity => {
            Some(if policy.enforce_validity { "valid now" } else { "valid now (a warning)" }.into())
        }
        Rule::MinRsaBits => Some(format!("{} to {MAX_RSA_BITS} bits", policy.min_rsa_bits)),
        Rule::KeyUsage => Some("digitalSignature".into()),
        Rule::ExtendedKeyUsage => Some(policy.extended_key_usage.join(" or ")),
        Rule::NoCa => Some("not a CA's".into()),
        Rule::Email => Some("an e-mail address (a warning)".into()),
        Rule::Issuer => Some("another issuer than itself (a warning)".into()),
        Rule::Form => Some("the form of RFC 5280 (a warning)".into()),
    }
}

/// `None` if the value was not read.
fn found(rule: Rule, evidence: &Evidence, criteria: &Criteria<'_>) -> Option<String> {
    let reported = |value: Option<bool>| match value {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => "not reported".to_owned(),
    };
    let token = evidence.token.as_ref();
    match rule {
        Rule::TokenSerials => return Some(token.map_or("not reported".into(), |token| printable(&token.serial))),
        Rule::Require(Requirement::HardwareToken) => return Some(reported(token.and_then(|token| token.hardware))),
        _ => {}
    }
    let KeyEvidence { key, certificate, from_file, mechanism, .. } = evidence.key.as_ref()?;
    let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Some(match rule {
        Rule::TokenSerials => return None,
        Rule::Require(requirement) => reported(requirement.holds(key, token)),
        Rule::Mechanism => mechanism.name().into(),
        Rule::PayloadVersions => criteria.choice.version.to_string(),
        Rule::CertificateSource => if *from_file { "a file" } else { "the token" }.into(),
        Rule::CertificateSha256 => hex(&certificate.sha256()),
        Rule::CertificateValidity => {
            format!("{} to {}", certificate.valid_from, certificate.valid_until)
        }
        Rule::MinRsaBits => format!("{} bits", certificate.bits()),
        Rule::KeyUsage => {
            let names = certificate.key_usage_names().map(|names| names.into_iter().map(str::to_owned).collect());
            names.map_or("not limited".into(), list)
        }
        Rule::ExtendedKeyUsage => certificate.extended_key_usage.clone().map_or("not limited".into(), list),
        Rule::NoCa => if certificate.is_ca { "a CA's" } else { "not a CA's" }.into(),
        Rule::Email => list(certificate.emails.clone()),
        Rule::Issuer => certificate.issuer.clone(),
        Rule::Form => match certificate.deviations.as_slice() {
            [] => "follows RFC 5280".into(),
            deviations => deviations.join("; "),
        },
    })
}
