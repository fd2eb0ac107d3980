//! Manual pages, generated from the definitions of the command line and the tables in this file.
//!
//! Runs in the parent. It does neither input nor output. clap_mangen writes the options; this file writes the other
//! sections of man-pages(7).

use std::io;

use clap::Command;
use clap_mangen::Man;

use super::command;
use crate::error::EXIT_CODES;

/// Returns file name and text of each page. `date` is YYYY-MM-DD.
///
/// # Errors
/// When clap_mangen fails, which cannot happen in memory.
pub(crate) fn manual_pages(date: &str) -> io::Result<Vec<(String, String)>> {
    let mut root = command().disable_help_subcommand(true);
    root.build();
    let mut found = vec![&root];
    let mut pages = Vec::new();
    while let Some(command) = found.pop() {
        found.extend(command.get_subcommands());
        pages.push((format!("{}.1", name(command)), page(command, date)?));
    }
    pages.sort();
    Ok(pages)
}

/// The name of a page, such as `cba-agent-audit-verify`.
fn name(command: &Command) -> String {
    bin_name(command).replace(' ', "-")
}

fn bin_name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or("cba-agent")
}

fn page(command: &Command, date: &str) -> io::Result<String> {
    let source = concat!("cba-agent ", env!("CARGO_PKG_VERSION"));
    let title = name(command).to_uppercase();
    let man = Man::new(command.clone()).title(&title).date(date).source(source).manual("cba-agent");
    let mut written = Vec::new();
    man.render_title(&mut written)?;
    man.render_name_section(&mut written)?;
    let mut text = in_text(written);
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    text += &synopsis(command);
    text += &description(command);
    if command.has_subcommands() {
        text += &commands(command);
    }
    text += &below_one_heading(&in_text(options));
    for (heading, rows) in
        [("EXIT STATUS", exit_status(command)), ("ENVIRONMENT", environment(command)), ("FILES", files(command))]
    {
        text += &definitions(heading, &rows);
    }
    text += &examples(command);
    text += &see_also(command);
    Ok(folded(&text))
}

/// Wraps lines at 78 bytes, except in examples. Each sentence begins a line.
fn folded(text: &str) -> String {
    let mut out = String::new();
    let mut is_example = false;
    for line in text.lines() {
        is_example = (is_example || line == ".EX") && line != ".EE";
        if is_example || line.starts_with('.') {
            out += line;
            out.push('\n');
            continue;
        }
        let mut length = 0;
        for word in line.split(' ') {
            let ends_sentence = out.ends_with('.') && length > 0;
            if length > 0 && (ends_sentence || length + word.len() + 1 > 78) {
                out.push('\n');
                length = 0;
            }
            if length > 0 {
                out.push(' ');
            } else if word.starts_with(['.', '\'']) {
                out += "\\&";
            }
            out += word;
            length += word.len() + 1;
        }
        out.push('\n');
    }
    out
}

fn in_text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Turns the groups of options into parts of OPTIONS.
fn below_one_heading(options: &str) -> String {
    let part = |line: &str| match line.strip_prefix(".SH ") {
        Some(heading) if heading != "OPTIONS" => format!(".SS {heading}\n"),
        _ => format!("{line}\n"),
    };
    options.lines().map(part).collect()
}

fn synopsis(command: &Command) -> String {
    let more = if command.has_subcommands() { " COMMAND" } else { "" };
    let place =
        |argument: &clap::Arg| argument.get_value_names().and_then(|names| names.first().map(ToString::to_string));
    let places: Vec<String> = command.get_positionals().filter_map(place).collect();
    let places = places.iter().map(|place| format!(" \\fI{}\\fR", escaped(place))).collect::<String>();
    let many = if command.get_name() == "verify" && !places.is_empty() { "\\&..." } else { "" };
    format!(".SH SYNOPSIS\n\\fB{}\\fR [\\fIOPTIONS\\fR]\\fI{more}\\fR{places}{many}\n", escaped(bin_name(command)))
}

/// The help text of a command, and the text before its examples.
fn description(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let (before, _) = help_and_examples(command);
    let more: String =
        before.lines().filter(|line| !line.is_empty()).map(|line| format!(".PP\n{}\n", sentence(line))).collect();
    format!(".SH DESCRIPTION\n{}.\n{more}", escaped(&about))
}

fn sentence(line: &str) -> String {
    let end = if line.ends_with(['.', ':']) { "" } else { "." };
    format!("{}{end}", escaped(line))
}

fn commands(command: &Command) -> String {
    let row = |below: &Command| {
        let page = name(below);
        (format!("\\fB{}\\fR(1)", escaped(&page)), below.get_about().map(ToString::to_string).unwrap_or_default())
    };
    let rows: Vec<(String, String)> = command.get_subcommands().map(row).collect();
    let rows = rows.iter().map(|(term, text)| format!(".TP\n{term}\n{}.\n", escaped(text))).collect::<String>();
    format!(".SH COMMANDS\n{rows}")
}

fn examples(command: &Command) -> String {
    let (_, examples) = help_and_examples(command);
    if examples.is_empty() {
        return String::new();
    }
    // Not filled, so that each line of an example can be pasted.
    let lines = examples.lines().map(|line| format!("{}\n", escaped(line.trim_start()))).collect::<String>();
    format!(".SH EXAMPLES\n.EX\n{lines}.EE\n")
}

fn help_and_examples(command: &Command) -> (String, String) {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    match text.split_once("Examples:\n") {
        Some((before, examples)) => (before.trim_end().to_owned(), examples.to_owned()),
        None => (text, String::new()),
    }
}

fn see_also(command: &Command) -> String {
    let page_name = name(command);
    let mut pages: Vec<String> = vec!["cba-agent".into()];
    pages.extend(["cba-agent-doctor", "cba-agent-serve", "cba-agent-sign"].map(str::to_owned));
    let pages = pages.into_iter().filter(|page| *page != page_name);
    let pages: Vec<String> = pages.map(|page| format!("\\fB{}\\fR(1)", escaped(&page))).collect();
    format!(
        ".SH SEE ALSO\n{}\n.PP\nThe guides: /usr/share/doc/cba\\-agent/README.md and /usr/share/doc/cba\\-agent/docs.\n",
        pages.join(",\n")
    )
}

/// Whether a command takes the option of a key.
fn takes(command: &Command, key: &str) -> bool {
    command.get_arguments().any(|argument| argument.get_id() == key)
}

type Rows = Vec<(&'static str, &'static str)>;

fn exit_status(command: &Command) -> Vec<(String, &'static str)> {
    let name = bin_name(command);
    let is = |names: &[&str]| names.iter().any(|word| name.ends_with(word));
    let signs = is(&["sign", "serve", "doctor"]);
    let applies = |code: u8| match code {
        0..=2 => true,
        3 | 6 => takes(command, "module"),
        4 => takes(command, "pin.source") || is(&["pin-fuse"]),
        5 => is(&["sign", "serve"]),
        7 => signs,
        8 => is(&["verify", "audit head", "doctor", "custody", "certificate"]),
        _ => is(&["sign", "health"]),
    };
    // The page of the program lists all codes.
    let shown = EXIT_CODES.iter().filter(|(code, _)| command.has_subcommands() || applies(*code));
    shown.map(|(code, text)| (code.to_string(), *text)).collect()
}

fn environment(command: &Command) -> Vec<(String, &'static str)> {
    let mut rows: Rows = vec![
        (
            "CBA_AGENT_...",
            "An option with a variable in brackets can also be set by that variable. An option overrides its variable, and a variable overrides the configuration file. An empty variable counts as unset.",
        ),
        ("CBA_AGENT_CONFIG", "The configuration file, as \\-\\-config."),
        ("XDG_CONFIG_HOME, HOME", "The directory of the user's configuration file."),
    ];
    let all = command.has_subcommands();
    if all || takes(command, "state_dir") {
        rows.push((
            "STATE_DIRECTORY, XDG_STATE_HOME",
            "The directory of the wrong\\-PIN fuse without \\-\\-state\\-dir.",
        ));
    }
    if all || takes(command, "module") {
        rows.push(("SOFTHSM2_CONF, and others of the module", "The module gets them, except the variable that holds a PIN. Debug variables of vendors reach it only with \\-\\-module\\-debug."));
    }
    if all || takes(command, "pin.source") {
        rows.push(("CREDENTIALS_DIRECTORY", "The directory of credential:NAME; systemd sets it."));
    }
    if all || takes(command, "serve.workers") {
        rows.push(("RUNTIME_DIRECTORY", "The directory of the socket without \\-\\-socket; systemd sets it."));
        rows.push((
            "LISTEN_FDS, NOTIFY_SOCKET, WATCHDOG_USEC",
            "Socket activation, readiness and watchdog of systemd.",
        ));
    }
    rows.into_iter().map(|(term, text)| (escaped(term), text)).collect()
}

fn files(command: &Command) -> Vec<(String, &'static str)> {
    let all = command.has_subcommands();
    let mut rows: Rows = vec![
        ("~/.config/cba-agent/config.toml", "The user's configuration file."),
        ("/etc/cba-agent/config.toml", "The configuration file of the host, if the user has none."),
        ("/etc/cba-agent/policy.toml", "Root's policy and audit log; it applies on top of the configuration."),
    ];
    if all || takes(command, "state_dir") {
        rows.push((
            "~/.local/state/cba-agent, /var/lib/cba-agent",
            "The wrong\\-PIN fuse of a user, and of the packaged service.",
        ));
    }
    if all || takes(command, "sign.socket") || takes(command, "serve.socket") {
        rows.push(("/run/cba-agent/agent.sock", "The socket of the packaged service."));
    }
    if all || takes(command, "audit.path") || bin_name(command).contains(" audit") {
        rows.push(("/var/log/cba-agent/audit.jsonl", "The audit log of the packaged service."));
    }
    rows.into_iter().map(|(term, text)| (escaped(term), text)).collect()
}

/// A section with a list of terms. The texts are roff; the terms are escaped here.
fn definitions(heading: &str, rows: &[(String, &str)]) -> String {
    let rows = rows.iter().map(|(term, text)| format!(".TP\n\\fB{term}\\fR\n{text}\n")).collect::<String>();
    format!(".SH {}\n{rows}", if heading.contains(' ') { format!("\"{heading}\"") } else { heading.to_owned() })
}

/// Escapes text, so that roff prints it unchanged (groff_char(7)).
fn escaped(text: &str) -> String {
    let mut out = String::new();
    // Roff treats a line with these first characters as a control line.
    if text.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            '"' => out.push_str("\\(dq"),
            other => out.push(other),
        }
    }
    out
}
