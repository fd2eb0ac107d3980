//! `clients`: lists each client with its last login.

use std::path::Path;
use std::time::Duration;

use super::health::gateway_error;
use super::print;
use crate::admin::ClientStatus;
use crate::library::{Deadline, Error, Kind, Result, agent_client, utc};

/// Prints the clients as a table, or as the JSON that the gateway sent.
pub(super) fn run(socket: &Path, as_json: bool) -> Result<()> {
    let deadline = Deadline::after(Duration::from_secs(10));
    let answer = agent_client::get(socket, "/clients", &deadline).map_err(gateway_error)?;
    if as_json {
        return print(&String::from_utf8_lossy(&answer));
    }
    let clients: Vec<ClientStatus> = serde_json::from_slice(&answer)
        .map_err(|error| Error::new(Kind::Unexpected, format!("cannot read the gateway's answer: {error}")))?;
    let mut lines = vec![row(["CLIENT", "STATE", "LAST LOGIN", "CREDENTIALS", "OUTCOME"].map(str::to_owned))];
    for client in clients {
        let state = match (client.disabled, client.transition) {
            (true, _) => "disabled",
            (false, true) => "transition",
            (false, false) => "active",
        };
        let cells = match client.last {
            Some(last) => {
                let status =
                    if last.upstream_status == 0 { String::new() } else { format!(" ({})", last.upstream_status) };
                [client.name, state.into(), utc(last.time), last.credentials, format!("{}{status}", last.outcome)]
            }
            None => [client.name, state.into(), "none since the start".into(), "-".into(), "-".into()],
        };
        lines.push(row(cells));
    }
    print(&lines.join("\n"))
}

fn row([name, state, last, credentials, outcome]: [String; 5]) -> String {
    format!("{name:<20} {state:<11} {last:<21} {credentials:<11} {outcome}").trim_end().to_owned()
}
