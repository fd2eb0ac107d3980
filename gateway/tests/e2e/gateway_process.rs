//! A running gateway, and requests to it.

use crate::deadline::Finish as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// The time limit of a test's wait. Nothing here takes so long, even on a busy machine.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A running `serve`, killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    notify: UnixDatagram,
    log: PathBuf,
    /// Port of the IPv4 listener.
    pub(crate) port: u16,
}

/// A parsed reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
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

impl Gateway {
    /// Waits until a started process is ready, and reads its port from the log.
    #[track_caller]
    pub(crate) fn started(child: Child, notify: UnixDatagram, log: PathBuf) -> Self {
        let mut gateway = Self { child, notify, log, port: 0 };
        gateway.wait_for_notification("READY=1");
        // A separate thread writes the log.
        gateway.wait_for_log("ready: ");
        gateway.port = gateway.port_of("plain HTTP on 127.0.0.1:").unwrap_or(0);
        gateway
    }

    /// Waits until the gateway notifies systemd with a line that begins with `wanted`.
    #[track_caller]
    pub(crate) fn wait_for_notification(&mut self, wanted: &str) {
        let give_up = Instant::now() + TIME_LIMIT;
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
            assert!(Instant::now() < give_up, "no notification {wanted}: {}", self.log());
        }
    }

    /// Waits until the log contains a text.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        self.wait_for_log_lines(text, 1);
    }

    /// Waits until the log contains a text this many times, and returns the log.
    #[track_caller]
    pub(crate) fn wait_for_log_lines(&self, text: &str, number: usize) -> String {
        let give_up = Instant::now() + TIME_LIMIT;
        loop {
            let log = self.log();
            if log.matches(text).count() >= number {
                return log;
            }
            assert!(Instant::now() < give_up, "the log never contained {text:?} {number} times: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the gateway has this number of open connections on its TCP listeners.
    #[track_caller]
    pub(crate) fn wait_for_connections(&self, number: usize) {
        let wanted = format!("cba_gateway_connections {number}");
        let give_up = Instant::now() + TIME_LIMIT;
        while !self.admin("/metrics").lines().any(|line| line == wanted) {
            assert!(Instant::now() < give_up, "never {wanted}: {}", self.admin("/metrics"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a GET to the admin socket with curl, and returns the body.
    pub(crate) fn admin(&self, path: &str) -> String {
        let socket = self.log.with_file_name("run/admin.sock");
        let url = format!("http://localhost{path}");
        let output = Command::new("curl").args(["-sS", "--unix-socket"]).arg(socket).arg(&url).finish();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The port that follows a text in the log.
    pub(crate) fn port_of(&self, text: &str) -> Option<u16> {
        let log = self.log();
        let rest = &log[log.find(text)? + text.len()..];
        rest.lines().next()?.trim().parse().ok()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Sends SIGHUP, and waits until the gateway has accepted or rejected the new configuration.
    #[track_caller]
    pub(crate) fn reload(&mut self) {
        self.signal(rustix::process::Signal::HUP);
        self.wait_for_notification("RELOADING=1");
        self.wait_for_notification("READY=1");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let give_up = Instant::now() + TIME_LIMIT;
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
        stream.set_read_timeout(Some(TIME_LIMIT)).unwrap();
        stream
    }

    /// Sends bytes on a new connection, and reads one reply.
    #[track_caller]
    pub(crate) fn send(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.connect();
        let _ = stream.write_all(request.as_ref());
        read_reply(&mut stream).unwrap_or_else(|| panic!("no reply: {}", self.log()))
    }

    /// The text of a request.
    pub(crate) fn request_text(&self, line: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut text =
            format!("{line} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: {}\r\n", self.port, body.len());
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        format!("{text}\r\n{body}")
    }

    #[track_caller]
    pub(crate) fn login(&self, authorization: &str, body: &str) -> Reply {
        self.send(self.request_text("POST /token/authenticate", &[("Authorization", authorization)], body))
    }

    #[track_caller]
    pub(crate) fn with_token(&self, line: &str, token: &str) -> Reply {
        self.send(self.request_text(line, &[("Authorization", &format!("AnaplanAuthToken {token}"))], ""))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads one reply with a body of its length. Returns `None` if the connection closes without a reply.
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
