//! Files that only root may change: configuration, certificates and keys.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::library::{Error, Kind, Result};

/// Longer than any of these files.
const LIMIT: u64 = 1 << 20;

/// Reads a file that belongs to root and that others cannot write. A file of the user who runs the gateway is accepted with
/// a warning, for tests and demonstrations.
///
/// # Errors
/// When it cannot be read, or others could have written it.
pub fn read_owned(path: &Path, warnings: &mut Vec<String>) -> Result<Vec<u8>> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        Error::new(Kind::Config, format!("cannot read {shown}: {error}"))
            .hint(format!("check the path, and that the gateway's user may read it: ls -l {shown}"))
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    let is_own = is_own_user(metadata.uid());
    if metadata.uid() != 0 && !is_own || metadata.mode() & 0o022 != 0 {
        return Err(Error::new(Kind::Config, format!("cannot use {shown}: others than root could have written it"))
            .hint(format!("chown root {shown} && chmod go-w {shown}")));
    }
    if is_own {
        let warning =
            format!("{shown} belongs to the gateway's own user, who could change it; it should belong to root");
        warnings.push(warning);
    }
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Whether this is the user who runs the gateway, and not root.
#[must_use]
pub fn is_own_user(uid: u32) -> bool {
    uid != 0 && uid == rustix::process::geteuid().as_raw()
}
