//! A running agent, the memory of its processes, and the minimal program that is measured instead of it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::Token;

/// `cba-agent serve`. Dropping it ends the process.
pub(crate) struct Agent {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Agent {
    /// Starts an agent with this number of workers. Returns when all of them are ready.
    pub(crate) fn start(token: &Token, workers: usize, more: &[&str]) -> Self {
        let mut command = token.agent("serve");
        command.args(more);
        Self::start_as(token, command, workers)
    }

    /// The same, with a given command.
    pub(crate) fn start_as(token: &Token, mut command: Command, workers: usize) -> Self {
        let socket = token.path().join("agent.sock");
        command.args(["--workers", &workers.to_string(), "--rate-limit-per-second", "1000000", "--queue", "1024"]);
        // The agent's own user may ask only where `allow_users` names it.
        command.args(["--allow-users", &rustix::process::geteuid().as_raw().to_string()]);
        command.args(["--socket", &socket.display().to_string()]).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = child.stderr.take().unwrap();
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while String::from_utf8_lossy(&text).matches("is ready with").count() < workers || !socket.exists() {
            let read = log.read(&mut buffer).unwrap();
            assert!(read > 0, "the agent ended: {}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&buffer[..read]);
        }
        // Read the log to its end, as a service manager does.
        std::thread::spawn(move || while log.read(&mut buffer).is_ok_and(|read| read > 0) {});
        UnixStream::connect(&socket).unwrap();
        Self { child, socket }
    }

    /// The parent and its workers.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let children = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flat_map(|task| {
            let list = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
            list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>()
        });
        [self.child.id()].into_iter().chain(children).collect()
    }

    /// Resident kilobytes of the parent and its workers. Shared pages count once for each process.
    pub(crate) fn resident(&self) -> f64 {
        let of = |id: u32| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap()
        };
        self.processes().into_iter().map(of).sum()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        end(&mut self.child, &self.socket);
    }
}

/// A parent in C that only passes messages between its clients and its workers.
pub(crate) struct Relay {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Relay {
    pub(crate) fn start(token: &Token, workers: usize) -> Self {
        let socket = token.path().join("relay.sock");
        let mut command = token.bare("relay", &[&workers.to_string(), &socket.display().to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, socket }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        end(&mut self.child, &self.socket);
    }
}

/// Ends a server and removes its socket.
pub(crate) fn end(child: &mut Child, socket: &Path) {
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let _ = kill_process(id, Signal::TERM);
    let _ = child.wait();
    let _ = fs::remove_file(socket);
}
