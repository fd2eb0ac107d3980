//! `serve`: the agent on a Unix socket.

use crate::agent;
use crate::config::Config;
use crate::error::Result;

pub(super) fn run(mut config: Config) -> Result<()> {
    // Nobody is there to read a warning.
    config.refuse_open_module = true;
    agent::serve(config)
}
