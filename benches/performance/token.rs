//! A temporary SoftHSM2 token, and the reference program on it.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const LABEL: &str = "cba";

/// The program that is measured: the one that cargo built, or that of `CBA_BENCH_PROGRAM`, such as the packaged one.
pub(crate) fn program() -> PathBuf {
    env::var_os("CBA_BENCH_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_cba-agent").into()).into()
}

/// The token, its directory, and the two programs that are measured on it.
pub(crate) struct Token {
    directory: TempDir,
}

impl Token {
    /// Makes a token with a key of this size.
    pub(crate) fn new(bits: u32) -> Self {
        // Beside the build: on a real disk, so that the fuse's record has its real cost.
        let directory = tempfile::Builder::new().prefix("bench").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut provision = Command::new(format!("{ROOT}/softhsm/provision"));
        provision.arg(directory.path()).args(["--bits", &bits.to_string(), "--label", LABEL]);
        assert!(provision.stdout(Stdio::null()).status().unwrap().success(), "softhsm/provision failed");
        Self { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    /// The PIN, for standard input.
    pub(crate) fn pin(&self) -> File {
        File::open(self.path().join("pin")).unwrap()
    }

    /// A program in the token's environment.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
        command.env("SOFTHSM2_CONF", self.path().join("softhsm2.conf")).env("HOME", self.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The agent's program, with the token selected.
    pub(crate) fn agent(&self, subcommand: &str) -> Command {
        let mut command = self.command(program());
        command.args([subcommand, "--module", "softhsm2", "--slot", "0"]);
        command.args(["--pin-source", &format!("file:{}", self.file("pin"))]);
        command
    }

    /// The reference program, with these arguments after module and label.
    pub(crate) fn bare(&self, what: &str, more: &[&str]) -> Command {
        self.bare_with(&module(), what, more)
    }

    /// The same with another module for the same token.
    pub(crate) fn bare_with(&self, module: &str, what: &str, more: &[&str]) -> Command {
        let mut command = self.command(yardstick());
        command.args([what, module, LABEL]).args(more).stdin(self.pin()).stderr(Stdio::inherit());
        command
    }

    /// Returns the output of the reference program.
    pub(crate) fn measured(&self, what: &str, more: &[&str]) -> String {
        let output = self.bare(what, more).stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "bare {what} failed");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The path of SoftHSM2, which every program here gets.
pub(crate) fn module() -> String {
    let places =
        ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so"];
    let found = places.into_iter().find(|place| Path::new(place).exists());
    found.expect("SoftHSM2 is not installed: apt-get install softhsm2").to_owned()
}

/// `benches/bare.c`, compiled.
fn yardstick() -> PathBuf {
    compiled("bare", &["-lpthread", "-ldl"])
}

/// A C file of this directory, compiled again when it is newer than its program.
pub(crate) fn compiled(name: &str, more: &[&str]) -> PathBuf {
    let (source, program) =
        (format!("{ROOT}/benches/{name}.c"), Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}")));
    let age = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if age(&program) < age(Path::new(&source)) {
        let mut compiler = Command::new("cc");
        compiler
            .args(["-O2", "-Wall", "-Wextra", "-I/usr/include/p11-kit-1", "-o"])
            .arg(&program)
            .arg(&source)
            .args(more);
        assert!(compiler.status().unwrap().success(), "{name}.c: apt-get install gcc libc6-dev libp11-kit-dev");
    }
    program
}
