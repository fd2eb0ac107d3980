//! `health`: reports whether an agent is ready, or at least alive. For probes of hosts and containers without curl.
//!
//! Runs in the parent.

use clap::ArgMatches;

use crate::cli;
use crate::client;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::output::print;

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let configured = config.serve.socket.as_slice();
    let sockets = if config.sign.sockets.is_empty() { configured } else { &config.sign.sockets };
    let socket = match sockets {
        [socket] => socket,
        [] => return Err(Error::new(Kind::Usage, "no socket is named").hint("--socket PATH")),
        _ => return Err(Error::new(Kind::Usage, "only one socket is allowed").hint("--socket PATH")),
    };
    let live = cli::is_given(matches, "live");
    client::health(socket, live, &Deadline::after(config.sign.timeout))?;
    print(if live { "alive" } else { "ready" })
}
