//! Where the values of a key came from.
//!
//! PURE.

/// The source of a value, weakest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A line of the file.
    File {
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// The key's variable.
    Environment,
    /// The key's flag.
    Flag,
}

impl Origin {
    /// The strength: file, environment, flag. All lines of one file are equal.
    #[must_use]
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::File { .. } => 0,
            Self::Environment => 1,
            Self::Flag => 2,
        }
    }
}

/// The values of one key.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// One value, or any number for a list.
    pub values: Vec<String>,
    /// The source of the values.
    pub origin: Origin,
}
