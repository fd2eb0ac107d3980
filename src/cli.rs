//! The command line: commands, flags and help. It does neither input nor output.
//!
//! Runs in the parent. The flags of configuration keys come from [`crate::config::keys`]. This file checks no values,
//! since a usage error would repeat them.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::keys::{ConfigKey, Group, KEYS};

mod manual_page;
mod options;
mod usage_error;
mod values;

pub(crate) use manual_page::manual_pages;
pub(crate) use usage_error::usage_error;

use options::{choice, general, key_flag, keyed, switch, value};

use Group::{Audit, Identity, Log, Pin, Policy, Serve, Sign, Socket, Token};

/// The option groups of a command that makes one payload.
const PAYLOAD: [Group; 8] = [Token, Identity, Pin, Sign, Socket, Policy, Audit, Log];

/// The option groups of the agent.
const AGENT: [Group; 8] = [Token, Identity, Pin, Sign, Serve, Policy, Audit, Log];

/// Options with a value that every command accepts. They and `-v` may also stand before the command.
pub(crate) const GLOBAL: [&str; 3] = ["config", "log-format", "log-level"];

/// The shells of `completions`.
pub(crate) const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "elvish", "powershell"];

/// The option groups of `doctor`. Here `--socket` is the agent that a job asks, not the socket of this host's service.
const DOCTOR: [Group; 9] = [Token, Identity, Pin, Sign, Serve, Socket, Policy, Audit, Log];

/// The whole command line. clap builds the options of a command only when that command is used.
#[must_use]
pub(crate) fn command() -> Command {
    Command::new("cba-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Anaplan certificate logins, signed inside a PKCS#11 token")
        .after_help("The private key never leaves the token. This program only prints finished login requests.")
        .subcommand_required(true)
        .arg_required_else_help(false)
        .disable_help_subcommand(false)
        .args(general())
        .subcommand(
            later("sign", "Print one login request", |command| {
                keyed(command, &PAYLOAD)
                    .arg(choice(
                        "format",
                        &["json", "body", "header", "curl", "env", "html"],
                        "json, body, header, curl, env or html [default: json]",
                    ))
                    .arg(value("job", "NAME", "A label for logs, of up to 64 letters, digits and . _ : / -"))
                    .after_help(
                        "Examples:\n  cba-agent sign --slot 0\n  cba-agent sign --token-label prod --pin-source file:/etc/cba-agent/pin\n  \
                         r=$(cba-agent sign --slot 0 --format curl) || exit; printf '%s\\n' \"$r\" | curl -sS --config -",
                    )
            }),
        )
        .subcommand(
            later("serve", "Run the agent: answer POST /sign on a Unix socket", |command| {
                keyed(command, &AGENT)
                    .after_help(
                        "A user who may ask can act as the integration user as long as a payload is accepted: see --socket-group.\n\n\
                         Examples:\n  cba-agent serve --slot 0 --pin-source file:/etc/cba-agent/pin --socket /run/cba-agent/agent.sock\n  \
                         curl --unix-socket /run/cba-agent/agent.sock http://localhost/sign -d '{}'",
                    )
            }),
        )
        .subcommand(
            later("health", "Ask an agent whether it is ready, for probes", |command| {
                keyed(command, &[Socket, Log])
                    .arg(switch("live", "Check only whether it answers"))
                    .args(KEYS.iter().filter(|key| key.flag == "timeout").map(key_flag))
                    .after_help("Examples:\n  cba-agent health --socket /run/cba-agent/agent.sock\n  cba-agent health --live")
            }),
        )
        .subcommand(
            later("doctor", "Check this host, and name a remedy for each problem; send no PIN", |command| {
                keyed(command, &DOCTOR)
                    .arg(switch("json", "One JSON document for programs"))
                    .arg(switch("sign", "Log in, make one payload and discard it; with --socket, ask an agent for it"))
                    .arg(value("certificate", "FILE", "Check only a certificate file, before the certificate is bought or imported"))
                    .after_help("Examples:\n  cba-agent doctor --slot 0\n  cba-agent doctor --socket /run/cba-agent/agent.sock\n  cba-agent doctor --certificate from-the-ca.cer\n  cba-agent doctor --config /etc/cba-agent/config.toml --sign")
            }),
        )
        .subcommand(
            later("custody", "Print evidence for the key-custody policy, and the verdict", |command| {
                keyed(command, &[Token, Identity, Pin, Policy, Log])
                    .arg(choice("format", &["text", "json", "html"], "text, json, or html for an auditor's folder [default: text]"))
                    .arg(value("roots", "FILE", "PEM of the roots that the certificate must chain to"))
                    .arg(value("attestation-roots", "FILE", "PEM of the roots that the token's attestation of the key must chain to"))
                    .args(KEYS.iter().filter(|key| key.flag == "payload-version").map(key_flag))
                    .after_help(
                        "Exits with 8 if a rule is broken. It logs in to the token and signs nothing.\n\n\
                         Examples:\n  cba-agent custody --slot 0\n  cba-agent custody --format html --roots ca.pem > custody.html\n  \
                         cba-agent custody --attestation-roots yubico-piv-ca.pem --policy-require local",
                    )
            }),
        )
        .subcommand(
            later("list", "Show slots, tokens, keys and certificates, each with its URI", |command| {
                keyed(command, &[Token, Pin, Log])
                    .arg(switch("json", "One JSON document for programs"))
                    .arg(switch("login", "Log in to the selected token, to see private keys too"))
                    .after_help("Examples:\n  cba-agent list\n  cba-agent list --module opensc --json")
            }),
        )
        .subcommand(
            later("certificate", "Print the public certificate that an administrator registers", |command| {
                keyed(command, &[Token, Identity, Pin, Log])
                    .arg(choice("format", &["pem", "der", "text", "header", "json"], "pem, der, text, header or json [default: pem]"))
                    .arg(value("expires-within", "DURATION", "Exit with 8 if it expires within this time, such as 30d"))
                    .arg(switch("login", "Log in first, for tokens that hide their certificates"))
                    .args(KEYS.iter().filter(|key| key.flag == "header-encoding" || key.flag == "policy-certificate-source").map(key_flag))
                    .after_help("Examples:\n  cba-agent certificate > cert.pem\n  cba-agent certificate --expires-within 30d")
            }),
        )
        .subcommand(
            later("verify", "Check a request offline, as the service would", |command| {
                keyed(command, &[Policy, Log])
                    .arg(value("header", "FILE", "The Authorization header; together with --body"))
                    .arg(value("body", "FILE", "The body; together with --header"))
                    .arg(value("max-age", "DURATION", "Maximum age of a v2 message [default: 300s]"))
                    .arg(value("roots", "FILE", "PEM of the roots that the certificate must chain to"))
                    .after_help("Examples:\n  cba-agent sign --slot 0 | cba-agent verify\n  cba-agent verify --header h --body b --roots ca.pem")
            }),
        )
        .subcommand(audit())
        .subcommand(
            later("pin-fuse", "Show or clear the wrong-PIN fuse of a token", |command| {
                keyed(command, &[Token, Log])
                    .arg(switch("reset", "Clear it; make sure first that the PIN is right"))
                    .after_help("Examples:\n  cba-agent pin-fuse\n  cba-agent pin-fuse --reset --token-label prod")
            }),
        )
        .subcommand(
            Command::new("completions").about("Print a completion script").args(general())
                .arg(values::words(Arg::new("shell"), SHELLS.to_vec()).value_name("SHELL").required(true).help("bash, zsh, fish, elvish or powershell"))
                .after_help("Examples:\n  cba-agent completions bash > /usr/share/bash-completion/completions/cba-agent"),
        )
        .subcommand(
            Command::new("man").about("Write manual pages into a directory").args(general())
                .arg(Arg::new("dir").value_name("DIR").value_hint(values::hint("DIR")).required(true).help("An existing directory"))
                .after_help("Examples:\n  cba-agent man /usr/local/share/man/man1"),
        )
}

fn audit() -> Command {
    Command::new("audit")
        .about("Check the audit log's chain, or print its head")
        .after_help("Examples:\n  cba-agent audit verify /var/log/cba-agent/audit.jsonl*\n  cba-agent audit head /var/log/cba-agent/audit.jsonl")
        .subcommand_required(true)
        .subcommand(
            later("verify", "Name records that were changed, removed, inserted or reordered", |command| {
                keyed(command, &[Log])
                    .arg(
                        log_file()
                            .num_args(1..)
                            .help("The log and its rotated files, in any order; - is standard input [default: the configured log]"),
                    )
                    .arg(
                        value("expect-head", "SEQ:HASH", "A head that was kept elsewhere, which must be in the chain; repeatable")
                            .action(ArgAction::Append),
                    )
                    .after_help(
                        "Examples:\n  cba-agent audit verify /var/log/cba-agent/audit.jsonl*\n  \
                         zcat -f audit.jsonl.2.gz audit.jsonl.1 audit.jsonl | cba-agent audit verify - --expect-head \"$(cat head)\"",
                    )
            }),
        )
        .subcommand(
            later("head", "Print number and hash of the last record, for a copy kept elsewhere", |command| {
                keyed(command, &[Log])
                    .arg(log_file().help("The log [default: the configured log]"))
                    .after_help("Examples:\n  cba-agent audit head /var/log/cba-agent/audit.jsonl")
            }),
        )
}

fn log_file() -> Arg {
    Arg::new("file").value_name("FILE").value_hint(values::hint("FILE"))
}

/// Returns the values of the given flags of configuration keys.
pub(crate) fn flag_values(matches: &ArgMatches) -> impl Fn(&ConfigKey) -> Option<Vec<String>> {
    |key| {
        let values = matches.try_get_many::<String>(key.path).ok().flatten()?;
        Some(values.cloned().collect())
    }
}

/// The value of a command's own flag.
#[must_use]
pub(crate) fn given<'a>(matches: &'a ArgMatches, flag: &str) -> Option<&'a str> {
    matches.try_get_one::<String>(flag).ok().flatten().map(String::as_str)
}

/// The first given flag that selects a token, a key or a PIN.
#[must_use]
pub(crate) fn token_flag(matches: &ArgMatches) -> Option<&'static str> {
    let chooses = |key: &&ConfigKey| {
        matches!(key.group, Group::Token | Group::Identity | Group::Pin)
            && !matches!(key.path, "sign.timeout" | "state_dir")
    };
    let is_there = |key: &&ConfigKey| matches.try_contains_id(key.path).unwrap_or(false);
    KEYS.iter().filter(chooses).find(is_there).map(|key| key.flag)
}

/// Whether the flag of a configuration key was given.
#[must_use]
pub(crate) fn has_flag(matches: &ArgMatches, path: &str) -> bool {
    matches.try_contains_id(path).unwrap_or(false)
}

/// Whether a command's own switch was given.
#[must_use]
pub(crate) fn is_given(matches: &ArgMatches, flag: &str) -> bool {
    matches.try_get_one::<bool>(flag).ok().flatten().copied().unwrap_or(false)
}

/// A command whose options are built only when it is used.
fn later(name: &'static str, about: &'static str, options: fn(Command) -> Command) -> Command {
    Command::new(name).about(about).defer(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_general_option_with_a_value_may_stand_before_the_command() {
        let general: Vec<Arg> = general().filter(|argument| argument.get_id() != "verbose").collect();
        let names: Vec<&str> = general.iter().filter_map(Arg::get_long).collect();
        assert_eq!(names, GLOBAL);
    }
}
