//! Reads the configuration of a command, and starts the log.
//!
//! Runs in the parent.

use std::ffi::OsStr;

use clap::ArgMatches;

use crate::cli;
use crate::config::{Config, Settings, variables};
use crate::error::Result;
use crate::log;

/// Reads the configuration and starts the log.
pub(super) fn configure(matches: &ArgMatches) -> Result<Config> {
    let file = cli::given(matches, "config").map(OsStr::new);
    let settings = Settings::gather(file, |name| std::env::var_os(name), cli::flag_values(matches))?;
    let settings = settings.under_system_policy()?;
    let config = Config::resolve(&settings, cli::is_given(matches, "module-debug"))?;
    log::start(config.log, matches.get_count("verbose"));
    if config.module_debug {
        tracing::warn!("--module-debug: the module may write the PIN into its debug log; delete that log afterwards");
    }
    Ok(config)
}

/// Warns about variables with our prefix that do not exist: their values have no effect.
pub(super) fn warn_of_unknown_variables(config: &Config) {
    for unknown in variables::unknown(std::env::vars_os().map(|(name, _)| name), &config.pin_variables) {
        tracing::warn!("{}; {}", unknown.reason(), unknown.remedy());
    }
}
