//! `completions`: scripts for shells, from the definitions of the command line.
//!
//! clap_complete writes them. What its scripts lack for this program is put in here; `tests/e2e/completions.rs` runs the shells.

use clap_complete::Shell;

use super::print_bytes;
use crate::cli;
use crate::error::{Error, Kind, Result};

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
    // Its cases name the program by one rule and its variable by another, where the program's name has a hyphen.
    let script = script.replace("cba__subcmd__agent", "cba__agent");
    // Readline splits `--format=js` at the sign.
    script.replacen(
        "    prev=\"$3\"\n",
        "    prev=\"$3\"\n    if [[ ${cur} == = ]]; then\n        cur=\n    elif [[ ${prev} == = ]]; then\n        \
         prev=${COMP_WORDS[COMP_CWORD-2]}\n    fi\n",
        1,
    )
}

fn zsh(script: &str) -> String {
    // A colon in the name of a value ends it.
    let script = script.replace(":SEQ:HASH:", ":SEQ\\:HASH:");
    let in_lines = script.lines().map(|line| {
        if let (true, Some((head, names))) = (line.starts_with("'--module="), line.split_once(":PATH|NAME:")) {
            // A path is as good as a name.
            let names = names.trim_end_matches("' \\");
            format!(r#"{head}:module:_alternative "names\:name\:{names}" "files\:module\:_files"' \"#)
        } else if let (true, Some((head, sources))) = (line.starts_with("'--pin-source="), line.split_once(":SOURCE:"))
        {
            // Behind `file:` a file; no space behind a colon.
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
            // A path is as good as a name.
            line.replace(" -r -f -a ", " -r -F -a ")
        } else if line.contains("using_subcommand help; and not __fish_seen_subcommand_from ") {
            // `help` itself stands in the line.
            line.replacen(" help\"", "\"", 1)
        } else {
            line.to_owned()
        }
    });
    let mut script = lines.collect::<Vec<_>>().join("\n");
    // An option whose value is typed at this moment still has none.
    let parse = "    argparse -s (__fish_cba_agent_global_optspecs) -- $cmd";
    script = script.replacen(
        &format!("{parse} 2>/dev/null\n"),
        &format!("{parse} 2>/dev/null\n    or argparse -s (__fish_cba_agent_global_optspecs) -- $cmd '' 2>/dev/null\n"),
        1,
    );
    // Arguments without an option are left out.
    let using = "complete -c cba-agent -n \"__fish_cba_agent_using_subcommand";
    script += &format!("\n{using} completions\" -f -a \"{}\"\n", cli::SHELLS.join(" "));
    script += &format!("{using} man\" -f -a \"(__fish_complete_directories)\"\n");
    script
}
