//! The reasons why the fuse forbids a login, or cannot be stored.
//!
//! Runs in the parent.

use std::io;
use std::path::PathBuf;

use super::remedy::reset_command;
use crate::error::{Explain, Kind};
use crate::files::file_system_hint;
use crate::fuse::record::BlownFuse;
use crate::text::shell::quoted_path;

/// The reason why no login is tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FuseError {
    #[error("no state directory: neither --state-dir nor STATE_DIRECTORY, XDG_STATE_HOME or HOME is an absolute path")]
    NoDirectory,
    /// A restart would delete it.
    #[error("the state directory {} is in memory ({kind}), and a restart would forget refused PINs", .directory.display())]
    InMemory {
        directory: PathBuf,
        /// The file system, with mount(8)'s name.
        kind: &'static str,
    },
    /// Every user could delete it.
    #[error("every user of this host can change the state directory {}", .0.display())]
    OpenToOthers(PathBuf),
    /// The token cannot be distinguished from others, and one of them has a blown fuse.
    #[error("no login is tried: the token's information cannot be read, and the fuse of a token here is blown")]
    Unknown,
    #[error("the wrong-PIN fuse in {} cannot be stored", .0.display())]
    State(PathBuf, #[source] io::Error),
    /// A record is damaged. It may be this token's.
    #[error("the record {} is damaged", .0.display())]
    Damaged(PathBuf),
    /// The same, for a known token.
    #[error("the wrong-PIN fuse of this token is damaged")]
    DamagedOf {
        /// The token's URI.
        uri: String,
        directory: PathBuf,
    },
    #[error("another cba-agent holds the token")]
    Held,
    /// The fuse is blown.
    #[error(
        "no login is tried: since the last success, the token refused {} PIN(s), and {} attempt(s) ended with an unknown result",
        .0.tries.refused, .0.tries.pending
    )]
    Blown(Box<BlownFuse>),
}

impl Explain for FuseError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoDirectory
            | Self::InMemory { .. }
            | Self::OpenToOthers(_)
            | Self::State(..)
            | Self::Damaged(_)
            | Self::DamagedOf { .. } => Kind::StateDir,
            Self::Held => Kind::TokenBusy,
            Self::Unknown | Self::Blown(_) => Kind::PinFuse,
        }
    }

    fn hints(&self) -> Vec<String> {
        const NEEDED: &str = "unattended logins need a directory";
        match self {
            Self::NoDirectory => vec![format!("{NEEDED} that this user can write: --state-dir DIR")],
            Self::State(path, error) => {
                let needed = format!("{NEEDED} that this user can write: --state-dir DIR");
                file_system_hint(path, error).into_iter().chain([needed]).collect()
            }
            Self::InMemory { .. } => {
                vec![format!("{NEEDED} on a disk or a persistent volume: --state-dir DIR")]
            }
            Self::OpenToOthers(directory) => {
                let directory = quoted_path(directory);
                vec![
                    format!("remove the write permission of others: `chmod o-w {directory}`"),
                    format!("or use a private directory in it: --state-dir {directory}/cba-agent"),
                ]
            }
            Self::Unknown => vec!["log in once with --pin-source prompt, or see `cba-agent pin-fuse`".into()],
            Self::Damaged(path) => {
                vec![format!("look at it, then remove it: `rm {}`", quoted_path(path))]
            }
            Self::DamagedOf { uri, directory } => {
                vec![format!("when you are sure that the PIN is right: {}", reset_command(uri, directory))]
            }
            Self::Held => vec!["wait for it, or allow more time with --timeout".into()],
            Self::Blown(blown) => blown.other_hint().into_iter().chain(blown.reset_hints()).collect(),
        }
    }
}

impl BlownFuse {
    /// The reason why another token's fuse counts.
    #[must_use]
    pub(crate) fn other_hint(&self) -> Option<String> {
        let other = self.other.as_ref()?;
        Some(format!(
            "{other} counts too: it may be the same token, through another module or before its certificate was renewed"
        ))
    }

    /// The commands that clear the counted fuses.
    pub(crate) fn reset_hints(&self) -> impl Iterator<Item = String> {
        let command =
            |uri: &String| format!("when you are sure that the PIN is right: {}", reset_command(uri, &self.directory));
        self.uris.iter().map(command)
    }
}
