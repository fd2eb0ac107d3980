//! `completions` and `man`, from the definitions of the command line.

use std::path::Path;

use clap_complete::Shell;

use super::print;
use crate::cli;
use crate::library::{Error, Kind, Result, file_format::quoted};
use crate::manual_page::manual_pages;

pub(super) fn completions(shell: &str) -> Result<()> {
    let shell: Shell = shell.parse().map_err(|_| {
        Error::new(Kind::Usage, "cannot print completions: this shell is unknown")
            .hint(format!("one of {}", cli::SHELLS.join(", ")))
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "cba-gateway", &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match shell {
        Shell::Bash => corrected_bash(&script),
        Shell::Fish => corrected_fish(&script),
        _ => script.into_owned(),
    };
    print(script.trim_end())
}

/// Corrects the script of clap_complete, which uses two different names for a program with a hyphen, and does not expect
/// that readline splits `--format=json` at the equals sign.
fn corrected_bash(script: &str) -> String {
    let split_at_equals_sign = "    if [[ ${cur} == = ]]; then\n        cur=\n    elif [[ ${prev} == = ]]; then\n        \
                                prev=${COMP_WORDS[COMP_CWORD-2]}\n    fi\n";
    let after = "    prev=\"$3\"\n";
    script.replace("cba__subcmd__gateway", "cba__gateway").replacen(after, &format!("{after}{split_at_equals_sign}"), 1)
}

/// Corrects the script of clap_complete: an option whose value is being typed has no value yet. Adds the arguments that are
/// not options, which clap_complete omits.
fn corrected_fish(script: &str) -> String {
    let parse = "    argparse -s (__fish_cba_gateway_global_optspecs) -- $cmd";
    let with_empty_value = format!("{parse} 2>/dev/null\n    or{} '' 2>/dev/null\n", &parse[3..]);
    let script = script.replacen(&format!("{parse} 2>/dev/null\n"), &with_empty_value, 1);
    let using = "complete -c cba-gateway -n \"__fish_cba_gateway_using_subcommand";
    let shells = cli::SHELLS.join(" ");
    format!(
        "{script}\n{using} completions\" -f -a \"{shells}\"\n{using} man\" -f -a \"(__fish_complete_directories)\"\n"
    )
}

pub(super) fn man(directory: &str) -> Result<()> {
    let directory = Path::new(directory);
    if !directory.is_dir() {
        return Err(Error::new(Kind::Usage, "cannot write manual pages: DIR must be an existing directory")
            .hint(format!("mkdir -p {}", quoted(&directory.display().to_string()))));
    }
    let failed = |error: std::io::Error| {
        Error::new(Kind::Unexpected, format!("cannot write manual pages: {error}"))
            .hint(format!("{} must be a directory that you may write", directory.display()))
    };
    for (name, text) in manual_pages().map_err(failed)? {
        std::fs::write(directory.join(name), text).map_err(failed)?;
    }
    Ok(())
}
