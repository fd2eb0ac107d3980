//! Manual pages, made from the definitions of the command line and the tables in this file. No input or output.

use std::io;

use clap::Command;
use clap_mangen::Man;

use crate::cli;
use crate::library::EXIT_CODES;

/// The rows of one section: a term and its text.
type ManualRows = Vec<(String, &'static str)>;

/// Returns the file name and text of each page.
///
/// # Errors
/// When clap_mangen fails, which cannot happen in memory.
pub(crate) fn manual_pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut root = cli::command();
    root.build();
    let subcommands = root.get_subcommands().map(|command| (format!("cba-gateway-{}", command.get_name()), command));
    let all = std::iter::once(("cba-gateway".to_owned(), &root)).chain(subcommands);
    all.map(|(name, command)| Ok((format!("{name}.1"), page(&name, command)?))).collect()
}

fn page(name: &str, command: &Command) -> io::Result<Vec<u8>> {
    let source = concat!("cba-gateway ", env!("CARGO_PKG_VERSION"));
    let man =
        Man::new(command.clone().display_name(name)).title(name.to_uppercase()).source(source).manual("cba-gateway");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let is_root = command.has_subcommands();
    for (heading, rows) in [
        ("\"EXIT STATUS\"", exit_status(command.get_name(), is_root)),
        ("ENVIRONMENT", environment(command.get_name(), is_root)),
        ("FILES", files(command.get_name(), is_root)),
    ] {
        if !rows.is_empty() {
            page.extend(section(heading, &rows).into_bytes());
        }
    }
    page.extend(b".SH \"SEE ALSO\"\n");
    page.extend(if is_root { &b""[..] } else { b"\\fBcba\\-gateway\\fR(1),\n" });
    page.extend(b"\\fBcba\\-agent\\fR(1)\n.PP\n/usr/share/doc/cba\\-agent/docs/gateway.md\n");
    Ok(page)
}

fn section(heading: &str, rows: &ManualRows) -> String {
    let rows = rows.iter().map(|(term, text)| format!(".TP\n\\fB{}\\fR\n{}\n", escaped(term), escaped(text)));
    format!(".SH {heading}\n{}", rows.collect::<String>())
}

fn exit_status(command: &str, is_root: bool) -> ManualRows {
    let applies = |code: u8| match code {
        0..=2 => true,
        5 => command == "serve",
        8 => command == "check",
        9 => ["clients", "health"].contains(&command),
        _ => false,
    };
    let is_used = |code: u8| matches!(code, 0..=2 | 5 | 8 | 9);
    let shown = EXIT_CODES.iter().filter(|(code, _)| if is_root { is_used(*code) } else { applies(*code) });
    // The agent's texts for these codes do not fit the gateway.
    let text_for_gateway = |code: u8, text: &'static str| match code {
        5 => "The gateway must not run as this user: it is root or the user of an agent.",
        8 => "A check failed.",
        9 => "The gateway cannot be reached, or is not ready.",
        _ => text,
    };
    shown.map(|(code, text)| (code.to_string(), text_for_gateway(*code, text))).collect()
}

fn environment(command: &str, is_root: bool) -> ManualRows {
    let (serves, connects) = (command == "serve", ["serve", "check"].contains(&command));
    let rows = [
        (
            connects,
            "HTTPS_PROXY, NO_PROXY",
            "The proxy to Anaplan if the configuration names none, and the hosts that need no proxy.",
        ),
        (
            serves,
            "STATE_DIRECTORY",
            "The directory that remembers used payloads across restarts, if state_dir is not set. systemd sets it.",
        ),
        (serves, "LISTEN_FDS, NOTIFY_SOCKET, WATCHDOG_USEC", "Socket activation, readiness and watchdog of systemd."),
    ];
    that_apply(&rows, is_root)
}

fn files(command: &str, is_root: bool) -> ManualRows {
    let (needs_agent, asks) = (["serve", "check"].contains(&command), ["clients", "health"].contains(&command));
    let rows = [
        (needs_agent || asks, "/etc/cba-gateway/config.toml", "The configuration."),
        (needs_agent, "/etc/cba-agent/policy.toml", "Root's policy. It applies to each payload of an agent."),
        (needs_agent, "/run/cba-agent/agent.sock", "The socket of the packaged agent."),
        (asks, "/run/cba-gateway/admin.sock", "The admin socket of the packaged configuration."),
        (command == "serve", "/var/lib/cba-gateway", "The v2 payloads that tools have used."),
    ];
    that_apply(&rows, is_root)
}

/// The rows that apply to a command. The page of the program lists all.
fn that_apply(rows: &[(bool, &str, &'static str)], is_root: bool) -> ManualRows {
    let shown = rows.iter().filter(|(applies, ..)| *applies || is_root);
    shown.map(|(_, term, text)| ((*term).to_owned(), *text)).collect()
}

/// Escapes text, so that roff prints it unchanged (groff_char(7)).
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_the_sections_that_a_reader_looks_for() {
        let pages = manual_pages().unwrap();
        assert_eq!(pages.len(), 8);
        for (name, text) in pages {
            let text = String::from_utf8(text).unwrap();
            for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
                assert!(text.contains(&format!(".SH {heading}\n")), "{name}: {heading}\n{text}");
            }
            let reads_files = !["enrol", "completions", "man"].iter().any(|end| name.contains(end));
            assert_eq!(text.contains(".SH FILES\n"), reads_files, "{name}");
        }
    }
}
