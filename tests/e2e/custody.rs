//! `custody` and its policy: each rule holds and breaks on real tokens, as text, JSON and HTML.

use std::process::Command;

use serde_json::Value;

use crate::agent::Agent;
use crate::attestation::attest;
use crate::fixture::{EXTENSIONS, Fixture, Run, tool};

pub(crate) fn custody(fixture: &Fixture, more: &[&str]) -> Run {
    let source = fixture.pin_source();
    fixture.run(&[&["custody", "--pin-source", &source][..], more].concat())
}

/// The JSON report, validated by its schema, with the exit code of its verdict.
#[track_caller]
pub(crate) fn report(fixture: &Fixture, more: &[&str]) -> Value {
    let run = custody(fixture, &[&["--format", "json"][..], more].concat());
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    let (code, verdict) = if run.code == 0 { (0, "allowed") } else { (8, "refused") };
    assert_eq!((run.code, report["verdict"].as_str().unwrap()), (code, verdict), "{run:?}");
    assert_eq!(run.stderr.contains("error: custody refused"), code == 8, "{run:?}");
    assert_eq!(report["refusals"].as_array().unwrap().is_empty(), code == 0);
    fits_its_schema(fixture, &run.stdout);
    report
}

#[track_caller]
pub(crate) fn fits_its_schema(fixture: &Fixture, report: &str) {
    let path = fixture.write("report.json", report);
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/custody.schema.json");
    let check = "import json, sys, jsonschema; a, b = (json.load(open(p)) for p in sys.argv[1:]); \
                 jsonschema.Draft202012Validator.check_schema(b); jsonschema.Draft202012Validator(b).validate(a)";
    tool(Command::new("/usr/bin/python3").args(["-c", check, &path, schema]));
}

/// The verdict of a rule.
#[track_caller]
pub(crate) fn verdict(report: &Value, rule: &str) -> String {
    let row = report["rules"].as_array().unwrap().iter().find(|row| row["rule"] == rule);
    row.unwrap_or_else(|| panic!("{rule}"))["verdict"].as_str().unwrap().to_owned()
}

/// Replaces the token's certificate.
pub(crate) fn replace_certificate(fixture: &Fixture, name: &str, extensions: &str, validity: &[&str]) {
    fixture.issue(name, "pub.pem", extensions, validity);
    fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    write_certificate(fixture, name, "01");
}

pub(crate) fn write_certificate(fixture: &Fixture, name: &str, id: &str) {
    let der = fixture.file(&format!("{name}.der"));
    fixture.pkcs11_tool(&["--write-object", &der, "--type", "cert", "--id", id, "--label", name]);
}

const ALL: [&str; 6] =
    ["sensitive", "non-extractable", "always-sensitive", "never-extractable", "local", "hardware-token"];

fn require_all() -> Vec<&'static str> {
    ALL.iter().flat_map(|word| ["--policy-require", word]).collect()
}

#[test]
fn a_generated_key_meets_all_rules_but_hardware_and_an_imported_key_few() {
    let fixture = Fixture::new();
    let generated = report(&fixture, &require_all());
    for word in &ALL[..5] {
        assert_eq!(verdict(&generated, &format!("require.{word}")), "holds", "{word}");
    }
    assert_eq!(verdict(&generated, "require.hardware-token"), "broken");
    assert_eq!(generated["key"]["generation_mechanism"], "CKM_RSA_PKCS_KEY_PAIR_GEN");
    assert_eq!(generated["key"]["usages"]["sign"], true);
    fixture.import_key();
    let imported = report(&fixture, &[&require_all()[..], &["--key-id", "02"]].concat());
    assert_eq!(verdict(&imported, "require.sensitive"), "holds");
    for word in &ALL[1..] {
        assert_eq!(verdict(&imported, &format!("require.{word}")), "broken", "{word}");
    }
    assert_eq!(imported["key"]["generation_mechanism"], Value::Null);
    assert_eq!(imported["refusals"].as_array().unwrap().len(), 5);
    // A rule that the policy does not require is reported, and breaks nothing.
    let lax = report(&fixture, &["--key-id", "02", "--policy-require", "sensitive"]);
    assert_eq!(verdict(&lax, "require.local"), "not-asked");
}

#[test]
fn a_property_that_a_token_does_not_report_is_not_proven() {
    let mut fixture = Fixture::new();
    for (attribute, word) in
        [("CKA_SENSITIVE", "sensitive"), ("CKA_EXTRACTABLE", "non-extractable"), ("CKA_LOCAL", "local")]
    {
        fixture.faulty(&format!("attr:{attribute}=missing"));
        let report = report(&fixture, &["--policy-require", word]);
        assert_eq!(verdict(&report, &format!("require.{word}")), "broken");
        assert!(report["refusals"][0].as_str().unwrap().contains("does not report"), "{report}");
    }
    fixture.faulty("attr:CKA_SENSITIVE=0");
    assert_eq!(verdict(&report(&fixture, &[]), "require.sensitive"), "broken");
    assert_eq!(fixture.calls("C_SignInit"), 0);
}

#[test]
fn each_rule_of_the_certificate_holds_and_breaks() {
    let good = report(&Fixture::new(), &[]);
    let changed = |from: &str, to: &str| EXTENSIONS.replace(from, to);
    let usage = "extendedKeyUsage=clientAuth,emailProtection";
    for (name, rule, extensions, validity, wanted) in [
        ("ended", "certificate_validity", EXTENSIONS.to_owned(), "-1", "broken"),
        ("server", "extended_key_usage", changed(usage, "extendedKeyUsage=serverAuth"), "9", "broken"),
        ("unlimited", "extended_key_usage", changed(usage, ""), "9", "warning"),
        ("ca", "no_ca", changed("CA:FALSE", "CA:TRUE"), "9", "broken"),
        ("cannot-sign", "key_usage", changed("digitalSignature", "keyEncipherment"), "9", "broken"),
        ("no-address", "email", changed("email:integration@example.com", "DNS:example.com"), "9", "warning"),
    ] {
        let fixture = Fixture::new();
        replace_certificate(&fixture, name, &extensions, &["-days", validity]);
        let report = report(&fixture, &[]);
        assert_eq!(verdict(&good, rule), "holds", "{rule}");
        assert_eq!(verdict(&report, rule), wanted, "{name}: {report}");
        let signed = fixture.sign(&[]);
        assert_eq!(signed.code, if wanted == "broken" { 5 } else { 0 }, "{name}: {signed:?}");
    }
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_refused_unless_that_is_a_warning() {
    let fixture = Fixture::new();
    let extensions = fixture.write("later.ext", EXTENSIONS);
    let issue =
        ["2040-01-01 00:00:00", "openssl", "x509", "-req", "-in", "leaf.csr", "-force_pubkey", "pub.pem", "-CA"];
    let more = ["ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "9", "-outform", "DER", "-out", "later.der"];
    let new = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=later"];
    fixture.tool("openssl", &[&new[..], &["-out", "leaf.csr"]].concat());
    fixture.tool("faketime", &[&issue[..], &more, &["-extfile", &extensions]].concat());
    fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    write_certificate(&fixture, "later", "01");
    let refused = report(&fixture, &[]);
    assert_eq!(verdict(&refused, "certificate_validity"), "broken");
    assert!(refused["refusals"][0].as_str().unwrap().contains("not valid before 2040-01-01"), "{refused}");
    let early = fixture.sign(&[]).failed(5);
    assert!(early.contains("not valid before 2040") && early.contains("check this host's clock: `date -u`"), "{early}");
    let lax = report(&fixture, &["--policy-certificate-validity", "warn"]);
    assert_eq!(verdict(&lax, "certificate_validity"), "warning");
}

#[test]
fn a_small_key_and_each_pin_hold_and_break() {
    let fixture = Fixture::with(&["--bits", "1024"]);
    assert_eq!(verdict(&report(&fixture, &[]), "min_rsa_bits"), "broken");
    assert!(fixture.sign(&[]).failed(5).contains("1024 bits, fewer than 2048"));
    let fixture = Fixture::new();
    let seen = report(&fixture, &[]);
    let text = |pointer: &str| seen.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let (serial, fingerprint) = (text("/token/serial"), text("/certificate/sha256"));
    let zeros = "0".repeat(64);
    for (rule, flag, right, wrong) in [
        ("token_serials", "--policy-token-serials", serial.as_str(), "00"),
        ("certificate_sha256", "--policy-certificate-sha256", &fingerprint, &zeros),
        ("payload_versions", "--policy-payload-versions", "v2", "v1"),
        ("min_rsa_bits", "--policy-min-rsa-bits", "2048", "2049"),
        ("extended_key_usage", "--policy-extended-key-usage", "emailProtection", "codeSigning"),
        ("mechanism", "--policy-mechanism", "sha512-rsa-pkcs", "rsa-pkcs"),
    ] {
        assert_eq!(verdict(&report(&fixture, &[flag, right]), rule), "holds");
        if rule != "mechanism" {
            assert_eq!(verdict(&report(&fixture, &[flag, wrong]), rule), "broken");
            fixture.sign(&[flag, wrong]).failed(5);
        }
    }
    let no_mechanism = "slots.mechanisms = -CKM_SHA512_RSA_PKCS,CKM_SHA512_RSA_PKCS\n";
    fixture.write("softhsm2.conf", fixture.read("softhsm2.conf") + no_mechanism);
    let other = report(&fixture, &["--policy-mechanism", "sha512-rsa-pkcs"]);
    assert_eq!(verdict(&other, "mechanism"), "broken");
    assert_eq!(other["key"]["signs_by"], "CKM_RSA_PKCS");
}

#[test]
fn a_certificate_from_a_file_is_named_and_needs_its_rule() {
    let fixture = Fixture::new();
    fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    let refused = report(&fixture, &["--certificate-file", "cert.pem"]);
    assert_eq!(verdict(&refused, "certificate_source"), "broken");
    assert_eq!(refused["certificate"]["source"], "file");
    let open = ["--certificate-file", "cert.pem", "--policy-certificate-source", "token-or-file"];
    assert_eq!(verdict(&report(&fixture, &open), "certificate_source"), "holds");
}

#[test]
fn a_forbidden_token_gets_no_pin_but_a_report() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    let report = report(&fixture, &["--policy-token-serials", "00"]);
    assert_eq!(verdict(&report, "token_serials"), "broken");
    assert_eq!(verdict(&report, "require.sensitive"), "not-seen");
    assert_eq!((&report["key"], &report["certificate"]), (&Value::Null, &Value::Null));
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn the_chain_is_checked_against_roots_and_its_certificates_in_the_token_are_named() {
    let fixture = Fixture::new();
    let roots = fixture.file("ca.pem");
    let given = report(&fixture, &["--roots", &roots]);
    assert_eq!(verdict(&given, "roots"), "holds");
    assert_eq!(given["certificate"]["chain"].as_array().unwrap().len(), 0);
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/other-ca.pem");
    assert_eq!(verdict(&report(&fixture, &["--roots", other]), "roots"), "broken");
    // An intermediate CA that only the token has.
    let between = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
    fixture.tool("openssl", &["genrsa", "-out", "between.key", "2048"]);
    fixture.tool("openssl", &["rsa", "-in", "between.key", "-pubout", "-out", "between.pub"]);
    fixture.issue("between", "between.pub", between, &["-days", "9"]);
    for (from, to) in [("between.pem", "ca.pem"), ("between.key", "ca.key")] {
        std::fs::rename(fixture.file(to), fixture.file(&format!("root-{to}"))).unwrap();
        std::fs::copy(fixture.file(from), fixture.file(to)).unwrap();
    }
    replace_certificate(&fixture, "below", EXTENSIONS, &["-days", "9"]);
    let root = fixture.file("root-ca.pem");
    assert_eq!(verdict(&report(&fixture, &["--roots", &root]), "roots"), "broken");
    write_certificate(&fixture, "between", "03");
    let whole = report(&fixture, &["--roots", &root]);
    assert_eq!(verdict(&whole, "roots"), "holds");
    assert_eq!(whole["certificate"]["chain"][0]["subject"], "CN=between");
    assert_eq!(custody(&fixture, &["--roots", "/nonexistent"]).failed(2).lines().count(), 2);
}

/// A token with the corpus's key under ID 01 with its certificate, and again under ID 02 with these options.
fn with_copy(options: &[&str]) -> Fixture {
    let fixture = Fixture::new();
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/certificates");
    for kind in ["privkey", "pubkey", "cert"] {
        fixture.pkcs11_tool(&["--delete-object", "--type", kind, "--id", "01"]);
    }
    let (key, certificate) = (format!("{corpus}/key.der"), format!("{corpus}/good.der"));
    let import = ["--write-object", &key, "--type", "privkey", "--usage-sign"];
    fixture.pkcs11_tool(&[&import[..], &["--id", "01", "--label", "cba", "--sensitive"]].concat());
    fixture.pkcs11_tool(&[&import[..], &["--id", "02", "--label", "copy"], options].concat());
    fixture.pkcs11_tool(&["--write-object", &certificate, "--type", "cert", "--id", "01", "--label", "cba"]);
    fixture
}

#[test]
fn the_rules_apply_to_a_second_object_of_the_key_too() {
    for options in [&["--sensitive", "--extractable"][..], &["--extractable"]] {
        let fixture = with_copy(options);
        let found = report(&fixture, &["--key-id", "01"]);
        let verdicts = ["require.non-extractable", "key_copies"].map(|rule| verdict(&found, rule));
        assert_eq!(verdicts, ["broken", "warning"]);
        let refusal = found["refusals"][0].as_str().unwrap();
        assert!(refusal.contains("a second time, as the object 'copy' (ID 02)"), "{refusal}");
        assert_eq!(found["copies"][0]["id"], "02");
        assert_eq!(found["copies"][0]["extractable"], true);
        assert_eq!(found["key"]["extractable"], false);
        let error = fixture.sign(&["--key-id", "01"]).failed(5);
        assert!(
            error.contains("'copy' (ID 02)") && error.contains("hint: delete the object 'copy' (ID 02)"),
            "{error}"
        );
        // The copy itself is refused as well.
        fixture.sign(&["--key-id", "02"]).failed(5);
        fixture.pkcs11_tool(&["--delete-object", "--type", "privkey", "--id", "02"]);
        assert_eq!(verdict(&report(&fixture, &["--key-id", "01"]), "key_copies"), "holds");
        fixture.sign(&["--key-id", "01"]).ok();
    }
    // An equal copy gets a warning.
    let fixture = with_copy(&["--sensitive"]);
    let found = report(&fixture, &["--key-id", "01"]);
    assert_eq!((&found["verdict"], verdict(&found, "key_copies").as_str()), (&"allowed".into(), "warning"));
    assert_eq!(found["copies"][0]["usages"]["decrypt"], true);
    let agent = Agent::ready(&fixture, &["--key-id", "01"]);
    let served: Value = serde_json::from_str(&agent.ask("GET", "/custody", "").body).unwrap();
    assert_eq!(served["copies"], found["copies"]);
}

#[test]
fn objects_of_another_key_under_the_keys_id_are_named() {
    let fixture = Fixture::new();
    assert_eq!(verdict(&report(&fixture, &[]), "same_id"), "holds");
    fixture.tool("openssl", &["genrsa", "-out", "key.pem", "2048"]);
    fixture.tool("openssl", &["rsa", "-in", "key.pem", "-pubout", "-out", "key.pub"]);
    fixture.tool("openssl", &["rsa", "-in", "key.pem", "-pubout", "-outform", "DER", "-out", "key.pub.der"]);
    let public = fixture.file("key.pub.der");
    fixture.pkcs11_tool(&["--write-object", &public, "--type", "pubkey", "--id", "01", "--label", "other"]);
    fixture.issue("another", "key.pub", EXTENSIONS, &["-days", "9"]);
    write_certificate(&fixture, "another", "01");
    attest(&fixture, "of-another", "key.pub");
    let found = report(&fixture, &[]);
    assert_eq!((&found["verdict"], verdict(&found, "same_id").as_str()), (&"allowed".into(), "warning"));
    let warning = found["warnings"].to_string();
    for object in ["public key 'other' (ID 01)", "certificate 'another' (ID 01)", "attestation 'of-another' (ID 01)"] {
        assert!(warning.contains(object), "{object}: {warning}");
    }
}

#[test]
fn a_certificate_of_the_token_that_cannot_be_read_is_named() {
    let mut fixture = Fixture::new();
    fixture.pkcs11_tool(&["--write-object", &fixture.file("ca.pem"), "--type", "cert", "--id", "07", "--label", "ca"]);
    assert_eq!(verdict(&report(&fixture, &[]), "certificates_readable"), "holds");
    fixture.faulty(concat!("certificate:", env!("CARGO_MANIFEST_DIR"), "/tests/data/certificates/time-empty.der"));
    let file = ["--certificate-file", "cert.pem", "--policy-certificate-source", "token-or-file"];
    report(&fixture, &file);
    let error = custody(&fixture, &[]).failed(3);
    assert!(error.contains("certificate 'ca' (ID 07) cannot be used: its notBefore cannot be read"), "{error}");
}

#[test]
fn a_key_that_may_do_more_than_sign_has_a_verdict_of_its_own() {
    let mut fixture = Fixture::new();
    for (rules, wanted, words) in [
        ("attr:CKA_DECRYPT=0;attr:CKA_UNWRAP=0;attr:CKA_SIGN_RECOVER=0", "holds", ""),
        ("attr:CKA_DECRYPT=1;attr:CKA_UNWRAP=0;attr:CKA_SIGN_RECOVER=0", "warning", "the key may also decrypt: "),
        ("attr:CKA_DECRYPT=0;attr:CKA_UNWRAP=1;attr:CKA_SIGN_RECOVER=0", "warning", "the key may also unwrap: "),
        (
            "attr:CKA_DECRYPT=0;attr:CKA_UNWRAP=0;attr:CKA_SIGN_RECOVER=1",
            "warning",
            "the key may also sign with recovery: ",
        ),
        (
            "attr:CKA_DECRYPT=0;attr:CKA_UNWRAP=0;attr:CKA_SIGN_RECOVER=0;attr:CKA_DERIVE=1",
            "warning",
            "the key may also derive: ",
        ),
        (
            "attr:CKA_DECRYPT=missing;attr:CKA_UNWRAP=0;attr:CKA_SIGN_RECOVER=0",
            "warning",
            "does not report whether the key may also decrypt",
        ),
    ] {
        fixture.faulty(rules);
        let found = report(&fixture, &[]);
        assert_eq!(
            (verdict(&found, "key_purpose").as_str(), &found["verdict"]),
            (wanted, &"allowed".into()),
            "{rules}"
        );
        assert!(words.is_empty() || found["warnings"].to_string().contains(words), "{rules}: {found}");
    }
}

#[test]
fn the_policies_of_the_guide_are_valid_and_a_software_token_breaks_them() {
    let fixture = Fixture::new();
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/custody.md")).unwrap();
    let policies: Vec<&str> = guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(policies.len(), 3);
    for (policy, broken) in policies.iter().zip([&[][..], &["token_serials"], &["token_serials"]]) {
        // The test must not write the policy's log.
        let config = fixture.write("policy.toml", policy.split("[audit]").next().unwrap());
        let report = report(&fixture, &["--config", &config]);
        let rows = report["rules"].as_array().unwrap().iter();
        let found: Vec<&str> =
            rows.filter(|row| row["verdict"] == "broken").map(|row| row["rule"].as_str().unwrap()).collect();
        assert_eq!(found, broken, "{policy}");
    }
    let rules = report(&fixture, &[])["rules"].clone();
    let named: Vec<&str> = rules.as_array().unwrap().iter().map(|row| row["rule"].as_str().unwrap()).collect();
    for rule in guide.split("`rules[").skip(1).map(|rest| rest.split(']').next().unwrap()).filter(|rule| *rule != "x") {
        assert!(named.contains(&rule), "{rule}");
    }
}
