//! Checks the documents against the repository: each test that they name exists, and each link leads somewhere.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each file of `src` as (path without extension, text).
fn sources() -> Vec<(String, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut open) = (Vec::new(), vec![source.clone()]);
    while let Some(directory) = open.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(&source).unwrap().with_extension("").display().to_string();
                // A module's tests may be in a file of their own.
                let name = name.trim_end_matches("/tests").to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
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
    let checked = Command::new(script).arg("--check").output().unwrap();
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
    let mut documents: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name)).into();
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

/// The files of the repository that a package installs: where to, and which. Each row of `assets` is a source and a destination.
fn installed(assets: &Value, root: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let mut found = BTreeMap::new();
    for asset in assets.as_array().unwrap() {
        let text = |index: usize, name: &str| asset.get(index).unwrap_or(&asset[name]).as_str().unwrap();
        let (source, destination) = (normal(&root.join(text(0, "source"))), Path::new("/").join(text(1, "dest")));
        let name = source.file_name().unwrap().to_str().unwrap();
        let Some((before, after)) = name.split_once('*') else {
            found.insert(destination, source);
            continue;
        };
        // What a build makes is not there yet.
        let Ok(entries) = fs::read_dir(source.parent().unwrap()) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with(before) && name.ends_with(after) {
                found.insert(destination.join(name), path.clone());
            }
        }
    }
    found
}

/// An absolute path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut done, part| {
        match part {
            Component::ParentDir => drop(done.pop()),
            Component::CurDir => {}
            part => done.push(part),
        }
        done
    })
}

/// Each package: its name, and what it installs of the repository.
fn packages() -> Vec<(String, BTreeMap<PathBuf, PathBuf>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--locked"]).current_dir(root);
    let metadata: Value = serde_json::from_slice(&cargo.output().unwrap().stdout).unwrap();
    let mut packages = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let directory = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        // cargo-generate-rpm takes sources from the workspace, cargo-deb from the crate.
        for (kind, sources) in [("deb", directory), ("generate-rpm", root)] {
            let assets = &package["metadata"][kind]["assets"];
            packages.push((format!("{} ({kind})", package["name"].as_str().unwrap()), installed(assets, sources)));
        }
    }
    assert_eq!(packages.len(), 4);
    packages
}

#[test]
fn every_link_of_an_installed_document_leads_to_an_installed_file() {
    let mut links = 0;
    for (package, files) in packages() {
        let is_installed = |target: &Path| files.keys().any(|path| path.starts_with(target));
        for (path, source) in files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "md")) {
            let text = fs::read_to_string(source).unwrap();
            for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
                let file = link.split('#').next().unwrap();
                if file.is_empty() || link.starts_with("http") {
                    continue;
                }
                let target = normal(&path.parent().unwrap().join(file));
                assert!(is_installed(&target), "{package}: {} links to {link}, which is not installed", path.display());
                links += 1;
            }
        }
    }
    assert!(links > 100, "{links}");
}

/// Texts that a package installs, or that its programs print, name documents by their installed path.
#[test]
fn every_document_that_an_installed_file_names_is_installed() {
    let packages = packages();
    let is_installed =
        |named: &Path| packages.iter().any(|(_, files)| files.keys().any(|path| path.starts_with(named)));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts: Vec<PathBuf> = packages.iter().flat_map(|(_, files)| files.values().cloned()).collect();
    texts.extend(["src/cli/manual_page.rs", "gateway/src/manual_page.rs"].map(|page| root.join(page)));
    let mut count = 0;
    for source in texts.iter().filter(|source| !source.starts_with(root.join("target"))) {
        // The manual pages write hyphens as `\\-`.
        let text = fs::read_to_string(source).unwrap().replace("\\\\-", "-");
        for rest in text.split("/usr/share/doc/").skip(1) {
            let named = rest.split(|c: char| !c.is_ascii_alphanumeric() && !"/-_.".contains(c)).next().unwrap();
            let named = Path::new("/usr/share/doc").join(named.trim_end_matches('.'));
            assert!(is_installed(&named), "{} names {}, which is not installed", source.display(), named.display());
            count += 1;
        }
    }
    assert!(count > 8, "{count}");
}
