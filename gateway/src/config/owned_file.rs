//! Reads files that only root may change: configuration, certificates and keys.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use crate::library::{Error, Kind, Result, file_format::quoted};

/// The maximum length of a file, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// The rules for owners of a configuration's files, and the warnings from reading them.
#[derive(Debug, Default)]
pub(crate) struct FileRules {
    /// `--single-user`: files of the user who runs the gateway are accepted with a warning.
    pub single_user: bool,
    /// Facts that the administrator should know, but that are not errors.
    pub warnings: Vec<String>,
}

impl FileRules {
    /// Creates the rules, without warnings.
    #[must_use]
    pub(crate) fn new(single_user: bool) -> Self {
        Self { single_user, warnings: Vec::new() }
    }

    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Reads a file that belongs to root and that other users cannot write.
    ///
    /// # Errors
    /// When the file cannot be read, or users other than root can change it.
    pub(crate) fn read(&mut self, path: &Path) -> Result<Vec<u8>> {
        let shown = path.display();
        let quoted = quoted(&shown.to_string());
        let failed = |error: io::Error| {
            Error::new(Kind::Config, format!("cannot read {shown}: {error}"))
                .hint(format!("check the path, and that the gateway's user may read it: ls -l {quoted}"))
        };
        let file = open_regular(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let is_own = is_own_user(metadata.uid());
        let may_own = metadata.uid() == 0 || is_own && self.single_user;
        if !may_own || metadata.mode() & 0o022 != 0 {
            let error = Error::new(Kind::Config, format!("cannot use {shown}: users other than root can change it"))
                .hint(format!("chown root {quoted} && chmod go-w {quoted}"));
            let may_relax = is_own && metadata.mode() & 0o022 == 0;
            return Err(if may_relax { error.hint("--single-user accepts it, for a demonstration") } else { error });
        }
        if is_own {
            self.warn(format!(
                "{shown} belongs to the gateway's own user, who could change it; it should belong to root"
            ));
        }
        read_whole(file).map_err(failed)
    }

    /// Reads a file with a secret, and warns if every user may read it.
    pub(crate) fn read_secret(&mut self, path: &Path) -> Result<Vec<u8>> {
        let bytes = self.read(path)?;
        if std::fs::metadata(path).is_ok_and(|found| found.mode() & 0o004 != 0) {
            let (shown, quoted) = (path.display(), quoted(&path.display().to_string()));
            self.warn(format!(
                "every user of this host may read {shown}: chgrp cba-gateway {quoted} && chmod 640 {quoted}"
            ));
        }
        Ok(bytes)
    }
}

/// Opens a regular file. To open a pipe would wait for its writer, and a reload would never end.
fn open_regular(path: &Path) -> io::Result<File> {
    let do_not_wait = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(do_not_wait).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Reads a regular file of any owner.
///
/// # Errors
/// When it cannot be read, is of another type, or is longer than 1 MiB.
pub(crate) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    open_regular(path).and_then(read_whole)
}

/// Reads a file to its end. A longer file than [`FILE_LIMIT`] is an error: without its end, it would mean something else.
fn read_whole(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_LIMIT {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(bytes)
}

/// Whether this user runs the gateway and is not root.
#[must_use]
pub(crate) fn is_own_user(uid: u32) -> bool {
    uid != 0 && uid == rustix::process::geteuid().as_raw()
}
