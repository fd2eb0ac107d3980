//! `docs/openapi.yaml` against the running agent: schemathesis generates valid and invalid requests from it, and checks
//! the answers.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;

use crate::agent::Agent;
use crate::clients::python;
use crate::stand::{Stand, tool};

/// Forwards TCP to the socket, for a program without Unix sockets. It lives as long as the test's process.
fn bridge(socket: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, socket) = (listener.local_addr().unwrap().port(), socket.to_owned());
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let Ok(agent) = UnixStream::connect(&socket) else { return };
            let (to_agent, from_client) = (agent.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || pass(from_client, to_agent, |to| to.shutdown(Shutdown::Write)));
            thread::spawn(move || pass(agent, client, |to: &TcpStream| to.shutdown(Shutdown::Write)));
        }
    });
    port
}

fn pass<T: io::Write>(mut from: impl io::Read, mut to: T, end: impl Fn(&T) -> io::Result<()>) {
    let _ = io::copy(&mut from, &mut to);
    let _ = end(&to);
}

#[test]
fn the_agent_follows_its_openapi_description() {
    let stand = Stand::new();
    let agent = Agent::ready(&stand, &["--policy-payload-versions", "v2", "--policy-payload-versions", "v1"]);
    let url = format!("http://127.0.0.1:{}", bridge(&agent.socket));
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.yaml");
    let own = ["run", schema, "--url", &url, "--checks", "all", "--seed", "7", "--no-color"];
    let said = tool(
        Command::new(python())
            .args(["-B", "-c", "from schemathesis.cli import schemathesis; schemathesis()"])
            .args(own)
            .args(["--max-examples", "40"])
            .current_dir(stand.path()),
    );
    assert!(said.contains("No issues found"), "{said}");
}
