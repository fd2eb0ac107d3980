//! The listening socket: created in a private directory, moved into place under a lock, and removed at the end.
//!
//! Runs in the parent.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, OFlags, chmodat, chownat, flock, renameat};

use crate::client;
use crate::error::{Error, Kind, Result};
use crate::files::{NO_FOLLOW, file_system_hint};
use crate::modules;
use crate::os::descriptors;
use crate::text::shell::quoted_path;
use crate::values::paths::LONGEST_SOCKET;

/// The maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 1024;

#[derive(Debug)]
pub(super) struct ListeningSocket {
    pub(super) listener: UnixListener,
    /// `None` if this process does not see the file, as in another mount namespace.
    pub(super) file: Option<SocketFile>,
    /// Held until the process ends, so that no other agent takes the path; `None` for a socket from systemd.
    lock: Option<File>,
}

/// The file through which clients connect.
#[derive(Clone, Debug)]
pub(super) struct SocketFile {
    pub(super) path: PathBuf,
    /// Device and inode, to recognise it. The listener keeps the inode in use.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), identity: identity(&metadata) })
    }

    /// Whether the path leads to another file or to none, so that no new client reaches the agent.
    pub(super) fn is_lost(&self) -> bool {
        match fs::symlink_metadata(&self.path) {
            Ok(found) => identity(&found) != self.identity,
            Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }
}

impl ListeningSocket {
    /// Takes over the socket from systemd (sd_listen_fds(3)); `None` if there is none.
    ///
    /// # Errors
    /// When there are several, or it is not a listening Unix socket.
    pub(super) fn activated() -> Result<Option<Self>> {
        let refuse = |what: String| Error::new(Kind::Config, format!("socket activation: {what}"));
        let mut numbers: Vec<RawFd> = sd_notify::listen_fds().map_err(|error| refuse(error.to_string()))?.collect();
        let Some(number) = numbers.pop() else { return Ok(None) };
        if !numbers.is_empty() {
            return Err(refuse("only one socket is accepted, and there are several".into())
                .hint("use one ListenStream= with one path in the .socket unit"));
        }
        let file = descriptors::take(number).map_err(|error| refuse(error.to_string()))?;
        let listens = rustix::net::sockopt::socket_acceptconn(&file).unwrap_or(false);
        let is_unix =
            rustix::net::sockopt::socket_domain(&file).is_ok_and(|domain| domain == rustix::net::AddressFamily::UNIX);
        if !listens || !is_unix {
            return Err(refuse("the descriptor from systemd is not a listening Unix socket".into())
                .hint("ListenStream= must name a path; Accept= must be no"));
        }
        let listener = UnixListener::from(std::os::fd::OwnedFd::from(file));
        let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
        Ok(Some(Self { listener, file: path.and_then(|path| SocketFile::at(&path).ok()), lock: None }))
    }

    /// Creates the socket at its path, with mode 0660 and its group. Other users can never connect in between.
    ///
    /// # Errors
    /// When another agent uses it, another file is there, or the directory is not safe.
    pub(super) fn bind(path: &Path, group: Option<u32>) -> Result<Self> {
        let shown = path.display();
        let failed = |what: &str, error: io::Error| Error::new(Kind::Config, format!("{what} {shown}: {error}"));
        let (Some(directory), Some(_)) = (path.parent(), path.file_name()) else {
            return Err(Error::new(Kind::Config, format!("the socket's path {shown} is not the path of a file")));
        };
        if path.as_os_str().len() > LONGEST_SOCKET {
            let message = format!("the socket's path has {} bytes", path.as_os_str().len());
            return Err(Error::new(Kind::Config, message).hint(format!("a client can use at most {LONGEST_SOCKET}")));
        }
        make_directory(directory).map_err(|error| {
            let hint =
                file_system_hint(directory, &error).unwrap_or_else(|| format!("mkdir -p {}", quoted_path(directory)));
            failed("cannot make the directory of", error).hint(hint)
        })?;
        if let Some(how) = modules::writable_by_others(directory) {
            // Not refused: users who replace the socket can answer clients, but get no payload. A volume that
            // containers share is open to all users anyway.
            tracing::warn!("other users could replace the socket {shown}: {how}");
        }
        check_kind(path)?;
        let lock = lock(path)?;
        check_free(path)?;
        let listener = bind_closed(directory, group, path).map_err(|error| {
            let hint = "the agent's user must be able to write the directory, and be in the group that the socket gets";
            let hint = file_system_hint(directory, &error).unwrap_or_else(|| hint.into());
            failed("cannot make the socket", error).hint(hint)
        })?;
        let file = SocketFile::at(path).map_err(|error| failed("cannot look at", error))?;
        Ok(Self { listener, file: Some(file), lock: Some(lock) })
    }

    /// Whether the path is our own, and not systemd's.
    pub(super) fn is_own(&self) -> bool {
        self.lock.is_some()
    }

    /// Removes the path, so that nobody can connect any more. Earlier connections can still be accepted.
    pub(super) fn close_door(&self) {
        if let Some(file) = self.file.iter().find(|file| self.is_own() && !file.is_lost()) {
            let _ = fs::remove_file(&file.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Creates only the last directory, readable for others.
fn make_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The lock beside the socket. It is never removed: otherwise two agents could hold two different locks.
fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |error: io::Error| {
        let hint = file_system_hint(path, &error);
        Error::new(Kind::Config, format!("cannot make the lock {}: {error}", Path::new(&name).display()))
            .hint(hint.unwrap_or_else(|| "the agent's user must be able to write the socket's directory".into()))
    };
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NO_FOLLOW);
    let file = options.open(&name).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use(path)),
        Err(error) => Err(failed(error.into())),
    }
}

fn in_use(path: &Path) -> Error {
    Error::new(Kind::Unexpected, format!("another agent serves {}", path.display()))
        .hint(format!("`cba-agent health --socket {}` shows its state; end it first", quoted_path(path)))
}

fn refuse(what: String) -> Error {
    Error::new(Kind::Config, what)
        .hint("the agent's user must be able to look at it; or choose another path: --socket PATH")
}

/// Only a socket may be replaced. Returns whether there is one.
fn check_kind(path: &Path) -> Result<bool> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refuse(format!("cannot look at {shown}: {error}"))),
        Ok(found) if !found.file_type().is_socket() => {
            let what = format!("{shown} exists and is not a socket");
            Err(Error::new(Kind::Config, what).hint("move it away, or choose another path: --socket PATH"))
        }
        Ok(_) => Ok(true),
    }
}

/// Only a socket without a listening process may be replaced.
fn check_free(path: &Path) -> Result<()> {
    let shown = path.display();
    if !check_kind(path)? {
        return Ok(());
    }
    match client::connect(path, Duration::from_secs(1)) {
        Ok(_) => Err(in_use(path)),
        // Its queue is full, so a process listens on it.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(in_use(path)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(refuse(format!("cannot check whether a process serves {shown}: {error}"))),
    }
}

/// Binds in a private directory, sets mode and group there, and moves the socket out.
fn bind_closed(directory: &Path, group: Option<u32>, path: &Path) -> io::Result<UnixListener> {
    let closed = directory.join(format!(".cba-agent.{}", std::process::id()));
    // A remainder of a killed process with the same process ID.
    let _ = fs::remove_file(closed.join("s"));
    let _ = fs::remove_dir(&closed);
    DirBuilder::new().mode(0o700).create(&closed)?;
    let inside = || -> io::Result<UnixListener> {
        // From here on by its descriptor: nobody can replace the directory, and a socket's name must be short.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let door = rustix::fs::open(&closed, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&door)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            return Err(io::Error::other("a directory of another user is in the way"));
        }
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/s", door.as_raw_fd()))?;
        if let Some(group) = group {
            chownat(&door, "s", None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        chmodat(&door, "s", Mode::from_raw_mode(0o660), AtFlags::empty())?;
        rustix::net::listen(&listener, BACKLOG)?;
        renameat(&door, "s", CWD, path)?;
        Ok(listener)
    };
    let listener = inside();
    let _ = fs::remove_file(closed.join("s"));
    fs::remove_dir(&closed)?;
    listener
}
