//! `serve`: starts the agent on a Unix socket.
//!
//! Runs in the parent.

use crate::config::Config;
use crate::error::Result;
use crate::serve;

pub(super) fn run(mut config: Config) -> Result<()> {
    // No person reads the warnings of a service.
    config.refuse_open_module = true;
    serve::serve(config)
}
