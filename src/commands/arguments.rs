//! The arguments of a command beyond the table of keys: errors, and values that are words.
//!
//! Runs in the parent.

use clap::ArgMatches;

use crate::cli;
use crate::error::{Error, Kind, Result};
use crate::values::by_name;

/// A usage error about a flag of the command.
pub(super) fn usage(flag: &str, wanted: &str) -> Error {
    Error::new(Kind::Usage, format!("--{flag}: {wanted}")).hint("`cba-agent help COMMAND` describes each option")
}

/// A flag of the command with one of several words as its value.
pub(super) fn word<T: Copy>(matches: &ArgMatches, flag: &str, names: &[(&str, T)]) -> Result<Option<T>> {
    let Some(text) = cli::given(matches, flag) else { return Ok(None) };
    by_name(text, names).map(Some).map_err(|wanted| usage(flag, &wanted))
}
