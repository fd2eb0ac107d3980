//! `completions` and `man`, from the definitions of the command line.

use std::path::Path;

use clap_complete::Shell;

use super::print;
use crate::cli;
use crate::library::{Error, Kind, Result};
use crate::manual_page::manual_pages;

pub(super) fn completions(shell: &str) -> Result<()> {
    let shell: Shell = shell.parse().map_err(|_| {
        Error::new(Kind::Usage, "cannot print completions: this shell is unknown")
            .hint("one of bash, zsh, fish, elvish, powershell")
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "cba-gateway", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}

pub(super) fn man(directory: &str) -> Result<()> {
    let directory = Path::new(directory);
    if !directory.is_dir() {
        return Err(Error::new(Kind::Usage, "cannot write manual pages: DIR must be an existing directory")
            .hint(format!("mkdir -p {}", directory.display())));
    }
    let failed = |error: std::io::Error| {
        Error::new(Kind::Unexpected, format!("cannot write manual pages: {error}"))
            .hint(format!("{} must be a directory that you may write", directory.display()))
    };
    for (name, text) in manual_pages().map_err(failed)? {
        std::fs::write(directory.join(name), text).map_err(failed)?;
    }
    Ok(())
}
