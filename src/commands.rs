//! One file per subcommand, and the way from the command line to them.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};

use clap::ArgMatches;
use rustix::fs::{OFlags, fcntl_getfl, fstat, major, minor};

use crate::cli;
use crate::config::{Config, Settings, by_name, variables};
use crate::error::{Error, Kind, Result};
use crate::worker::{self, Spare};
use crate::{log, process};

use early_arguments::{in_order, may_need_no_worker, refuse_pin};

mod audit;
mod certificate;
mod completions;
mod custody;
mod doctor;
mod early_arguments;
mod health;
mod input;
mod list;
mod man;
mod pin_fuse;
mod serve;
mod sign;
mod verify;

/// Runs the program and returns its exit code; an error is on standard error by then.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> u8 {
    let arguments = in_order(arguments);
    let mut format = early_arguments::log_format(&arguments);
    // Known to nobody but the front: neither help nor completions nor manual pages name it.
    if arguments.get(1).is_some_and(|name| name == "worker") {
        return end(worker::run().map_err(|error| Error::new(Kind::Usage, error.to_string())), format);
    }
    end(run_command(&arguments, &mut format), format)
}

fn run_command(arguments: &[OsString], format: &mut log::Format) -> Result<()> {
    refuse_pin(arguments)?;
    let command = arguments.get(1).and_then(|name| name.to_str()).unwrap_or_default();
    let needs_no_token = ["", "audit", "completions", "health", "help", "man", "verify"];
    if !needs_no_token.contains(&command) && !command.starts_with('-') {
        process::prepare()?;
    }
    // It loads its libraries while the command line and the configuration are read.
    let spare = if command == "sign" && !may_need_no_worker(arguments) { Spare::start() } else { None };
    match cli::command().try_get_matches_from(arguments) {
        Ok(matches) => dispatch(&matches, spare, format),
        Err(error) if !error.use_stderr() => print(error.to_string().trim_end()),
        Err(error) => Err(cli::usage_error(&error)),
    }
}

/// Says what went wrong, and returns the exit code.
fn end(result: Result<()>, format: log::Format) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            let error = if error.hints.is_empty() {
                let hint = error.kind.usual_hint();
                error.hint(hint)
            } else {
                error
            };
            if !error.message.is_empty() {
                log::report(&error, format);
            }
            error.kind.exit_code()
        }
    }
}

/// `format` becomes the configured one as soon as it is known.
fn dispatch(matches: &ArgMatches, spare: Option<Spare>, format: &mut log::Format) -> Result<()> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Error::new(Kind::Usage, "a command is needed"));
    };
    match name {
        "audit" => return audit::run(matches, format),
        "completions" => return completions::run(cli::given(matches, "shell").unwrap_or_default()),
        "man" => return man::run(cli::given(matches, "dir").unwrap_or_default()),
        _ => {}
    }
    let config = match configure(matches) {
        // What a newcomer fails on first is the first line of the report.
        Err(error) if name == "doctor" && error.kind == Kind::Config => {
            return doctor::without_configuration(matches, &error);
        }
        configured => configured?,
    };
    *format = config.log.format;
    // Its report lists them.
    if name != "doctor" {
        warn_of_unknown_variables(&config);
    }
    match name {
        "sign" => sign::run(matches, &config, spare),
        "list" => list::run(matches, &config),
        "certificate" => certificate::run(matches, &config),
        "verify" => verify::run(matches, &config),
        "serve" => serve::run(config),
        "doctor" => doctor::run(matches, &config),
        "custody" => custody::run(matches, &config),
        "health" => health::run(matches, &config),
        _ => pin_fuse::run(matches, &config),
    }
}

/// Reads the configuration and starts the log.
fn configure(matches: &ArgMatches) -> Result<Config> {
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

/// Warns of variables that look like the agent's own and are none: their values have no effect.
fn warn_of_unknown_variables(config: &Config) {
    for unknown in variables::unknown(std::env::vars_os().map(|(name, _)| name), &config.pin_variables) {
        tracing::warn!("{}; {}", unknown.reason(), unknown.remedy());
    }
}

/// Writes a result to standard output, ended by a newline. A reader that went away is no message, but no success either.
fn print(text: &str) -> Result<()> {
    print_bytes(format!("{text}\n").as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<()> {
    if stdout_is_closed() {
        return Err(Error::new(Kind::Unexpected, "standard output is closed, so the result cannot be written"));
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::new(Kind::Unexpected, "")),
        Err(error) => Err(Error::new(Kind::Unexpected, format!("cannot write the result: {error}"))),
    }
}

/// A closed standard output is opened by the runtime as `/dev/null`, for reading and writing; nobody else does that.
fn stdout_is_closed() -> bool {
    let null = (1, 3);
    let stdout = io::stdout();
    let is_null = fstat(&stdout).is_ok_and(|stat| (major(stat.st_rdev), minor(stat.st_rdev)) == null);
    is_null && fcntl_getfl(&stdout).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

/// A usage error of a command's own flag.
fn usage(flag: &str, wanted: &str) -> Error {
    Error::new(Kind::Usage, format!("--{flag}: {wanted}")).hint("`cba-agent help COMMAND` describes each option")
}

/// A command's own flag that is one of several words.
fn word<T: Copy>(matches: &ArgMatches, flag: &str, names: &[(&str, T)]) -> Result<Option<T>> {
    let Some(text) = cli::given(matches, flag) else { return Ok(None) };
    by_name(text, names).map(Some).map_err(|wanted| usage(flag, &wanted))
}
