//! The reasons why no token was selected, with the options that would select one.
//!
//! PURE.

use crate::error::{Explain, Kind};

/// The reason why no token was selected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SelectError {
    #[error("no initialised token found")]
    NoToken {
        /// Slots with an uninitialised token.
        uninitialised: usize,
    },
    /// The selected token is in no slot.
    #[error("the token with {selection} was not found")]
    NotThere {
        /// The selection, in words.
        selection: String,
        /// The existing tokens, each as a selector.
        candidates: Vec<String>,
    },
    #[error("no token matches the selection{}", .selection.as_deref().map(|a| format!(" ({a})")).unwrap_or_default())]
    NoMatch {
        /// The part of the selection that does not match, if known.
        selection: Option<String>,
        /// The existing tokens, each as a selector.
        candidates: Vec<String>,
    },
    #[error("{} tokens match the selection", .candidates.len())]
    Ambiguous {
        /// Each as a selector.
        candidates: Vec<String>,
    },
    /// Nothing readable matches, but an unreadable slot might.
    #[error("no token matches, and slot ID {id} cannot be read: {cause}")]
    MaybeUnreadable {
        /// Its slot ID.
        id: u64,
        /// The module's error.
        cause: String,
    },
    /// One token matches, but an unreadable slot might match too.
    #[error("one token is present, and slot ID {id}, which may hold another, cannot be read: {cause}")]
    BesideUnreadable {
        /// Its slot ID.
        id: u64,
        /// The module's error.
        cause: String,
        /// The readable one, as a selector.
        readable: String,
    },
    #[error("slot {index} (slot ID {id}) cannot be read: {cause}")]
    Unreadable {
        index: usize,
        /// Its slot ID.
        id: u64,
        /// The module's error.
        cause: String,
    },
    /// The token in the selected slot has no initialised PIN and label.
    #[error("the token in slot ID {id} is not initialised")]
    Uninitialised {
        /// The slot ID.
        id: u64,
    },
}

impl Explain for SelectError {
    fn kind(&self) -> Kind {
        match self {
            Self::Ambiguous { .. } | Self::BesideUnreadable { .. } => Kind::Ambiguous,
            Self::MaybeUnreadable { .. } => Kind::TokenFailed,
            _ => Kind::NotFound,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoToken { uninitialised: 0 } => {
                vec!["plug the token in, or check the module's configuration; `cba-agent list` shows the slots".into()]
            }
            Self::NoToken { .. } => vec![format!("a token is there but not initialised: {}", initialise(""))],
            Self::Uninitialised { id } => vec![format!("initialise it: {}", initialise(&format!("--slot {id} ")))],
            Self::NotThere { candidates, .. } | Self::NoMatch { candidates, .. } if candidates.is_empty() => {
                vec!["plug the token in, or check the module's configuration; `cba-agent list` shows the slots".into()]
            }
            Self::NotThere { candidates, .. } | Self::NoMatch { candidates, .. } => {
                candidates.iter().map(|c| format!("there is {c}")).collect()
            }
            Self::Ambiguous { candidates } => candidates.iter().map(|c| format!("choose with {c}")).collect(),
            Self::BesideUnreadable { id, readable, .. } => {
                vec![format!("choose with {readable}"), format!("choose with --slot-id {id}")]
            }
            Self::Unreadable { id, .. } | Self::MaybeUnreadable { id, .. } => {
                vec![format!("if you mean this slot, choose it with --slot-id {id}")]
            }
        }
    }
}

/// The two commands that initialise a token.
fn initialise(slot: &str) -> String {
    format!(
        "`pkcs11-tool {slot}--init-token --label cba`, then `pkcs11-tool --token-label cba --login --login-type so --init-pin`"
    )
}
