//! `/etc/cba-agent/policy.toml`: root sets rules that users can only tighten. Each test has a separate `/etc`.

use std::fs;

use serde_json::Value;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, Run, needs_root};

/// `sign` with the fixture's PIN, on a host with this policy file, owner and mode.
fn sign_under(fixture: &Fixture, policy: &str, owner: (u32, &str), arguments: &[&str]) -> Run {
    let source = fixture.pin_source();
    run_under(fixture, policy, owner, &[&["sign", "--pin-source", &source], arguments].concat())
}

/// A command on such a host.
pub(crate) fn run_under(fixture: &Fixture, policy: &str, (owner, mode): (u32, &str), arguments: &[&str]) -> Run {
    fixture.write("policy.toml", policy);
    let script = format!(
        "{{ [ -d etc ] || cp -a /etc etc; }} && mkdir -p etc/cba-agent && cp -f policy.toml etc/cba-agent/ && \
         chown {owner} etc/cba-agent/policy.toml && chmod {mode} etc/cba-agent/policy.toml && \
         mount --bind etc /etc && exec \"$@\""
    );
    Run::from_output(fixture.in_mount_namespace(&script).args(arguments).finish())
}

pub(crate) const ROOTS: (u32, &str) = (0, "644");

#[test]
fn the_stricter_of_both_values_counts() {
    needs_root("it mounts file systems of its own");
    let fixture = Fixture::new();
    let list: Value = serde_json::from_str(&fixture.run(&["list", "--json"]).ok()).unwrap();
    let serial = list["modules"][0]["slots"][0]["token"]["serial"].as_str().unwrap();
    for (policy, arguments, code) in [
        ("min_rsa_bits = 2048", &[][..], 0),
        ("min_rsa_bits = 3072", &[], 5),
        ("min_rsa_bits = 3072", &["--policy-min-rsa-bits", "2048"], 5),
        ("min_rsa_bits = 2048", &["--policy-min-rsa-bits", "3072"], 5),
        ("require = [\"local\"]", &["--policy-require", "sensitive"], 0),
        ("require = [\"hardware-token\"]", &["--policy-require", "sensitive"], 5),
        ("require = [\"sensitive\"]", &["--policy-require", "hardware-token"], 5),
        ("payload_versions = [\"v2\"]", &["--payload-version", "v1"], 5),
        ("payload_versions = [\"v2\"]", &["--payload-version", "v1", "--policy-payload-versions", "v1"], 2),
        ("payload_versions = [\"v1\", \"v2\"]", &["--policy-payload-versions", "v2"], 0),
        ("mechanism = \"sha512-rsa-pkcs\"", &["--policy-mechanism", "rsa-pkcs"], 2),
        ("mechanism = \"rsa-pkcs\"", &[], 5),
        ("extended_key_usage = [\"codeSigning\"]", &[], 5),
        ("extended_key_usage = [\"codeSigning\"]", &["--policy-extended-key-usage", "clientAuth"], 2),
        ("token_serials = [\"13\"]", &[], 5),
        (&format!("token_serials = [\"13\", \"{serial}\"]"), &["--policy-token-serials", serial], 0),
        ("token_serials = [\"13\"]", &["--policy-token-serials", serial], 2),
        ("certificate_validity = \"enforce\"", &["--policy-certificate-validity", "warn"], 0),
    ] {
        let run = sign_under(&fixture, &format!("[policy]\n{policy}\n"), ROOTS, arguments);
        if code == 0 {
            run.ok();
        } else {
            let error = run.failed(code);
            assert!(code != 2 || error.contains("/etc/cba-agent/policy.toml"), "{policy} {arguments:?}: {error}");
        }
    }
}

#[test]
fn roots_requirements_are_added_and_remove_no_default() {
    needs_root("it mounts file systems of its own");
    let mut fixture = Fixture::new();
    let policy = "[policy]\nrequire = [\"local\"]\n";
    sign_under(&fixture, policy, ROOTS, &[]).ok();
    // A key that was generated in the token and is extractable.
    fixture.faulty("attr:CKA_EXTRACTABLE=1");
    let refused = "the key can be exported from the token (CKA_EXTRACTABLE is true)";
    assert!(sign_under(&fixture, policy, ROOTS, &[]).failed(5).contains(refused));
    let source = fixture.pin_source();
    let custody = ["custody", "--pin-source", &source];
    let run = run_under(&fixture, policy, ROOTS, &custody);
    assert!(run.code == 8 && run.stderr.contains(refused), "{run:?}");
    assert!(run.stdout.contains("/etc/cba-agent/policy.toml"), "{run:?}");
    // A user's own list replaces the defaults, and a warning names the missing ones.
    let own = ["--policy-require", "sensitive"];
    let words = "and the list `require` leaves out \"non-extractable\"";
    for (command, more) in [("sign", &["-v"][..]), ("custody", &[]), ("doctor", &["--sign"])] {
        let arguments = [&[command, "--pin-source", &source][..], more, &own].concat();
        let run = run_under(&fixture, policy, ROOTS, &arguments);
        assert_eq!(run.code, 0, "{command}: {run:?}");
        assert!((run.stdout + &run.stderr).contains(words), "{command}");
    }
    let run = run_under(&fixture, policy, ROOTS, &[&["doctor"][..], &own].concat());
    assert!(run.stdout.contains("the list `require` leaves out \"non-extractable\""), "{run:?}");
    // Root's list applies beside the user's.
    fixture.faulty("attr:CKA_EXTRACTABLE=1;attr:CKA_LOCAL=0");
    let error = sign_under(&fixture, policy, ROOTS, &own).failed(5);
    assert!(error.contains("was not generated in the token"), "{error}");
    // A key that needs no warning gets none.
    fixture.faulty("");
    let run = sign_under(&fixture, policy, ROOTS, &own);
    assert!(run.code == 0 && !run.stderr.contains("leaves out"), "{run:?}");
}

#[test]
fn an_expired_certificate_is_refused_despite_a_users_setting() {
    needs_root("it mounts file systems of its own");
    let fixture = Fixture::with(&["--days", "-1"]);
    let warn = ["--policy-certificate-validity", "warn"];
    sign_under(&fixture, "[policy]\n", ROOTS, &warn).ok();
    sign_under(&fixture, "[policy]\ncertificate_validity = \"enforce\"\n", ROOTS, &warn).failed(5);
    sign_under(&fixture, "[policy]\ncertificate_validity = \"warn\"\n", ROOTS, &[]).ok();
}

#[test]
fn a_log_that_root_names_is_kept_and_cannot_be_moved() {
    needs_root("it mounts file systems of its own");
    let fixture = Fixture::new();
    let policy = format!("[audit]\npath = \"{}\"\n", fixture.file("audit.jsonl"));
    sign_under(&fixture, &policy, ROOTS, &[]).ok();
    sign_under(&fixture, &policy, ROOTS, &["--audit-path", &fixture.file("audit.jsonl")]).ok();
    let error = sign_under(&fixture, &policy, ROOTS, &["--audit-path", "/tmp/other"]).failed(2);
    assert!(error.contains("--audit-path: /etc/cba-agent/policy.toml names another"), "{error}");
    assert_eq!(fixture.read("audit.jsonl").lines().count(), 2);
    assert!(!fs::exists("/tmp/other").unwrap());
}

#[test]
fn one_path_in_roots_policy_names_a_log_for_each_user() {
    needs_root("it mounts file systems of its own");
    let fixture = Fixture::new();
    let policy = format!("[audit]\npath = \"{}/{{user}}.jsonl\"\n", fixture.path().display());
    sign_under(&fixture, &policy, ROOTS, &[]).ok();
    sign_under(&fixture, &policy, ROOTS, &["--audit-path", &fixture.file("root.jsonl")]).ok();
    sign_under(&fixture, &policy, ROOTS, &["--audit-path", &fixture.file("other.jsonl")]).failed(2);
    assert_eq!(fixture.read("root.jsonl").lines().count(), 2);
    assert!(run_under(&fixture, &policy, ROOTS, &["audit", "verify"]).ok().starts_with("valid: 2 records"));
}

#[test]
fn a_policy_writable_by_others_or_invalid_stops_everything() {
    needs_root("it mounts file systems of its own");
    let mut fixture = Fixture::new();
    fixture.faulty("");
    for (policy, owner) in [
        ("[policy]\n", (1000, "644")),
        ("[policy]\n", (0, "664")),
        ("[policy]\n", (0, "646")),
        ("[policy]\nmin_rsa_bit = 2048\n", ROOTS),
        ("[policy]\nmin_rsa_bits = 1024\n", ROOTS),
        ("[policy]\nrequire = []\n", ROOTS),
        ("[sign]\npayload_version = \"v1\"\n", ROOTS),
        ("what", ROOTS),
    ] {
        let error = sign_under(&fixture, policy, owner, &[]).failed(2);
        assert!(error.contains("/etc/cba-agent/policy.toml"), "{policy}: {error}");
    }
    assert_eq!(fixture.calls("C_Initialize"), 0);
}

#[test]
fn a_policy_that_cannot_be_read_is_named_with_a_hint_for_it() {
    needs_root("it mounts file systems of its own");
    let fixture = Fixture::new();
    let script = "cp -a /etc etc && mkdir -p etc/cba-agent/policy.toml && mount --bind etc /etc && exec \"$@\"";
    let error = Run::from_output(fixture.in_mount_namespace(script).arg("list").finish()).failed(2);
    assert!(error.contains("cannot read the policy /etc/cba-agent/policy.toml: Is a directory"), "{error}");
    assert!(error.contains("`ls -ld /etc/cba-agent/policy.toml`") && !error.contains("--config"), "{error}");
}

#[test]
fn a_rule_that_is_weaker_than_its_default_is_named_by_sign_doctor_and_custody() {
    needs_root("it mounts a file that root owns");
    let fixture = Fixture::new();
    let source = fixture.pin_source();
    for (rule, words) in [
        ("payload_versions = [\"v2\", \"v1\"]", Some("payload_versions accepts v1")),
        ("extended_key_usage = [\"clientAuth\", \"serverAuth\"]", Some("extended_key_usage accepts serverAuth")),
        ("certificate_validity = \"warn\"", Some("certificate_validity accepts an expired certificate")),
        ("certificate_source = \"token-or-file\"", Some("certificate_source accepts a certificate from a file")),
        ("require = [\"local\"]", None),
    ] {
        for arguments in [&["sign", "-v"][..], &["doctor"], &["custody"]] {
            let policy = format!("[policy]\n{rule}\n");
            let run = run_under(&fixture, &policy, ROOTS, &[arguments, &["--pin-source", &source]].concat());
            assert_eq!(run.code, 0, "{rule} {arguments:?}: {run:?}");
            let said = format!("{}{}", run.stdout, run.stderr);
            match words {
                Some(words) => {
                    assert!(said.contains(&format!("weaker than the defaults: {words}")), "{arguments:?}: {said}")
                }
                None => assert!(!said.contains("weaker than the defaults"), "{arguments:?}: {said}"),
            }
        }
    }
}
