//! Unit tests of the sandbox profiles: they equal the table in `docs/sandbox.md`.
//!
//! PURE. Only these tests read that file.

#![cfg(test)]

use std::fs;

use super::*;

#[test]
fn only_profiles_with_internet_sockets_read_the_files_of_a_resolver() {
    for profile in &PROFILES {
        let reads = network_reads(profile);
        assert_eq!(
            reads.contains(&"/etc/resolv.conf"),
            profile.families.contains(&SocketFamily::Internet),
            "{}",
            profile.name
        );
        assert_eq!(Profile::named(profile.name).unwrap().name, profile.name);
    }
    assert!(network_reads(&BARE).is_empty() && Profile::named("").is_none());
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn paths(text: &str) -> Vec<&str> {
    quoted(text).into_iter().filter(|word| word.starts_with(['/', '~', '$'])).collect()
}

#[test]
fn the_guide_to_the_sandbox_shows_every_profile_exactly() {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sandbox.md")).unwrap();
    let row =
        |start: &str| guide.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no row {start}"));
    let allow_lists: Vec<_> = PROFILES.iter().filter(|p| p.calls == CallFilter::AllowList).map(|p| p.name).collect();
    let mut shown = quoted(row("| `softhsm2`, ").split('|').nth(1).unwrap());
    shown.sort_by_key(|name| PROFILES.iter().position(|profile| profile.name == *name));
    assert_eq!(shown, allow_lists);
    for profile in PROFILES {
        let name = profile.name;
        let columns: Vec<_> = row(&format!("| `{name}` |")).split('|').map(str::trim).collect();
        let [_, _, sockets, after_login, reads, writes, _] = columns[..] else { panic!("{name}: {columns:?}") };
        let families = sockets.split(';').next().unwrap().to_lowercase();
        let families: Vec<_> = families
            .split(", ")
            .map(|family| family.split(" (").next().unwrap())
            .filter(|family| *family != "none")
            .collect();
        let expected: Vec<_> = profile.families.iter().map(|family| format!("{family:?}").to_lowercase()).collect();
        assert_eq!(families, expected, "{name}");
        let reopens = if families.is_empty() {
            "-"
        } else if profile.sockets_after_login {
            "yes"
        } else {
            "no"
        };
        assert_eq!(after_login, reopens, "{name}");
        assert_eq!(paths(sockets), profile.sockets, "{name}");
        assert_eq!(paths(reads), profile.reads, "{name}");
        let devices = writes.find("devices").unwrap_or(writes.len());
        assert_eq!(paths(&writes[..devices]), profile.writes, "{name}");
        assert_eq!(paths(&writes[devices..]), profile.devices, "{name}");
        let shows_store = match profile.store {
            TokenStoreKind::Tpm => sockets.contains("a TCTI variable"),
            TokenStoreKind::SoftHsm => writes.contains("`directories.tokendir`"),
            TokenStoreKind::Kryoptic => writes.contains("`dbargs`"),
            TokenStoreKind::Fixed => {
                !sockets.contains("TCTI") && !writes.contains("tokendir") && !writes.contains("dbargs")
            }
        };
        assert!(shows_store, "{name}: {writes}");
    }
    for path in EVERY_READ.iter().chain(&RESOLVER_AND_TLS) {
        assert!(guide.contains(&format!("`{path}`")), "{path}");
    }
}

#[test]
fn only_modules_with_a_deny_list_except_p11_kit_set_modes_of_open_files() {
    for profile in PROFILES {
        let expected = profile.calls == CallFilter::DenyList && profile.name != "p11-kit";
        assert_eq!(profile.sets_modes, expected, "{}", profile.name);
    }
}
