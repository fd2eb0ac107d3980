//! `completions` and `man`, from the definitions of the command line.

use std::path::Path;

use clap_complete::Shell;

use super::print_bytes;
use crate::cli;
use crate::error::{Error, Kind, Result};

pub(super) fn completions(shell: &str) -> Result<()> {
    let shell: Shell = shell.parse().map_err(|_| {
        Error::new(Kind::Usage, "there is no completion for that shell")
            .hint("one of bash, zsh, fish, elvish, powershell")
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "cba-agent", &mut script);
    print_bytes(&script)
}

pub(super) fn man(directory: &str) -> Result<()> {
    let directory = Path::new(directory);
    if !directory.is_dir() {
        return Err(Error::new(Kind::Usage, "man: DIR must be an existing directory").hint("mkdir it first"));
    }
    clap_mangen::generate_to(cli::command(), directory)
        .map_err(|error| Error::new(Kind::Unexpected, format!("cannot write manual pages: {error}")))
}
