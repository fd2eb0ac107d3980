//! `pin-fuse`: shows the wrong-PIN fuses in the state directory, or clears one.
//!
//! Runs in the parent. It works without the token, from its record. Only an index or a slot ID needs the module.

use clap::ArgMatches;

use crate::cli;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::{Token, TokenId, stand_in};
use crate::fuse::FuseStore;
use crate::fuse::StoredFuse;
use crate::fuse::remedy::reset_command;
use crate::output::{print, print_report};
use crate::selector::TokenSelector;
use crate::session;
use crate::text::shell::quoted_path;

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let store = FuseStore::open(config.state_dir.as_deref())?;
    let all = store.all()?;
    let nothing_here = all.is_empty();
    let others: Vec<String> = all.iter().map(candidate).collect();
    let fuses = matching(all, &store, config)?;
    if fuses.is_empty() && !nothing_here && !config.token.is_empty() {
        let hints = others.into_iter().map(|other| format!("there is {other}")).collect();
        return Err(Error { kind: Kind::NotFound, message: "no fuse matches the selection".into(), hints });
    }
    if !cli::is_given(matches, "reset") {
        if fuses.is_empty() {
            return print("intact: no refused PIN, and no attempt with an unknown end");
        }
        return print_report(&fuses.iter().map(StoredFuse::describe).collect::<Vec<_>>().join("\n"));
    }
    // An intact fuse need not be cleared, so it does not make the selection ambiguous.
    let to_clear: Vec<StoredFuse> = fuses.into_iter().filter(|fuse| !fuse.is_intact()).collect();
    match to_clear.as_slice() {
        [] => print_report(&format!("nothing to clear in {}", store.directory().display())),
        [fuse] => {
            fuse.reset(&Deadline::after(config.sign.timeout))?;
            print("cleared: the next login sends the PIN again")
        }
        several => {
            let command = |fuse: &StoredFuse| match fuse.uri() {
                Some(uri) => format!("{}: {}", fuse.describe(), reset_command(&uri, store.directory())),
                None => candidate(fuse),
            };
            let message = format!("{} fuses match; --reset clears one", several.len());
            Err(Error { kind: Kind::Ambiguous, message, hints: several.iter().map(command).collect() })
        }
    }
}

fn candidate(fuse: &StoredFuse) -> String {
    match fuse.uri() {
        Some(uri) => format!("--uri '{uri}'   ({})", fuse.describe()),
        None => {
            let files: Vec<String> = fuse.files.iter().map(|file| quoted_path(file)).collect();
            format!("a damaged record; choose it with the URI of its token, or remove it: `rm {}`", files.join(" "))
        }
    }
}

fn matching(fuses: Vec<StoredFuse>, store: &FuseStore, config: &Config) -> Result<Vec<StoredFuse>> {
    let needs_module = config.token.iter().any(TokenSelector::needs_module);
    if needs_module {
        let deadline = Deadline::after(config.sign.timeout);
        let loaded = session::open(config, &deadline)?;
        let slot = crate::selector::select(&loaded.library, &loaded.slots, &config.token)?.clone();
        let id = TokenId::of(&slot, &loaded.path);
        let path = store.path(&stand_in(&slot, &loaded.path));
        loaded.handle.close();
        let is_its = |fuse: &StoredFuse| fuse.id().map_or_else(|| fuse.files.contains(&path), |found| found == id);
        return Ok(fuses.into_iter().filter(is_its).collect());
    }
    // A damaged record names no token. Only a selection by all fields of its file name can mean it.
    let whole = whole_token(&config.token).map(|token| store.path(&token));
    let is_meant = |fuse: &StoredFuse| match &fuse.content {
        Ok(_) => config.token.iter().all(|selector| fuse.matches(selector)),
        Err(_) => config.token.is_empty() || whole.as_ref().is_some_and(|path| fuse.files.contains(path)),
    };
    Ok(fuses.into_iter().filter(is_meant).collect())
}

/// The token that a selection describes completely.
fn whole_token(selectors: &[TokenSelector]) -> Option<Token> {
    let field = |of: fn(&TokenSelector) -> &Option<String>| selectors.iter().find_map(|selector| of(selector).clone());
    Some(Token {
        label: field(|selector| &selector.label)?,
        serial: field(|selector| &selector.serial)?,
        manufacturer: field(|selector| &selector.manufacturer)?,
        model: field(|selector| &selector.model)?,
        ..Token::default()
    })
}
