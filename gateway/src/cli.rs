//! The command line. No input or output.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::USUAL_PATH;

/// Defines the whole command line.
#[must_use]
pub(crate) fn command() -> Command {
    Command::new("cba-gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Lets unmodified Anaplan tools log in through cba-agent, with the key in the PKCS#11 token")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .arg(option("config", "FILE", "Configuration file").default_value(USUAL_PATH).global(true))
        .arg(
            option("log-format", "FORMAT", "Form of the log on stderr, in place of [log] format")
                .value_parser(PossibleValuesParser::new(["text", "json", "journald"]))
                .global(true),
        )
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::Count)
                .global(true)
                .help("Says more on stderr; -vv says everything"),
        )
        .subcommand(
            Command::new("serve")
                .about("Serve tools until SIGTERM; SIGHUP reads the configuration again")
                .arg(single_user()),
        )
        .subcommand(
            Command::new("check")
                .about("Check configuration, agents, the connection to Anaplan and the clients")
                .arg(single_user()),
        )
        .subcommand(enrol())
        .subcommand(
            Command::new("clients")
                .about("Show each client with its last login, from the running gateway")
                .arg(option("socket", "PATH", "Admin socket, in place of [admin] socket"))
                .arg(
                    option("format", "FORMAT", "Form of the output")
                        .value_parser(PossibleValuesParser::new(["text", "json"]))
                        .default_value("text"),
                ),
        )
        .subcommand(
            Command::new("health")
                .about("Ask the running gateway whether it is ready, or with --live whether it answers")
                .arg(option("socket", "PATH", "Admin socket, in place of [admin] socket"))
                .arg(Arg::new("live").long("live").action(ArgAction::SetTrue).help("Ask whether it answers at all")),
        )
        .subcommand(
            Command::new("completions").about("Print a completion script").arg(
                Arg::new("shell").value_name("SHELL").required(true).help("bash, zsh, fish, elvish or powershell"),
            ),
        )
        .subcommand(
            Command::new("man")
                .about("Write the manual pages into a directory")
                .arg(Arg::new("dir").value_name("DIR").required(true).help("An existing directory")),
        )
}

fn enrol() -> Command {
    Command::new("enrol")
        .about("Give a tool a local identity: print its [[client]] table and the settings for common tools")
        .arg(Arg::new("name").value_name("NAME").required(true).help("The client's name: letters, digits and . _ -"))
        .arg(
            option("user", "USER", "User of this host who runs the tool; can be given several times")
                .action(ArgAction::Append),
        )
        .arg(
            option("from", "NET", "Network from which the tool comes over TLS; can be given several times")
                .action(ArgAction::Append),
        )
        .arg(option("certificate", "FILE", "Certificate of the tool, in place of a password"))
        .arg(
            Arg::new("transition")
                .long("transition")
                .action(ArgAction::SetTrue)
                .requires("certificate")
                .help("The certificate is one that Anaplan still accepts"),
        )
        .arg(
            option("password-file", "FILE", "Where the password is written, mode 0600 [default: NAME.password]")
                .conflicts_with("certificate"),
        )
}

fn single_user() -> Arg {
    Arg::new("single-user")
        .long("single-user")
        .action(ArgAction::SetTrue)
        .help("For a demonstration: accept files and an agent of the user who runs the gateway")
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// Returns the value of an option, if it is given or has a default.
#[must_use]
pub(crate) fn given<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.try_get_one::<String>(name).ok().flatten().map(String::as_str)
}

/// Returns all values of an option that can be given several times.
#[must_use]
pub(crate) fn all(matches: &ArgMatches, name: &str) -> Vec<String> {
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
