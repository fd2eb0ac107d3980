//! Hints after a refused PIN, for each source of the PIN.
//!
//! Runs in the parent. Only a file on a disk is read again. For every other source, a person must clear the fuse. Each command is complete, so that it
//! works when pasted.

use std::path::Path;

use super::BlownFuse;
use crate::fuse::record::BOUND;
use crate::pin::source::PinSource;
use crate::text::shell::{quoted, quoted_path};

/// The command that clears one fuse.
#[must_use]
pub(crate) fn reset_command(uri: &str, directory: &Path) -> String {
    format!("`cba-agent pin-fuse --reset --uri '{uri}' --state-dir {}`", quoted_path(directory))
}

/// The command that clears the only fuse of a directory that is not intact.
#[must_use]
pub(crate) fn reset_any(directory: &Path) -> String {
    format!("`cba-agent pin-fuse --reset --state-dir {}`", quoted_path(directory))
}

/// The place of a login.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remedy<'a> {
    pub source: &'a PinSource,
    /// Whether that is a file on a disk, whose change is noticed.
    pub is_noticed: bool,
    /// Whether the path of that file may be printed.
    pub is_path_shown: bool,
    /// The text for `--module`.
    pub module: &'a str,
    /// The token's URI.
    pub uri: &'a str,
    /// Whether the commands are for root, since a service of another user was refused.
    pub as_root: bool,
}

impl Remedy<'_> {
    /// The hints, most likely first.
    #[must_use]
    pub(crate) fn hints(&self, blown: &BlownFuse) -> Vec<String> {
        let mut hints: Vec<String> = blown.other_hint().into_iter().collect();
        let is_tried = self.is_noticed && blown.tries.spent() < BOUND;
        hints.push(self.correct(is_tried));
        let who = if self.as_root { ", as root" } else { "" };
        hints.push(format!("or log in once by hand{who}: {}", self.by_hand(&blown.directory)));
        hints.extend(
            blown.reset_hints().map(|reset| format!("or, {}{}", if self.as_root { "as root, " } else { "" }, reset)),
        );
        if matches!(self.source, PinSource::Credential(_)) {
            hints.push("a service reads its credential only at its start: restart it after that".into());
        }
        hints
    }

    /// Where the right PIN must be put, and whether that is enough.
    fn correct(&self, is_tried: bool) -> String {
        let then = if is_tried {
            "which is then tried once"
        } else {
            "and clear the fuse, since a changed source gets no unattended try"
        };
        match self.source {
            PinSource::File(path) if self.is_noticed => {
                format!("correct the PIN in {}, {then}", self.shown(path))
            }
            PinSource::File(path) => format!(
                "correct the PIN in {} and clear the fuse, since a file in memory or a pipe does not prove a change",
                self.shown(path)
            ),
            PinSource::Credential(_) => {
                "correct the PIN in the file that LoadCredential= names, and clear the fuse".into()
            }
            PinSource::Env(_) => "correct the PIN in its variable, and clear the fuse".into(),
            PinSource::Fd(_) => "correct the PIN on its descriptor, and clear the fuse".into(),
            PinSource::Stdin => "correct the PIN on standard input, and clear the fuse".into(),
            PinSource::Prompt | PinSource::Pinpad => {
                "make sure that the PIN is right before you type it again: a token locks after a few wrong ones".into()
            }
        }
    }

    fn shown(&self, path: &Path) -> String {
        if self.is_path_shown { quoted_path(path) } else { "the file that the URI names".to_owned() }
    }

    /// The command for a login that needs neither key nor certificate.
    fn by_hand(&self, directory: &Path) -> String {
        let source = if *self.source == PinSource::Pinpad { "pinpad" } else { "prompt" };
        let (module, directory) = (quoted(self.module), quoted_path(directory));
        let uri = self.uri;
        format!(
            "`cba-agent list --login --module {module} --uri '{uri}' --state-dir {directory} --pin-source {source}`"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::record::{FuseRecord, Tries};

    #[test]
    fn the_hint_fits_each_pin_source() {
        let file = || PinSource::File("/etc/pin file".into());
        // Source, whether its change is noticed, spent tries; whether a correction alone is enough.
        for (source, is_noticed, spent, is_enough) in [
            (file(), true, 1, true),
            (file(), true, 2, false),
            (file(), false, 1, false),
            (file(), false, 2, false),
            (PinSource::Credential("pin".into()), false, 1, false),
            (PinSource::Credential("pin".into()), false, 2, false),
            (PinSource::Env("SECRET".into()), false, 1, false),
            (PinSource::Env("SECRET".into()), false, 2, false),
            (PinSource::Fd(7), false, 1, false),
            (PinSource::Stdin, false, 1, false),
            (PinSource::Prompt, false, 1, false),
            (PinSource::Pinpad, false, 1, false),
        ] {
            let record = FuseRecord { refused: spent, ..FuseRecord::default() };
            let blown = BlownFuse {
                tries: Tries::of([&record]),
                uris: vec!["pkcs11:token=a".into()],
                other: None,
                directory: "/var/lib/the state".into(),
            };
            let remedy = Remedy {
                source: &source,
                is_noticed,
                is_path_shown: true,
                module: "opensc",
                uri: "pkcs11:token=a",
                as_root: false,
            };
            let hints = remedy.hints(&blown);
            let text = hints.join("\n");
            assert_eq!(text.contains("then tried once"), is_enough, "{source:?} {spent}: {text}");
            assert!(!text.contains("SECRET"), "{text}");
            let place = match source {
                PinSource::File(_) => "correct the PIN in '/etc/pin file'",
                PinSource::Credential(_) => "the file that LoadCredential= names",
                PinSource::Env(_) => "in its variable",
                PinSource::Fd(_) => "on its descriptor",
                PinSource::Stdin => "on standard input",
                PinSource::Prompt | PinSource::Pinpad => "before you type it again",
            };
            assert!(text.contains(place), "{source:?}: {text}");
            assert_eq!(text.contains("restart"), matches!(source, PinSource::Credential(_)), "{text}");
            let keypad = source == PinSource::Pinpad;
            let by_hand = "`cba-agent list --login --module opensc --uri 'pkcs11:token=a' --state-dir '/var/lib/the state' --pin-source";
            let by_hand = format!("{by_hand} {}`", if keypad { "pinpad" } else { "prompt" });
            assert!(text.contains(&by_hand), "{text}");
            let reset = "`cba-agent pin-fuse --reset --uri 'pkcs11:token=a' --state-dir '/var/lib/the state'`";
            assert!(text.contains(reset), "{text}");
            let as_root = Remedy { as_root: true, ..remedy }.hints(&blown).join("\n");
            assert_eq!(as_root.matches("as root").count(), 2, "{as_root}");
        }
    }
}
