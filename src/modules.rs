//! PKCS#11 modules by name: a documented table of names and usual paths, and the checks of a path before the module is
//! loaded.
//!
//! Runs in the parent.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::{Explain, Kind};
use crate::os::input_file;
use crate::os::names::user_name;
use crate::text::hex;
use crate::text::shell::quoted;

mod elf;
mod load_failure;

pub(crate) use load_failure::LoadFailure;

/// A module with a known name.
#[derive(Debug)]
pub(crate) struct KnownModule {
    /// The name for `--module`.
    pub name: &'static str,
    /// The usual paths of distributions and vendors. `{lib}` stands for each of [`LIBRARY_DIRECTORIES`].
    paths: &'static [&'static str],
    /// Whether it is tried if no module is configured. p11-kit repeats the tokens of other modules, so it is not.
    searched: bool,
    /// Its Debian package, if there is one.
    package: Option<&'static str>,
    /// Whether it uses pcscd.
    smart_card: bool,
    /// The group that its users must be in.
    group: Option<&'static str>,
}

/// Library directories of Debian and Red Hat layouts.
const LIBRARY_DIRECTORIES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/usr/local/lib64",
];

/// The table; SECURITY.md and docs/stacks.md say which of them were tested.
pub(crate) static TABLE: [KnownModule; 14] = [
    known(
        "softhsm2",
        &["{lib}/softhsm/libsofthsm2.so", "{lib}/pkcs11/libsofthsm2.so", "{lib}/libsofthsm2.so"],
        Some("softhsm2"),
    ),
    smart_card("opensc", &["{lib}/opensc-pkcs11.so", "{lib}/pkcs11/opensc-pkcs11.so"], "opensc-pkcs11"),
    smart_card("ykcs11", &["{lib}/libykcs11.so", "{lib}/libykcs11.so.2", "{lib}/pkcs11/libykcs11.so"], "ykcs11"),
    known(
        "tpm2",
        &["{lib}/libtpm2_pkcs11.so.1", "{lib}/libtpm2_pkcs11.so", "{lib}/pkcs11/libtpm2_pkcs11.so"],
        Some("libtpm2-pkcs11-1"),
    ),
    KnownModule {
        group: Some("pkcs11"),
        ..known(
            "opencryptoki",
            &[
                "{lib}/opencryptoki/libopencryptoki.so",
                "{lib}/opencryptoki/libopencryptoki.so.0",
                "{lib}/pkcs11/libopencryptoki.so",
            ],
            Some("opencryptoki"),
        )
    },
    known("kryoptic", &["{lib}/pkcs11/libkryoptic_pkcs11.so", "{lib}/libkryoptic_pkcs11.so"], None),
    known("yubihsm", &["{lib}/pkcs11/yubihsm_pkcs11.so", "{lib}/yubihsm_pkcs11.so"], None),
    known("cloudhsm", &["/opt/cloudhsm/lib/libcloudhsm_pkcs11.so"], None),
    known("luna", &["/usr/safenet/lunaclient/lib/libCryptoki2_64.so", "/usr/lunasa/lib/libCryptoki2_64.so"], None),
    known("ncipher", &["/opt/nfast/toolkits/pkcs11/libcknfast.so"], None),
    known("utimaco", &["/opt/utimaco/lib/libcs_pkcs11_R3.so", "{lib}/libcs_pkcs11_R3.so"], None),
    known("gcp-kms", &["{lib}/libkmsp11.so"], None),
    KnownModule { searched: false, ..known("p11-kit", &["{lib}/p11-kit-proxy.so"], Some("p11-kit-modules")) },
    KnownModule {
        searched: false,
        ..known("p11-kit-client", &["{lib}/pkcs11/p11-kit-client.so"], Some("p11-kit-modules"))
    },
];

const fn known(name: &'static str, paths: &'static [&'static str], package: Option<&'static str>) -> KnownModule {
    KnownModule { name, paths, searched: true, package, smart_card: false, group: None }
}

const fn smart_card(name: &'static str, paths: &'static [&'static str], package: &'static str) -> KnownModule {
    KnownModule { smart_card: true, ..known(name, paths, Some(package)) }
}

/// The reason why a module cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    #[error("'{0}' is neither an absolute path nor a known module name")]
    Unknown(String),
    #[error("module {0} is not installed")]
    NotInstalled(&'static str),
    #[error("cannot open the module {}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// A directory, a pipe or a device.
    #[error("cannot load the module {}: it is {}, not a shared library", .0.display(), .1)]
    NotAFile(PathBuf, &'static str),
    #[error("no PKCS#11 module is installed in the usual places")]
    None,
}

impl Explain for ModuleError {
    fn kind(&self) -> Kind {
        Kind::NotFound
    }

    fn hints(&self) -> Vec<String> {
        let names = TABLE.each_ref().map(|known| known.name).join(", ");
        match self {
            Self::Unknown(given) => {
                let list = format!("give the module's absolute path, or one of: {names}");
                nearest(given).map(|name| format!("did you mean {name}?")).into_iter().chain([list]).collect()
            }
            Self::NotInstalled(name) => {
                let package = TABLE.iter().find(|known| known.name == *name).and_then(|known| known.package);
                let install = package.map(|package| format!("apt-get install {package}"));
                vec![install.unwrap_or_else(|| "install it, or give its path with --module".into())]
            }
            Self::File(..) | Self::NotAFile(..) => {
                vec!["check the path; `cba-agent list` without --module shows what is found".into()]
            }
            Self::None => vec![
                "install the module of your token (softhsm2, opensc-pkcs11, ykcs11, ...) or give its path with --module"
                    .into(),
            ],
        }
    }
}

/// The names for `--module`.
#[must_use]
pub(crate) fn names() -> Vec<&'static str> {
    TABLE.iter().map(|known| known.name).collect()
}

/// The canonical path of `--module PATH|NAME`.
///
/// # Errors
/// When the name is unknown or the file does not exist.
pub(crate) fn resolve(module: &str) -> Result<PathBuf, ModuleError> {
    let path = Path::new(module);
    if path.is_absolute() {
        let failed = |error| ModuleError::File(path.to_owned(), error);
        let found = fs::canonicalize(path).map_err(failed)?;
        // To open a named pipe would wait for its writer.
        let kind = fs::metadata(&found).map_err(failed)?.file_type();
        return match kind {
            kind if kind.is_file() => Ok(found),
            kind if kind.is_dir() => Err(ModuleError::NotAFile(found, "a directory")),
            kind if kind.is_fifo() => Err(ModuleError::NotAFile(found, "a named pipe")),
            kind if kind.is_socket() => Err(ModuleError::NotAFile(found, "a socket")),
            _ => Err(ModuleError::NotAFile(found, "a device")),
        };
    }
    let known = TABLE.iter().find(|known| known.name == module);
    let known = known.ok_or_else(|| ModuleError::Unknown(crate::text::printable(module)))?;
    installed(known).ok_or(ModuleError::NotInstalled(known.name))
}

/// The name of the table that a user most likely meant by a word: `SoftHSM2`, `softhsm`, or `libsofthsm2.so`.
fn nearest(given: &str) -> Option<&'static str> {
    let given = given.trim_matches(['"', '\'', ' ']).to_ascii_lowercase();
    let by_file = TABLE
        .iter()
        .find(|known| known.paths.iter().any(|path| path.rsplit('/').next().is_some_and(|file| file == given)));
    let distance = |known: &&KnownModule| strsim::damerau_levenshtein(known.name, &given);
    by_file.or_else(|| TABLE.iter().filter(|known| distance(known) <= 2).min_by_key(distance)).map(|known| known.name)
}

/// Every installed module of the table that is tried without configuration, each once.
pub(crate) fn search() -> Result<Vec<PathBuf>, ModuleError> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in TABLE.iter().filter(|known| known.searched).filter_map(installed) {
        if !found.contains(&path) {
            found.push(path);
        }
    }
    if found.is_empty() { Err(ModuleError::None) } else { Ok(found) }
}

/// The text for `--module` for a path: its name, if the name finds this path.
#[must_use]
pub(crate) fn selector(path: &Path) -> String {
    let named = TABLE.iter().find(|known| installed(known).as_deref() == Some(path));
    named.map_or_else(|| path.display().to_string(), |known| known.name.into())
}

/// The row of the table for a path, by its target or its file name.
#[must_use]
pub(crate) fn known_by(path: &Path) -> Option<&'static KnownModule> {
    let file = path.file_name().unwrap_or_default().as_encoded_bytes();
    // A library's file name has its version after the known name.
    let is_named = |known: &KnownModule| {
        let mut names = known.paths.iter().filter_map(|path| Path::new(path).file_name());
        names.any(|name| file.starts_with(name.as_encoded_bytes()))
    };
    TABLE.iter().find(|known| is_named(known) || installed(known).as_deref() == Some(path))
}

/// Whether a module uses pcscd, according to the table.
#[must_use]
pub(crate) fn needs_pcscd(path: &Path) -> bool {
    known_by(path).is_some_and(|known| known.smart_card)
}

/// A group that this user must join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissingGroup {
    pub group: &'static str,
    pub user: String,
}

impl MissingGroup {
    /// The hint.
    #[must_use]
    pub(crate) fn remedy(&self) -> String {
        let Self { group, user } = self;
        let (name, own) = (quoted(group), quoted(user));
        format!(
            "the module serves only members of group {group}; as root: `usermod -aG {name} {own}`; then log in again"
        )
    }
}

/// The group that a module's users must be in, if this user is not. Root is exempt.
#[must_use]
pub(crate) fn missing_group(path: &Path) -> Option<MissingGroup> {
    let group = known_by(path)?.group?;
    let user = nix::unistd::geteuid();
    let id = nix::unistd::Group::from_name(group).ok().flatten()?.gid;
    let is_in = user.is_root()
        || nix::unistd::getegid() == id
        || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == id.as_raw()));
    (!is_in).then(|| MissingGroup { group, user: user_name(user.as_raw()) })
}

/// The SHA-256 of a module's file, in hexadecimal; `None` if it cannot be read.
#[must_use]
pub(crate) fn sha256(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    input_file::open_regular(path).ok()?.read_to_end(&mut bytes).ok()?;
    Some(hex(&Sha256::digest(bytes)))
}

/// The reason why a user other than root and this one could change the module; `None` if nobody can.
#[must_use]
pub(crate) fn writable_by_others(path: &Path) -> Option<String> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    path.ancestors().find_map(|part| {
        let metadata = fs::metadata(part).ok()?;
        let mode = metadata.mode();
        let sticky = metadata.is_dir() && mode & 0o1000 != 0;
        let by_all = mode & 0o002 != 0 && !sticky;
        let by_group = mode & 0o020 != 0 && !sticky && metadata.gid() != 0 && metadata.gid() != group;
        let owner = metadata.uid() != 0 && metadata.uid() != user;
        (by_all || by_group || owner).then(|| format!("other users can change {}", part.display()))
    })
}

fn installed(known: &KnownModule) -> Option<PathBuf> {
    let expand = |path: &&str| -> Vec<String> {
        if path.contains("{lib}") {
            LIBRARY_DIRECTORIES.iter().map(|lib| path.replace("{lib}", lib)).collect()
        } else {
            vec![(*path).to_owned()]
        }
    };
    known.paths.iter().flat_map(expand).find_map(|path| fs::canonicalize(path).ok().filter(|path| path.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_not_a_module() {
        assert!(matches!(resolve("./libsofthsm2.so"), Err(ModuleError::Unknown(_))));
        assert!(matches!(resolve("/nonexistent/module.so"), Err(ModuleError::File(..))));
    }

    #[test]
    fn p11_kit_is_never_searched() {
        assert!(TABLE.iter().all(|known| known.searched != known.name.starts_with("p11-kit")));
    }

    #[test]
    fn a_file_that_all_can_write_is_noticed() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("module.so");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(writable_by_others(&file), None);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(writable_by_others(&file).unwrap().contains("module.so"));
    }
}
