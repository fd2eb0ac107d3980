//! One `cba-agent` on a SoftHSM2 token, shared by all tests of this process.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::deadline::Finish as _;
use tempfile::TempDir;

/// The user and group as which the gateway runs where the tests run as root.
pub(crate) const GATEWAY_USER: u32 = 64_731;

const BINARY_IS_RELEASE: bool = !cfg!(debug_assertions);

pub(crate) struct Token {
    /// The token's directory.
    pub(crate) path: PathBuf,
    /// The agent's socket.
    pub(crate) socket: PathBuf,
    /// The agent's audit log.
    pub(crate) audit: PathBuf,
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.finish();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a compiler or an installer, which may take minutes in a fresh clone. The time limit of the test stage ends it.
#[track_caller]
pub(crate) fn install(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?} failed");
}

/// The agent's program, built once.
pub(crate) fn agent_program() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let mut cargo = Command::new(env!("CARGO"));
        // With the variables of the outer cargo, some build scripts would run again each time.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let is_the_tests = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "LD_LIBRARY_PATH"];
            if is_the_tests.iter().any(|start| name.starts_with(start)) {
                cargo.env_remove(name);
            }
        }
        // The same profile as the gateway under test.
        if BINARY_IS_RELEASE {
            cargo.args(["build", "--release"]);
        } else {
            cargo.arg("build");
        }
        cargo.args(["--locked", "--quiet", "--bin", "cba-agent", "--manifest-path", manifest]);
        install(&mut cargo);
        Path::new(env!("CARGO_BIN_EXE_cba-gateway")).with_file_name("cba-agent")
    })
}

/// The token with its agent, which the first call creates.
pub(crate) fn token() -> &'static Token {
    static TOKEN: OnceLock<Token> = OnceLock::new();
    TOKEN.get_or_init(|| {
        remove_leftovers();
        // In a fresh clone this builds the agent, which takes minutes.
        agent_program();
        // Not in /tmp, which may be in memory, where the agent keeps no fuse.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gateway-token.{}", std::process::id()));
        run(Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../softhsm/provision")).arg(&directory));
        let public = public_directory(&format!("cba-gateway-agent.{}.", std::process::id())).keep();
        let token = Token { socket: public.join("agent.sock"), audit: directory.join("audit.jsonl"), path: directory };
        let (sender, started) = std::sync::mpsc::channel();
        // The agent ends with the thread that started it, which ends with the process.
        std::thread::spawn({
            let (socket, path, audit) = (token.socket.clone(), token.path.clone(), token.audit.clone());
            move || {
                let mut agent = start_agent(&path, &socket, &audit);
                sender.send(()).unwrap();
                let _ = agent.wait();
            }
        });
        started.recv_timeout(Duration::from_secs(60)).expect("the agent did not start");
        token
    })
}

#[allow(clippy::zombie_processes)] // After a panic, this process ends, and the agent with it.
fn start_agent(path: &Path, socket: &Path, audit: &Path) -> std::process::Child {
    let notify = UnixDatagram::bind(path.join("notify")).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(agent_program()).args(["serve", "--module", "softhsm2"]);
    command.args(["--workers", "2", "--rate-limit-per-second", "1000000"]);
    command.arg("--pin-source").arg(format!("file:{}", path.join("pin").display()));
    command.arg("--socket").arg(socket).arg("--audit-path").arg(audit).arg("--state-dir").arg(path.join("state"));
    if is_root() {
        command.arg("--socket-group").arg(GATEWAY_USER.to_string());
    }
    // If the agent and the tests run as one user, allow_users must name this user.
    let own = if is_root() { GATEWAY_USER } else { rustix::process::geteuid().as_raw() };
    command.arg("--allow-users").arg(own.to_string());
    command.env("SOFTHSM2_CONF", path.join("softhsm2.conf")).env("NOTIFY_SOCKET", path.join("notify"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(path.join("agent.log")).unwrap());
    let child = command.spawn().expect("setpriv is not installed: apt-get install util-linux");
    let mut buffer = [0; 4096];
    loop {
        let read = notify.recv(&mut buffer).unwrap_or_else(|error| {
            panic!("the agent is not ready ({error}): {}", fs::read_to_string(path.join("agent.log")).unwrap())
        });
        if String::from_utf8_lossy(&buffer[..read]).contains("STATUS=ready") {
            return child;
        }
    }
}

/// A directory on a disk that every user can enter. The agent refuses a fuse in memory.
fn public_parent() -> PathBuf {
    const IN_MEMORY: [rustix::fs::FsWord; 2] = [0x0102_1994, 0x8584_58f6]; // tmpfs and ramfs, statfs(2)
    let usual = std::env::temp_dir();
    let is_on_disk = rustix::fs::statfs(&usual).is_ok_and(|found| !IN_MEMORY.contains(&found.f_type));
    if is_on_disk { usual } else { "/var/tmp".into() }
}

/// A directory that every user may enter.
pub(crate) fn public_directory(prefix: &str) -> TempDir {
    let directory = tempfile::Builder::new().prefix(prefix).tempdir_in(public_parent()).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Removes the directories of processes that have ended.
fn remove_leftovers() {
    for (directory, prefix) in
        [(PathBuf::from(env!("CARGO_TARGET_TMPDIR")), "gateway-token."), (public_parent(), "cba-gateway-agent.")]
    {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_prefix(prefix).and_then(|rest| rest.split('.').next());
            if id.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}
