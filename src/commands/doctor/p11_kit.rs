//! Checks that the installed p11-kit has its security fixes. Its module does not report its release.
//!
//! Runs in the parent.

use std::fs;
use std::process::{Command, Stdio};

use super::findings::Findings;

const CHECK: &str = "p11-kit";

/// The release that fixed the parsing of remote protocol messages.
const FIXED: [u32; 3] = [0, 26, 3];

/// The package with the library, and the list of Debian's packages.
const PACKAGE: &str = "libp11-kit0";
const PACKAGES: &str = "/var/lib/dpkg/status";

pub(super) fn check(findings: &mut Findings) {
    let packaged = fs::read_to_string(PACKAGES).ok().and_then(|packages| package_version(&packages, PACKAGE));
    let Some(version) = packaged.or_else(program_version) else {
        return findings.warn(
            CHECK,
            "its release is not known",
            "`dpkg-query -W libp11-kit0` or `rpm -q p11-kit` shows it; 0.26.3 has security fixes",
        );
    };
    if numbers(&version) >= FIXED {
        return findings.ok(CHECK, version);
    }
    let found = format!("{version} is before 0.26.3, which has security fixes, unless the distribution added them");
    findings.warn(CHECK, found, format!("update p11-kit; `apt changelog {PACKAGE}` names the fixes that are in it"));
}

fn program_version() -> Option<String> {
    let mut command = Command::new("/usr/bin/p11-kit");
    let output = command.arg("--version").env_clear().stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

/// The version of a package in dpkg's status file.
fn package_version(packages: &str, name: &str) -> Option<String> {
    let stanza = packages.split("\n\n").find(|stanza| stanza.lines().any(|line| line == format!("Package: {name}")))?;
    if !stanza.lines().any(|line| line == "Status: install ok installed") {
        return None;
    }
    stanza.lines().find_map(|line| line.strip_prefix("Version: ")).map(str::to_owned)
}

/// Major, minor and patch number. A missing number is 0.
fn numbers(version: &str) -> [u32; 3] {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest).split('-').next().unwrap_or_default();
    let mut numbers = upstream.split('.').map(|number| number.parse().unwrap_or(0));
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let packages = "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: libp11-kit0\n\
                        Status: install ok installed\nVersion: 0.24.1-2\n\nPackage: b\nVersion: 2\n";
        assert_eq!(package_version(packages, "libp11-kit0").as_deref(), Some("0.24.1-2"));
        assert_eq!(package_version(packages, "b"), None);
        assert_eq!(numbers("1:0.26.3-1+deb13u1"), FIXED);
        assert!(numbers("0.25.5-3") < FIXED && numbers("0.27") > FIXED);
    }
}
