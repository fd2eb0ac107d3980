//! The house's plan, held against the source: which room may use which, what PURE rooms must not do, and where unsafe
//! code may stand.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the top down; a room uses only what stands below it.
const ROOMS: [&str; 36] = [
    "commands",
    "serve",
    "client",
    "signer",
    "session",
    "cli",
    "output",
    "config",
    "settings",
    "worker_handle",
    "worker",
    "audit",
    "fuse",
    "pin",
    "sandbox_profile",
    "modules",
    "log",
    "custody",
    "payload_check",
    "policy",
    "identity",
    "selector",
    "http_api",
    "problem",
    "worker_protocol",
    "cba",
    "certificate",
    "html_page",
    "os",
    "files",
    "deadline",
    "facts",
    "fault",
    "error",
    "text",
    "lib",
];

/// Arrows that point up until their files are split.
const KNOWN_VIOLATIONS: [(&str, &str); 2] = [("settings", "config"), ("pin", "fuse")];

const PURE: &[&str] = &[
    "custody",
    "payload_check",
    "policy",
    "identity",
    "selector",
    "cba",
    "certificate",
    "facts",
    "fault",
    "html_page",
    "text",
    "worker_protocol",
    "http_api",
    "problem",
    "serve/pool/plan",
    "serve/pool/recent_messages",
    "audit/chain",
    "audit/check",
    "settings/ranges",
    "modules/elf",
    "fuse/record",
    "pin/text",
];

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
                continue;
            }
            let name = entry.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
            found.push((name.with_extension("").display().to_string(), fs::read_to_string(&entry).unwrap()));
        }
    }
    assert!(found.len() > 20);
    found
}

/// The code of a file: without its tests and without comments.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]").next().unwrap();
    body.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap()
}

#[test]
fn every_arrow_points_down() {
    for (file, text) in sources() {
        let (own, code) = (room(&file).to_owned(), code(&text));
        if own == "lib" || own == "main" {
            continue;
        }
        let at = |name: &str| ROOMS.iter().position(|room| *room == name);
        let own_at = at(&own).unwrap_or_else(|| panic!("{file} is in no room of the plan"));
        for used in code.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(used_at) = at(&used) else { continue };
            if KNOWN_VIOLATIONS.contains(&(own.as_str(), used.as_str())) {
                continue;
            }
            assert!(used_at >= own_at, "{file} uses {used}, which stands above it");
        }
    }
}

#[test]
fn pure_rooms_touch_nothing_outside() {
    let outside = [
        "std::fs",
        "std::env",
        "std::net::Tcp",
        "std::net::Udp",
        "std::io",
        "std::process",
        "SystemTime",
        "Instant",
        "tracing::",
        "rustix",
        "getrandom",
    ];
    for (file, text) in sources() {
        if !PURE.iter().any(|pure| file == *pure || file.starts_with(&format!("{pure}/"))) {
            continue;
        }
        let code = code(&text);
        for word in outside {
            assert!(!code.contains(word), "{file} is PURE and names {word}");
        }
    }
}

#[test]
fn a_pkcs11_library_is_named_in_the_token_room_alone() {
    for (file, text) in sources() {
        assert!(
            file.starts_with("worker/pkcs11")
                || !code(&text).contains("cryptoki::") && !code(&text).contains("cryptoki_sys"),
            "{file}"
        );
    }
}

#[test]
fn unsafe_code_is_only_in_listed_files() {
    for (file, text) in sources() {
        let corners = [
            "worker/pkcs11/entry_point",
            "worker/pcsc",
            "worker/pkcs11/raw",
            "os/clock",
            "worker/parent_death",
            "os/descriptors",
            "os/environment",
            "os/memory",
            "os/peer_groups",
            "os/privileges",
            "os/standard_streams",
            "os/scheduling",
        ];
        let corner = corners.contains(&file.as_str());
        assert_eq!(code(&text).contains("allow(unsafe_code)"), corner, "{file}");
        assert!(corner || !code(&text).contains("unsafe {"), "{file}");
    }
}

#[test]
fn a_message_is_created_in_one_place() {
    let makers: Vec<String> =
        sources().into_iter().filter(|(_, text)| code(text).contains("Message::new(")).map(|(file, _)| file).collect();
    assert_eq!(makers, ["worker"]);
    let message = sources().into_iter().find(|(file, _)| file == "cba/message").unwrap().1;
    assert!(
        !message.contains("derive(Clone, Debug)]\npub struct Message")
            && !code(&message).contains("Deserialize)]\npub struct Message")
    );
}

#[test]
fn nothing_opens_a_network_socket() {
    for (file, text) in sources() {
        for word in ["TcpListener", "TcpStream", "UdpSocket"] {
            assert!(!code(&text).contains(word), "{file} names {word}");
        }
    }
}

#[test]
fn nothing_ends_the_process_below_main() {
    for (file, text) in sources() {
        assert!(!code(&text).contains("process::exit") && !code(&text).contains("process::abort"), "{file}");
    }
}

#[test]
fn every_test_that_the_documents_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests: Vec<(String, String)> = sources();
    for directory in ["tests", "tests/e2e", "tests/stacks", "gateway/tests/e2e"] {
        for entry in fs::read_dir(root.join(directory)).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_some_and(|extension| extension == "rs") {
                let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
                tests.push((name, fs::read_to_string(&entry).unwrap()));
            }
        }
    }
    let mut named = 0;
    for document in ["SECURITY.md", "docs/field-reports.md", "src/lib.rs"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let quoted = text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::"));
        for (file, test) in quoted.filter(|(_, test)| test.contains('_') && !test.contains(':')) {
            let there = |(name, text): &(String, String)| {
                name.rsplit('/').next() == Some(file) && text.contains(&format!("fn {test}("))
            };
            assert!(tests.iter().any(there), "{document} names {file}::{test}, which is not there");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}

#[test]
fn every_row_of_the_security_tables_names_what_proves_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let (security, all_tests) = (read("SECURITY.md"), read("softhsm/test"));
    let rows = security.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| threat"));
    let mut count = 0;
    for row in rows {
        let proof = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
        let quoted = proof.split('`').skip(1).step_by(2);
        let is_run = |name: &str| name.contains("::") || (all_tests.contains(name) && root.join(name).is_file());
        assert!(proof.starts_with("the same") || quoted.clone().any(is_run), "{row}");
        count += 1;
    }
    assert!(count > 60, "{count}");
}

/// Each mutation of `tests/mutations` can be applied, and each row of SECURITY.md has one.
#[test]
fn every_row_of_the_security_tables_has_a_mutation_that_can_be_applied() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mutations/run");
    let checked = std::process::Command::new(script).arg("--check").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// The anchor of a heading, as code hosts generate it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<PathBuf> = ["README.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root.join(name)).into();
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    documents.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let mut links = 0;
    for document in &documents {
        let text = fs::read_to_string(document).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, place) = link.split_once('#').map_or((link, None), |(file, place)| (file, Some(place)));
            let target = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", document.display());
            if let Some(place) = place {
                let text = fs::read_to_string(&target).unwrap();
                let there = text.lines().filter(|line| line.starts_with('#')).any(|heading| anchor(heading) == place);
                assert!(there, "{}: {link}", document.display());
            }
            links += 1;
        }
    }
    assert!(links > 20, "{links}");
}
