//! The scenarios that an owner can run on real hardware, named by environment variables:
//!
//! ```text
//! CBA_TEST_MODULE=ykcs11 CBA_TEST_PIN_FILE=/path/of/pin CBA_TEST_SELECT="--key-id 01" \
//!     cargo test --features hardware --test hardware -- --skip wrong_pin
//! ```
//!
//! They spend no PIN try but with `CBA_TEST_WRONG_PIN=spend-one`, and touch nothing on the token. Not a part of
//! `softhsm/test`, since nobody's hardware is there.

#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_cba-agent");

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; the head of tests/hardware.rs says how"))
}

/// A command with the owner's module.
fn with_module(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).args(["--module", &variable("CBA_TEST_MODULE")]);
    command
}

/// A run against the owner's token.
fn agent(arguments: &[&str]) -> Output {
    let select = std::env::var("CBA_TEST_SELECT").unwrap_or_default();
    with_module(arguments).args(select.split_whitespace()).output().unwrap()
}

#[track_caller]
fn ok(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn lists_and_reads_the_certificate_without_a_login() {
    // It has no options that select a key.
    ok(with_module(&["list"]).output().unwrap());
    assert!(ok(agent(&["certificate"])).starts_with(b"-----BEGIN CERTIFICATE-----"));
}

#[test]
fn signs_both_versions_and_they_verify() {
    let source = format!("file:{}", variable("CBA_TEST_PIN_FILE"));
    for version in ["v2", "v1"] {
        let request = ok(agent(&["sign", "--pin-source", &source, "--payload-version", version]));
        let mut verify = Command::new(BINARY);
        let mut child = verify.arg("verify").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&request).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_wrong_pin_spends_one_try_where_the_owner_gives_it() {
    assert_eq!(variable("CBA_TEST_WRONG_PIN"), "spend-one", "this test costs one PIN try; run the others by name");
    // Beside the build, on a disk: no fuse is kept in memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let pin = directory.path().join("pin");
    std::fs::write(&pin, "00000000").unwrap();
    std::fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let source = format!("file:{}", pin.display());
    let state = directory.path().join("state").display().to_string();
    let arguments = ["sign", "--pin-source", &source, "--state-dir", &state];
    assert_eq!(agent(&arguments).status.code(), Some(4));
    let again = agent(&arguments);
    assert!(String::from_utf8_lossy(&again.stderr).contains("no login is tried"));
}
