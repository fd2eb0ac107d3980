//! `man`: manual pages, from the definitions of the command line.

use std::path::Path;

use crate::cli;
use crate::error::{Error, Kind, Result};

pub(super) fn run(directory: &str) -> Result<()> {
    let directory = Path::new(directory);
    if !directory.is_dir() {
        return Err(Error::new(Kind::Usage, "man: DIR must be an existing directory").hint("mkdir it first"));
    }
    clap_mangen::generate_to(cli::command(), directory)
        .map_err(|error| Error::new(Kind::Unexpected, format!("cannot write manual pages: {error}")))
}
