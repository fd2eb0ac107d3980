//! Adds the module and slot of this run to commands of other programs in hints, so that they work when pasted.
//!
//! Runs in the parent.

use std::path::Path;

use crate::error::Error;
use crate::text::shell::{in_commands, quoted_path};

/// Completes the commands in an error.
pub(super) fn completed(mut error: Error, module: &Path, slot: Option<u64>) -> Error {
    error.hints = error.hints.iter().map(|hint| in_hint(hint, module, slot)).collect();
    error
}

/// Completes the commands in a hint: `pkcs11-tool` gets `--module`, and `--slot` if the command names no token; `ldd`
/// and `findmnt` get the file.
pub(crate) fn in_hint(hint: &str, module: &Path, slot: Option<u64>) -> String {
    let module = quoted_path(module);
    in_commands(hint, |command| {
        if command == "ldd -r" {
            return format!("{command} {module}");
        }
        if let Some((mount, rest)) = command.split_once(" -T MODULE") {
            return format!("{mount} -T {module}{rest}");
        }
        let Some(options) = command.strip_prefix("pkcs11-tool ") else { return command.to_owned() };
        let slot = slot.filter(|_| !["--slot", "--token-label"].iter().any(|option| options.contains(option)));
        let slot = slot.map(|id| format!(" --slot {id}")).unwrap_or_default();
        format!("pkcs11-tool --module {module}{slot} {options}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_programs_command_gets_module_and_slot() {
        let hint = |hint| in_hint(hint, Path::new("/my lib/m.so"), Some(7));
        assert_eq!(
            hint("change it: `pkcs11-tool --login --change-pin`"),
            "change it: `pkcs11-tool --module '/my lib/m.so' --slot 7 --login --change-pin`"
        );
        assert_eq!(
            hint("`pkcs11-tool --slot 3 --init-token --label cba`"),
            "`pkcs11-tool --module '/my lib/m.so' --slot 3 --init-token --label cba`"
        );
        assert_eq!(hint("check it with `ldd -r`"), "check it with `ldd -r '/my lib/m.so'`");
        assert_eq!(hint("`cba-agent list`, pkcs11-tool"), "`cba-agent list`, pkcs11-tool");
    }
}
