//! The configuration, upstream service, local identities and agents of a test's gateway.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::deadline::Finish as _;
use crate::gateway_process::Gateway;
use crate::service::Service;
use crate::token::{GATEWAY_USER, is_root, public_directory, run, token};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_cba-gateway");

/// The end of each client's password. Before it come the name of the client and a hyphen.
pub(crate) const PASSWORD: &str = "MARKER-PASSWORD-aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ";

/// The directory, configuration, upstream service and agents of a test's gateway.
pub(crate) struct Fixture {
    pub(crate) directory: TempDir,
    pub(crate) service: Service,
    /// TOML tables other than the clients.
    pub(crate) toml_tables: String,
    /// The `[[client]]` tables.
    pub(crate) clients: String,
    pub(crate) environment: Vec<(String, String)>,
    /// The agent sockets.
    pub(crate) agents: Vec<PathBuf>,
    /// TOML keys that come before all tables.
    pub(crate) top_keys: String,
}

/// A finished run of the program.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// TLS certificates of the test: a CA, the service's leaf, the gateway's leaf (`localhost`).
pub(crate) fn tls_files() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = token().path.join("tls");
        fs::create_dir_all(&path).unwrap();
        let openssl = |arguments: &str| {
            run(Command::new("openssl").args(arguments.split(' ')).current_dir(&path));
        };
        let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(&format!("req -x509 {ec} -keyout ca.key -out ca.pem -days 30 -subj /CN=cba-gateway-test-CA"));
        openssl(&format!("req {ec} -keyout leaf.key -out leaf.csr -subj /CN=localhost"));
        fs::write(path.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n").unwrap();
        openssl("x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out leaf.pem");
        path
    })
}

impl Fixture {
    /// A fixture with the client `finance`, which has a password and the certificate `tool.pem`.
    pub(crate) fn new() -> Self {
        let tls = tls_files();
        let read = |path: PathBuf| fs::read(path).unwrap();
        let service = Service::start(
            0,
            &read(tls.join("leaf.pem")),
            &read(tls.join("leaf.key")),
            &read(token().path.join("cert.pem")),
        );
        let directory = public_directory("cba-gateway-test");
        if is_root() {
            // Only root can write the directory. The gateway's user writes the admin socket and other files below `run`.
            let run = directory.path().join("run");
            fs::create_dir(&run).unwrap();
            std::os::unix::fs::chown(&run, Some(GATEWAY_USER), Some(GATEWAY_USER)).unwrap();
        } else {
            fs::create_dir(directory.path().join("run")).unwrap();
        }
        let mut fixture = Self {
            directory,
            service,
            toml_tables: String::new(),
            clients: String::new(),
            environment: Vec::new(),
            agents: vec![token().socket.clone()],
            top_keys: String::new(),
        };
        fixture.copy(tls.join("ca.pem"), "ca.pem");
        fixture.tool_identity("tool");
        fixture.add_client("finance", "certificates = [\"DIR/tool.pem\"]\npayload_versions = [\"v1\", \"v2\"]");
        fixture
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path().join(name), content).unwrap();
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
        self.file(name)
    }

    pub(crate) fn copy(&self, from: impl AsRef<Path>, name: &str) {
        self.write(name, fs::read(from).unwrap());
    }

    pub(crate) fn openssl(&self, arguments: &[&str]) -> String {
        run(Command::new("openssl").args(arguments).current_dir(self.path()))
    }

    /// A local identity: `NAME.key` and a self-signed `NAME.pem`, as docs/gateway.md makes it.
    pub(crate) fn tool_identity(&self, name: &str) {
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &pem, "-days", "30", "-subj",
            &subject,
        ]);
        fs::set_permissions(self.path().join(&pem), fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// Adds a client with a password that ends in [`PASSWORD`], for this user and for TLS on loopback.
    pub(crate) fn add_client(&mut self, name: &str, more: &str) {
        use sha2::Digest as _;
        let sha256: String =
            sha2::Sha256::digest(format!("{name}-{PASSWORD}")).iter().map(|byte| format!("{byte:02x}")).collect();
        let user = rustix::process::geteuid().as_raw();
        let more = more.replace("DIR", &self.path().display().to_string());
        let mut lines = vec![format!("[[client]]\nname = \"{name}\"\npassword_sha256 = [\"{sha256}\"]")];
        for (key, value) in [
            ("users", format!("[{user}]")),
            ("from", "[\"127.0.0.0/8\", \"::1\"]".into()),
            ("rate_limit_per_minute", "100000".into()),
        ] {
            if !more.contains(&format!("{key} =")) {
                lines.push(format!("{key} = {value}"));
            }
        }
        self.clients.push_str(&format!("{}\n{more}\n", lines.join("\n")));
    }

    /// Writes the configuration, and returns its path.
    pub(crate) fn configure(&self) -> String {
        let sockets: Vec<String> = self.agents.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
        let listen = if self.top_keys.contains("listen") {
            String::new()
        } else {
            "listen = [\"127.0.0.1:0\", \"[::1]:0\"]\n".into()
        };
        let upstream = if self.toml_tables.contains("[upstream]") {
            String::new()
        } else {
            format!("[upstream]\nauth_url = \"{}\"\nca_file = \"{}\"\n", self.service.url(), self.file("ca.pem"))
        };
        let admin = if self.toml_tables.contains("[admin]") {
            String::new()
        } else {
            format!("[admin]\nsocket = \"{}\"\n", self.file("run/admin.sock"))
        };
        let text = format!(
            "{listen}{}\n{upstream}[agent]\nsockets = [{}]\n{admin}{}\n{}",
            self.top_keys,
            sockets.join(", "),
            self.toml_tables.replace("DIR", &self.path().display().to_string()),
            self.clients
        );
        self.write("config.toml", text)
    }

    /// The program as the gateway's user.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        // The gateway's user may have no access to the build directory.
        let binary = self.path().join("cba-gateway");
        if !binary.exists() && fs::hard_link(BINARY, &binary).is_err() {
            fs::copy(BINARY, &binary).unwrap();
        }
        let mut command = Command::new(binary);
        command.env_clear().current_dir("/").stdin(Stdio::null()).args(arguments);
        // An ordinary user can only run the agent and the gateway as one user.
        if !is_root() && matches!(arguments.first(), Some(&"serve" | &"check")) {
            command.arg("--single-user");
        }
        command.envs(self.environment.iter().cloned());
        if is_root() {
            command.uid(GATEWAY_USER).gid(GATEWAY_USER);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        from_output(self.command(arguments).finish())
    }

    /// Starts the gateway, which must become ready.
    #[track_caller]
    pub(crate) fn serve(&self) -> Gateway {
        let config = self.configure();
        self.start(self.command(&["serve", "--config", &config]))
    }

    #[track_caller]
    pub(crate) fn start(&self, mut command: Command) -> Gateway {
        let (log, path) = (self.path().join("gateway.log"), self.path().join("notify"));
        let _ = fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        command.env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let child = command.spawn().unwrap();
        Gateway::started(child, notify, log)
    }

    /// The `Authorization` header and the body of a v1 or v2 login of the tool `name` with a message.
    pub(crate) fn certificate_login(&self, name: &str, version: &str, message: &[u8]) -> (String, String) {
        let der = self.path().join(format!("{name}.der"));
        self.openssl(&["x509", "-in", &format!("{name}.pem"), "-outform", "DER", "-out", &format!("{name}.der")]);
        let header = format!("CACertificate {}", STANDARD.encode(fs::read(der).unwrap()));
        let signature = self.sign(name, message);
        let format = if version == "v2" { "\"encodedDataFormat\":\"v2\"," } else { "" };
        let body = format!(
            "{{{format}\"encodedData\":\"{}\",\"encodedSignedData\":\"{}\"}}",
            STANDARD.encode(message),
            STANDARD.encode(signature)
        );
        (header, body)
    }

    pub(crate) fn sign(&self, name: &str, message: &[u8]) -> Vec<u8> {
        self.write("message", message);
        let key = format!("{name}.key");
        self.openssl(&["dgst", "-sha512", "-sign", &key, "-out", "signature", "message"]);
        fs::read(self.path().join("signature")).unwrap()
    }
}

/// A v2 message whose time is `offset` seconds from now.
pub(crate) fn message(offset: i64) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut message = now.saturating_add_signed(offset).to_be_bytes().to_vec();
    let mut random = [0; 92];
    getrandom::fill(&mut random).unwrap();
    message.extend(random);
    message
}

/// The `Basic` credentials of a client.
pub(crate) fn basic(name: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{name}-{PASSWORD}")))
}

fn from_output(output: Output) -> Run {
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
