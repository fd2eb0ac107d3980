//! `serve`: the agent on a Unix socket.

use crate::config::Config;
use crate::error::Result;
use crate::serve;

pub(super) fn run(mut config: Config) -> Result<()> {
    // Nobody is there to read a warning.
    config.refuse_open_module = true;
    serve::serve(config)
}
