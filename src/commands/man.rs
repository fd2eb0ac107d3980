//! `man`: writes the manual pages.
//!
//! Runs in the parent.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::certificate::utc;
use crate::cli::manual_pages;
use crate::error::{Error, Kind, Result};
use crate::os::clock::build_time;
use crate::os::input_file::DO_NOT_WAIT;
use crate::text::shell::quoted_path;

pub(super) fn run(directory: &str) -> Result<()> {
    let directory = Path::new(directory);
    if !directory.is_dir() {
        // The path, or a part of it, is a file.
        let is_blocked = directory.ancestors().find(|part| part.exists()).is_some_and(|part| !part.is_dir());
        let hint = if is_blocked || directory.as_os_str().is_empty() {
            "name a directory, such as . for the current one".into()
        } else {
            format!("mkdir -p {}", quoted_path(directory))
        };
        return Err(Error::new(Kind::Usage, "man: DIR must be an existing directory").hint(hint));
    }
    let failed = |error: std::io::Error| {
        Error::new(Kind::Unexpected, format!("cannot write manual pages into {}: {error}", directory.display()))
            .hint("name a directory that this user can write, with free space")
    };
    let date = utc(build_time());
    let date = date.split('T').next().unwrap_or_default();
    for (name, text) in manual_pages(date).map_err(failed)? {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).custom_flags(DO_NOT_WAIT);
        options.open(directory.join(name)).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)?;
    }
    Ok(())
}
