//! Reads a few arguments before the command line is parsed: the command after global options, the form of errors, and whether a worker is
//! needed.
//!
//! Runs in the parent. [`in_order`] runs first, so that all readers, including the parser, find the command in the
//! first place.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use crate::cli::GLOBAL;
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::log;

/// Moves global options from before the command to after it: `-v audit verify FILE` becomes `audit verify -v FILE`. It
/// leaves arguments that it does not understand to the parser.
pub(super) fn in_order(arguments: Vec<OsString>) -> Vec<OsString> {
    let Some((program, given)) = arguments.split_first() else { return arguments };
    let (mut general, rest) = split_general(given);
    let Some((command, rest)) = split_command(rest) else { return arguments };
    if command == "help" {
        // `help` accepts only names of commands.
        general.clear();
    }
    let (more, behind) = split_general(rest);
    match split_command(behind) {
        Some((part, behind)) if command == "audit" => {
            [&[program.clone(), command.clone(), part.clone()], general.as_slice(), &more, behind].concat()
        }
        _ => [&[program.clone(), command.clone()], general.as_slice(), rest].concat(),
    }
}

/// The global options at the beginning, and the rest.
fn split_general(arguments: &[OsString]) -> (Vec<OsString>, &[OsString]) {
    let mut at = 0;
    while let Some(parts) = arguments.get(at).and_then(|argument| parts_of_global(argument.as_bytes())) {
        at += parts;
    }
    let (general, rest) = arguments.split_at(at.min(arguments.len()));
    (general.to_vec(), rest)
}

/// The name of a command at the beginning, and the rest.
fn split_command(arguments: &[OsString]) -> Option<(&OsString, &[OsString])> {
    arguments.split_first().filter(|(name, _)| !name.is_empty() && !name.as_bytes().starts_with(b"-"))
}

/// The number of arguments of a global option, including its value; `None` for other arguments.
fn parts_of_global(argument: &[u8]) -> Option<usize> {
    let is_short = |rest: &[u8]| !rest.is_empty() && rest.iter().all(|letter| *letter == b'v');
    if argument == b"--verbose" || argument.strip_prefix(b"-").is_some_and(is_short) {
        return Some(1);
    }
    let (name, value) = match argument.iter().position(|byte| *byte == b'=') {
        Some(at) => (&argument[..at], true),
        None => (argument, false),
    };
    let flag = name.strip_prefix(b"--")?;
    GLOBAL.iter().any(|known| known.as_bytes() == flag).then_some(if value { 1 } else { 2 })
}

/// Whether `sign` may end without using a token, as far as this is visible before parsing: the user asks for help, or
/// names an agent. Then a prestarted worker would be wasted. A wrong guess only costs time.
pub(super) fn may_need_no_worker(arguments: &[OsString]) -> bool {
    let tells = |argument: &OsString| {
        argument == "-h" || argument == "--help" || argument.as_encoded_bytes().starts_with(b"--socket")
    };
    let variable = |name: &str| std::env::var_os(name);
    let file = value_of(arguments, "--config");
    arguments.iter().any(tells)
        || variable("CBA_AGENT_SOCKET").is_some()
        || config::may_mention(file, variable, "socket")
}

/// Refuses `--pin` and names a better way. It does not read the value.
pub(super) fn refuse_pin(arguments: &[OsString]) -> Result<()> {
    let is_pin = |argument: &OsString| argument == "--pin" || argument.as_encoded_bytes().starts_with(b"--pin=");
    if arguments.iter().any(is_pin) {
        return Err(Error::new(Kind::Usage, "--pin is not accepted: every user of this host could read it")
            .hint("use --pin-source file:PATH"));
    }
    Ok(())
}

/// The form of errors before the configuration is read: a usage error must use it too.
pub(super) fn log_format(arguments: &[OsString]) -> log::LogFormat {
    let flag = value_of(arguments, "--log-format").map(OsStr::to_owned);
    let name = flag.or_else(|| std::env::var_os("CBA_AGENT_LOG_FORMAT")).unwrap_or_default();
    log::FORMATS.iter().find(|(known, _)| name == *known).map_or_else(log::LogFormat::default, |(_, format)| *format)
}

/// The value of an option before the command line is parsed.
fn value_of<'a>(arguments: &'a [OsString], flag: &str) -> Option<&'a OsStr> {
    arguments.iter().enumerate().find_map(|(at, argument)| {
        let rest = argument.as_bytes().strip_prefix(flag.as_bytes())?;
        match rest.split_first() {
            None => arguments.get(at + 1).map(OsString::as_os_str),
            Some((b'=', value)) => Some(OsStr::from_bytes(value)),
            Some(_) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from).collect();
        in_order(arguments).join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn global_options_before_the_command_move_behind_it() {
        for (given, wanted) in [
            ("x -v sign", "x sign -v"),
            ("x -vv --config F sign --slot 0", "x sign -vv --config F --slot 0"),
            ("x --config=F --log-format json -v list", "x list --config=F --log-format json -v"),
            ("x --verbose --log-level debug audit verify F", "x audit verify --verbose --log-level debug F"),
            ("x audit -v verify --log-level debug F", "x audit verify -v --log-level debug F"),
            ("x -v help sign", "x help sign"),
            ("x --config sign sign", "x sign --config sign"),
            // Left to the parser.
            ("x sign -v", "x sign -v"),
            ("x -v", "x -v"),
            ("x --config", "x --config"),
            ("x --config sign", "x --config sign"),
            ("x -v --help", "x -v --help"),
            ("x --slot 0 sign", "x --slot 0 sign"),
            ("x -v --slot 0 sign", "x -v --slot 0 sign"),
            ("x -v audit", "x audit -v"),
            ("x -- sign", "x -- sign"),
            ("x - sign", "x - sign"),
        ] {
            assert_eq!(ordered(given), wanted, "{given}");
        }
    }
}
