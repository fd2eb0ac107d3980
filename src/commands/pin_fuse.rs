//! `pin-fuse`: shows the wrong-PIN fuses of the state directory, or clears one.
//!
//! It works without the token, by what its record says; only an index or a slot ID needs the module.

use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::print;
use crate::cli;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::facts::{Slot, Token};
use crate::pin::fuse::{self, Records, describe};
use crate::pin::{FuseError, Record};
use crate::printable::printable;
use crate::reach;
use crate::selector::{Uri, token_uri};

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let directory = fuse::directory(config.state_dir.as_deref())?;
    let records = matching(fuse::all(&directory)?, &directory, config)?;
    if !cli::is_given(matches, "reset") {
        if records.is_empty() {
            return print("intact: no PIN was ever refused or left unsettled");
        }
        let line = |(_, record): &(PathBuf, Result<_, FuseError>)| match record {
            Ok(record) => describe(record),
            Err(error) => printable(&format!("{error}: it counts as blown")),
        };
        return print(&records.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    match records.as_slice() {
        [] => print("nothing to clear"),
        [(path, _)] => {
            fuse::reset(path, &Deadline::after(config.sign.timeout))?;
            print("cleared: the next login sends the PIN again")
        }
        several => {
            let hints = several.iter().map(|(path, record)| match record {
                Ok(record) => format!("choose with --uri '{}'   ({})", uri(record), describe(record)),
                Err(_) => format!("a damaged one: {}", path.display()),
            });
            let message = format!("{} fuses match; --reset clears one", several.len());
            Err(Error { kind: Kind::Ambiguous, message, hints: hints.collect() })
        }
    }
}

fn matching(records: Records, directory: &Path, config: &Config) -> Result<Records> {
    let needs_module = config.token.iter().any(|selector| selector.slot.is_some() || selector.slot_id.is_some());
    if needs_module {
        let deadline = Deadline::after(config.sign.timeout);
        let opened = reach::open(config, &deadline)?;
        let slot = crate::selector::select(&opened.slots, &config.token)?.clone();
        let path = fuse::path(directory, &fuse::token_of(&slot, &opened.module));
        opened.handle.close();
        return Ok(records.into_iter().filter(|(found, _)| *found == path).collect());
    }
    let fits = |record: &Record| config.token.iter().all(|selector| selector.matches_token(&token(record)));
    // A damaged record names no token, so no selector can mean it.
    let damaged_fits = config.token.is_empty();
    Ok(records.into_iter().filter(|(_, record)| record.as_ref().map_or(damaged_fits, fits)).collect())
}

fn token(record: &Record) -> Token {
    Token {
        label: record.label.clone(),
        serial: record.serial.clone(),
        manufacturer: record.manufacturer.clone(),
        model: record.model.clone(),
        ..Token::default()
    }
}

fn uri(record: &Record) -> Uri {
    token_uri(&Slot { token: Some(token(record)), ..Slot::default() }, &[])
}
