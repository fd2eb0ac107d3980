//! The certificates of `tests/data/certificates`, each with one unusual part: each is used, or named with a reason.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::fixture::{Fixture, tool};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/certificates");

/// A line of `expected.tsv`; `make.py` describes its columns.
struct Row {
    name: String,
    reads: bool,
    sign: i32,
    emails: Vec<String>,
    says: String,
    openssl: String,
}

impl Row {
    fn path(&self) -> String {
        format!("{DIRECTORY}/{}.der", self.name)
    }
}

fn rows() -> Vec<Row> {
    let table = fs::read_to_string(format!("{DIRECTORY}/expected.tsv")).unwrap();
    let rows: Vec<Row> = table
        .lines()
        .skip(1)
        .map(|line| {
            let [name, reads, sign, emails, says, openssl] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let listed = |text: &str| text.split(' ').filter(|one| *one != "-").map(str::to_owned).collect();
            Row {
                name: name.into(),
                reads: reads == "yes",
                sign: sign.parse().unwrap(),
                emails: listed(emails),
                says: says.into(),
                openssl: openssl.into(),
            }
        })
        .collect();
    assert!(rows.len() > 150, "{}", rows.len());
    rows
}

/// A token with the corpus's key, under a module that returns the named certificate.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    for kind in ["privkey", "pubkey"] {
        fixture.pkcs11_tool(&["--delete-object", "--type", kind, "--id", "01"]);
    }
    let key = format!("{DIRECTORY}/key.der");
    let import = ["--write-object", &key, "--type", "privkey", "--id", "01", "--label", "cba"];
    fixture.pkcs11_tool(&[&import[..], &["--sensitive", "--usage-sign"]].concat());
    fixture
}

#[test]
fn the_corpus_equals_the_output_of_its_script() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!("{DIRECTORY}/make.py");
    tool(Command::new("/usr/bin/python3").arg("-B").arg(script).arg(directory.path()));
    let names = |directory: &std::path::Path| {
        let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut made: Vec<String> = all.filter(|name| !name.ends_with(".py")).collect();
        made.sort();
        made
    };
    let committed = std::path::Path::new(DIRECTORY);
    assert_eq!(names(committed), names(directory.path()));
    for name in names(committed) {
        assert_eq!(fs::read(committed.join(&name)).unwrap(), fs::read(directory.path().join(&name)).unwrap(), "{name}");
    }
}

#[test]
fn a_file_is_read_or_named_as_the_table_says_and_as_openssl_reads_it() {
    let fixture = Fixture::empty();
    for row in rows() {
        let name = &row.name;
        let run = fixture.run(&["doctor", "--json", "--certificate", &row.path()]);
        let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{name} {error}: {run:?}"));
        let checks = report["checks"].as_array().unwrap();
        let found: Vec<&str> = checks.iter().map(|check| check["found"].as_str().unwrap()).collect();
        assert_eq!(checks.iter().any(|check| check["check"] == "certificate"), row.reads, "{name}: {found:?}");
        assert!(row.reads || run.code == 8, "{name}: {run:?}");
        assert!(row.says == "-" || found.iter().any(|found| found.contains(&row.says)), "{name}: {found:?}");
        let fields = ["-noout", "-serial", "-fingerprint", "-sha256"];
        let arguments = ["x509", "-inform", "DER", "-in", &row.path()];
        let openssl = Command::new("openssl").args(arguments).args(fields).output().unwrap();
        let wanted = match row.openssl.as_str() {
            "any" => openssl.status.success(),
            word => word == "yes",
        };
        assert_eq!(openssl.status.success(), wanted, "{name}: {openssl:?}");
    }
}

#[test]
fn a_token_signs_with_each_certificate_that_can_be_read_and_names_the_others() {
    let mut fixture = fixture();
    for row in rows() {
        let name = &row.name;
        fixture.faulty(&format!("certificate:{}", row.path()));
        let run = fixture.sign(&[]);
        if row.sign != 0 {
            let error = run.failed(row.sign);
            assert!(row.reads || error.contains("certificate 'cba' (ID 01) cannot be used: "), "{name}: {error}");
        } else {
            assert_eq!(run.code, 0, "{name}: {run:?}");
            let request: Value = serde_json::from_str(&run.stdout).unwrap();
            let header = request["headers"]["Authorization"].as_str().unwrap().trim_start_matches("CACertificate ");
            let sent = STANDARD.decode(header).unwrap();
            // The certificate's own bytes, without the padding behind them.
            assert!(fs::read(row.path()).unwrap().starts_with(&sent), "{name}");
            let verified = fixture.run_with_input(&["verify"], &run.stdout);
            assert_eq!(verified.code, 0, "{name}: {verified:?}");
        }
    }
}

#[test]
fn certificate_and_doctor_agree_about_it() {
    let mut fixture = fixture();
    for row in rows() {
        let name = &row.name;
        fixture.faulty(&format!("certificate:{}", row.path()));
        let run = fixture.run(&["certificate", "--format", "json"]);
        if row.reads && row.says.contains("a CA's") {
            // A CA certificate cannot log in.
            run.failed(3);
            continue;
        }
        if row.reads {
            let shown: Value = serde_json::from_str(&run.ok()).unwrap();
            assert_eq!(shown["emails"], Value::from(row.emails), "{name}");
            continue;
        }
        let named = "certificate 'cba' (ID 01) cannot be used: ";
        assert!(run.failed(3).contains(named), "{name}");
        let listed = fixture.run(&["list"]).ok();
        assert!(listed.contains("other certificate"), "{name}: {listed}");
        let whole_and_not_rsa = row.says == "not RSA";
        let doctor = fixture.run(&["doctor", "--state-dir", &fixture.file("state")]);
        let line = doctor.stdout.lines().find(|line| line.contains(named)).unwrap_or_else(|| panic!("{doctor:?}"));
        assert!(whole_and_not_rsa || (doctor.code == 8 && line.starts_with("failed")), "{name}: {doctor:?}");
    }
}

#[test]
fn a_broken_certificate_beside_a_good_one_is_named_by_every_command() {
    let fixture = Fixture::new();
    let broken = format!("{DIRECTORY}/extension-key-usage-twice.der");
    fixture.pkcs11_tool(&["--write-object", &broken, "--type", "cert", "--id", "07", "--label", "odd"]);
    let words = "certificate 'odd' (ID 07) cannot be used: it has more than one key usage extension";
    let source = fixture.pin_source();
    for command in [&["sign", "--pin-source", &source][..], &["certificate"], &["custody", "--pin-source", &source]] {
        let run = fixture.run(command);
        assert!(run.code == 0 && run.stderr.contains(words), "{command:?}: {run:?}");
    }
    let doctor = fixture.run(&["doctor", "--pin-source", &source]);
    let line = doctor.stdout.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{doctor:?}"));
    assert!(doctor.code == 8 && line.starts_with("failed"), "{doctor:?}");
    let listed = fixture.run(&["list"]).ok();
    let line = listed.lines().find(|line| line.contains("more than one key usage")).unwrap();
    assert!(line.contains("odd") && line.contains("07"), "{listed}");
    // A certificate with another key type is valid, and not a reason to fail.
    let fixture = Fixture::new();
    let other = format!("{DIRECTORY}/key-ec.der");
    fixture.pkcs11_tool(&["--write-object", &other, "--type", "cert", "--id", "07", "--label", "ec"]);
    let doctor = fixture.run(&["doctor", "--pin-source", &fixture.pin_source()]);
    assert!(doctor.code == 0, "{doctor:?}");
}
