//! `health`: checks whether the gateway is ready, or at least alive.

use std::path::Path;
use std::time::Duration;

use super::print;
use crate::library::{Deadline, Error, Result, agent_client};

pub(super) fn run(socket: &Path, live: bool) -> Result<()> {
    agent_client::health(socket, live, &Deadline::after(Duration::from_secs(10))).map_err(about_gateway)?;
    print(if live { "alive" } else { "ready" })
}

/// Converts an error of the agent's client library into one about the gateway. The library's texts name an agent.
pub(super) fn about_gateway(error: agent_client::ClientError) -> Error {
    let error = Error::from(error);
    let message = error
        .message
        .replace("the agent at", "the gateway at")
        .replace("not a cba-agent", "not a cba-gateway")
        .replace("the socket of an agent", "the admin socket of a gateway");
    Error::new(error.kind, message).hint("systemctl status cba-gateway; `cba-gateway check` tests each part")
}
