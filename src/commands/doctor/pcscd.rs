//! Whether pcscd answers and this user may use it: without it a smart card's module shows no token and says no reason.
//!
//! The first exchange of PC/SC lite's protocol (its `winscard_msg.h`): a client says which version it speaks. A daemon
//! that refuses a user, as polkit decides, closes the connection without a word.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::Findings;

const CHECK: &str = "pcscd";

/// How long the daemon may take; it may have to be started first.
const PATIENCE: Duration = Duration::from_secs(5);

/// `CMD_VERSION`, and protocol 4.3, which every daemon of these years speaks.
const COMMAND: u32 = 0x11;
const VERSION: (u32, u32) = (4, 3);

/// What stands in the way of a smart card.
enum Trouble {
    Absent(PathBuf),
    Unreachable(PathBuf, io::Error),
    Refused,
    Silent(io::Error),
}

pub(super) fn check(findings: &mut Findings) {
    let user = rustix::process::geteuid().as_raw();
    match speak() {
        Ok((major, minor)) => findings.ok(CHECK, format!("answers user {user} (protocol {major}.{minor})")),
        Err(Trouble::Absent(path)) => findings.fail(
            CHECK,
            format!("{} is not there: pcscd does not run", path.display()),
            "apt-get install pcscd && systemctl enable --now pcscd.socket",
        ),
        Err(Trouble::Unreachable(path, error)) => findings.fail(
            CHECK,
            format!("{} cannot be reached: {error}", path.display()),
            "systemctl restart pcscd.socket",
        ),
        Err(Trouble::Refused) => findings.fail(
            CHECK,
            format!("refuses user {user} (polkit, org.debian.pcsc-lite.access_pcsc)"),
            "let the user in with a rule such as deploy/systemd/polkit/ has, or run as the user that has one",
        ),
        Err(Trouble::Silent(error)) => {
            findings.fail(CHECK, format!("does not answer: {error}"), "systemctl restart pcscd");
        }
    }
}

fn speak() -> Result<(u32, u32), Trouble> {
    // The variable that PC/SC lite's own library looks at.
    let path = std::env::var_os("PCSCLITE_CSOCK_NAME").map_or_else(|| "/run/pcscd/pcscd.comm".into(), PathBuf::from);
    let mut socket = UnixStream::connect(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Trouble::Absent(path.clone()),
        _ => Trouble::Unreachable(path.clone(), error),
    })?;
    let mut answer = [0; 12];
    let mut exchange = || -> io::Result<()> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        // The length of what follows and the command; then the version and room for the answer's code.
        let words = [12, COMMAND, VERSION.0, VERSION.1, 0];
        socket.write_all(&words.map(u32::to_ne_bytes).concat())?;
        socket.read_exact(&mut answer)
    };
    exchange().map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Trouble::Refused,
        _ => Trouble::Silent(error),
    })?;
    let word = |at: usize| answer[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    Ok((word(0), word(4)))
}
