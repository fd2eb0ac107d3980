//! Checks the source against the map in `src/lib.rs`: rooms, their order, their process, and PURE files.
//!
//! The rooms come from the table in `src/lib.rs`, and what a file may do comes from its own header, so neither can differ from
//! the code. Items under `#[cfg(test)]` do not count.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, UseTree};

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

/// A file of `src`.
#[derive(Debug, Default)]
struct Source {
    /// Its module path, such as `serve/pool/plan`.
    name: String,
    header: String,
    /// Every path in its code.
    paths: Vec<Vec<String>>,
    /// Names that it imports or re-exports, and from where: files below it may name them through it.
    imports: BTreeMap<String, Vec<String>>,
    /// Names that it re-exports alone.
    exports: BTreeMap<String, Vec<String>>,
    types: Vec<String>,
    /// Whether it has a function of the public interface.
    is_public: bool,
    is_unsafe: bool,
}

impl Source {
    fn room(&self) -> &str {
        self.name.split('/').next().unwrap()
    }

    /// Where the file's code runs, as its header says.
    fn process(&self) -> Option<&'static str> {
        let phrases = [
            ("PURE.", "pure"),
            ("Runs in the parent", "parent"),
            ("Runs in the worker", "worker"),
            ("Runs in both", "both"),
        ];
        phrases.into_iter().find(|(phrase, _)| self.header.contains(phrase)).map(|(_, process)| process)
    }

    fn is_entry(&self) -> bool {
        ["lib", "main", "fuzzing"].contains(&self.name.as_str())
    }

    fn names(&self, path: &str) -> bool {
        self.paths.iter().any(|own| own.join("::").starts_with(path))
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        meta => meta.path().is_ident("test"),
    };
    attributes.iter().any(is_test)
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl Visit<'_> for Source {
    fn visit_item(&mut self, item: &Item) {
        if is_test(attributes_of(item)) {
            return;
        }
        if let Item::Fn(syn::ItemFn { vis: syn::Visibility::Public(_), .. }) = item {
            self.is_public = true;
        }
        match item {
            Item::Enum(item) => self.types.push(item.ident.to_string()),
            Item::Struct(item) => self.types.push(item.ident.to_string()),
            Item::Trait(item) => self.types.push(item.ident.to_string()),
            Item::Type(item) => self.types.push(item.ident.to_string()),
            Item::Use(item) => {
                let mut leaves = Vec::new();
                leaves_of(&item.tree, &mut Vec::new(), &mut leaves);
                self.imports.extend(leaves.iter().cloned());
                if matches!(item.vis, syn::Visibility::Inherited) {
                    self.paths.extend(leaves.into_iter().map(|(_, path)| path));
                } else {
                    self.exports.extend(leaves);
                }
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            self.is_public |= matches!(function.vis, syn::Visibility::Public(_));
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &syn::Visibility) {}

    fn visit_macro(&mut self, call: &syn::Macro) {
        // The arguments of a macro are tokens, not yet expressions.
        let text = call.tokens.to_string().replace(" :: ", "::").replace(":: ", "::");
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
            if word.contains("::") {
                self.paths.push(word.trim_matches(':').split("::").map(str::to_owned).collect());
            }
        }
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &Attribute) {
        let text = match &attribute.meta {
            syn::Meta::List(list) => list.tokens.to_string(),
            _ => String::new(),
        };
        self.is_unsafe |= attribute.path().is_ident("allow") && text.contains("unsafe_code");
    }

    fn visit_expr_unsafe(&mut self, block: &syn::ExprUnsafe) {
        self.is_unsafe = true;
        visit::visit_expr_unsafe(self, block);
    }
}

/// Each name that a `use` brings in, with its path.
fn leaves_of(tree: &UseTree, before: &mut Vec<String>, leaves: &mut Vec<(String, Vec<String>)>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            leaves_of(&path.tree, before, leaves);
            before.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves_of(tree, before, leaves)),
        UseTree::Name(name) if name.ident == "self" => {
            leaves.push((before.last().cloned().unwrap_or_default(), before.clone()));
        }
        UseTree::Name(name) => {
            leaves.push((name.ident.to_string(), [before.clone(), vec![name.ident.to_string()]].concat()));
        }
        UseTree::Rename(name) => {
            leaves.push((name.rename.to_string(), [before.clone(), vec![name.ident.to_string()]].concat()));
        }
        UseTree::Glob(_) => leaves.push(("*".into(), before.clone())),
    }
}

/// Every file of `src`, read once.
static SOURCES: LazyLock<BTreeMap<String, Source>> = LazyLock::new(sources);

fn sources() -> BTreeMap<String, Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut open) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(directory) = open.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().with_extension("").display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            let header: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
            let mut source = Source { name: name.clone(), header: header.join(" "), ..Source::default() };
            let file: File = syn::parse_file(&text).unwrap();
            // A module of tests in a file of its own.
            if !is_test(&file.attrs) {
                file.items.iter().for_each(|item| source.visit_item(item));
            }
            found.insert(name, source);
        }
    }
    assert!(found.len() > 100);
    found
}

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
fn arrows(files: &BTreeMap<String, Source>) -> BTreeMap<String, BTreeSet<String>> {
    let targets = |source: &Source| {
        let exported = source.exports.iter().filter(|(name, _)| source.paths.iter().any(|path| path[0] == **name));
        let used = source.paths.iter().chain(exported.map(|(_, path)| path));
        used.filter_map(|path| file_of(files, &source.name, path)).filter(|file| *file != source.name).collect()
    };
    files.values().filter(|source| !source.is_entry()).map(|source| (source.name.clone(), targets(source))).collect()
}

/// Every file that a file uses, directly or through others.
fn reached<'a>(arrows: &'a BTreeMap<String, BTreeSet<String>>, from: &'a String) -> BTreeSet<&'a String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        for to in arrows.get(next).into_iter().flatten() {
            if seen.insert(to) {
                open.push(to);
            }
        }
    }
    seen
}

/// The table of `src/lib.rs`: room and process, from top to bottom.
fn rooms() -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let table = text.split("//! room ").nth(1).unwrap().split("//! ```").next().unwrap();
    let row = |line: &str| {
        let mut words = line.trim_start_matches("//!").split_whitespace().map(str::to_owned);
        Some((words.next()?, words.next()?))
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[test]
fn every_file_is_in_a_room_and_every_arrow_points_down() {
    let files = &*SOURCES;
    let rooms = rooms();
    let at = |file: &str| rooms.iter().position(|(room, _)| room == file.split('/').next().unwrap());
    let mut wrong = Vec::new();
    for (file, targets) in arrows(files) {
        let Some(own) = at(&file) else {
            wrong.push(format!("{file} is in no room"));
            continue;
        };
        wrong.extend(
            targets.iter().filter(|to| at(to) < Some(own)).map(|to| format!("{file} uses {to}, which is above it")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (room, _) in &rooms {
        assert!(files.contains_key(room), "the table has a room without a file: {room}");
    }
}

#[test]
fn files_form_no_circle() {
    let arrows = arrows(&SOURCES);
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        arrows.keys().map(|file| (file, reached(&arrows, file))).collect();
    let circle = |file: &&String| -> Vec<&str> {
        let both = |to: &&&String| reached.get(**to).is_some_and(|back| back.contains(file));
        reached[file].iter().filter(both).map(|name| name.as_str()).collect()
    };
    let circles: BTreeSet<Vec<&str>> =
        arrows.keys().map(|file| circle(&file)).filter(|circle| !circle.is_empty()).collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn every_header_names_the_process_of_its_row() {
    let files = &*SOURCES;
    let rooms: BTreeMap<String, String> = rooms().into_iter().collect();
    let mut wrong = Vec::new();
    for source in files.values().filter(|source| !source.is_entry()) {
        let row = rooms.get(source.room()).map(String::as_str);
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
    let rooms: BTreeMap<String, String> = rooms().into_iter().collect();
    let process = |file: &str| rooms.get(file.split('/').next().unwrap()).map_or("", String::as_str);
    for (file, targets) in arrows(files) {
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
    let arrows = arrows(&SOURCES);
    let public = SOURCES.values().filter(|source| source.is_public && !source.is_entry());
    let (run, others): (Vec<&Source>, Vec<&Source>) = public.partition(|source| source.name == "commands");
    assert!(run.len() == 1 && others.len() > 10);
    for source in others {
        for file in reached(&arrows, &source.name).into_iter().chain([&source.name]) {
            let room = file.split('/').next().unwrap();
            let is_near = ["commands", "serve", "signer", "session", "worker_handle", "worker"].contains(&room);
            assert!(!is_near, "{} has a public function, and uses {file}", source.name);
        }
    }
}

#[test]
fn pure_files_do_neither_input_nor_output() {
    let files = &*SOURCES;
    let arrows = arrows(files);
    for source in files.values().filter(|source| source.process() == Some("pure")) {
        for outside in OUTSIDE {
            assert!(!source.names(outside), "{} is PURE and names {outside}", source.name);
        }
        for to in &arrows[&source.name] {
            assert_eq!(files[to].process(), Some("pure"), "{} is PURE and uses {to}", source.name);
        }
    }
}

#[test]
fn libraries_with_an_own_room_are_named_in_no_other() {
    for (library, room) in [
        ("cryptoki", "worker/pkcs11"),
        ("cryptoki_sys", "worker/pkcs11"),
        ("landlock", "worker/sandbox"),
        ("seccompiler", "worker/sandbox"),
    ] {
        for source in SOURCES.values().filter(|source| !source.name.starts_with(room)) {
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
