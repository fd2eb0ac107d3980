//! Tests the running agent against `docs/openapi.yaml`: schemathesis generates valid and invalid requests from it, and
//! checks the answers.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;

use crate::agent::Agent;
use crate::examples::python;
use crate::fixture::{Fixture, tool};

/// Forwards TCP connections to the agent's socket, because schemathesis cannot use Unix sockets. Returns the TCP port. It
/// runs until the test's process ends.
fn bridge(socket: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, socket) = (listener.local_addr().unwrap().port(), socket.to_owned());
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let Ok(agent) = UnixStream::connect(&socket) else { return };
            let (to_agent, from_client) = (agent.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || copy_then(from_client, to_agent, |to| to.shutdown(Shutdown::Write)));
            thread::spawn(move || copy_then(agent, client, |to: &TcpStream| to.shutdown(Shutdown::Write)));
        }
    });
    port
}

/// Copies all bytes, and then ends the writing side.
fn copy_then<T: io::Write>(mut from: impl io::Read, mut to: T, end: impl Fn(&T) -> io::Result<()>) {
    let _ = io::copy(&mut from, &mut to);
    let _ = end(&to);
}

#[test]
fn the_agent_follows_its_openapi_description() {
    let fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--policy-payload-versions", "v2", "--policy-payload-versions", "v1"]);
    let url = format!("http://127.0.0.1:{}", bridge(&agent.socket));
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.yaml");
    let options = ["run", schema, "--url", &url, "--checks", "all", "--seed", "7", "--no-color"];
    let report = tool(
        Command::new(python())
            .args(["-B", "-c", "from schemathesis.cli import schemathesis; schemathesis()"])
            .args(options)
            .args(["--max-examples", "40"])
            .current_dir(fixture.path()),
    );
    assert!(report.contains("No issues found"), "{report}");
}
