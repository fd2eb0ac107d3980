//! `pin-fuse`: shows the wrong-PIN fuses of the state directory, or clears one.
//!
//! It works without the token, by what its record says; only an index or a slot ID needs the module.

use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::{print, print_report};
use crate::cli;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::Token;
use crate::pin::fuse::{self, Records, describe};
use crate::pin::{FuseError, Record};
use crate::printable::printable;
use crate::reach;
use crate::selector::TokenSelector;

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let directory = fuse::directory(config.state_dir.as_deref())?;
    let all = fuse::all(&directory)?;
    let nothing_here = all.is_empty();
    let others: Vec<String> = all.iter().map(candidate).collect();
    let records = matching(all, &directory, config)?;
    if records.is_empty() && !nothing_here && !config.token.is_empty() {
        let hints = others.into_iter().map(|other| format!("there is {other}")).collect();
        return Err(Error { kind: Kind::NotFound, message: "no fuse matches the selection".into(), hints });
    }
    if !cli::is_given(matches, "reset") {
        if records.is_empty() {
            return print("intact: no PIN was ever refused or left unsettled");
        }
        let line = |(_, record): &(PathBuf, Result<_, FuseError>)| match record {
            Ok(record) => describe(record),
            Err(error) => printable(&format!("{error}: it counts as blown")),
        };
        return print_report(&records.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    // An intact fuse is nothing to clear, so it makes no choice necessary.
    let to_clear: Records =
        records.into_iter().filter(|(_, record)| record.as_ref().map_or(true, |record| record.spent() > 0)).collect();
    match to_clear.as_slice() {
        [] => print_report(&format!("nothing to clear in {}", directory.display())),
        [(path, _)] => {
            fuse::reset(path, &Deadline::after(config.sign.timeout))?;
            print("cleared: the next login sends the PIN again")
        }
        several => {
            let hints = several.iter().map(|one| format!("choose with {}", candidate(one)));
            let message = format!("{} fuses match; --reset clears one", several.len());
            Err(Error { kind: Kind::Ambiguous, message, hints: hints.collect() })
        }
    }
}

fn candidate((path, record): &(PathBuf, Result<Record, FuseError>)) -> String {
    match record {
        Ok(record) => format!("--uri '{}'   ({})", fuse::uri_of(&record.token()), describe(record)),
        Err(_) => format!("the URI of its token, or remove {} (damaged)", path.display()),
    }
}

fn matching(records: Records, directory: &Path, config: &Config) -> Result<Records> {
    let needs_module = config.token.iter().any(|selector| selector.needs_module());
    if needs_module {
        let deadline = Deadline::after(config.sign.timeout);
        let opened = reach::open(config, &deadline)?;
        let slot = crate::selector::select(&opened.library, &opened.slots, &config.token)?.clone();
        let path = fuse::path(directory, &fuse::token_of(&slot, &opened.module));
        opened.handle.close();
        return Ok(records.into_iter().filter(|(found, _)| *found == path).collect());
    }
    let fits = |record: &Record| config.token.iter().all(|selector| selector.matches_token(&record.token()));
    // A damaged record names no token; only a selection of every field by which it is kept can mean it.
    let whole = whole_token(&config.token).map(|token| fuse::path(directory, &token));
    let is_meant = |path: &PathBuf| config.token.is_empty() || whole.as_ref() == Some(path);
    Ok(records.into_iter().filter(|(path, record)| record.as_ref().map_or_else(|_| is_meant(path), fits)).collect())
}

/// The token that a selection describes in full.
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
