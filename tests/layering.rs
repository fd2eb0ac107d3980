//! Checks the source against the map in `src/lib.rs`: layers, their order, their process, and PURE files.
//!
//! The layers come from the table in `src/lib.rs`, and what a file may do comes from its own header, so neither can differ from
//! the code. Items under `#[cfg(test)]` do not count.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "layering/graph.rs"]
mod graph;
#[path = "layering/source.rs"]
mod source;

use graph::{dependencies, layers};
use source::{SOURCES, Source};

/// The only place where the parent's code starts the worker's.
const START_OF_THE_WORKER: (&str, &str) = ("commands", "worker");

/// The terms that the whole crate uses, each with one meaning.
const GLOSSARY: [&str; 8] = ["module", "token", "identity", "payload", "parent", "worker", "fuse", "policy"];

/// What a PURE file must not name: files, sockets, the environment, the clock, the log and random sources.
const OUTSIDE: [&str; 16] = [
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::fd",
    "std::os::unix::net",
    "std::os::unix::fs",
    "std::io",
    "std::process",
    "std::time::SystemTime",
    "std::time::Instant",
    "tracing",
    "rustix",
    "nix",
    "tokio",
    "getrandom",
];

/// Every file that a file uses, directly or through others.
fn reached<'a>(dependencies: &'a BTreeMap<String, BTreeSet<String>>, from: &'a String) -> BTreeSet<&'a String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        for to in dependencies.get(next).into_iter().flatten() {
            if seen.insert(to) {
                open.push(to);
            }
        }
    }
    seen
}

#[test]
fn every_file_is_in_a_layer_and_uses_no_layer_above() {
    let files = &*SOURCES;
    let layers = layers();
    let depth = |file: &str| layers.iter().position(|(layer, _)| layer == file.split('/').next().unwrap());
    let mut wrong = Vec::new();
    for (file, targets) in dependencies(files) {
        let Some(own) = depth(&file) else {
            wrong.push(format!("{file} is in no layer"));
            continue;
        };
        wrong.extend(
            targets.iter().filter(|to| depth(to) < Some(own)).map(|to| format!("{file} uses {to}, which is above it")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (layer, _) in &layers {
        assert!(files.contains_key(layer), "the table has a layer without a file: {layer}");
    }
}

#[test]
fn files_have_no_cyclic_dependencies() {
    let dependencies = dependencies(&SOURCES);
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        dependencies.keys().map(|file| (file, reached(&dependencies, file))).collect();
    let cycle = |file: &&String| -> Vec<&str> {
        let both = |to: &&&String| reached.get(**to).is_some_and(|back| back.contains(file));
        reached[file].iter().filter(both).map(|name| name.as_str()).collect()
    };
    let cycles: BTreeSet<Vec<&str>> =
        dependencies.keys().map(|file| cycle(&file)).filter(|cycle| !cycle.is_empty()).collect();
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn every_header_names_the_process_of_its_row() {
    let files = &*SOURCES;
    let layers: BTreeMap<String, String> = layers().into_iter().collect();
    let mut wrong = Vec::new();
    for source in files.values().filter(|source| !source.is_entry()) {
        let row = layers.get(source.layer()).map(String::as_str);
        match source.process() {
            Some("pure") => {}
            own if own.is_some() && own == row => {}
            own => wrong.push(format!("{}: the header says {own:?}, the row {row:?}", source.name)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn parent_and_worker_meet_only_at_the_process_boundary() {
    let files = &*SOURCES;
    let layers: BTreeMap<String, String> = layers().into_iter().collect();
    let process = |file: &str| layers.get(file.split('/').next().unwrap()).map_or("", String::as_str);
    for (file, targets) in dependencies(files) {
        for to in targets {
            let is_start = (file.as_str(), to.as_str()) == START_OF_THE_WORKER;
            let crosses = match (process(&file), process(&to)) {
                ("parent", "worker") | ("worker", "parent") => true,
                ("pure" | "both", other) => ["parent", "worker"].contains(&other),
                _ => false,
            };
            assert!(!crosses || is_start, "{file} uses {to}, which runs in another process");
        }
    }
}

#[test]
fn no_public_function_but_run_reaches_a_token() {
    let dependencies = dependencies(&SOURCES);
    let public = SOURCES.values().filter(|source| source.is_public && !source.is_entry());
    let (run, others): (Vec<&Source>, Vec<&Source>) = public.partition(|source| source.name == "commands");
    assert!(run.len() == 1 && others.len() > 10);
    for source in others {
        for file in reached(&dependencies, &source.name).into_iter().chain([&source.name]) {
            let layer = file.split('/').next().unwrap();
            let is_near = ["commands", "serve", "signer", "session", "worker_handle", "worker"].contains(&layer);
            assert!(!is_near, "{} has a public function, and uses {file}", source.name);
        }
    }
}

#[test]
fn pure_files_do_neither_input_nor_output() {
    let files = &*SOURCES;
    let dependencies = dependencies(files);
    for source in files.values().filter(|source| source.process() == Some("pure")) {
        for outside in OUTSIDE {
            assert!(!source.names(outside), "{} is PURE and names {outside}", source.name);
        }
        for to in &dependencies[&source.name] {
            assert_eq!(files[to].process(), Some("pure"), "{} is PURE and uses {to}", source.name);
        }
    }
}

#[test]
fn each_low_level_library_is_used_in_one_directory() {
    for (library, directory) in [
        ("cryptoki", "worker/pkcs11"),
        ("cryptoki_sys", "worker/pkcs11"),
        ("landlock", "worker/sandbox"),
        ("seccompiler", "worker/sandbox"),
    ] {
        for source in SOURCES.values().filter(|source| !source.name.starts_with(directory)) {
            let names = source.paths.iter().any(|path| path[0] == library);
            assert!(!names, "{} names {library}", source.name);
        }
    }
}

#[test]
fn unsafe_code_is_only_in_files_whose_header_says_so() {
    for source in SOURCES.values().filter(|source| !source.is_entry()) {
        let says_so = source.header.to_lowercase().contains("unsafe");
        assert_eq!(source.is_unsafe, says_so, "{}: unsafe code, and the word `unsafe` in its header", source.name);
    }
}

#[test]
fn a_message_is_created_in_one_place() {
    let files = &*SOURCES;
    let creates = |source: &&Source| source.paths.iter().any(|path| path.ends_with(&["Message".into(), "new".into()]));
    let creators: Vec<&str> = files.values().filter(creates).map(|source| source.name.as_str()).collect();
    assert_eq!(creators, ["worker/session_loop"]);
}

#[test]
fn nothing_opens_a_network_socket_or_ends_the_process_below_main() {
    for source in SOURCES.values() {
        for word in ["TcpListener", "TcpStream", "UdpSocket"] {
            assert!(
                !source.paths.iter().any(|path| path.iter().any(|part| part == word)),
                "{} names {word}",
                source.name
            );
        }
        for word in ["exit", "abort"] {
            let ends = |path: &Vec<String>| path.ends_with(&["process".into(), word.into()]);
            assert!(!source.paths.iter().any(ends), "{} calls process::{word}", source.name);
        }
    }
}

#[test]
fn every_type_name_has_one_meaning() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in SOURCES.values() {
        for name in &source.types {
            places.entry(name.clone()).or_default().push(source.name.clone());
        }
    }
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}

#[test]
fn the_glossary_has_every_term() {
    let header = &SOURCES["lib"].header;
    let glossary = header.split("# Glossary").nth(1).unwrap();
    for term in GLOSSARY {
        assert!(glossary.contains(&format!("- **{term}**: ")), "{term}");
    }
}

#[test]
fn no_file_has_more_than_400_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<PathBuf> =
        ["benches", "fuzz/targets", "gateway", "src", "tests"].map(|name| root.join(name)).into();
    let mut count = 0;
    while let Some(directory) = open.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.extend((!path.ends_with("target")).then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let lines = fs::read_to_string(&path).unwrap().lines().count();
                assert!(lines <= 400, "{} has {lines} lines: split it by subject", path.display());
                count += 1;
            }
        }
    }
    assert!(count > 200, "{count}");
}
