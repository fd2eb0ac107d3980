//! Unit tests of the sandbox profiles, against the table that users read.
//!
//! Runs in both processes.

use std::fs;

use super::*;

#[test]
fn only_profiles_of_the_network_read_what_a_resolver_reads() {
    for profile in &PROFILES {
        let reads = reads_of_the_network(profile);
        assert_eq!(
            reads.contains(&"/etc/resolv.conf"),
            profile.families.contains(&SocketFamily::Internet),
            "{}",
            profile.name
        );
        assert_eq!(Profile::named(profile.name).unwrap().name, profile.name);
    }
    assert!(reads_of_the_network(&BARE).is_empty() && Profile::named("").is_none());
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
        let families = sockets.split([';', ':']).next().unwrap().to_lowercase();
        let families: Vec<_> = families.split(", ").filter(|family| *family != "none").collect();
        let expected: Vec<_> = profile.families.iter().map(|family| format!("{family:?}").to_lowercase()).collect();
        assert_eq!(families, expected, "{name}");
        let again = if families.is_empty() {
            "-"
        } else if profile.sockets_after_login {
            "yes"
        } else {
            "no"
        };
        assert_eq!(after_login, again, "{name}");
        assert_eq!(paths(sockets), profile.sockets, "{name}");
        assert_eq!(paths(reads), profile.reads, "{name}");
        let devices = writes.find("devices").unwrap_or(writes.len());
        assert_eq!(paths(&writes[..devices]), profile.writes, "{name}");
        assert_eq!(paths(&writes[devices..]), profile.devices, "{name}");
        let store = match profile.store {
            TokenStoreKind::Tpm => sockets.contains("a TCTI variable"),
            TokenStoreKind::SoftHsm => writes.contains("`directories.tokendir`"),
            TokenStoreKind::Kryoptic => writes.contains("`dbargs`"),
            TokenStoreKind::Fixed => {
                !sockets.contains("TCTI") && !writes.contains("tokendir") && !writes.contains("dbargs")
            }
        };
        assert!(store, "{name}: {writes}");
    }
    for place in EVERY_READ.iter().chain(&NAMES_AND_ROOTS) {
        assert!(guide.contains(&format!("`{place}`")), "{place}");
    }
}

#[test]
fn modes_of_open_files_are_set_by_modules_with_a_deny_list_but_not_through_p11_kit() {
    for profile in PROFILES {
        let may = profile.calls == CallFilter::DenyList && profile.name != "p11-kit";
        assert_eq!(profile.sets_modes, may, "{}", profile.name);
    }
}
