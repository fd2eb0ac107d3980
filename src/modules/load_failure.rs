//! The reason why a module's file could not be loaded, from the file, its place, and the loader's message.
//!
//! Runs in the parent. The loader says "not found" for a library of another architecture, and does not name a noexec mount.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::{Resource, getrlimit};

use super::elf::{Elf, FileKind, HEAD};
use crate::error::{Explain, Kind};
use crate::os::input_file;
use crate::text::shell::quoted;

/// The reason of the loader's refusal.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum LoadFailure {
    #[error("it is {0}, not a shared library")]
    NotElf(&'static str),
    #[error("it is a linker script, not a shared library")]
    LinkerScript(Option<String>),
    #[error("it is built for {0}, and this program for {1}")]
    Architecture(String, String),
    #[error("it is {0}, not a shared library")]
    NotLibrary(&'static str),
    #[error("the file is truncated: it has {found} bytes and needs {needed}")]
    Truncated {
        found: u64,
        /// The length according to its headers.
        needed: u64,
    },
    #[error("it cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    #[error("{} is on a file system that is mounted noexec", .0.display())]
    NoExec(PathBuf),
    /// The limit of this process's memory (RLIMIT_AS), and the file that does not fit.
    #[error("{} needs more memory than the limit of this process allows", .0.display())]
    MemoryLimit(PathBuf),
    /// The host forbids execution for another reason.
    #[error("the host does not allow programs to run code from {}", .0.display())]
    CodeForbidden(PathBuf),
    #[error("it needs the library {0}, which is missing")]
    MissingLibrary(String),
    /// A required library exists but cannot be used.
    #[error("it needs the library {0}, which cannot be used: {1}")]
    BadLibrary(String, String),
    #[error("{user} needs {version}, and {library} of this host does not have it")]
    OldLibrary {
        library: String,
        /// The version of its symbols.
        version: String,
        /// The file that needs it.
        user: String,
    },
    #[error("it needs the symbol {0}, which no library defines")]
    MissingSymbol(String),
    /// The loader's message.
    #[error("{0}")]
    Other(String),
}

impl LoadFailure {
    /// The cause, from the module's file and the loader's message; `None` if the file is good and the loader gave no
    /// message.
    #[must_use]
    pub(crate) fn of(path: &Path, message: Option<&str>) -> Option<Self> {
        by_file(path).or_else(|| message.map(|message| by_words(path, message)))
    }
}

impl LoadFailure {
    /// Whether a sandbox may be the cause as well.
    #[must_use]
    pub(crate) fn may_be_the_sandbox(&self) -> bool {
        matches!(self, Self::MissingLibrary(_) | Self::BadLibrary(..) | Self::CodeForbidden(_) | Self::Other(_))
    }
}

impl Explain for LoadFailure {
    fn kind(&self) -> Kind {
        Kind::NotFound
    }

    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::NotElf(_) | Self::NotLibrary(_) | Self::LinkerScript(None) => {
                "give the path of the PKCS#11 module itself; `cba-agent list` without --module shows what is found"
                    .into()
            }
            Self::LinkerScript(Some(library)) => format!("the script names {library}: give that library's path"),
            Self::Architecture(_, own) => format!("install the module's package for {own}"),
            Self::Truncated { .. } => "copy the file again, or reinstall its package".into(),
            Self::Unreadable(_) => "let the user who runs cba-agent read the file, with `chmod` or `setfacl`".into(),
            Self::NoExec(_) => "move it to a file system without noexec, such as /usr/local/lib; or, as root: \
                 `mount -o remount,exec \"$(findmnt -no TARGET -T MODULE)\"`"
                .into(),
            Self::MemoryLimit(_) => {
                "`ulimit -v` shows the limit in KiB; `ulimit -v unlimited` lifts it, LimitAS= in a unit sets it".into()
            }
            Self::CodeForbidden(_) => {
                "SELinux, AppArmor, or NoExecPaths= in the unit file can forbid it; look for it with \
                 `journalctl -k --grep denied`"
                    .into()
            }
            Self::MissingLibrary(library) => {
                format!(
                    "find its package with `apt-file search {library}`; for a library outside the usual directories, as root: \
                     `ldconfig`"
                )
            }
            Self::BadLibrary(library, _) if library.contains('/') => {
                format!("look at that file: `ls -lL {}`; reinstall its package", quoted(library))
            }
            Self::BadLibrary(library, _) => {
                format!("find the file: `ldconfig -p | grep -F {}`", quoted(library))
            }
            Self::OldLibrary { .. } => "install the module's build for this distribution and release".into(),
            Self::MissingSymbol(_) | Self::Other(_) => {
                "check the file with `ldd -r`; a module must be built for this system".into()
            }
        };
        vec![hint]
    }
}

fn by_file(path: &Path) -> Option<LoadFailure> {
    let (length, head) = match read(path) {
        Ok(read) => read,
        Err(error) => return Some(LoadFailure::Unreadable(error.kind())),
    };
    let elf = match FileKind::of(&head) {
        FileKind::Elf(elf) => elf,
        FileKind::LinkerScript(library) => return Some(LoadFailure::LinkerScript(library)),
        FileKind::Other(what) => return Some(LoadFailure::NotElf(what)),
    };
    if let Some(program) = own_architecture().filter(|program| !fits(&elf, program)) {
        return Some(LoadFailure::Architecture(elf.architecture(), program.architecture()));
    }
    match elf.kind {
        1 => return Some(LoadFailure::NotLibrary("an object file")),
        2 => return Some(LoadFailure::NotLibrary("a program")),
        _ if elf.is_program => return Some(LoadFailure::NotLibrary("a program")),
        _ => {}
    }
    // The first bytes of an ELF file, without the table of what is loaded.
    if elf.length == 0 && length < HEAD as u64 {
        return Some(LoadFailure::NotElf("a damaged ELF file"));
    }
    (elf.length > length).then_some(LoadFailure::Truncated { found: length, needed: elf.length })
}

fn read(path: &Path) -> io::Result<(u64, Vec<u8>)> {
    let file = input_file::open_regular(path)?;
    let length = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(HEAD as u64).read_to_end(&mut head)?;
    Ok((length, head))
}

/// The architecture of this program, which loads the module.
fn own_architecture() -> Option<Elf> {
    let (_, head) = read(Path::new("/proc/self/exe")).ok()?;
    match FileKind::of(&head) {
        FileKind::Elf(elf) => Some(elf),
        _ => None,
    }
}

fn fits(one: &Elf, other: &Elf) -> bool {
    (one.bits, one.little_endian, one.machine) == (other.bits, other.little_endian, other.machine)
}

/// From the messages of glibc's loader (dlopen(3)), which name a file before the first colon.
fn by_words(path: &Path, message: &str) -> LoadFailure {
    let (file, what) = message.split_once(": ").unwrap_or(("", message));
    let is_module = Path::new(file) == path;
    if what.starts_with("failed to map segment") {
        let file = if file.is_empty() { path.to_owned() } else { PathBuf::from(file) };
        let noexec = statvfs(&file).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::NOEXEC));
        // The loader's message does not have the kernel's error.
        if !noexec && getrlimit(Resource::As).current.is_some() {
            return LoadFailure::MemoryLimit(file);
        }
        return if noexec { LoadFailure::NoExec(file) } else { LoadFailure::CodeForbidden(file) };
    }
    if let Some(rest) = what.strip_prefix("version `") {
        if let Some((version, rest)) = rest.split_once("' not found") {
            let user = rest.trim().strip_prefix("(required by ").map_or("it", |user| user.trim_end_matches(')'));
            let user = if Path::new(user) == path { "it" } else { user };
            return LoadFailure::OldLibrary { library: file.into(), version: version.into(), user: user.into() };
        }
    }
    if let Some(symbol) = what.strip_prefix("undefined symbol: ") {
        return LoadFailure::MissingSymbol(symbol.into());
    }
    match what.strip_prefix("cannot open shared object file: ") {
        Some(cause) if cause.starts_with("No such file") && !is_module => LoadFailure::MissingLibrary(file.into()),
        Some(cause) if !is_module => LoadFailure::BadLibrary(file.into(), cause.into()),
        None if !is_module
            && ["wrong ELF class", "invalid ELF header", "file too short"]
                .iter()
                .any(|known| what.starts_with(known)) =>
        {
            LoadFailure::BadLibrary(file.into(), what.into())
        }
        _ => LoadFailure::Other(if is_module { what } else { message }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_loader_are_understood() {
        let module = Path::new("/opt/m.so");
        let missing = "libyubihsm.so.2: cannot open shared object file: No such file or directory";
        assert_eq!(by_words(module, missing), LoadFailure::MissingLibrary("libyubihsm.so.2".into()));
        let old = "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /opt/m.so)";
        let failure = by_words(module, old);
        assert_eq!(
            failure.to_string(),
            "it needs GLIBC_2.38, and /lib/x86_64-linux-gnu/libc.so.6 of this host does not have it"
        );
        let symbol = "/opt/m.so: undefined symbol: EVP_new";
        assert_eq!(by_words(module, symbol), LoadFailure::MissingSymbol("EVP_new".into()));
        let denied = "libvendor.so: cannot open shared object file: Permission denied";
        assert_eq!(
            by_words(module, denied),
            LoadFailure::BadLibrary("libvendor.so".into(), "Permission denied".into())
        );
        let other = "/opt/m.so: cannot allocate memory in static TLS block";
        assert_eq!(by_words(module, other), LoadFailure::Other("cannot allocate memory in static TLS block".into()));
    }
}
