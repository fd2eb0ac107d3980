//! Selects the command from the command line. Each command is in one file.

use std::ffi::OsString;
use std::path::Path;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli;
use crate::config::{FileRules, GatewayConfig};
use crate::library::{
    Error, Kind, Result, by_name, check_stdout, ignore_file_size_signal, log, prepare, print, refuse_privileges,
};
use crate::serve;

mod check;
mod clients;
mod enrol;
mod health;
mod shell;

/// Runs the program, prints an error on stderr, and returns the exit code.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> u8 {
    let mut format = early_format(&arguments);
    log::take_over_panics(format);
    let code = match refuse_privileges().and_then(|()| run_command(arguments, &mut format)) {
        Ok(()) => 0,
        Err(error) => {
            let error = with_hint(error);
            if !error.message.is_empty() {
                log::report(&error, format);
            }
            error.kind.exit_code()
        }
    };
    log::end();
    code
}

fn with_hint(error: Error) -> Error {
    if error.hints.is_empty() {
        error.hint("`cba-gateway check` tests the configuration and each connection; -v logs more")
    } else {
        error
    }
}

fn run_command(arguments: Vec<OsString>, format: &mut log::LogFormat) -> Result<()> {
    ignore_file_size_signal()?;
    let matches = match cli::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return print(error.to_string().trim_end()),
        Err(error) => return Err(usage_error(&error)),
    };
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Error::new(Kind::Usage, "a command is needed"));
    };
    // A command that cannot print must fail before it creates a file.
    if !["man", "serve"].contains(&name) {
        check_stdout()?;
    }
    match name {
        "completions" => return shell::completions(cli::value(matches, "shell").unwrap_or_default()),
        "man" => return shell::man(cli::value(matches, "dir").unwrap_or_default()),
        "enrol" => return enrol::run(matches),
        "serve" => prepare()?,
        _ => {}
    }
    let path = Path::new(cli::value(matches, "config").unwrap_or_default());
    // `health` and `clients` need no configuration if the option names the socket.
    if let (true, Some(socket)) = (matches!(name, "health" | "clients"), cli::value(matches, "socket")) {
        return admin_command(name, matches, Path::new(socket));
    }
    let files = FileRules::new(matches.try_get_one("single-user").ok().flatten().copied().unwrap_or(false));
    if name == "check" {
        start_log(log::LogSettings { format: *format, level: log::DEFAULT_LEVEL }, matches, format)?;
        return check::run(path, files);
    }
    let config = GatewayConfig::read(path, files)?;
    start_log(config.log, matches, format)?;
    match name {
        "serve" => serve::serve(config),
        _ => {
            let socket = config.admin.as_ref().and_then(|admin| admin.socket.as_deref());
            let no_socket = || {
                Error::new(Kind::Config, "cannot connect to the gateway: the configuration has no admin socket")
                    .hint("set [admin] socket, or give --socket PATH")
            };
            admin_command(name, matches, socket.ok_or_else(no_socket)?)
        }
    }
}

fn admin_command(name: &str, matches: &ArgMatches, socket: &Path) -> Result<()> {
    match name {
        "health" => health::run(socket, matches.get_flag("live")),
        _ => clients::run(socket, cli::value(matches, "format") == Some("json")),
    }
}

/// Starts the log. `--log-format` overrides the configuration.
fn start_log(settings: log::LogSettings, matches: &ArgMatches, format: &mut log::LogFormat) -> Result<()> {
    let format_option = cli::value(matches, "log-format").map(|name| by_name(name, &log::FORMATS));
    let format_option =
        format_option.transpose().map_err(|expected| Error::new(Kind::Usage, format!("--log-format: {expected}")))?;
    *format = format_option.unwrap_or(settings.format);
    log::start(log::LogSettings { format: *format, ..settings }, matches.get_count("verbose"));
    Ok(())
}

/// Returns the log format for errors that occur before the command line is parsed.
fn early_format(arguments: &[OsString]) -> log::LogFormat {
    let texts: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let next_argument = texts.windows(2).find(|pair| pair[0] == "--log-format").map(|pair| pair[1]);
    let after_equals_sign = texts.iter().find_map(|text| text.strip_prefix("--log-format="));
    next_argument.or(after_equals_sign).and_then(|name| by_name(name, &log::FORMATS).ok()).unwrap_or_default()
}

/// Converts a usage error of the parser. The error does not show an argument that is not an option: it
/// could be a password.
fn usage_error(error: &clap::Error) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let is_option = argument.starts_with("--");
    let message = match error.kind() {
        ErrorKind::UnknownArgument if is_option => {
            format!("there is no option {}", argument.split('=').next().unwrap_or_default())
        }
        ErrorKind::UnknownArgument => "an argument is unknown (it is not shown, since it may be a password)".into(),
        ErrorKind::InvalidSubcommand => "there is no such command".into(),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "a command is needed".into()
        }
        ErrorKind::MissingRequiredArgument => format!("{argument} is needed"),
        ErrorKind::ArgumentConflict => {
            format!("{argument} is given twice, or together with an option that excludes it")
        }
        ErrorKind::InvalidValue => match text(ContextKind::ValidValue) {
            Some(values) if !values.is_empty() => format!("{argument} must be one of {values}"),
            _ => format!("{argument} needs a value"),
        },
        _ => "the command line is invalid".into(),
    };
    let suggestion = text(ContextKind::SuggestedArg).or_else(|| text(ContextKind::SuggestedSubcommand));
    let error = Error::new(Kind::Usage, message);
    let error = suggestion.into_iter().fold(error, |error, word| error.hint(format!("did you mean {word}?")));
    error.hint("`cba-gateway --help` lists the commands, `cba-gateway COMMAND --help` lists the options of one")
}
