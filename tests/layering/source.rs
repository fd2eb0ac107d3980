//! What a file of `src` names: its header, its paths, its types, and its unsafe code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, UseTree};

/// A file of `src`.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Its module path, such as `serve/pool/plan`.
    pub(crate) name: String,
    pub(crate) header: String,
    /// Every path in its code.
    pub(crate) paths: Vec<Vec<String>>,
    /// Names that it imports or re-exports, and from where: files below it may name them through it.
    pub(crate) imports: BTreeMap<String, Vec<String>>,
    /// Names that it re-exports alone.
    pub(crate) exports: BTreeMap<String, Vec<String>>,
    pub(crate) types: Vec<String>,
    /// Whether it has a function of the public interface.
    pub(crate) is_public: bool,
    pub(crate) is_unsafe: bool,
}

impl Source {
    pub(crate) fn layer(&self) -> &str {
        self.name.split('/').next().unwrap()
    }

    /// Where the file's code runs, as its header says.
    pub(crate) fn process(&self) -> Option<&'static str> {
        let phrases = [
            ("PURE.", "pure"),
            ("Runs in the parent", "parent"),
            ("Runs in the worker", "worker"),
            ("Runs in both", "both"),
        ];
        phrases.into_iter().find(|(phrase, _)| self.header.contains(phrase)).map(|(_, process)| process)
    }

    pub(crate) fn is_entry(&self) -> bool {
        ["lib", "main", "fuzzing"].contains(&self.name.as_str())
    }

    pub(crate) fn names(&self, path: &str) -> bool {
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
pub(crate) static SOURCES: LazyLock<BTreeMap<String, Source>> = LazyLock::new(sources);

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
