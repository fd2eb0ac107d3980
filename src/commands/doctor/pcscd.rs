//! Checks that pcscd answers and this user may use it. Otherwise a smart card's module shows no token and gives no reason.
//!
//! Runs in the parent. A worker calls the installed libpcsclite, whose connection goes through a socket of this process
//! to the daemon. So the check uses the protocol of this host's modules, and sees the versions of both sides. It
//! forwards only the first exchange (`CMD_VERSION` of PC/SC lite's winscard_msg.h). A daemon that refuses a user, as
//! polkit decides, closes the connection without an answer.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, process, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::findings::Findings;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::worker_handle::{WorkerEnvironment, WorkerError, WorkerHandle};

const CHECK: &str = "pcscd";

/// The time limit for the daemon, which may have to start first.
const PCSCD_TIMEOUT: Duration = Duration::from_secs(5);

/// The path where libpcsclite looks for the daemon, and the variable for another path.
const SOCKET: &str = "/run/pcscd/pcscd.comm";
const SOCKET_VARIABLE: &str = "PCSCLITE_CSOCK_NAME";

/// A request is the length of its body, the command, and the body: version and code.
const REQUEST: usize = 20;
const ANSWER: usize = 12;
const CMD_VERSION: u32 = 0x11;

/// A version of the protocol.
type PcscdVersion = (u32, u32);

/// One exchange of versions.
#[derive(Debug)]
struct VersionExchange {
    client: PcscdVersion,
    daemon: PcscdVersion,
    /// 0, or the reason of the daemon's refusal (a code of winscard.h).
    code: u32,
}

/// A problem that prevents access to a smart card.
#[derive(Debug)]
enum PcscdProblem {
    Absent(PathBuf),
    Unreachable(PathBuf, io::Error),
    Refused,
    Silent(io::Error),
    Protocol(VersionExchange),
    Library(WorkerError),
    Unasked(String),
}

pub(super) fn check(config: &Config, findings: &mut Findings) {
    let user = rustix::process::geteuid().as_raw();
    let restart = "as root: `systemctl restart pcscd.socket pcscd.service`";
    match ask(config) {
        Ok(VersionExchange { daemon: (major, minor), .. }) => {
            findings.ok(CHECK, format!("answers user {user} (protocol {major}.{minor})"));
        }
        Err(PcscdProblem::Absent(path)) => findings.fail(
            CHECK,
            format!("{} does not exist: pcscd does not run", path.display()),
            "as root: `apt-get install pcscd && systemctl enable --now pcscd.socket`",
        ),
        Err(PcscdProblem::Unreachable(path, error)) => {
            findings.fail(CHECK, format!("{} cannot be reached: {error}", path.display()), restart);
        }
        Err(PcscdProblem::Refused) => findings.fail(
            CHECK,
            format!("refuses user {user} (polkit, org.debian.pcsc-lite.access_pcsc)"),
            "allow the user with a rule as in deploy/systemd/polkit/, or run as a user with such a rule",
        ),
        Err(PcscdProblem::Silent(error)) => findings.fail(CHECK, format!("does not answer: {error}"), restart),
        Err(PcscdProblem::Protocol(VersionExchange { client, daemon, code })) => findings.fail(
            CHECK,
            format!(
                "refuses the protocol of this host's libpcsclite: the daemon speaks {}.{}, the library {}.{} ({code:#010x})",
                daemon.0, daemon.1, client.0, client.1
            ),
            "use pcscd and libpcsclite of one release, as root: `apt-get install --only-upgrade pcscd libpcsclite1 && \
             systemctl restart pcscd`; in a container, install the libpcsclite of the host's release",
        ),
        Err(PcscdProblem::Library(error)) => {
            findings.fail(CHECK, format!("libpcsclite cannot connect to it: {error}"), "as root: `apt-get install libpcsclite1`");
        }
        Err(PcscdProblem::Unasked(why)) => findings.warn(CHECK, format!("was not checked: {why}"), restart),
    }
}

/// Makes libpcsclite connect to the daemon through a socket of this process.
fn ask(config: &Config) -> Result<VersionExchange, PcscdProblem> {
    let daemon = env::var_os(SOCKET_VARIABLE).map_or_else(|| SOCKET.into(), PathBuf::from);
    let socket =
        PrivateSocket::open().map_err(|error| PcscdProblem::Unasked(format!("cannot create a socket: {error}")))?;
    let listener = socket.listener.try_clone().map_err(|error| PcscdProblem::Unasked(error.to_string()))?;
    let relay = thread::spawn(move || relay(&listener, &daemon));
    let environment = WorkerEnvironment { pin_variables: config.pin_variables.clone(), module_debug: false };
    let reply = WorkerHandle::ask_pcscd(&environment, &socket.socket, &Deadline::after(PCSCD_TIMEOUT + PCSCD_TIMEOUT));
    // The library may have ended without a connection.
    drop(UnixStream::connect(&socket.socket));
    let relayed = relay.join().unwrap_or_else(|_| Err(PcscdProblem::Unasked("the relay failed".into())));
    match (relayed, reply) {
        (Err(PcscdProblem::Unasked(_)), Err(error)) => Err(PcscdProblem::Library(error)),
        (Err(PcscdProblem::Unasked(_)), Ok(code)) => {
            Err(PcscdProblem::Unasked(format!("SCardEstablishContext returned {code:#010x} without a connection")))
        }
        (Ok(exchange), _) if exchange.code != 0 => Err(PcscdProblem::Protocol(exchange)),
        (relayed, _) => relayed,
    }
}

/// Forwards exchanges of versions, and returns the last: a library may offer an older version after a refusal.
fn relay(listener: &UnixListener, path: &Path) -> Result<VersionExchange, PcscdProblem> {
    let unasked = |error: io::Error| PcscdProblem::Unasked(error.to_string());
    wait_for(listener).map_err(unasked)?;
    let (mut client, _) = listener.accept().map_err(unasked)?;
    client.set_read_timeout(Some(PCSCD_TIMEOUT)).map_err(unasked)?;
    let mut daemon = None;
    let mut last = None;
    loop {
        let mut request = [0; REQUEST];
        if client.read_exact(&mut request).is_err() || word(&request, 4) != CMD_VERSION {
            return last.ok_or_else(|| PcscdProblem::Unasked("libpcsclite sent no request".into()));
        }
        let daemon = match &mut daemon {
            Some(daemon) => daemon,
            none => none.insert(connect(path)?),
        };
        let mut answer = [0; ANSWER];
        daemon.write_all(&request).and_then(|()| daemon.read_exact(&mut answer)).map_err(|error| {
            match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => PcscdProblem::Refused,
                _ => PcscdProblem::Silent(error),
            }
        })?;
        let client_version = (word(&request, 8), word(&request, 12));
        let daemon_version = (word(&answer, 0), word(&answer, 4));
        last = Some(VersionExchange { client: client_version, daemon: daemon_version, code: word(&answer, 8) });
        client.write_all(&answer).map_err(unasked)?;
    }
}

fn connect(path: &Path) -> Result<UnixStream, PcscdProblem> {
    let daemon = UnixStream::connect(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => PcscdProblem::Absent(path.to_owned()),
        _ => PcscdProblem::Unreachable(path.to_owned(), error),
    })?;
    let limits =
        daemon.set_read_timeout(Some(PCSCD_TIMEOUT)).and_then(|()| daemon.set_write_timeout(Some(PCSCD_TIMEOUT)));
    limits.map(|()| daemon).map_err(PcscdProblem::Silent)
}

fn wait_for(listener: &UnixListener) -> io::Result<()> {
    let patience = Timespec::try_from(PCSCD_TIMEOUT + PCSCD_TIMEOUT).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience))? {
        0 => Err(ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// A socket in a private directory of this user. Dropping it removes both.
struct PrivateSocket {
    directory: PathBuf,
    socket: PathBuf,
    listener: UnixListener,
}

impl PrivateSocket {
    fn open() -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("cba-agent-{}-{:016x}", process::id(), u64::from_ne_bytes(random));
        let directory = env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let socket = directory.join("pcscd.comm");
        match UnixListener::bind(&socket) {
            Ok(listener) => Ok(Self { directory, socket, listener }),
            Err(error) => {
                let _ = fs::remove_dir(&directory);
                Err(error)
            }
        }
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_dir(&self.directory);
    }
}
