//! Converts a profile's paths to paths of this host, with the environment variables and configuration files that the module will
//! read.
//!
//! Runs in both processes.

use std::env;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Profile, SocketFamily, TokenStoreKind};
use crate::os::input_file::{self, DO_NOT_WAIT};

/// SoftHSM2's token directories if its configuration names none.
const SOFTHSM_TOKENS: [&str; 2] = ["/var/lib/softhsm", "/usr/local/var/lib/softhsm"];

/// The paths where SoftHSM2 looks for its configuration, in this order.
const SOFTHSM_CONFIGURATION: [&str; 4] =
    ["$SOFTHSM2_CONF", "~/.config/softhsm2/softhsm2.conf", "/etc/softhsm2.conf", "/etc/softhsm/softhsm2.conf"];

/// The paths where kryoptic looks for its configuration, in this order.
const KRYOPTIC_CONFIGURATION: [&str; 5] = [
    "$KRYOPTIC_CONF",
    "$XDG_CONFIG_HOME/kryoptic/token.conf",
    "~/.config/kryoptic/token.conf",
    "/etc/kryoptic/token.conf",
    "/usr/local/etc/kryoptic/token.conf",
];

/// Converts paths of a profile to paths of this host. A path in a variable that is not set is left out.
pub(crate) fn paths(profile_paths: &[&str]) -> Vec<PathBuf> {
    profile_paths.iter().filter_map(|profile_path| path(profile_path)).collect()
}

/// The absolute directories of `LD_LIBRARY_PATH`, which the dynamic loader searches.
pub(crate) fn library_directories() -> Vec<PathBuf> {
    env::var_os("LD_LIBRARY_PATH")
        .map(|list| env::split_paths(&list).filter(|path| path.is_absolute()).collect())
        .unwrap_or_default()
}

/// The directories of the tokens that the module's configuration names. The worker may read and write them.
pub(crate) fn token_directories(profile: &Profile) -> Vec<PathBuf> {
    match profile.store {
        TokenStoreKind::Fixed | TokenStoreKind::Tpm => Vec::new(),
        TokenStoreKind::SoftHsm => softhsm_directories(),
        TokenStoreKind::Kryoptic => kryoptic_directories(),
    }
}

/// The place where a module looks for tokens that are files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenStore {
    /// The environment variable that can name another configuration or, for a TPM, another directory.
    pub variable: &'static str,
    /// The configuration that the module reads; `None` if there is none.
    pub configuration: Option<PathBuf>,
    /// The first existing configuration, if this user may not open it.
    pub unreadable: Option<PathBuf>,
    pub directories: Vec<PathBuf>,
}

/// The place where a module of this profile looks for its tokens, if they are files.
#[must_use]
pub(crate) fn token_store(profile: &Profile) -> Option<TokenStore> {
    match profile.store {
        TokenStoreKind::SoftHsm => {
            Some(configured_store("SOFTHSM2_CONF", &SOFTHSM_CONFIGURATION, softhsm_directories()))
        }
        TokenStoreKind::Kryoptic => {
            Some(configured_store("KRYOPTIC_CONF", &KRYOPTIC_CONFIGURATION, kryoptic_directories()))
        }
        TokenStoreKind::Tpm => {
            let named = paths(&["$TPM2_PKCS11_STORE"]);
            let usual = paths(&[
                "/etc/tpm2_pkcs11",
                "$XDG_DATA_HOME/tpm2-pkcs11",
                "~/.local/share/tpm2-pkcs11",
                "~/.tpm2_pkcs11",
            ]);
            // Releases differ in the other paths and in their order.
            let existing: Vec<PathBuf> = usual.iter().filter(|path| path.exists()).cloned().collect();
            let first = [named, existing, usual].into_iter().find(|paths| !paths.is_empty());
            let directories = first.unwrap_or_default();
            Some(TokenStore { variable: "TPM2_PKCS11_STORE", configuration: None, unreadable: None, directories })
        }
        TokenStoreKind::Fixed => None,
    }
}

fn configured_store(variable: &'static str, usual: &[&str], directories: Vec<PathBuf>) -> TokenStore {
    let configuration = paths(usual).into_iter().find(|path| path.exists());
    TokenStore { variable, configuration, unreadable: unreadable(usual), directories }
}

/// The log file that the module's configuration names, if it is an absolute path that this user can write. This function
/// creates a missing file, since a sandbox rule needs an existing one.
pub(crate) fn log_files(profile: &Profile) -> Vec<PathBuf> {
    if profile.store != TokenStoreKind::SoftHsm {
        return Vec::new();
    }
    let log = configuration_text(&SOFTHSM_CONFIGURATION).and_then(|text| setting(&text, "log.file"));
    let log = log.filter(|path| {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = File::options();
        options.append(true).create(true).mode(0o600).custom_flags(DO_NOT_WAIT);
        path.is_absolute() && options.open(path).is_ok()
    });
    log.into_iter().collect()
}

/// The sockets that the module may open on this host: those of its profile, and internet sockets for a simulated TPM.
pub(crate) fn socket_families(profile: &Profile) -> Vec<SocketFamily> {
    let simulator =
        |variable: &str| env::var(variable).is_ok_and(|tcti| ["swtpm", "mssim"].iter().any(|name| tcti.contains(name)));
    let mut families = profile.families.to_vec();
    if profile.store == TokenStoreKind::Tpm && ["TPM2_PKCS11_TCTI", "TPM2TOOLS_TCTI", "TCTI"].into_iter().any(simulator)
    {
        families.extend([SocketFamily::Internet, SocketFamily::Netlink]);
    }
    families
}

fn path(profile_path: &str) -> Option<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(below) = profile_path.strip_prefix("~/") {
        // Without HOME, libraries take the home from the user database.
        let database_home = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir);
        return variable("HOME").or_else(database_home).map(|home| home.join(below));
    }
    let Some(named) = profile_path.strip_prefix('$') else { return Some(profile_path.into()) };
    match named.split_once('/') {
        Some((name, below)) => variable(name).map(|start| start.join(below)),
        None => variable(named),
    }
}

/// The text of the first configuration file that can be read.
fn configuration_text(usual: &[&str]) -> Option<String> {
    paths(usual).into_iter().find_map(|path| read(&path).ok())
}

/// The first existing configuration, if this user may not open it.
fn unreadable(usual: &[&str]) -> Option<PathBuf> {
    let opened = |path: PathBuf| match input_file::open(&path) {
        Ok(_) => Some(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(Some(path)),
        Err(_) => None,
    };
    paths(usual).into_iter().find_map(opened).flatten()
}

/// Reads at most 1 MiB: the path in a variable may be an endless device.
fn read(path: &Path) -> io::Result<String> {
    const LIMIT: usize = 1 << 20;
    let bytes = input_file::open_regular(path).and_then(|file| input_file::read_opened(&file, LIMIT))?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// `objectstore.backend` of SoftHSM2's configuration, if it is set.
pub(crate) fn softhsm_backend() -> Option<String> {
    let backend = configuration_text(&SOFTHSM_CONFIGURATION).and_then(|text| setting(&text, "objectstore.backend"))?;
    Some(backend.display().to_string())
}

fn softhsm_directories() -> Vec<PathBuf> {
    let directory = configuration_text(&SOFTHSM_CONFIGURATION).and_then(|text| token_directory(&text));
    directory.map_or_else(|| SOFTHSM_TOKENS.map(PathBuf::from).to_vec(), |directory| vec![directory])
}

/// `directories.tokendir` of softhsm2.conf(5).
fn token_directory(text: &str) -> Option<PathBuf> {
    setting(text, "directories.tokendir")
}

/// The path of a setting in softhsm2.conf(5). The last one counts.
fn setting(text: &str, name: &str) -> Option<PathBuf> {
    let mut settings = text.lines().rev().filter_map(|line| line.split('#').next()?.split_once('='));
    let found = settings.find(|(key, _)| key.trim() == name);
    found.map(|(_, value)| PathBuf::from(value.trim())).filter(|path| !path.as_os_str().is_empty())
}

fn kryoptic_directories() -> Vec<PathBuf> {
    // $KRYOPTIC_CONF may name a database instead of a configuration.
    let database = path("$KRYOPTIC_CONF").filter(|path| path.extension().is_some_and(|extension| extension == "sql"));
    let databases = database
        .map(|path| vec![path])
        .or_else(|| configuration_text(&KRYOPTIC_CONFIGURATION).map(|text| databases(&text)));
    // SQLite writes its journal beside the file.
    databases.unwrap_or_default().into_iter().filter_map(|file| directory_of(&file)).collect()
}

/// Each slot's `dbargs` of kryoptic's token.conf.
fn databases(text: &str) -> Vec<PathBuf> {
    let Ok(document) = DeTable::parse(text) else { return Vec::new() };
    let Some(DeValue::Array(slots)) = document.get_ref().get("slots").map(Spanned::get_ref) else { return Vec::new() };
    let arguments = slots.iter().filter_map(|slot| match slot.get_ref() {
        DeValue::Table(slot) => slot.get("dbargs")?.get_ref().as_str(),
        _ => None,
    });
    arguments.map(|arguments| nss_directory(arguments).unwrap_or_else(|| arguments.into())).collect()
}

/// The directory in NSS's form, `configDir='/etc/pki/nssdb' ...`, with one file name added to it.
fn nss_directory(arguments: &str) -> Option<PathBuf> {
    let value = arguments.split_once("configDir=")?.1;
    let end = value.get(1..)?.find(['\'', '"'])?;
    value.get(1..=end).map(|directory| Path::new(directory.trim_start_matches("sql:")).join("key4.db"))
}

fn directory_of(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() { ".".into() } else { parent.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_token_directory_of_softhsm2_conf() {
        let text = "# directories.tokendir = /no\nlog.level = ERROR\ndirectories.tokendir = /srv/my tokens/  # here\n";
        assert_eq!(token_directory(text), Some("/srv/my tokens/".into()));
        assert_eq!(token_directory("objectstore.backend = file\n"), None);
        assert_eq!(token_directory("directories.tokendir =\n"), None);
    }

    #[test]
    fn reads_the_databases_of_kryoptics_token_conf() {
        let text = "[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"/a/b.sql\"\n[[slots]]\nslot = 2\n\
                    dbargs = \"configDir='sql:/etc/nss' certPrefix='x'\"\n[[slots]]\nslot = 3\n";
        assert_eq!(databases(text), [Path::new("/a/b.sql"), Path::new("/etc/nss/key4.db")]);
        assert!(databases("not TOML").is_empty());
        for odd in ["configDir=", "configDir='", "configDir=é'", "configDir=''"] {
            nss_directory(odd);
        }
        assert_eq!(directory_of(Path::new("token.sql")), Some(".".into()));
    }
}
