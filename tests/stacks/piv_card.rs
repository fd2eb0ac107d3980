//! The software PIV card on a separate host: private pcscd, private reader.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use crate::deadline::Finish as _;
use crate::fixture::{EXTENSIONS, Fixture, tool};
use crate::kryoptic::build;
use crate::stack::make_ca;

/// A running card, with keys in slots 9a (ID 01) and 9c (ID 02, a PIN for each signature).
pub(crate) struct Card {
    host: Child,
    input: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
    directory: PathBuf,
}

impl Card {
    /// Starts a copy of a provisioned card in the fixture's directory.
    pub(crate) fn start(fixture: &Fixture) -> Self {
        static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
        let template = TEMPLATE.get_or_init(provision);
        for name in ["card", "ca.pem", "ca.key"] {
            tool(Command::new("cp").arg("-r").arg(template.join(name)).arg(fixture.path()));
        }
        Self::boot(fixture.path())
    }

    /// A card from the factory.
    pub(crate) fn fresh(fixture: &Fixture) -> Self {
        Self::boot(fixture.path())
    }

    fn boot(directory: &Path) -> Self {
        let emulator = build("piv-card").join("piv-emulator");
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "--net", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stacks/piv-host")]);
        command.arg(emulator).arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut host = command.spawn().expect("apt-get install util-linux");
        let (input, output) = (host.stdin.take(), host.stdout.take().unwrap());
        let mut card = Self { host, input, said: BufReader::new(output), directory: directory.to_owned() };
        card.expect_line("ready");
        card
    }

    fn expect_line(&mut self, word: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), word, "the card's host did not come up; its log is above");
    }

    /// A program on the card's host.
    pub(crate) fn on_host(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        // With its root: the tests may run in a chroot.
        command.args(["--mount", "--net", "--root", "--target", &self.host.id().to_string(), "--", program]);
        command.current_dir(&self.directory);
        command
    }

    /// Sends the emulator a command: `plug`, `unplug`, `begun`, `delay MS`, `fail SW N`.
    pub(crate) fn tell(&self, word: &str) -> String {
        let mut control = UnixStream::connect(self.directory.join("ctl")).unwrap();
        writeln!(control, "{word}").unwrap();
        control.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = control.read_to_string(&mut answer);
        answer
    }

    pub(crate) fn restart_pcscd(&mut self) {
        writeln!(self.input.as_mut().unwrap(), "pcscd").unwrap();
        self.expect_line("serving");
        // The reader disappeared with the daemon, and the card with the reader.
        self.tell("plug");
        self.expect_line("ready");
    }

    /// The number of tries left, from the card.
    pub(crate) fn tries_left(&self) -> u32 {
        let status = tool(self.on_host("yubico-piv-tool").args(["-a", "status"]));
        let line = status.lines().find(|line| line.starts_with("PIN tries left"));
        let tries = line.and_then(|line| line.split(':').nth(1)).and_then(|tries| tries.trim().parse().ok());
        tries.unwrap_or_else(|| panic!("no number of tries: {status}"))
    }

    /// Waits until another program sees the token, or no longer sees it.
    pub(crate) fn await_token(&self, there: bool) {
        let module = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so";
        let seen = || {
            let output = self.on_host("pkcs11-tool").args(["--module", module, "--list-slots"]).finish();
            String::from_utf8_lossy(&output.stdout).contains("token label")
        };
        for _ in 0..400 {
            if seen() == there {
                return;
            }
        }
        panic!("the card did not {}", if there { "appear" } else { "go" });
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.host.wait();
    }
}

/// Keys and certificates in both slots, made with yubico-piv-tool as an owner does.
fn provision() -> PathBuf {
    // A fixture for its tools; its directory is kept for the copies of this process.
    let fixture = Fixture::empty();
    make_ca(&fixture);
    let card = Card::fresh(&fixture);
    for slot in ["9a", "9c"] {
        let public = fixture.file("slot.pub");
        tool(card.on_host("yubico-piv-tool").args(["-a", "generate", "-s", slot, "-A", "RSA2048", "-o", &public]));
        let certificate = fixture.issue(slot, &public, EXTENSIONS, &["-days", "9"]);
        tool(card.on_host("yubico-piv-tool").args(["-a", "import-certificate", "-s", slot, "-i", &certificate]));
    }
    drop(card);
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("piv-card-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&kept);
    tool(Command::new("cp").arg("-r").arg(fixture.path()).arg(&kept));
    kept
}
