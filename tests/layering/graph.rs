//! Which file uses which, and the table of `src/lib.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::source::Source;

/// The file that a path of `from` leads to, through re-exports.
fn file_of(files: &BTreeMap<String, Source>, from: &str, path: &[String]) -> Option<String> {
    let own: Vec<&str> = from.split('/').filter(|_| !["lib", "main"].contains(&from)).collect();
    let (mut module, mut rest): (Vec<String>, &[String]) = match path.first()?.as_str() {
        "crate" => (Vec::new(), &path[1..]),
        "self" => (own.iter().map(ToString::to_string).collect(), &path[1..]),
        "super" => (own.iter().map(ToString::to_string).collect(), path),
        child => {
            let child = [own.join("/"), child.to_owned()].join("/");
            files.get(&child)?;
            (own.iter().map(ToString::to_string).collect(), path)
        }
    };
    while let Some((_, after)) = rest.split_first().filter(|(first, _)| *first == "super") {
        module.pop()?;
        rest = after;
    }
    while let Some((next, after)) = rest.split_first() {
        let child = module.iter().chain([next]).cloned().collect::<Vec<_>>().join("/");
        if !files.contains_key(&child) {
            let export = files.get(&module.join("/"))?.imports.get(next);
            let exported = export.and_then(|path| file_of(files, &module.join("/"), path));
            return Some(exported.unwrap_or_else(|| module.join("/")));
        }
        module.push(next.clone());
        rest = after;
    }
    Some(module.join("/")).filter(|name| !name.is_empty())
}

/// For each file, the files that it uses.
pub(crate) fn dependencies(files: &BTreeMap<String, Source>) -> BTreeMap<String, BTreeSet<String>> {
    let targets = |source: &Source| {
        let exported = source.exports.iter().filter(|(name, _)| source.paths.iter().any(|path| path[0] == **name));
        let used = source.paths.iter().chain(exported.map(|(_, path)| path));
        used.filter_map(|path| file_of(files, &source.name, path)).filter(|file| *file != source.name).collect()
    };
    files.values().filter(|source| !source.is_entry()).map(|source| (source.name.clone(), targets(source))).collect()
}

/// The table of `src/lib.rs`: layer and process, from top to bottom.
pub(crate) fn layers() -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let table = text.split("//! layer ").nth(1).unwrap().split("//! ```").next().unwrap();
    let row = |line: &str| {
        let mut words = line.trim_start_matches("//!").split_whitespace().map(str::to_owned);
        Some((words.next()?, words.next()?))
    };
    table.lines().skip(1).filter_map(row).collect()
}
