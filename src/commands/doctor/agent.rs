//! Checks of an agent for the user of a job. Is it reachable? May this user ask? Is it ready? Which certificate does it use?
//!
//! Runs in the parent. It does not touch a module, a token or a PIN: these belong to the agent.

use std::path::Path;

use super::findings::Findings;
use super::host;
use super::token::judge;
use crate::certificate::Certificate;
use crate::client::{self, ClientError};
use crate::commands::sign::ask;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::serve::socket_file;

/// Checks each agent. With `trial` it asks each for a payload, and discards it.
pub(super) fn check(config: &Config, trial: bool, findings: &mut Findings) {
    findings.ok("user", socket_file::own_name());
    for socket in &config.sign.sockets {
        one(socket, config, trial, findings);
    }
    host::clock(findings);
}

fn one(socket: &Path, config: &Config, trial: bool, findings: &mut Findings) {
    let shown = socket.display();
    let get = |resource| client::get(socket, resource, &Deadline::after(config.sign.timeout));
    match get("/healthz") {
        Ok(_) => findings.ok("agent", format!("answers at {shown}")),
        Err(ClientError::Refused { kind: Kind::NotAllowed, .. }) => {
            findings.ok("agent", format!("answers at {shown}"));
            return refused(findings, "the agent refuses this user");
        }
        Err(error) => return unreachable(socket, error, findings),
    }
    // The agent checks the user before the method.
    match get("/sign") {
        Err(ClientError::Refused { kind: Kind::NotAllowed, .. }) => {
            refused(findings, "this user may read the state, but not ask for payloads")
        }
        Err(ClientError::Refused { code, .. }) if code == "method_not_allowed" => {
            findings.ok("may ask", "this user may ask for payloads");
        }
        Err(error) => findings.error("may ask", &error.into()),
        Ok(_) => {
            findings.fail("may ask", "the process that answers is not a cba-agent", "check the path of the socket")
        }
    }
    let ready = get("/readyz");
    let is_ready = ready.is_ok();
    match ready {
        Ok(_) => findings.ok("ready", "a worker is logged in, and the token answers"),
        Err(error) => findings.error("ready", &error.into()),
    }
    match get("/certificate").map(|answer| Certificate::from_pem(&answer)) {
        Ok(Ok(certificate)) => {
            findings.ok("identity", certificate.subject.clone());
            judge(&certificate, config, "tell the administrators of the agent", findings);
        }
        Ok(Err(error)) => findings.fail("certificate", error.to_string(), "tell the administrators of the agent"),
        // An agent has no certificate until it is ready, and the line before says that it is not.
        Err(_) if !is_ready => {}
        Err(error) => findings.error("certificate", &error.into()),
    }
    if trial {
        match ask(config, socket, None) {
            Ok(_) => findings.ok("trial payload", "signed, verified, and discarded"),
            Err(error) => findings.error("trial payload", &error),
        }
    }
}

/// Explains why the agent cannot be reached, as far as this process can see.
fn unreachable(socket: &Path, error: ClientError, findings: &mut Findings) {
    let error = Error::from(error);
    match socket_file::own_obstacle(socket) {
        Some(obstacle) => findings.fail("agent", format!("{}: {}", error.message, obstacle.why), obstacle.remedy),
        None => findings.error("agent", &error),
    }
}

fn refused(findings: &mut Findings, found: &str) {
    let remedy = "ask the agent's administrator to add this user to socket_group or allow_users; new groups apply after a new login";
    findings.fail("may ask", found, remedy);
}
