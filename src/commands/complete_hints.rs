//! Completes the commands in hints, so that they work when pasted: with the options that the user gave, and with the name of the command.
//!
//! Runs in the parent. A hint writes each command in backticks, for example `cba-agent list`. A command of this program
//! gets only the options of the command line, since variables and files apply anyway.

use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::cli;
use crate::config::keys::{Group, KEYS};
use crate::error::Error;
use crate::text::shell::{in_commands, quoted};

/// Completes the commands in an error. `name` is the failed command, `matches` its options.
pub(super) fn completed(mut error: Error, name: &str, matches: Option<&ArgMatches>) -> Error {
    error.hints = error.hints.iter().map(|hint| in_hint(hint, name, matches)).collect();
    error
}

/// Completes the commands in a hint.
pub(super) fn in_hint(hint: &str, name: &str, matches: Option<&ArgMatches>) -> String {
    let named = if name.is_empty() { hint.to_owned() } else { hint.replace("help COMMAND", &format!("help {name}")) };
    let Some(matches) = matches else { return named };
    // Such a hint is about a module that cannot be used, and shows how to list the others.
    let without_module = named.contains("without --module");
    let is_in_environment = std::env::var_os("CBA_AGENT_MODULE").is_some_and(|value| !value.is_empty());
    let before = if without_module && is_in_environment { "env -u CBA_AGENT_MODULE " } else { "" };
    in_commands(&named, |command| match command.strip_prefix("cba-agent ") {
        Some(own) => format!("{before}{command}{}", options(own, matches, without_module)),
        None => command.to_owned(),
    })
}

/// The given options that this command also accepts.
fn options(command: &str, matches: &ArgMatches, without_module: bool) -> String {
    let mut words = command.split(' ');
    let name = words.next().unwrap_or_default();
    let has = |flag: &str| command.split(' ').any(|word| word == format!("--{flag}"));
    // A token selector would hide the other tokens from `list`.
    let selects = !has("uri") && (name != "list" || has("login"));
    let groups: &[Group] = match name {
        "list" | "doctor" | "certificate" => &[Group::Token, Group::Identity, Group::Pin],
        "sign" | "custody" | "serve" => &[Group::Token, Group::Identity, Group::Pin, Group::Sign, Group::Policy],
        "pin-fuse" => &[Group::Token],
        _ => return String::new(),
    };
    let mut out = String::new();
    let mut add = |flag: &str, values: Vec<&String>| {
        values.into_iter().for_each(|value| out += &format!(" --{flag} {}", quoted(value)));
    };
    let given = |id: &str| -> Option<Vec<&String>> {
        let by_flag =
            matches.try_contains_id(id).unwrap_or(false) && matches.value_source(id) == Some(ValueSource::CommandLine);
        by_flag.then(|| matches.get_many(id).into_iter().flatten().collect())
    };
    if let Some(values) = given("config") {
        add("config", values);
    }
    for key in KEYS.iter().filter(|key| groups.contains(&key.group) && !has(key.flag)) {
        let is_selector = key.group == Group::Identity || key.path.starts_with("token.");
        let applies = match name {
            "pin-fuse" => key.path == "state_dir" || (selects && key.path.starts_with("token.")),
            "list" => key.group != Group::Identity && (has("login") || key.group != Group::Pin),
            _ => true,
        };
        if applies && !(without_module && key.path == "module") && (selects || !is_selector) && takes(name, key.path) {
            if let Some(values) = given(key.path) {
                add(key.flag, values);
            }
        }
    }
    out
}

/// Whether a command has an option.
fn takes(name: &str, id: &str) -> bool {
    let mut root = cli::command();
    root.build();
    root.find_subcommand(name).is_some_and(|command| command.get_arguments().any(|argument| argument.get_id() == id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(line: &[&str], hint: &str) -> String {
        let matches = cli::command().try_get_matches_from(line).unwrap();
        let (name, matches) = matches.subcommand().unwrap();
        in_hint(hint, name, Some(matches))
    }

    #[test]
    fn a_command_in_a_hint_gets_the_options_that_were_given() {
        let line =
            ["cba-agent", "sign", "--config", "my file", "--module", "softhsm2", "--slot", "3", "--state-dir", "/s"];
        for (given, wanted) in [
            (
                "`cba-agent list` shows all",
                "`cba-agent list --config 'my file' --module softhsm2 --state-dir /s` shows all",
            ),
            (
                "`cba-agent list` without --module shows the others",
                "`cba-agent list --config 'my file' --state-dir /s` without --module shows the others",
            ),
            ("`cba-agent help COMMAND`", "`cba-agent help sign`"),
            (
                "`cba-agent pin-fuse --reset --uri 'pkcs11:token=a'`",
                "`cba-agent pin-fuse --reset --uri 'pkcs11:token=a' --config 'my file' --state-dir /s`",
            ),
            (
                "try `cba-agent doctor --sign`, or `cba-agent health --socket /x`",
                "try `cba-agent doctor --sign --config 'my file' --module softhsm2 --slot 3 --state-dir /s`, or `cba-agent \
                 health --socket /x`",
            ),
            ("no command: cba-agent list", "no command: cba-agent list"),
        ] {
            assert_eq!(hint(&line, given), wanted);
        }
        assert_eq!(in_hint("`cba-agent help COMMAND`", "", None), "`cba-agent help COMMAND`");
    }
}
