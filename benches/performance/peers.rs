//! Other programs that sign with the same token, measured alternately with the agent: `pkcs11-tool` and OpenSSL for one
//! signature, ssh-agent and the server of p11-kit for many.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Token;
use crate::agent::{Agent, end};
use crate::load::{self, Protocol};
use crate::report::{Report, Target, percentile, ratios};
use crate::token::{module, program};

const ROUNDS: usize = 5;
const RUNS: usize = 40;
const TIME: Duration = Duration::from_secs(2);

pub(crate) fn run(report: &mut Report) {
    let token = Token::new(2048);
    one_signature(report, &token);
    many_signatures(report, &token);
}

/// One signature by one process: medians of 40 runs, in turn.
fn one_signature(report: &mut Report, token: &Token) {
    fs::write(token.path().join("message"), [7; 100]).unwrap();
    // OpenSSL's engine takes a newline for a part of the PIN.
    fs::write(token.path().join("pin-without-newline"), pin(token)).unwrap();
    let agent = Agent::start(token, 1, &[]);
    let through_socket = || {
        let mut command = token.command(program());
        command.args(["sign", "--socket", &agent.socket.display().to_string()]);
        command
    };
    let programs: [(&str, &dyn Fn() -> Command); 5] = [
        ("bare signer", &|| token.bare("sign", &[])),
        ("`cba-agent sign`", &|| token.agent("sign")),
        ("`pkcs11-tool --sign`", &|| pkcs11_tool(token)),
        ("OpenSSL with its PKCS#11 engine", &|| openssl(token)),
        ("`cba-agent sign --socket`", &through_socket),
    ];
    let rounds: Vec<Vec<f64>> = (0..=ROUNDS)
        .map(|_| {
            let mut times = vec![Vec::new(); programs.len()];
            for _ in 0..RUNS {
                for ((name, program), times) in programs.iter().zip(&mut times) {
                    times.push(seconds_of(name, program()));
                }
            }
            times.into_iter().map(|mut times| percentile(&mut times, 50.0)).collect()
        })
        // The first round warms the caches.
        .skip(1)
        .collect();
    report.add("one bare signer, in milliseconds", rounds.iter().map(|round| round[0] * 1e3).collect(), Target::None);
    for (column, (name, _)) in programs.iter().enumerate().skip(1) {
        report.add(&format!("{name} / bare signer"), ratios(&rounds, column, 0), Target::None);
    }
    report.add("`cba-agent sign` / `pkcs11-tool --sign`", ratios(&rounds, 1, 2), Target::AtMost(1.0));
    report.add("`cba-agent sign` / OpenSSL with its PKCS#11 engine", ratios(&rounds, 1, 3), Target::None);
}

fn seconds_of(name: &str, mut command: Command) -> f64 {
    let start = Instant::now();
    let status = command.status().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    // Only the name: the environment of a command may hold the test token's PIN.
    assert!(status.success(), "{name} failed");
    seconds
}

/// `pkcs11-tool --sign`, with the PIN in its environment.
pub(crate) fn pkcs11_tool(token: &Token) -> Command {
    let mut command = token.command("pkcs11-tool");
    command.args(["--module", &module(), "--login", "--pin", "env:TOKEN_PIN", "--sign", "--id", "01"]);
    command.args(["--mechanism", "SHA512-RSA-PKCS", "--input-file", &token.file("message")]);
    command.args(["--output-file", &token.file("signature")]).env("TOKEN_PIN", pin(token));
    command
}

fn openssl(token: &Token) -> Command {
    let mut command = token.command("openssl");
    command.args(["dgst", "-sha512", "-engine", "pkcs11", "-keyform", "engine"]);
    command.args([
        "-sign",
        &format!("pkcs11:token=cba;id=%01;type=private?pin-source=file:{}", token.file("pin-without-newline")),
    ]);
    command.args(["-out", &token.file("signature"), &token.file("message")]).env("PKCS11_MODULE_PATH", module());
    command
}

fn pin(token: &Token) -> String {
    fs::read_to_string(token.path().join("pin")).unwrap().trim().to_owned()
}

/// Signatures a second by servers, relative to bare threads in the same round.
fn many_signatures(report: &mut Report, token: &Token) {
    let bare = |threads: &str| token.measured("rate", &[threads, &milliseconds()]).trim().parse::<f64>().unwrap();
    let ssh = SshAgent::start(token);
    let p11_kit = P11KitServer::start(token);
    let agent = |workers, clients| {
        let agent = Agent::start(token, workers, &[]);
        load::closed(&agent.socket, clients, TIME / 4);
        load::closed(&agent.socket, clients, TIME).0
    };
    let columns: [(&str, &dyn Fn() -> f64); 9] = [
        ("bare, 1 thread", &|| bare("1")),
        ("bare, 2 threads", &|| bare("2")),
        ("cba-agent, 1 worker, 1 client", &|| agent(1, 1)),
        ("cba-agent, 1 worker, 8 clients", &|| agent(1, 8)),
        ("cba-agent, 2 workers, 8 clients", &|| agent(2, 8)),
        ("ssh-agent, 1 client", &|| ssh.rate(1)),
        ("ssh-agent, 8 clients", &|| ssh.rate(8)),
        ("p11-kit server, 1 client", &|| p11_kit.rate(token, 1)),
        ("p11-kit server, 8 clients", &|| p11_kit.rate(token, 8)),
    ];
    let rounds: Vec<Vec<f64>> = (0..ROUNDS).map(|_| columns.iter().map(|(_, rate)| rate()).collect()).collect();
    let signatures = rounds.iter().map(|round| round[0]).collect();
    report.add("signatures a second by one bare thread", signatures, Target::None);
    for (column, (name, _)) in columns.iter().enumerate().skip(1) {
        let target = match *name {
            "cba-agent, 1 worker, 1 client" => Target::AtLeast(0.80),
            "cba-agent, 1 worker, 8 clients" => Target::AtLeast(0.90),
            _ => Target::None,
        };
        report.add(&format!("{name} / bare, 1 thread"), ratios(&rounds, column, 0), target);
    }
    report.add("cba-agent, 2 workers, 8 clients / bare, 2 threads", ratios(&rounds, 4, 1), Target::AtLeast(0.85));
    report.add("cba-agent / ssh-agent, 1 client", ratios(&rounds, 2, 5), Target::AtLeast(1.0));
    report.add("cba-agent / p11-kit server, 1 client", ratios(&rounds, 2, 7), Target::AtLeast(1.0));
}

fn milliseconds() -> String {
    TIME.as_millis().to_string()
}

/// OpenSSH's agent with the token's key, ended when dropped.
struct SshAgent {
    child: Child,
    socket: PathBuf,
    protocol: Protocol,
}

impl SshAgent {
    fn start(token: &Token) -> Self {
        let socket = token.path().join("ssh-agent.sock");
        let mut command = token.command("ssh-agent");
        let mut child = command.args(["-D", "-a"]).arg(&socket).stdout(Stdio::piped()).spawn().unwrap();
        // ssh-agent prints its first line once it listens.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("SSH_AUTH_SOCK"), "ssh-agent: {line}");
        let askpass = token.path().join("askpass");
        fs::write(&askpass, format!("#!/bin/sh\nexec cat '{}'\n", token.file("pin"))).unwrap();
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o700)).unwrap();
        let mut add = token.command("ssh-add");
        add.args(["-s", &module()]).env("SSH_AUTH_SOCK", &socket);
        add.env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force");
        assert!(add.status().unwrap().success(), "ssh-add -s failed");
        let protocol = Protocol { request: sign_request(&socket), is_complete: is_complete_signature };
        Self { child, socket, protocol }
    }

    fn rate(&self, clients: usize) -> f64 {
        load::closed_by(&self.protocol, &self.socket, clients, TIME).0
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        end(&mut self.child, &self.socket);
    }
}

/// SSH_AGENTC_SIGN_REQUEST for the agent's first key, 100 bytes and rsa-sha2-512 (draft-ietf-sshm-ssh-agent, section 3.6).
fn sign_request(socket: &Path) -> Vec<u8> {
    const REQUEST_IDENTITIES: u8 = 11;
    const SIGN_REQUEST: u8 = 13;
    const RSA_SHA2_512: u32 = 4;
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(&string(&[REQUEST_IDENTITIES])).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut reply).unwrap();
    // Type, number of keys, then the length of the first key.
    let key_length = u32::from_be_bytes(reply[5..9].try_into().unwrap()) as usize;
    let key = &reply[9..9 + key_length];
    string(&[&[SIGN_REQUEST], &string(key)[..], &string(&[7; 100]), &RSA_SHA2_512.to_be_bytes()].concat())
}

/// A length of four bytes and the content (RFC 4251, section 5).
fn string(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&length.to_be_bytes(), content].concat()
}

fn is_complete_signature(reply: &[u8]) -> bool {
    const SIGN_RESPONSE: u8 = 14;
    let Some((length, content)) = reply.split_at_checked(4) else { return false };
    let is_complete = content.len() == u32::from_be_bytes(length.try_into().unwrap()) as usize;
    assert!(!is_complete || content[0] == SIGN_RESPONSE, "ssh-agent refused to sign");
    is_complete
}

/// The server of p11-kit, ended when dropped. Each client is a process with the client module.
struct P11KitServer {
    child: Child,
    socket: PathBuf,
}

impl P11KitServer {
    fn start(token: &Token) -> Self {
        let socket = token.path().join("p11-kit.sock");
        let mut command = token.command("p11-kit");
        command.args(["server", "--foreground", "--sh", "--provider", &module(), "--name"]).arg(&socket);
        let mut child = command.arg("pkcs11:token=cba").stdout(Stdio::piped()).spawn().unwrap();
        // The server prints two lines once it listens: its address and its process ID.
        let mut output = BufReader::new(child.stdout.take().unwrap());
        for variable in ["P11_KIT_SERVER_ADDRESS", "P11_KIT_SERVER_PID"] {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert!(line.starts_with(variable), "p11-kit server: {line}");
        }
        Self { child, socket }
    }

    fn rate(&self, token: &Token, clients: usize) -> f64 {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..clients).map(|_| scope.spawn(|| self.rate_of_one(token))).collect();
            all.into_iter().map(|client| client.join().unwrap()).sum()
        })
    }

    /// p11-kit 0.24 fails some clients with CKR_GENERAL_ERROR when several connect at once; those try again.
    fn rate_of_one(&self, token: &Token) -> f64 {
        const ATTEMPTS: usize = 10;
        let run = |_| {
            let mut command = token.bare_with(&client_module(), "rate", &["1", &milliseconds()]);
            command.env("P11_KIT_SERVER_ADDRESS", format!("unix:path={}", self.socket.display()));
            let output = command.stdout(Stdio::piped()).stderr(Stdio::null()).output().unwrap();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().parse::<f64>().unwrap())
        };
        (0..ATTEMPTS).find_map(run).expect("a client of p11-kit server failed each time")
    }
}

impl Drop for P11KitServer {
    fn drop(&mut self) {
        end(&mut self.child, &self.socket);
    }
}

fn client_module() -> String {
    let directories = ["/usr/lib/x86_64-linux-gnu/pkcs11", "/usr/lib/aarch64-linux-gnu/pkcs11", "/usr/lib64/pkcs11"];
    let mut files = directories.into_iter().map(|directory| Path::new(directory).join("p11-kit-client.so"));
    let found = files.find(|file| file.exists());
    found.expect("p11-kit's client is not installed: apt-get install p11-kit p11-kit-modules").display().to_string()
}
