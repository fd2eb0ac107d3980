//! Defines the command line, and reads values from its matches. No input or output.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use crate::config::DEFAULT_PATH;

/// The shells of `completions`.
pub(crate) const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "elvish", "powershell"];

/// Defines the whole command line.
#[must_use]
pub(crate) fn command() -> Command {
    Command::new("cba-gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Let unmodified Anaplan tools log in through cba-agent, with the key in the PKCS#11 token")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .arg(option("config", "FILE", "Configuration file").default_value(DEFAULT_PATH).global(true))
        .arg(
            option("log-format", "FORMAT", "Log format on stderr; overrides [log] format")
                .value_parser(PossibleValuesParser::new(["text", "json", "journald"]))
                .global(true),
        )
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::Count)
                .global(true)
                .help("Log more to stderr; -vv logs everything"),
        )
        .subcommand(
            Command::new("serve")
                .about("Serve tools until SIGTERM; SIGHUP reloads the configuration")
                .arg(single_user()),
        )
        .subcommand(
            Command::new("check")
                .about("Check the configuration, the agents, the connection to Anaplan and the clients")
                .arg(single_user()),
        )
        .subcommand(enrol())
        .subcommand(
            Command::new("clients")
                .about("Show each client with its last login, from the running gateway")
                .arg(option("socket", "PATH", "Admin socket; overrides [admin] socket"))
                .arg(
                    option("format", "FORMAT", "Output format")
                        .value_parser(PossibleValuesParser::new(["text", "json"]))
                        .default_value("text"),
                ),
        )
        .subcommand(
            Command::new("health")
                .about("Check that the running gateway is ready to log in; with --live, that it answers")
                .arg(option("socket", "PATH", "Admin socket; overrides [admin] socket"))
                .arg(
                    Arg::new("live")
                        .long("live")
                        .action(ArgAction::SetTrue)
                        .help("Check only that the gateway answers"),
                ),
        )
        .subcommand(
            Command::new("completions").about("Print a completion script").arg(
                Arg::new("shell")
                    .value_name("SHELL")
                    .required(true)
                    .value_parser(PossibleValuesParser::new(SHELLS))
                    .help("Shell that runs the script"),
            ),
        )
        .subcommand(
            Command::new("man").about("Write the manual pages into a directory").arg(
                Arg::new("dir")
                    .value_name("DIR")
                    .required(true)
                    .value_hint(ValueHint::DirPath)
                    .help("An existing directory"),
            ),
        )
}

fn enrol() -> Command {
    Command::new("enrol")
        .about("Give a tool a local identity: print its [[client]] table and the settings for common tools")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required(true)
                .help("Name of the client: 1 to 40 letters, digits and . _ -"),
        )
        .arg(
            option("user", "USER", "User of this host who runs the tool; can be given several times")
                .action(ArgAction::Append),
        )
        .arg(
            option("from", "NET", "Network from which the tool connects over TLS; can be given several times")
                .action(ArgAction::Append),
        )
        .arg(option("certificate", "FILE", "Certificate of the tool, instead of a password"))
        .arg(
            Arg::new("transition")
                .long("transition")
                .action(ArgAction::SetTrue)
                .requires("certificate")
                .help("Accept a certificate that Anaplan still accepts, while you migrate"),
        )
        .arg(
            option("password-file", "FILE", "File for the password, created with mode 0600 [default: NAME.password]")
                .conflicts_with("certificate"),
        )
}

fn single_user() -> Arg {
    Arg::new("single-user")
        .long("single-user")
        .action(ArgAction::SetTrue)
        .help("Accept files and an agent of the user who runs the gateway; for a demonstration")
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    let hint = match value {
        "FILE" | "PATH" => ValueHint::FilePath,
        "USER" => ValueHint::Username,
        _ => ValueHint::Other,
    };
    Arg::new(name).long(name).value_name(value).value_hint(hint).help(help)
}

/// Returns the value of an option, if it is given or has a default.
#[must_use]
pub(crate) fn value<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.try_get_one::<String>(name).ok().flatten().map(String::as_str)
}

/// Returns all values of an option that can be given several times.
#[must_use]
pub(crate) fn values(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.try_get_many::<String>(name).ok().flatten().map(|values| values.cloned().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
