//! `completions`: prints scripts for shells, from the definitions of the command line.
//!
//! Runs in the parent. clap_complete writes them, and this file corrects them for this program.
//! `tests/e2e/completions.rs` runs them in the shells.

use clap_complete::Shell;

use crate::cli;
use crate::error::{Error, Kind, Result};
use crate::output::print_bytes;

pub(super) fn run(shell: &str) -> Result<()> {
    let shell: Shell = shell.parse().map_err(|_| {
        Error::new(Kind::Usage, "there is no completion for that shell")
            .hint(format!("one of {}", cli::SHELLS.join(", ")))
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "cba-agent", &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match shell {
        Shell::Bash => bash(&script),
        Shell::Zsh => zsh(&script),
        Shell::Fish => fish(&script),
        _ => script.into_owned(),
    };
    print_bytes(script.as_bytes())
}

fn bash(script: &str) -> String {
    // clap_complete uses two different names for a program with a hyphen.
    let script = script.replace("cba__subcmd__agent", "cba__agent");
    // Readline splits `--format=js` at the equals sign.
    script.replacen(
        "    prev=\"$3\"\n",
        "    prev=\"$3\"\n    if [[ ${cur} == = ]]; then\n        cur=\n    elif [[ ${prev} == = ]]; then\n        \
         prev=${COMP_WORDS[COMP_CWORD-2]}\n    fi\n",
        1,
    )
}

fn zsh(script: &str) -> String {
    // A colon would end the name of a value.
    let script = script.replace(":SEQ:HASH:", ":SEQ\\:HASH:");
    let in_lines = script.lines().map(|line| {
        if let (true, Some((head, names))) = (line.starts_with("'--module="), line.split_once(":PATH|NAME:")) {
            // Also offer paths.
            let names = names.trim_end_matches("' \\");
            format!(r#"{head}:module:_alternative "names\:name\:{names}" "files\:module\:_files"' \"#)
        } else if let (true, Some((head, sources))) = (line.starts_with("'--pin-source="), line.split_once(":SOURCE:"))
        {
            // Offer a file after `file:`, and add no space after a colon.
            let sources = sources.trim_end_matches("' \\").trim_matches(['(', ')']);
            format!("{head}:source:{{ if compset -P file\\:; then _files; else compadd -S \"\" -- {sources}; fi }}' \\")
        } else {
            line.to_owned()
        }
    });
    in_lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn fish(script: &str) -> String {
    let lines = script.lines().map(|line| {
        if line.contains(" -l module ") {
            // Also offer paths.
            line.replace(" -r -f -a ", " -r -F -a ")
        } else if line.contains("using_subcommand help; and not __fish_seen_subcommand_from ") {
            // `help` itself is in the line.
            line.replacen(" help\"", "\"", 1)
        } else {
            line.to_owned()
        }
    });
    let mut script = lines.collect::<Vec<_>>().join("\n");
    // An option whose value is being typed has no value yet.
    let parse = "    argparse -s (__fish_cba_agent_global_optspecs) -- $cmd";
    script = script.replacen(
        &format!("{parse} 2>/dev/null\n"),
        &format!("{parse} 2>/dev/null\n    or argparse -s (__fish_cba_agent_global_optspecs) -- $cmd '' 2>/dev/null\n"),
        1,
    );
    // fish's script leaves out arguments without an option.
    let using = "complete -c cba-agent -n \"__fish_cba_agent_using_subcommand";
    script += &format!("\n{using} completions\" -f -a \"{}\"\n", cli::SHELLS.join(" "));
    script += &format!("{using} man\" -f -a \"(__fish_complete_directories)\"\n");
    script
}
