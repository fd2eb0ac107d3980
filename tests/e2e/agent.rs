//! A running agent, observed through systemd's notify protocol, and a client that checks every answer.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::deadline::{PATIENCE, status};
use crate::fixture::{Fixture, tool};

/// `cba-agent serve`. Dropping it kills the process.
pub(crate) struct Agent {
    child: Child,
    notify: UnixDatagram,
    pub(crate) socket: String,
    log: String,
}

impl Agent {
    /// Starts the agent with this command. Returns when it reports that it serves its socket.
    pub(crate) fn start(fixture: &Fixture, command: Command) -> Self {
        Self::start_in(fixture, command, 0o700)
    }

    /// The same, with this mode for systemd's notify socket.
    pub(crate) fn start_in(fixture: &Fixture, command: Command, mode: u32) -> Self {
        let log = File::create(fixture.file("agent.log")).unwrap();
        Self::start_with_log(fixture, command, mode, log)
    }

    fn start_with_log(fixture: &Fixture, mut command: Command, mode: u32, stderr: impl Into<Stdio>) -> Self {
        let (log, path) = (fixture.file("agent.log"), fixture.file("notify"));
        let mut arguments = command.get_args().skip_while(|argument| *argument != "--socket");
        let socket = arguments.nth(1).map_or(fixture.file("agent.sock"), |path| path.to_str().unwrap().to_owned());
        let _ = fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        command.env("NOTIFY_SOCKET", &path).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(stderr).spawn().unwrap();
        // The command holds a copy of stderr.
        drop(command);
        let mut agent = Self { child, notify, socket, log };
        agent.wait_for_state("READY=1");
        agent
    }

    /// The default arguments of every agent here, unless `more` replaces them. The tests' own user may ask, unless
    /// `more` says otherwise.
    pub(crate) fn arguments(fixture: &Fixture, more: &[&str]) -> Vec<String> {
        let own = [
            ("--pin-source", fixture.pin_source()),
            ("--socket", fixture.file("agent.sock")),
            ("--rate-limit-per-second", "1000000".to_owned()),
            ("--allow-users", rustix::process::geteuid().as_raw().to_string()),
        ];
        let says_who = ["--socket-group", "--allow-groups"].iter().any(|flag| more.contains(flag));
        let is_given = |flag: &str| more.contains(&flag) || says_who && flag == "--allow-users";
        let own = own.into_iter().filter(|(flag, _)| !is_given(flag));
        let own = own.flat_map(|(flag, value)| [flag.to_owned(), value]);
        ["serve".to_owned()].into_iter().chain(own).chain(more.iter().map(|text| (*text).to_owned())).collect()
    }

    /// An agent on the fixture's token, after its login.
    pub(crate) fn ready(fixture: &Fixture, more: &[&str]) -> Self {
        let mut agent = Self::begun(fixture, more);
        agent.wait_for_state("STATUS=ready");
        agent
    }

    /// An agent that serves its socket, even if its token fails.
    pub(crate) fn begun(fixture: &Fixture, more: &[&str]) -> Self {
        let arguments = Self::arguments(fixture, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self::start(fixture, fixture.command(&arguments))
    }

    /// The same, with this stderr instead of a file.
    pub(crate) fn begun_with_log(fixture: &Fixture, more: &[&str], stderr: impl Into<Stdio>) -> Self {
        let command = fixture.command(&Self::arguments(fixture, more).iter().map(String::as_str).collect::<Vec<_>>());
        Self::start_with_log(fixture, command, 0o700, stderr)
    }

    /// Waits until the agent sends systemd a line with this beginning, and returns the line.
    #[track_caller]
    pub(crate) fn wait_for_state(&mut self, wanted: &str) -> String {
        let give_up = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        loop {
            let left = give_up.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.notify.set_read_timeout(Some(left.min(Duration::from_millis(200)))).unwrap();
            if let Ok(read) = self.notify.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                if let Some(line) = text.lines().find(|line| line.starts_with(wanted)) {
                    return line.to_owned();
                }
            } else if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the agent ended ({status}) without {wanted}: {}", self.log());
            }
            assert!(Instant::now() < give_up, "systemd was never told {wanted}: {}", self.log());
        }
    }

    /// Drops the messages to systemd that are not heard yet.
    pub(crate) fn forget_messages(&self) {
        self.notify.set_nonblocking(true).unwrap();
        while self.notify.recv(&mut [0; 4096]).is_ok() {}
        self.notify.set_nonblocking(false).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The log, as soon as this condition is true for it: a line is written shortly after the event.
    #[track_caller]
    pub(crate) fn logged(&self, holds: impl Fn(&str) -> bool) -> String {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if holds(&log) {
                return log;
            }
            assert!(Instant::now() < give_up, "this was never logged: {log}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        tool(Command::new("kill").args([signal, &self.child.id().to_string()]));
    }

    /// The worker processes.
    pub(crate) fn workers(&self) -> Vec<u32> {
        children(self.child.id())
    }

    /// Kills one of them, unless it has already ended: a worker whose token disappears may end itself.
    pub(crate) fn kill_worker(&self, worker: u32) {
        let worker = i32::try_from(worker).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        match rustix::process::kill_process(worker, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Its resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// One request on a new connection.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        let answer = Client::connect(&self.socket).exchange(method, path, body);
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}: {}", self.log()))
    }

    /// Returns a payload, or fails.
    #[track_caller]
    pub(crate) fn payload(&self) -> Value {
        let reply = self.ask("POST", "/sign", "{}");
        assert_eq!(reply.status, 200, "{reply:?}: {}", self.log());
        serde_json::from_str(&reply.body).unwrap()
    }

    /// Ends the agent, and returns its status and log.
    pub(crate) fn end(self, signal: &str) -> (ExitStatus, String) {
        self.signal(signal);
        self.ended()
    }

    /// Waits until the agent ends by itself, and returns its status and log.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = status(&mut self.child);
        (status, self.log())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All children of a process, of all its threads.
pub(crate) fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>()).collect()
}

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The code of a problem document.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("Content-Type"), Some("application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], status);
        problem["code"].as_str().unwrap().to_owned()
    }
}

/// A complete request for a payload, whose answer keeps the connection open.
pub(crate) const SIGN_REQUEST: &str = "POST /sign HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";

/// A kept connection.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    read: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(socket: &str) -> Self {
        Self::try_connect(socket).unwrap()
    }

    pub(crate) fn try_connect(socket: &str) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE * 2))?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Sends a request for a payload, and does not wait for the answer.
    pub(crate) fn send_sign_request(&mut self) {
        self.stream.write_all(SIGN_REQUEST.as_bytes()).unwrap();
    }

    /// `None` if the agent closed the connection without an answer.
    pub(crate) fn exchange(&mut self, method: &str, path: &str, body: &str) -> Option<Reply> {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        self.stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
        self.receive(method)
    }

    pub(crate) fn receive(&mut self, method: &str) -> Option<Reply> {
        let mut buffer = [0; 8192];
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(start) = response.parse(&self.read).expect("HTTP") {
                let headers: Vec<(String, String)> = response
                    .headers
                    .iter()
                    .map(|header| (header.name.to_owned(), String::from_utf8_lossy(header.value).into_owned()))
                    .collect();
                let mut reply = Reply { status: response.code.unwrap(), headers, body: String::new() };
                let length: usize = reply.header("Content-Length").map_or(0, |length| length.parse().unwrap());
                let length = if method == "HEAD" { 0 } else { length };
                if self.read.len() >= start + length {
                    reply.body = String::from_utf8(self.read[start..start + length].to_vec()).unwrap();
                    self.read.drain(..start + length);
                    return Some(reply);
                }
            }
            match self.stream.read(&mut buffer) {
                // A virtual machine that is frozen and thawed, for example for a snapshot, interrupts a read with a
                // time limit (signal(7)).
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                end @ (Ok(0) | Err(_)) => {
                    assert!(self.read.is_empty(), "an answer that was cut off: {end:?}");
                    return None;
                }
                Ok(read) => self.read.extend_from_slice(&buffer[..read]),
            }
        }
    }
}

/// Checks payloads with ring and one public key, and remembers every message.
pub(crate) struct PayloadVerifier {
    public_key: Vec<u8>,
    seen: Mutex<HashSet<Vec<u8>>>,
}

impl PayloadVerifier {
    /// With a public key in PKCS#1 DER.
    pub(crate) fn new(public_key: Vec<u8>) -> Self {
        Self { public_key, seen: Mutex::default() }
    }

    /// With the certificate in the request.
    pub(crate) fn of(fixture: &Fixture, request: &Value) -> Self {
        let header = request["headers"]["Authorization"].as_str().unwrap().strip_prefix("CACertificate ").unwrap();
        let certificate = fixture.write("verifier.der", STANDARD.decode(header).unwrap());
        let key = fixture.tool("openssl", &["x509", "-inform", "DER", "-in", &certificate, "-pubkey", "-noout"]);
        let (pem, der) = (fixture.write("verifier.pem", key), fixture.file("verifier.pkcs1"));
        fixture.tool("openssl", &["rsa", "-pubin", "-in", &pem, "-RSAPublicKey_out", "-outform", "DER", "-out", &der]);
        Self::new(fs::read(der).unwrap())
    }

    #[track_caller]
    pub(crate) fn accept(&self, request: &Value) {
        let decode = |member: &str| STANDARD.decode(request["body"][member].as_str().unwrap()).unwrap();
        let (message, signature) = (decode("encodedData"), decode("encodedSignedData"));
        assert_eq!(message.len(), 100);
        let algorithm = &ring::signature::RSA_PKCS1_2048_8192_SHA512;
        let key = ring::signature::UnparsedPublicKey::new(algorithm, &self.public_key);
        key.verify(&message, &signature).expect("a signature that verifies");
        assert!(self.seen.lock().unwrap().insert(message), "a message came twice");
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}
