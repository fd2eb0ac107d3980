//! The options of the commands: those of the table of keys, and the words of the others.
//!
//! Runs in the parent.

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command};

use super::values;
use crate::config::keys::Group::{Log, Socket};
use crate::config::keys::{ConfigKey, Group, KEYS, Shape};

pub(super) fn keyed(command: Command, groups: &[Group]) -> Command {
    let mut command = command.args(first_options());
    if groups.contains(&Group::Token) {
        command = command
            .arg(switch("module-debug", "Pass vendors' debug variables to the module; their logs contain the PIN"));
    }
    let is_asked = groups.contains(&Socket);
    let is_taken = |key: &&ConfigKey| groups.contains(&key.group) && !(is_asked && key.path == "serve.socket");
    for key in KEYS.iter().filter(|key| key.group != Log).filter(is_taken) {
        command = command.arg(key_flag(key));
    }
    command.args(log_options())
}

/// The options of every command.
pub(super) fn general() -> impl Iterator<Item = Arg> {
    first_options().into_iter().chain(log_options())
}

fn first_options() -> [Arg; 2] {
    let config = value(
        "config",
        "FILE",
        "Configuration file [default: ~/.config/cba-agent/config.toml, /etc/cba-agent/config.toml]",
    );
    let verbose =
        Arg::new("verbose").short('v').long("verbose").action(ArgAction::Count).help("Log each step; twice for more");
    [config, verbose]
}

fn log_options() -> impl Iterator<Item = Arg> {
    KEYS.iter().filter(|key| key.group == Log).map(key_flag)
}

pub(super) fn key_flag(key: &ConfigKey) -> Arg {
    let help = StyledStr::from(format!("{} [env: {}]", key.help, key.variable()));
    let action = if key.shape == Shape::List { ArgAction::Append } else { ArgAction::Set };
    let heading = match key.group {
        Group::Token => "Token",
        Group::Identity => "Identity",
        Group::Pin => "PIN",
        Group::Sign => "Request",
        Group::Policy => "Policy",
        Group::Serve | Group::Socket => "Agent",
        Group::Audit => "Audit log",
        Group::Log => "Log",
    };
    // The option names of OpenSC's tools.
    let alias = match key.path {
        "token.slot" => Some("slot-index"),
        "identity.key_label" => Some("label"),
        "identity.key_id" => Some("id"),
        _ => None,
    };
    // Identified by its path: `--socket` is one key for `serve` and another key for clients.
    let argument = Arg::new(key.path)
        .aliases(alias)
        .long(key.flag)
        .value_name(key.value)
        .action(action)
        .help(help)
        .help_heading(heading);
    values::of_key(argument, key)
}

pub(super) fn value(name: &'static str, shown: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(shown).help(help).value_hint(values::hint(shown))
}

/// An option of one command with one of these words as its value.
pub(super) fn choice(name: &'static str, words: &[&'static str], help: &'static str) -> Arg {
    values::words(value(name, "FORMAT", help), words.to_vec())
}

pub(super) fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}
