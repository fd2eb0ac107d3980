//! The subcommands, one file each, and the way from the command line to them. Runs in the parent, except for
//! [`crate::worker`], which is started here.

use std::ffi::OsString;

use clap::ArgMatches;

use crate::cli;
use crate::error::{Error, Kind, Result};
use crate::output::{check_stdout, print};
use crate::worker;
use crate::worker_handle::PrestartedWorker;
use crate::{log, os};

use configure::{configure, warn_of_unknown_variables};
use early_arguments::{in_order, may_need_no_worker, refuse_pin};

mod arguments;
mod audit;
mod certificate;
mod complete_hints;
mod completions;
mod configure;
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

/// Runs the program and returns its exit code. It has then printed any error.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> u8 {
    let arguments = in_order(arguments);
    let mut format = early_arguments::log_format(&arguments);
    // Help, completions and manual pages do not name this command: only the parent starts it.
    if arguments.get(1).is_some_and(|name| name == "worker") {
        return run_worker();
    }
    log::take_over_panics(format);
    let result = os::refuse_privileges().and_then(|()| run_command(&arguments, &mut format));
    let code = end(result, format);
    log::end();
    code
}

fn run_worker() -> u8 {
    log::take_over_panics_in_worker();
    let run = || {
        os::ignore_file_size_signal()?;
        worker::run().map_err(|error| Error::new(Kind::Usage, error.to_string()))
    };
    match os::refuse_privileges().and_then(|()| run()) {
        Ok(()) => 0,
        Err(error) => {
            let error = with_a_hint(error);
            log::report_in_worker(&error);
            error.kind.exit_code()
        }
    }
}

fn run_command(arguments: &[OsString], format: &mut log::LogFormat) -> Result<()> {
    os::ignore_file_size_signal()?;
    refuse_pin(arguments)?;
    let command = arguments.get(1).and_then(|name| name.to_str()).unwrap_or_default();
    let needs_no_token = ["", "audit", "completions", "health", "help", "man", "verify"];
    if !needs_no_token.contains(&command) && !command.starts_with('-') {
        os::prepare()?;
    }
    // The worker loads its libraries while the parent reads the command line and the configuration.
    let prestarted = if command == "sign" && !may_need_no_worker(arguments) { PrestartedWorker::start() } else { None };
    match cli::command().try_get_matches_from(arguments) {
        Ok(matches) => dispatch(&matches, prestarted, format).map_err(|error| {
            let (name, own) = innermost(&matches);
            complete_hints::completed(with_a_hint(error), &name, Some(own))
        }),
        Err(error) if !error.use_stderr() => print(error.to_string().trim_end()),
        Err(error) => {
            let is_known = cli::command().find_subcommand(command).is_some();
            Err(complete_hints::completed(
                with_a_hint(cli::usage_error(&error)),
                if is_known { command } else { "" },
                None,
            ))
        }
    }
}

/// Adds a hint to an error without one.
fn with_a_hint(error: Error) -> Error {
    let hint = error.kind.usual_hint();
    if error.hints.is_empty() { error.hint(hint) } else { error }
}

/// The command as typed, for example `audit verify`, and its options.
fn innermost(matches: &ArgMatches) -> (String, &ArgMatches) {
    match matches.subcommand() {
        Some((name, inner)) => {
            let (below, options) = innermost(inner);
            (if below.is_empty() { name.to_owned() } else { format!("{name} {below}") }, options)
        }
        None => (String::new(), matches),
    }
}

/// Reports the error, and returns the exit code.
fn end(result: Result<()>, format: log::LogFormat) -> u8 {
    let Err(error) = result else { return 0 };
    let error = with_a_hint(error);
    if !error.message.is_empty() {
        log::report(&error, format);
    }
    error.kind.exit_code()
}

/// Commands that print no result to stdout.
const WITHOUT_RESULT: [&str; 2] = ["man", "serve"];

/// `format` becomes the configured format as soon as it is known.
fn dispatch(matches: &ArgMatches, prestarted: Option<PrestartedWorker>, format: &mut log::LogFormat) -> Result<()> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Error::new(Kind::Usage, "a command is needed"));
    };
    // Check this before a key is used.
    if !WITHOUT_RESULT.contains(&name) {
        check_stdout()?;
    }
    match name {
        "audit" => return audit::run(matches, format),
        "completions" => return completions::run(cli::given(matches, "shell").unwrap_or_default()),
        "man" => return man::run(cli::given(matches, "dir").unwrap_or_default()),
        _ => {}
    }
    let config = match configure(matches) {
        // A configuration that cannot be used becomes the first line of the report.
        Err(error) if name == "doctor" && error.kind == Kind::Config => {
            return doctor::without_configuration(matches, &error);
        }
        configured => configured?,
    };
    *format = config.log.format;
    // The report of `doctor` lists them.
    if name != "doctor" {
        warn_of_unknown_variables(&config);
    }
    match name {
        "sign" => sign::run(matches, &config, prestarted),
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
