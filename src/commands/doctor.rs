//! `doctor`: checks a host in the order in which a newcomer meets problems. Each failed check names a command that helps.
//!
//! Runs in the parent. It sends no PIN unless the user asks for a trial payload.

use clap::ArgMatches;

use super::sign::two_tokens;
use crate::cli;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::session::Login;

mod agent;
mod certificate;
mod findings;
mod host;
mod key;
mod p11_kit;
mod pcscd;
mod token;

use findings::Findings;

pub(super) fn run(matches: &ArgMatches, config: &Config) -> Result<()> {
    let mut findings = Findings::default();
    if let Some(path) = cli::given(matches, "certificate") {
        certificate::check(path, config, &mut findings)?;
        return findings.say(matches);
    }
    if asks_an_agent(matches, config)? {
        host::configuration(config, &mut findings);
        host::unknown_variables(&config.pin_variables, &mut findings);
        agent::check(config, cli::is_given(matches, "sign"), &mut findings);
        return findings.say(matches);
    }
    // Before any file is opened: a PIN may come from a descriptor.
    let login = cli::is_given(matches, "sign").then(|| Login::prepare(config));
    host::configuration(config, &mut findings);
    host::unknown_variables(&config.pin_variables, &mut findings);
    host::environment(&mut findings);
    token::check(config, login, &mut findings);
    host::clock(&mut findings);
    host::state(config, &mut findings);
    host::audit_log(config, &mut findings);
    host::agents(config, &mut findings);
    findings.say(matches)
}

/// Whether to check an agent instead of a token: with `--socket`, or if the configuration names an agent to ask and
/// neither a token nor a service of this host.
fn asks_an_agent(matches: &ArgMatches, config: &Config) -> Result<bool> {
    let own_token = cli::token_flag(matches);
    if cli::has_flag(matches, "sign.socket") {
        return own_token.map_or(Ok(true), |flag| Err(two_tokens(flag)));
    }
    let has_token = own_token.is_some() || config.module.is_some() || !config.token.is_empty();
    Ok(!config.sign.sockets.is_empty() && !has_token && config.serve.socket.is_none())
}

/// The report for a configuration that cannot be used.
pub(super) fn without_configuration(matches: &ArgMatches, error: &Error) -> Result<()> {
    let mut findings = Findings::default();
    findings.error("configuration", error);
    host::unknown_variables(&[], &mut findings);
    host::environment(&mut findings);
    host::clock(&mut findings);
    findings.say(matches)
}
