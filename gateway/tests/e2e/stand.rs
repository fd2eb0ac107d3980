//! A gateway with its own configuration, upstream service and identities.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::service::Service;
use crate::token::{GATEWAY_USER, is_root, public_directory, run, token};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_cba-gateway");

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A password as `enrol` makes one, and its SHA-256.
pub(crate) const PASSWORD: &str = "MARKER-PASSWORD-aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ";

/// What every gateway of a test is made from.
pub(crate) struct Stand {
    pub(crate) directory: TempDir,
    pub(crate) service: Service,
    /// Lines before the clients.
    pub(crate) tables: String,
    /// The clients.
    pub(crate) clients: String,
    pub(crate) environment: Vec<(String, String)>,
    /// The agent sockets.
    pub(crate) agents: Vec<PathBuf>,
    /// Above all tables.
    pub(crate) head: String,
}

/// A running `serve`, killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    notify: UnixDatagram,
    log: PathBuf,
    /// Port of the IPv4 listener.
    pub(crate) port: u16,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A run of the program that ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The Anaplan token of a login, which must have succeeded.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let token = body["tokenInfo"]["tokenValue"].as_str();
        token.unwrap_or_else(|| panic!("no token in {self:?}")).to_owned()
    }
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

impl Stand {
    /// A stand with the client `finance`, which has [`PASSWORD`] and the tool's certificate.
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
            // Others may not write: the admin socket and the log go where the gateway's user may.
            let run = directory.path().join("run");
            fs::create_dir(&run).unwrap();
            std::os::unix::fs::chown(&run, Some(GATEWAY_USER), Some(GATEWAY_USER)).unwrap();
        } else {
            fs::create_dir(directory.path().join("run")).unwrap();
        }
        let mut stand = Self {
            directory,
            service,
            tables: String::new(),
            clients: String::new(),
            environment: Vec::new(),
            agents: vec![token().socket.clone()],
            head: String::new(),
        };
        stand.copy(tls.join("ca.pem"), "ca.pem");
        stand.tool_identity("tool");
        stand.add_client("finance", "certificates = [\"DIR/tool.pem\"]\npayload_versions = [\"v1\", \"v2\"]");
        stand
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

    /// Adds a client that has [`PASSWORD`] with its name before it, for this user and for TLS on loopback.
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
        let head = if self.head.contains("listen") {
            String::new()
        } else {
            "listen = [\"127.0.0.1:0\", \"[::1]:0\"]\n".into()
        };
        let upstream = if self.tables.contains("[upstream]") {
            String::new()
        } else {
            format!("[upstream]\nauth_url = \"{}\"\nca_file = \"{}\"\n", self.service.url(), self.file("ca.pem"))
        };
        let admin = if self.tables.contains("[admin]") {
            String::new()
        } else {
            format!("[admin]\nsocket = \"{}\"\n", self.file("run/admin.sock"))
        };
        let text = format!(
            "{head}{}\n{upstream}[agent]\nsockets = [{}]\n{admin}{}\n{}",
            self.head,
            sockets.join(", "),
            self.tables.replace("DIR", &self.path().display().to_string()),
            self.clients
        );
        self.write("config.toml", text)
    }

    /// The program as the gateway's user.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        // The build's directory may be closed to that user.
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
        from_output(self.command(arguments).output().unwrap())
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
        let mut gateway = Gateway { child, notify, log, port: 0 };
        gateway.hear("READY=1");
        // The log is written by a thread of its own.
        gateway.wait_for_log("ready: ");
        gateway.port = gateway.port_of("plain HTTP on 127.0.0.1:").unwrap_or(0);
        gateway
    }

    /// A v1 or v2 login of the tool `name` with a message, as raw request text for a port.
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

/// A v2 message whose time is so many seconds from now.
pub(crate) fn message(offset: i64) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut message = now.saturating_add_signed(offset).to_be_bytes().to_vec();
    let mut random = [0; 92];
    getrandom::fill(&mut random).unwrap();
    message.extend(random);
    message
}

/// `Basic` credentials of a client of the stand.
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

impl Gateway {
    /// Waits until systemd would hear a line that begins so.
    #[track_caller]
    pub(crate) fn hear(&mut self, wanted: &str) {
        self.hear_or_log(wanted, None);
    }

    /// Waits until the log holds a text.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        let give_up = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < give_up, "the log never held {text:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the gateway has this number of open connections on its TCP listeners.
    #[track_caller]
    pub(crate) fn wait_for_connections(&self, number: usize) {
        let wanted = format!("cba_gateway_connections {number}");
        let give_up = Instant::now() + PATIENCE;
        while !self.admin("/metrics").lines().any(|line| line == wanted) {
            assert!(Instant::now() < give_up, "never {wanted}: {}", self.admin("/metrics"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the admin socket by curl, and returns the body.
    pub(crate) fn admin(&self, path: &str) -> String {
        let socket = self.log.with_file_name("run/admin.sock");
        let url = format!("http://localhost{path}");
        let output = Command::new("curl").args(["-sS", "--unix-socket"]).arg(socket).arg(&url).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn hear_or_log(&mut self, wanted: &str, give_up: Option<Instant>) {
        let give_up = give_up.unwrap_or(Instant::now() + PATIENCE);
        let mut buffer = [0; 4096];
        self.notify.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        loop {
            if let Ok(read) = self.notify.recv(&mut buffer) {
                if String::from_utf8_lossy(&buffer[..read]).lines().any(|line| line.starts_with(wanted)) {
                    return;
                }
            } else if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the gateway ended ({status}) without {wanted}: {}", self.log());
            }
            assert!(Instant::now() < give_up, "never heard {wanted}: {}", self.log());
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The port in a line of the log.
    pub(crate) fn port_of(&self, text: &str) -> Option<u16> {
        let log = self.log();
        let rest = &log[log.find(text)? + text.len()..];
        rest.lines().next()?.trim().parse().ok()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// SIGHUP, until the new set was judged.
    #[track_caller]
    pub(crate) fn reload(&mut self) {
        self.signal(rustix::process::Signal::HUP);
        self.hear("RELOADING=1");
        self.hear("READY=1");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < give_up, "the gateway does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes on a connection of its own, and reads one answer.
    #[track_caller]
    pub(crate) fn raw(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.connect();
        let _ = stream.write_all(request.as_ref());
        read_reply(&mut stream).unwrap_or_else(|| panic!("no answer: {}", self.log()))
    }

    /// The text of a request.
    pub(crate) fn text(&self, line: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut text =
            format!("{line} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: {}\r\n", self.port, body.len());
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        format!("{text}\r\n{body}")
    }

    #[track_caller]
    pub(crate) fn login(&self, authorization: &str, body: &str) -> Reply {
        self.raw(self.text("POST /token/authenticate", &[("Authorization", authorization)], body))
    }

    #[track_caller]
    pub(crate) fn with_token(&self, line: &str, token: &str) -> Reply {
        self.raw(self.text(line, &[("Authorization", &format!("AnaplanAuthToken {token}"))], ""))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One answer with its length; `None` where the connection closes without one.
pub(crate) fn read_reply(stream: &mut impl std::io::Read) -> Option<Reply> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut reply = Reply { status, head, body: String::new() };
    if status == 100 {
        return read_reply(stream);
    }
    let length = reply.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    stream.take(length).read_to_string(&mut reply.body).ok()?;
    Some(reply)
}
