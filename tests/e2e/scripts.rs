//! The project's own scripts, on hosts where cargo builds in another directory.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, tool};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A crate with a program of our name, a library, and another program.
fn crate_beside_others(fixture: &Fixture) {
    fs::create_dir_all(fixture.file("src/bin")).unwrap();
    fixture
        .write("Cargo.toml", "[package]\nname = \"cba-agent\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n");
    for file in ["src/main.rs", "src/bin/other.rs"] {
        fixture.write(file, "fn main() {}\n");
    }
    fixture.write("src/lib.rs", "");
}

#[test]
fn a_script_finds_the_program_in_any_cargo_target_directory() {
    let fixture = Fixture::empty();
    crate_beside_others(&fixture);
    let host = tool(Command::new("rustc").arg("-vV"));
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    let elsewhere = fixture.file("else where");
    let script = format!(". {ROOT}/softhsm/cargo; built cba-agent {} build --quiet", env!("CARGO"));
    let found = |variables: &[(&str, &str)], wanted: String| {
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", &script]).current_dir(fixture.path());
        command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET").envs(variables.iter().copied());
        let output = command.finish();
        let path = String::from_utf8(output.stdout).unwrap();
        assert_eq!(path.trim(), wanted, "{variables:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(Command::new(path.trim()).finish().status.success());
    };
    found(&[], fixture.file("target/debug/cba-agent"));
    found(&[("CARGO_TARGET_DIR", &elsewhere)], format!("{elsewhere}/debug/cba-agent"));
    found(&[("CARGO_BUILD_TARGET", &host)], fixture.file(&format!("target/{host}/debug/cba-agent")));
    fs::create_dir(fixture.file(".cargo")).unwrap();
    fixture.write(".cargo/config.toml", format!("[build]\ntarget-dir = \"{elsewhere}\"\ntarget = \"{host}\"\n"));
    found(&[], format!("{elsewhere}/{host}/debug/cba-agent"));
    // A program that does not compile prints no path.
    fixture.write("src/main.rs", "fn main() { missing() }\n");
    let failed = Command::new("sh").args(["-eu", "-c", &script]).current_dir(fixture.path()).finish();
    assert!(!failed.status.success() && failed.stdout.is_empty(), "{failed:?}");
}

#[test]
fn no_script_assumes_cargos_target_directory() {
    let scripts = ["softhsm/demo", "softhsm/provision", "deploy/package/build", "deploy/package/test", "fuzz/run"];
    let more = ["tests/boot/run", "gateway/demo", "gateway/deploy/build", "gateway/Cargo.toml", "Cargo.toml"];
    for script in scripts.into_iter().chain(more) {
        let text = fs::read_to_string(Path::new(ROOT).join(script)).unwrap();
        let named = text.lines().find(|line| line.contains("target/release") || line.contains("target/debug"));
        assert_eq!(named, None, "{script}");
    }
}

#[test]
fn a_cargo_that_is_too_old_is_named_before_the_build() {
    let fixture = Fixture::empty();
    let script = format!("cd {ROOT} && . softhsm/packages && need_cargo");
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let exact = format!("{oldest}.0");
    for (version, builds) in [("0.66.0", false), ("1.9.0", false), (exact.as_str(), true), ("1.1000.0-nightly", true)] {
        let cargo = fixture.write("cargo", format!("#!/bin/sh\necho 'cargo {version}'\n"));
        fs::set_permissions(&cargo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", fixture.path().display());
        let output = Command::new("sh").args(["-euc", &script]).env("PATH", path).finish();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), builds, "{version}: {said}");
        let words = format!("needs cargo {oldest} or newer, and this host has {version}");
        assert!(builds || said.contains(&words), "{version}: {said}");
    }
}
