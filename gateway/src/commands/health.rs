//! `health`: checks whether the gateway is ready, or at least alive.

use std::path::Path;
use std::time::Duration;

use super::print;
use crate::library::{Deadline, Error, Result, agent_client};

pub(super) fn run(socket: &Path, live: bool) -> Result<()> {
    agent_client::health(socket, live, &Deadline::after(Duration::from_secs(10))).map_err(gateway_error)?;
    print(if live { "alive" } else { "ready" })
}

/// Converts an error of the agent's library, whose texts name an agent, into an error that names the gateway.
pub(super) fn gateway_error(error: agent_client::ClientError) -> Error {
    let error = Error::from(error);
    let message = error
        .message
        .replace("the agent at", "the gateway at")
        .replace("not a cba-agent", "not a cba-gateway")
        .replace("the socket of an agent", "the admin socket of a gateway");
    Error::new(error.kind, message).hint("systemctl status cba-gateway; `cba-gateway check` tests each part")
}
