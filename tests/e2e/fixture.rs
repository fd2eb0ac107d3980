//! A temporary token, and runs of the binary on it.

use crate::deadline::{Finish as _, until};
use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_cba-agent");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CACHE: &str = env!("CARGO_TARGET_TMPDIR");

/// A directory with a SoftHSM2 token, and the environment of every run.
pub(crate) struct Fixture {
    pub(crate) directory: TempDir,
    environment: Vec<(String, String)>,
    module: Option<String>,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn from_output(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The output of a run that must succeed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// The error of a run that must fail with this code: nothing on stdout, one `error:` line, and a hint.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let errors = self.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{self:?}");
        assert!(self.stderr.contains("\nhint: "), "{self:?}");
        self.stderr
    }
}

impl Fixture {
    /// A token with a 2048-bit key and its certificate.
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// The same, with arguments for `softhsm/provision`.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let fixture = Self::empty();
        copy(&template(arguments), fixture.path());
        let conf = format!(
            "directories.tokendir = {}/tokens\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            fixture.path().display()
        );
        fs::write(fixture.path().join("softhsm2.conf"), conf).unwrap();
        fixture
    }

    /// Without a token.
    pub(crate) fn empty() -> Self {
        let directory = tempfile::Builder::new().prefix("fixture").tempdir_in(on_disk()).unwrap();
        Self { directory, environment: Vec::new(), module: Some("softhsm2".into()) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path().join(name))
            .unwrap();
        file.write_all(content.as_ref()).unwrap();
        self.file(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    /// The token's PIN. Tests of secrecy use separate markers.
    pub(crate) fn pin(&self) -> String {
        self.read("pin").trim().to_owned()
    }

    pub(crate) fn pin_source(&self) -> String {
        format!("file:{}", self.file("pin"))
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.into(), value.into()));
    }

    /// Uses another module, by name or path; `None` gives no module.
    pub(crate) fn use_module(&mut self, module: Option<&str>) {
        self.module = module.map(str::to_owned);
    }

    /// Puts the faulty module over SoftHSM2, with these rules. The calls are logged.
    pub(crate) fn faulty(&mut self, rules: &str) {
        self.module = Some(faulty_module().display().to_string());
        self.environment.retain(|(name, _)| !name.starts_with("FAULTY"));
        self.set("FAULTY", rules);
        self.set("FAULTY_MODULE", softhsm_module());
        self.set("FAULTY_LOG", self.file("calls"));
        let _ = fs::remove_file(self.file("calls"));
    }

    /// The number of calls of a function since the rules were set.
    pub(crate) fn calls(&self, name: &str) -> usize {
        self.read("calls").lines().filter(|line| *line == name).count()
    }

    /// Waits for this number of calls.
    #[track_caller]
    pub(crate) fn await_calls(&self, name: &str, count: usize) {
        until(|| self.calls(name) >= count);
    }

    /// The binary in the fixture's environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(BINARY);
        command.args(arguments);
        command
    }

    /// A program in the token's directory and a clean environment, with the module selected. Programs such as `sh`, `strace`
    /// and `unshare` pass both to the binary, if `BINARY` is among their arguments.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.prepare(&mut command);
        command
    }

    /// The binary in a separate mount namespace, which ends with it. The script mounts something, and then runs `"$@"`.
    pub(crate) fn in_mount_namespace(&self, script: &str) -> Command {
        let mut command = self.program("unshare");
        command.args(["--mount", "bash", "-c", script, "sh", BINARY]);
        command
    }

    /// Gives a command the token's directory and this environment.
    pub(crate) fn prepare(&self, command: &mut Command) {
        command.env_clear().current_dir(self.path()).stdin(Stdio::null());
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("HOME", self.path().join("home"));
        command.env("SOFTHSM2_CONF", self.path().join("softhsm2.conf"));
        if let Some(module) = &self.module {
            command.env("CBA_AGENT_MODULE", module);
        }
        command.envs(self.environment.iter().cloned());
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::from_output(self.command(arguments).finish())
    }

    /// Runs the binary as another user of the host, who has no home directory and no configuration of the token.
    pub(crate) fn run_as(&self, user: &str, groups: &str, arguments: &[&str]) -> Run {
        let mut command = self.program("setpriv");
        command.args(other_user(user, groups)).arg(BINARY).args(arguments).current_dir("/");
        command.env("HOME", "/nonexistent").env_remove("SOFTHSM2_CONF");
        Run::from_output(command.finish())
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Run {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The program may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        Run::from_output(child.finish())
    }

    /// `sign` with the PIN from its file.
    pub(crate) fn sign(&self, arguments: &[&str]) -> Run {
        let source = self.pin_source();
        let all: Vec<&str> = ["sign", "--pin-source", &source].into_iter().chain(arguments.iter().copied()).collect();
        self.run(&all)
    }

    /// `sign` with another source of the PIN.
    pub(crate) fn sign_with(&self, source: &str) -> Run {
        self.run(&["sign", "--pin-source", source])
    }

    /// Another program in the token's environment; it must succeed.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> String {
        tool(
            Command::new(program)
                .args(arguments)
                .current_dir(self.path())
                .env("SOFTHSM2_CONF", self.file("softhsm2.conf")),
        )
    }

    /// `pkcs11-tool` on this token, logged in.
    pub(crate) fn pkcs11_tool(&self, arguments: &[&str]) -> String {
        let module = softhsm_module();
        let mut command = Command::new("pkcs11-tool");
        command.args(["--module", &module, "--login", "--pin", "env:TOKEN_PIN"]).args(arguments);
        command.env("SOFTHSM2_CONF", self.file("softhsm2.conf")).env("TOKEN_PIN", self.pin()).current_dir(self.path());
        tool(&mut command)
    }

    /// A key that was made in a file and is extractable, with a certificate, under ID 02.
    pub(crate) fn import_key(&self) {
        self.tool("openssl", &["genrsa", "-out", "key.pem", "2048"]);
        self.tool("openssl", &["rsa", "-in", "key.pem", "-outform", "DER", "-out", "key.der"]);
        self.tool("openssl", &["rsa", "-in", "key.pem", "-pubout", "-out", "key.pub"]);
        self.issue("imported", "key.pub", EXTENSIONS, &["-days", "9"]);
        let write = ["--write-object", "key.der", "--type", "privkey", "--id", "02", "--extractable", "--usage-sign"];
        self.pkcs11_tool(&write);
        self.pkcs11_tool(&["--write-object", "imported.der", "--type", "cert", "--id", "02"]);
    }

    /// Generates a key in the token, and a certificate for it. `name` is the label of the key.
    pub(crate) fn generate_key(&self, id: &str, name: &str, more: &[&str]) {
        let usual = ["--keypairgen", "--key-type", "rsa:2048", "--id", id, "--label", name, "--usage-sign"];
        self.pkcs11_tool(&[&usual[..], more].concat());
        let (info, key) = (format!("{name}.spki"), format!("{name}.pub"));
        self.pkcs11_tool(&["--read-object", "--type", "pubkey", "--id", id, "--output-file", &info]);
        self.tool("openssl", &["rsa", "-pubin", "-inform", "DER", "-in", &info, "-out", &key]);
        self.issue(name, &key, EXTENSIONS, &["-days", "9"]);
        self.pkcs11_tool(&["--write-object", &format!("{name}.der"), "--type", "cert", "--id", id]);
    }

    /// Provisions one more token in the same configuration.
    pub(crate) fn provision(&self, arguments: &[&str]) {
        tool(Command::new(format!("{ROOT}/softhsm/provision")).arg(self.path()).args(arguments));
    }

    /// A certificate of the fixture's CA over a public key, with an extension file and validity; returns its path.
    pub(crate) fn issue(&self, name: &str, public_key: &str, extensions: &str, validity: &[&str]) -> String {
        let ext = self.write(&format!("{name}.ext"), extensions);
        let (request, out) = (self.file("req.pem"), self.file(&format!("{name}.pem")));
        let subject = format!("/CN={name}");
        let new = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null"];
        self.tool("openssl", &[&new[..], &["-subj", &subject, "-out", &request]].concat());
        let mut arguments =
            vec!["x509", "-req", "-in", &request, "-force_pubkey", public_key, "-CA", "ca.pem", "-CAkey", "ca.key"];
        arguments.extend(["-CAcreateserial", "-extfile", &ext, "-out", &out]);
        arguments.extend(validity);
        self.tool("openssl", &arguments);
        self.tool("openssl", &["x509", "-in", &out, "-outform", "DER", "-out", &self.file(&format!("{name}.der"))]);
        out
    }
}

/// The certificate extensions that Anaplan requires.
pub(crate) const EXTENSIONS: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
    extendedKeyUsage=clientAuth,emailProtection\nsubjectAltName=email:integration@example.com\n";

/// Arguments of `setpriv` before a program for another user of the host, with these groups or none.
pub(crate) fn other_user(user: &str, groups: &str) -> [String; 4] {
    let groups = if groups.is_empty() { "--clear-groups".into() } else { format!("--groups={groups}") };
    [format!("--reuid={user}"), format!("--regid={user}"), groups, "--".into()]
}

/// The user that runs the tests, as a number.
pub(crate) fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Ends a test that needs root, and says so. `softhsm/test` finds these tests by this call. For an ordinary user it
/// skips and lists them.
#[track_caller]
pub(crate) fn needs_root(reason: &str) {
    assert!(own_user() == 0, "only root can run this test: {reason}");
}

#[track_caller]
pub(crate) fn tool(command: &mut Command) -> String {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program:?} cannot run ({error}): softhsm/test installs what the tests need"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a script of `tests/browser`, which controls Chromium through the system's Python.
#[track_caller]
pub(crate) fn in_browser(script: &str, arguments: &[&str]) {
    let script = format!("{ROOT}/tests/browser/{script}");
    tool(Command::new("/usr/bin/python3").arg("-B").arg(script).args(arguments));
}

pub(crate) fn softhsm_module() -> String {
    let usual = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
    ];
    let found = usual.into_iter().find(|path| Path::new(path).exists());
    found.expect("SoftHSM2 is not installed: apt-get install softhsm2").to_owned()
}

/// Builds the faulty module once for all tests of this process.
pub(crate) fn faulty_module() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| build("faulty-module", &Path::new(CACHE).join("faulty-module")).join("libfaulty_module.so"))
}

/// Builds a separate test crate below `target`, and returns the output directory. Cargo reports it: the user's
/// configuration may name a target platform, which is then part of the path.
pub(crate) fn build(name: &str, target: &Path) -> PathBuf {
    let manifest = format!("{ROOT}/tests/{name}/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--quiet", "--message-format=json-render-diagnostics"]);
    cargo.args(["--manifest-path", &manifest]);
    let messages = tool(cargo.arg("--target-dir").arg(target));
    let mut artifacts = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let last = artifacts.rfind(|message| message["reason"] == "compiler-artifact");
    let file = last.and_then(|artifact| artifact["filenames"][0].as_str().map(PathBuf::from));
    file.expect("cargo says what it built").parent().unwrap().to_owned()
}

/// A directory on a disk: the agent refuses a state directory in memory, and a PIN file in memory never counts as
/// changed.
fn on_disk() -> PathBuf {
    const IN_MEMORY: [rustix::fs::FsWord; 2] = [0x0102_1994, 0x8584_58f6]; // tmpfs and ramfs, statfs(2)
    let is_on_disk = |path: &PathBuf| rustix::fs::statfs(path).is_ok_and(|found| !IN_MEMORY.contains(&found.f_type));
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let mut places = [Some(CACHE.into()), Some("/var/tmp".into()), home].into_iter().flatten();
    places.find(is_on_disk).expect("neither the target directory, /var/tmp nor HOME is on a disk")
}

/// A provisioned directory to copy from, made once a day for each set of arguments.
fn template(arguments: &[&str]) -> PathBuf {
    static MADE: OnceLock<Mutex<HashMap<String, PathBuf>>> = OnceLock::new();
    let day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let name = format!("token-{day}{}", arguments.join("_").replace('/', "-"));
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    made.entry(name.clone())
        .or_insert_with(|| {
            let path = Path::new(CACHE).join(&name);
            if !path.exists() {
                let new = Path::new(CACHE).join(format!("{name}.{}", std::process::id()));
                tool(Command::new(format!("{ROOT}/softhsm/provision")).arg(&new).args(arguments));
                // Another process may have been faster; its token is as good.
                let _ = fs::rename(&new, &path);
                let _ = fs::remove_dir_all(&new);
            }
            path
        })
        .clone()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(|_| ()).unwrap()
        }
    }
}
