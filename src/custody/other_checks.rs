//! The rows of the custody report that are not rules of the policy: weaker policies, the certificate's chain, the
//! attestation, other objects of the token, the module and its sandbox.
//!
//! PURE. An attestation of another device breaks the verdict. So does a certificate or attestation without a chain to the
//! given roots. Other findings are warnings.

use super::attestation_check::Attestation;
use super::criteria::Criteria;
use super::evidence::{Evidence, KeyEvidence};
use super::rule_result::{NOTHING, RuleResult, RuleVerdict};
use crate::facts::{KeyDetail, Library, Token};
use crate::text::printable;

/// The first version of kryoptic that never returns the value of a sensitive key (kryoptic's pull request 373).
const SAFE_KRYOPTIC: (u32, u32) = (1, 4);

/// The rows, in a fixed order.
pub(super) fn rows(
    evidence: &Evidence,
    attestation: Option<&Attestation>,
    criteria: &Criteria<'_>,
) -> [RuleResult; 10] {
    let key_evidence = evidence.key.as_ref();
    [
        policy_defaults(criteria),
        roots(key_evidence, criteria),
        attested(key_evidence, attestation, evidence, criteria),
        copies(key_evidence),
        purpose(key_evidence),
        same_id(key_evidence),
        unreadable(key_evidence),
        module(evidence),
        version(&evidence.library, evidence.token.as_ref()),
        sandbox(evidence),
    ]
}

/// Builds a row that is a warning if there is a reason, and otherwise holds.
fn warning(rule: &str, means: &'static str, requires: &str, found: String, reason: Option<String>) -> RuleResult {
    let verdict = if reason.is_some() { RuleVerdict::Warning } else { RuleVerdict::Holds };
    RuleResult { rule: rule.into(), means, requires: format!("{requires} (a warning)"), found, verdict, reason }
}

/// Marks the row as not read if the worker read no key.
fn unless_read(row: RuleResult, key_evidence: Option<&KeyEvidence>) -> RuleResult {
    if key_evidence.is_some() {
        row
    } else {
        RuleResult { verdict: RuleVerdict::NotRead, found: "not read".into(), reason: None, ..row }
    }
}

/// The configured rules that accept more than the defaults.
fn policy_defaults(criteria: &Criteria<'_>) -> RuleResult {
    let weaker = criteria.policy.weaker_than_default();
    let found = if weaker.is_empty() { "none".to_owned() } else { weaker.join("; ") };
    let reason = (!weaker.is_empty()).then(|| format!("the policy is weaker than the defaults: {found}"));
    let means = "The policy should refuse everything that the defaults refuse.";
    warning("policy_defaults", means, "no rule that is weaker than its default", found, reason)
}

/// The certificate's chain, if roots are given.
fn roots(key_evidence: Option<&KeyEvidence>, criteria: &Criteria<'_>) -> RuleResult {
    let row = |requires: &str, found: String, verdict, reason| RuleResult {
        rule: "roots".into(),
        means: "The certificate must have been issued under the roots that were given.",
        requires: requires.into(),
        found,
        verdict,
        reason,
    };
    let Some(roots) = &criteria.trusted_roots.roots else {
        let found = key_evidence
            .map_or("not read".into(), |key_evidence| format!("issued by {}", key_evidence.certificate.issuer));
        return row(NOTHING, found, RuleVerdict::NotRequired, None);
    };
    let requires = "a chain to --roots";
    let Some(key_evidence) = key_evidence else { return row(requires, "not read".into(), RuleVerdict::NotRead, None) };
    match roots.check(&key_evidence.certificate, &key_evidence.others(), criteria.now) {
        Ok(()) => row(requires, "a chain".into(), RuleVerdict::Holds, None),
        Err(error) => row(requires, "none".into(), RuleVerdict::Broken, Some(error.to_string())),
    }
}

/// Whether an attestation proves that this token holds the key. Its chain is checked only if roots are given.
fn attested(
    key_evidence: Option<&KeyEvidence>,
    attestation: Option<&Attestation>,
    evidence: &Evidence,
    criteria: &Criteria<'_>,
) -> RuleResult {
    let is_required = criteria.trusted_roots.attestation_roots.is_some();
    let serial = evidence.token.as_ref().map_or("", |token| token.serial.as_str());
    let (found, verdict, reason) = match (key_evidence, attestation) {
        (None, _) => {
            ("not read".to_owned(), if is_required { RuleVerdict::NotRead } else { RuleVerdict::NotRequired }, None)
        }
        (Some(_), None) if is_required => {
            ("none".into(), RuleVerdict::Broken, Some("no certificate of the token attests this key".to_owned()))
        }
        (Some(_), None) => ("none".into(), RuleVerdict::NotRequired, None),
        (Some(_), Some(attestation)) => {
            let (verdict, reason) = match &attestation.distrust {
                _ if attestation.is_of_another_device() => {
                    let (device, token) = (attestation.device(), printable(serial));
                    let reason = format!("the attestation is of device {device}, and the token's serial is '{token}'");
                    (RuleVerdict::Broken, Some(reason))
                }
                _ if !is_required => (RuleVerdict::NotRequired, None),
                Some(why) => (RuleVerdict::Broken, Some(format!("the key's attestation is not trusted: {why}"))),
                None if attestation.of_this_token.is_none() => {
                    let reason = "the attestation or the token names no serial number, so the device is not proven";
                    (RuleVerdict::Broken, Some(reason.to_owned()))
                }
                None => (RuleVerdict::Holds, None),
            };
            (attestation.words(), verdict, reason)
        }
    };
    let requires =
        if is_required { "of this key and this token's serial, with a chain to --attestation-roots" } else { NOTHING };
    let means = "The device itself must state that it holds this key.";
    RuleResult { rule: "attestation".into(), means, requires: requires.into(), found, verdict, reason }
}

/// Copies of the private key in the token: what a copy allows, the key allows.
fn copies(key_evidence: Option<&KeyEvidence>) -> RuleResult {
    let names: Vec<String> =
        key_evidence.iter().flat_map(|key_evidence| &key_evidence.copies).map(|copy| copy.key.name()).collect();
    let found = if names.is_empty() { "once".to_owned() } else { format!("also as {}", names.join(", ")) };
    let reason = (!names.is_empty()).then(|| format!("the token holds the key {} times: {found}", names.len() + 1));
    unless_read(
        warning("key_copies", "The token should hold the private key once.", "one object of the key", found, reason),
        key_evidence,
    )
}

/// Operations other than signing that the key and its copies allow.
fn purpose(key_evidence: Option<&KeyEvidence>) -> RuleResult {
    let objects = key_evidence.iter().flat_map(|key_evidence| {
        let selected = std::iter::once((&key_evidence.key, &key_evidence.detail, String::new()));
        selected
            .chain(key_evidence.copies.iter().map(|copy| (&copy.key, &copy.detail, format!(" as {}", copy.key.name()))))
    });
    let (mut may, mut unknown) = (Vec::new(), Vec::new());
    for (_, detail, object) in objects {
        for (what, flag) in others(detail) {
            match flag {
                Some(true) => may.push(format!("{what}{object}")),
                // An unreported "derive" or "sign with recovery" is left out: RSA keys do not derive, and almost no token
                // reports CKA_SIGN_RECOVER.
                None if matches!(what, "decrypt" | "unwrap") => unknown.push(format!("{what}{object}")),
                _ => {}
            }
        }
    }
    let found = match (may.as_slice(), unknown.as_slice()) {
        ([], []) => "it only signs".to_owned(),
        ([], unknown) => format!("not reported: {}", unknown.join(", ")),
        (may, _) => format!("it may also {}", may.join(", ")),
    };
    let reason = if !may.is_empty() {
        Some(format!(
            "the key may also {}: other programs with the PIN can use it for more than signatures",
            may.join(", ")
        ))
    } else if !unknown.is_empty() {
        Some(format!("the token does not report whether the key may also {}", unknown.join(" or ")))
    } else {
        None
    };
    unless_read(
        warning("key_purpose", "The private key should only sign.", "no other use", found, reason),
        key_evidence,
    )
}

/// The operations other than signing, and whether the token allows them.
fn others(detail: &KeyDetail) -> [(&'static str, Option<bool>); 4] {
    [
        ("decrypt", detail.decrypt),
        ("unwrap", detail.unwrap),
        ("sign with recovery", detail.sign_recover),
        ("derive", detail.derive),
    ]
}

/// Objects of other keys with this key's ID. Programs that select by ID could use them instead.
fn same_id(key_evidence: Option<&KeyEvidence>) -> RuleResult {
    let objects = key_evidence.map_or(&[][..], |key_evidence| &key_evidence.same_id);
    let found = if objects.is_empty() { "none".to_owned() } else { objects.join(", ") };
    let reason = (!objects.is_empty()).then(|| format!("objects of another key have the key's ID: {found}"));
    let means = "No object of another key should have this key's ID.";
    unless_read(warning("same_id", means, "no object of another key with the key's ID", found, reason), key_evidence)
}

/// Certificates of the token that cannot be read.
fn unreadable(key_evidence: Option<&KeyEvidence>) -> RuleResult {
    let broken = key_evidence.map_or(&[][..], |key_evidence| &key_evidence.unreadable);
    let found = if broken.is_empty() { "all".to_owned() } else { broken.join("; ") };
    let reason = (!broken.is_empty()).then(|| found.clone());
    let means = "Every certificate of the token should be readable.";
    unless_read(warning("certificates_readable", means, "certificates that can be read", found, reason), key_evidence)
}

/// Warns if other users can change the module: they can make it report anything.
fn module(evidence: &Evidence) -> RuleResult {
    let reason = evidence.module_open.as_ref().map(|how| printable(how));
    let found =
        if reason.is_some() { "other users can change it" } else { "only root and the agent's user can change it" };
    let means = "Only root or the agent's user should be able to change the module.";
    warning("module", means, "only root or the agent's user can change it", found.into(), reason)
}

/// Versions of modules with a weakness for custody.
fn version(library: &Library, token: Option<&Token>) -> RuleResult {
    let is_kryoptic = |text: &str| text.to_lowercase().contains("kryoptic");
    let is_its_token = token.is_some_and(|token| is_kryoptic(&token.manufacturer));
    let name = if library.description.is_empty() { &library.manufacturer } else { &library.description };
    let (mut found, mut reason) = (format!("{name} {}", library.version), None);
    if is_its_token || is_kryoptic(&library.manufacturer) {
        // kryoptic's library reports 0.0. Its tokens report the version as their firmware.
        let firmware = token.map_or("", |token| token.firmware.as_str());
        let mut parts = firmware.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let (major, minor) = SAFE_KRYOPTIC;
        found = format!("kryoptic {firmware}");
        reason = (version < SAFE_KRYOPTIC).then(|| {
            let weakness = "could return the values of sensitive keys; update it, and make new keys";
            format!("kryoptic before {major}.{minor} {weakness}")
        });
    }
    let means = "The module's version should have no known weakness.";
    warning("module_version", means, "no known weakness", printable(found.trim()), reason)
}

/// Warns if no sandbox confines the module, or only a part of it is in force.
fn sandbox(evidence: &Evidence) -> RuleResult {
    let reason = match &evidence.confinement {
        Some(confinement) => confinement.open_parts(),
        None => Some("the module runs without a sandbox and can do everything that the agent's user can do".into()),
    };
    let found = evidence.confinement.as_ref().map_or("none".into(), ToString::to_string);
    let means = "The module should reach only what it needs.";
    warning("sandbox", means, "files and system calls confined to what the module needs", found, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kryoptic_version_that_can_return_sensitive_values_gets_a_warning() {
        let library = |manufacturer: &str| Library {
            manufacturer: manufacturer.into(),
            version: "0.0".into(),
            ..Library::default()
        };
        for (manufacturer, firmware, wanted) in [
            ("Kryoptic", "1.3", RuleVerdict::Warning),
            ("Kryoptic", "0.9", RuleVerdict::Warning),
            ("Kryoptic", "", RuleVerdict::Warning),
            ("Kryoptic", "1.4", RuleVerdict::Holds),
            ("Kryoptic", "1.10", RuleVerdict::Holds),
            ("Kryoptic", "2.0", RuleVerdict::Holds),
            ("SoftHSM project", "1.3", RuleVerdict::Holds),
        ] {
            let token = Token { manufacturer: manufacturer.into(), firmware: firmware.into(), ..Token::default() };
            // Through p11-kit, the library's manufacturer is p11-kit, and only the token names kryoptic.
            for library in [library(manufacturer), library("PKCS#11 Kit")] {
                assert_eq!(version(&library, Some(&token)).verdict, wanted, "{manufacturer} {firmware}");
            }
        }
        assert_eq!(version(&library("Kryoptic"), None).verdict, RuleVerdict::Warning);
    }
}
