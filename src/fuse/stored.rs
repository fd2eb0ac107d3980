//! The fuses in a state directory: their list, and the reset of one.
//!
//! Runs in the parent.

use std::fs;
use std::path::{Path, PathBuf};

use super::record_name::uri_of;
use super::{BlownFuse, FuseError};
use crate::deadline::Deadline;
use crate::facts::TokenId;
use crate::files::if_exists;
use crate::fuse::record::{FuseRecord, Tries};
use crate::fuse::record_file::{self, read};
use crate::selector::TokenSelector;
use crate::text::printable;

/// The records of one token.
#[derive(Debug)]
pub(crate) struct StoredFuse {
    pub files: Vec<PathBuf>,
    /// Their content; at least one record. A damaged one is its error.
    pub content: Result<Vec<FuseRecord>, FuseError>,
}

impl StoredFuse {
    /// The token's identity; `None` for a damaged record.
    #[must_use]
    pub(crate) fn id(&self) -> Option<TokenId> {
        Some(self.content.as_ref().ok()?.first()?.id())
    }

    fn records(&self) -> &[FuseRecord] {
        self.content.as_deref().unwrap_or_default()
    }

    /// The counts.
    #[must_use]
    pub(crate) fn tries(&self) -> Tries {
        Tries::of(self.records())
    }

    /// Whether an unattended attempt with an unchanged source is refused.
    #[must_use]
    pub(crate) fn is_blown(&self) -> bool {
        self.content.is_err() || self.tries().is_blown()
    }

    /// Whether there is nothing to clear.
    #[must_use]
    pub(crate) fn is_intact(&self) -> bool {
        self.content.is_ok() && self.tries().spent() == 0
    }

    /// Whether a selection matches this token, with any of its labels.
    #[must_use]
    pub(crate) fn matches(&self, selector: &TokenSelector) -> bool {
        self.records().iter().any(|record| selector.matches_token(&record.token()))
    }

    /// The URI that selects it; `None` for a damaged record.
    #[must_use]
    pub(crate) fn uri(&self) -> Option<String> {
        Some(uri_of(&self.records().first()?.token()).to_string())
    }

    /// The counts, in the form of a refusal.
    #[must_use]
    pub(crate) fn blown(&self, directory: &Path) -> BlownFuse {
        let uris = self.uri().into_iter().collect();
        BlownFuse { tries: self.tries(), uris, other: None, directory: directory.to_owned() }
    }

    /// Clears it, under the locks of its records.
    ///
    /// # Errors
    /// When a record cannot be removed, or a lock is not free in time.
    pub(crate) fn reset(&self, deadline: &Deadline) -> Result<(), FuseError> {
        for path in &self.files {
            let lock = record_file::lock(path, deadline)?;
            record_file::remove(path, &lock)?;
        }
        Ok(())
    }

    /// One line about it, for people.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        let record = match &self.content {
            Ok(records) => records.first(),
            Err(error) => return printable(&format!("{error}: it counts as blown")),
        };
        let Some(record) = record else { return String::new() };
        let tries = self.tries();
        let state = match (tries.is_blown(), tries.spent()) {
            (false, 0) => "intact",
            (false, _) => "intact; one attempt ended with an unknown result",
            (true, spent) if spent < 2 => "blown: allows one attempt with a changed PIN file, or a login at a prompt",
            (true, _) => "blown: needs a login at a prompt, or --reset",
        };
        format!(
            "token '{}' serial '{}' ({} {}): {state} (refused {}, unknown {})",
            printable(&record.label),
            printable(&record.serial),
            printable(&record.manufacturer),
            printable(&record.model),
            tries.refused,
            tries.pending,
        )
    }
}

/// Every fuse of a directory, in the order of file names.
pub(super) fn all(directory: &Path) -> Result<Vec<StoredFuse>, FuseError> {
    let mut fuses: Vec<StoredFuse> = Vec::new();
    for path in files(directory)? {
        match read(&path) {
            Ok(Some(record)) => {
                let id = record.id();
                match fuses.iter_mut().find(|fuse| fuse.id().as_ref() == Some(&id)) {
                    Some(fuse) => {
                        fuse.files.push(path);
                        fuse.content.iter_mut().for_each(|records| records.push(record.clone()));
                    }
                    None => fuses.push(StoredFuse { files: vec![path], content: Ok(vec![record]) }),
                }
            }
            // It was removed in between.
            Ok(None) => {}
            Err(error) => fuses.push(StoredFuse { files: vec![path], content: Err(error) }),
        }
    }
    Ok(fuses)
}

/// The files of all records in a directory, sorted. A process that takes several locks takes them in this order.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>, FuseError> {
    let failed = |error| FuseError::State(directory.to_owned(), error);
    let Some(entries) = if_exists(fs::read_dir(directory)).map_err(failed)? else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
