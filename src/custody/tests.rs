//! The whole report, as text, JSON and page.
//!
//! PURE. Tests alone: evidence that holds every rule, evidence that breaks or strains most of them, and evidence of a token
//! that got no PIN. `UPDATE_CUSTODY=1 cargo test --lib custody` writes the expected reports anew.

#![cfg(test)]

use super::attestation_check::Attestation;
use super::rule_result::{RuleResult, RuleVerdict};
use super::*;
use crate::cba::Version;
use crate::certificate::attestation::tests::of_leaf;
use crate::certificate::chain::Roots;
use crate::certificate::pem_certificates;
use crate::certificate::tests::leaf;
use crate::facts::{
    Confinement, Gap, KeyClass, KeyDetail, KeyObject, Library, Mechanism, MechanismId, NoLandlock, PinState, Token,
};
use crate::policy::{CertificateSource, PayloadChoice, Policy, Requirement};

const CA_PEM: &[u8] = include_bytes!("../../tests/data/ca.pem");
const OTHER_CA_PEM: &[u8] = include_bytes!("../../tests/data/other-ca.pem");

fn key(label: &str, id: &[u8]) -> KeyObject {
    KeyObject {
        handle: 1,
        class: KeyClass::Private,
        label: label.into(),
        id: id.to_vec(),
        modulus: leaf().modulus,
        sign: Some(true),
        always_authenticate: Some(false),
        sensitive: Some(true),
        extractable: Some(false),
        always_sensitive: Some(true),
        never_extractable: Some(true),
        local: Some(true),
    }
}

fn detail() -> KeyDetail {
    KeyDetail {
        decrypt: Some(false),
        sign_recover: Some(false),
        unwrap: Some(false),
        derive: Some(false),
        private: Some(true),
        modifiable: Some(false),
        wrap_with_trusted: Some(true),
        key_generation_mechanism: Some(MechanismId(0)),
        allowed_mechanisms: Some(vec![MechanismId(0x42), MechanismId(1)]),
    }
}

fn token() -> Token {
    Token {
        label: "production".into(),
        manufacturer: "Maker of tokens".into(),
        model: "T1".into(),
        serial: "0042".into(),
        firmware: "5.4".into(),
        hardware: Some(true),
        initialized: true,
        login_required: true,
        pin: PinState { initialized: true, ..PinState::default() },
        pinpad: false,
    }
}

fn good() -> Evidence {
    Evidence {
        module: "/usr/lib/module.so".into(),
        module_sha256: Some("ab".repeat(32)),
        module_open: None,
        library: Library {
            cryptoki: "2.40".into(),
            manufacturer: "Maker of modules".into(),
            description: "Module".into(),
            version: "2.6".into(),
        },
        confinement: Some(Confinement { profile: "softhsm2", files: Ok(6), calls: true, gaps: Vec::new() }),
        token: Some(token()),
        key: Some(KeyEvidence {
            key: key("cba", &[1]),
            detail: detail(),
            copies: Vec::new(),
            certificate: leaf(),
            from_file: false,
            mechanism: Mechanism::Sha512RsaPkcs,
            others: vec![leaf().der().to_vec(), pem_certificates(CA_PEM).unwrap().remove(0)],
            same_id: Vec::new(),
            unreadable: Vec::new(),
        }),
    }
}

/// Every part of the policy set, so that each rule asks for something and holds.
fn strict() -> Policy {
    Policy {
        payload_versions: Some(vec![Version::V1, Version::V2]),
        mechanism: Some(Mechanism::Sha512RsaPkcs),
        require: Requirement::NAMES.map(|(_, requirement)| requirement).to_vec(),
        certificate_source: CertificateSource::TokenOrFile,
        token_serials: Some(vec!["0042".into(), "0043".into()]),
        certificate_sha256: Some(vec![leaf().sha256().to_vec(), vec![0; 32]]),
        ..Policy::default()
    }
}

/// What is odd, foreign, open or silent in a token, as far as one report can hold it.
fn odd() -> Evidence {
    let mut evidence = good();
    let key_evidence = evidence.key.as_mut().unwrap();
    key_evidence.key = KeyObject { extractable: Some(true), local: None, sensitive: None, ..key("", &[]) };
    key_evidence.key.always_authenticate = Some(true);
    key_evidence.detail = KeyDetail {
        decrypt: Some(true),
        unwrap: None,
        sign_recover: Some(true),
        derive: Some(true),
        private: None,
        modifiable: Some(true),
        wrap_with_trusted: None,
        key_generation_mechanism: None,
        allowed_mechanisms: None,
    };
    let copies = [("copy", &[2][..]), ("", &[])];
    key_evidence.copies = copies.map(|(label, id)| KeyCopy { key: key(label, id), detail: detail() }).to_vec();
    key_evidence.certificate.is_ca = true;
    key_evidence.certificate.emails.clear();
    key_evidence.certificate.key_usage = None;
    key_evidence.certificate.extended_key_usage = None;
    key_evidence.certificate.alternative_names.clear();
    key_evidence.certificate.deviations = vec!["its serial number is 0".into(), "it is not encoded in DER".into()];
    key_evidence.from_file = true;
    key_evidence.mechanism = Mechanism::RsaPkcs;
    key_evidence.others.clear();
    key_evidence.same_id = vec!["public key 'x' (ID 01)".into(), "attestation 'y' (ID 01)".into()];
    key_evidence.unreadable = vec!["certificate 'z' (ID 02) cannot be used".into()];
    evidence.module_sha256 = None;
    evidence.module_open = Some("everybody may write it".into());
    evidence.library = Library::default();
    evidence.confinement = Some(Confinement {
        profile: "softhsm2",
        files: Err(NoLandlock::Missing),
        calls: false,
        gaps: vec![Gap::Files, Gap::SystemCalls, Gap::Truncation, Gap::TcpPorts],
    });
    evidence.token = Some(Token {
        label: "a\u{1b}b".into(),
        manufacturer: "SoftHSM project".into(),
        serial: String::new(),
        model: String::new(),
        firmware: String::new(),
        hardware: None,
        login_required: false,
        pinpad: true,
        pin: PinState { initialized: false, count_low: true, final_try: true, locked: true, to_be_changed: true },
        ..token()
    });
    evidence
}

fn report(
    evidence: &Evidence,
    policy: &Policy,
    trusted_roots: &TrustedRoots,
    version: Version,
    sources: PolicySources,
) -> Report {
    report_at(leaf().not_before + 60, evidence, policy, trusted_roots, version, sources)
}

fn report_at(
    now: u64,
    evidence: &Evidence,
    policy: &Policy,
    trusted_roots: &TrustedRoots,
    version: Version,
    sources: PolicySources,
) -> Report {
    let choice = PayloadChoice { version, by_flag: true };
    Report::new(evidence, &Criteria { policy, sources, choice, trusted_roots, now, host: "host".into() })
}

fn roots(pem: &[u8]) -> Option<Roots> {
    Some(Roots::read(pem).unwrap().0)
}

/// Compares with the file, in which the program's version stands as `VERSION`.
fn compare(name: &str, report: &Report) {
    let json = serde_json::to_string_pretty(report).unwrap();
    let (text, page) = (text::text(report, None), html::html(report).replace("><", ">\n<"));
    let shown = format!("{text}\n\n{json}\n\nhints: {:#?}\n\n{page}", report.hints());
    let shown = shown.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let path = format!("{}/tests/data/custody/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_CUSTODY").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    let differs = shown.lines().zip(wanted.lines()).find(|(shown, wanted)| shown != wanted);
    assert!(shown == wanted, "{name}: {differs:#?}; UPDATE_CUSTODY=1 writes the file anew");
}

#[test]
fn a_key_that_holds_every_rule_is_reported_whole() {
    let trusted_roots = TrustedRoots { roots: roots(CA_PEM), attestation_roots: None };
    let files = vec!["/etc/cba-agent/policy.toml".into(), "/etc/cba-agent/config.toml".into()];
    let sources = PolicySources { files, settings: vec!["policy.min_rsa_bits = 2048".into(), "b = 2".into()] };
    let report = report(&good(), &strict(), &trusted_roots, Version::V2, sources);
    assert!(report.refusals().is_empty());
    compare("holds", &report);
}

#[test]
fn each_broken_rule_and_each_oddity_is_reported() {
    let trusted_roots = TrustedRoots { roots: roots(OTHER_CA_PEM), attestation_roots: roots(CA_PEM) };
    let policy = Policy {
        payload_versions: Some(vec![Version::V2]),
        min_rsa_bits: 4096,
        certificate_source: CertificateSource::Token,
        certificate_sha256: Some(vec![vec![0xab; 32]]),
        ..strict()
    };
    let now = leaf().not_after - 3 * 86_400;
    let report = report_at(now, &odd(), &policy, &trusted_roots, Version::V1, PolicySources::default());
    assert!(report.refusals().len() > 8);
    compare("breaks", &report);
}

#[test]
fn the_defaults_ask_for_little() {
    let mut evidence = good();
    evidence.confinement = None;
    let key_evidence = evidence.key.as_mut().unwrap();
    let silent = KeyDetail { decrypt: None, unwrap: None, sign_recover: None, derive: None, ..detail() };
    key_evidence.detail = KeyDetail { allowed_mechanisms: Some(Vec::new()), ..silent };
    let sources = PolicySources { files: vec!["/etc/cba-agent/config.toml".into()], settings: Vec::new() };
    let (policy, trusted_roots) = (Policy::default(), TrustedRoots::default());
    let middle = leaf().not_before.midpoint(leaf().not_after);
    compare("defaults", &report_at(middle, &evidence, &policy, &trusted_roots, Version::V2, sources));
}

#[test]
fn a_token_that_got_no_pin_shows_no_key() {
    let evidence = Evidence { key: None, token: None, ..good() };
    let trusted_roots = TrustedRoots { roots: roots(CA_PEM), attestation_roots: roots(CA_PEM) };
    compare("no-pin", &report(&evidence, &strict(), &trusted_roots, Version::V2, PolicySources::default()));
    let evidence = Evidence { key: None, ..good() };
    compare(
        "no-pin-defaults",
        &report(&evidence, &Policy::default(), &TrustedRoots::default(), Version::V2, PolicySources::default()),
    );
}

/// Whom the roots for attestations trust.
#[derive(Clone, Copy, Debug)]
enum Trusted {
    NotRequired,
    Everything,
    /// The last attestation alone.
    Last,
    Nothing,
}

/// The report's attestation and its row, for attestations with these serial numbers.
fn attested(serials: &[Option<u8>], token_serial: &str, trusted: Trusted) -> (Option<String>, RuleResult) {
    let attestations = serials.iter().enumerate().map(|(number, serial)| {
        // The firmware tells two attestations apart.
        let firmware = [5, 4, u8::try_from(number).unwrap()];
        let serial = serial.map(|serial| [2, 1, serial]);
        let mut all: Vec<(u8, &[u8])> = vec![(3, &firmware)];
        all.extend(serial.iter().map(|serial| (7, &serial[..])));
        of_leaf(&all)
    });
    let attestations: Vec<Vec<u8>> = attestations.collect();
    let mut evidence = good();
    evidence.token.as_mut().unwrap().serial = token_serial.into();
    evidence.key.as_mut().unwrap().others.extend(attestations.clone());
    let bundle = |all: &[Vec<u8>]| {
        let pem = |der: &Vec<u8>| {
            use base64::Engine as _;
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        roots(all.iter().map(pem).collect::<String>().as_bytes())
    };
    let attestation_roots = match trusted {
        Trusted::NotRequired => None,
        Trusted::Everything => bundle(&attestations),
        Trusted::Last => bundle(&attestations[attestations.len() - 1..]),
        Trusted::Nothing => roots(OTHER_CA_PEM),
    };
    let trusted_roots = TrustedRoots { roots: None, attestation_roots };
    let mut report = report(&evidence, &Policy::default(), &trusted_roots, Version::V2, PolicySources::default());
    let at = report.rules.iter().position(|row| row.rule == "attestation").unwrap();
    (report.attestation.as_ref().map(Attestation::words), report.rules.remove(at))
}

#[test]
fn an_attestation_is_judged_by_its_device_and_its_roots() {
    use Trusted::{Everything, NotRequired, Nothing};
    for (serial, token_serial, trusted, verdict, reason) in [
        (Some(42), "0042", NotRequired, RuleVerdict::NotRequired, ""),
        (Some(42), "", NotRequired, RuleVerdict::NotRequired, ""),
        (Some(41), "0042", NotRequired, RuleVerdict::Broken, "is of device 41, and the token's serial is '0042'"),
        (None, "0042", NotRequired, RuleVerdict::NotRequired, ""),
        (Some(42), "42 ", Everything, RuleVerdict::Holds, ""),
        (Some(41), "42", Everything, RuleVerdict::Broken, "is of device 41"),
        (None, "42", Everything, RuleVerdict::Broken, "names no serial number"),
        (Some(42), "", Everything, RuleVerdict::Broken, "names no serial number"),
        (Some(42), "42", Nothing, RuleVerdict::Broken, "is not trusted"),
        (Some(41), "42", Nothing, RuleVerdict::Broken, "is not trusted"),
        (None, "42", Nothing, RuleVerdict::Broken, "is not trusted"),
    ] {
        let (words, row) = attested(&[serial], token_serial, trusted);
        let case = format!("{serial:?} {token_serial} {trusted:?}: {row:?}");
        assert!(row.verdict == verdict && row.reason.clone().unwrap_or_default().contains(reason), "{case}");
        let device = serial.map_or(String::new(), |serial| format!("device {serial}, "));
        assert_eq!(words, Some(format!("{device}firmware 5.4.0")), "{case}");
        assert_eq!(row.found, words.unwrap(), "{case}");
        assert_eq!(row.requires == "any", matches!(trusted, NotRequired), "{case}");
    }
    let (none, row) = attested(&[], "42", Nothing);
    assert!(none.is_none() && row.verdict == RuleVerdict::Broken && row.found == "none", "{row:?}");
    assert_eq!(attested(&[], "42", NotRequired).1.verdict, RuleVerdict::NotRequired);
}

#[test]
fn of_several_attestations_the_one_that_says_most_is_shown() {
    use Trusted::{Everything, Last, NotRequired};
    for (serials, trusted, shown) in [
        // One of another device comes first: the key is elsewhere too.
        (&[Some(42), Some(41)][..], Everything, "device 41, firmware 5.4.1"),
        (&[Some(42), Some(41)], NotRequired, "device 41, firmware 5.4.1"),
        (&[None, Some(42)], Everything, "device 42, firmware 5.4.1"),
        (&[None, Some(42)], NotRequired, "firmware 5.4.0"),
        (&[None, None], Last, "firmware 5.4.1"),
    ] {
        assert_eq!(attested(serials, "42", trusted).0.as_deref(), Some(shown), "{serials:?} {trusted:?}");
    }
}

#[test]
fn an_attestation_of_another_key_is_none() {
    let mut evidence = good();
    let key_evidence = evidence.key.as_mut().unwrap();
    key_evidence.others.push(of_leaf(&[(3, &[5, 4, 3])]));
    key_evidence.certificate.modulus[9] ^= 1;
    let report = report(&evidence, &Policy::default(), &TrustedRoots::default(), Version::V2, PolicySources::default());
    assert!(report.attestation.is_none());
}
