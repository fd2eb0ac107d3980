//! User IDs that several users may share: the overflow user ID, and subordinate user IDs. The gateway serves such an ID
//! only if a client lists it.

use std::fs;
use std::path::Path;

use crate::config::LocalClient;
use crate::library::{Error, Kind, Result, SUBORDINATE_USERS, SubordinateIds};

/// The default overflow user ID of Linux. The kernel shows it for each ID that it cannot map.
const DEFAULT_OVERFLOW: u32 = 65_534;

#[derive(Debug)]
pub(crate) struct SharedUsers {
    overflow: u32,
    subordinate: SubordinateIds,
}

impl SharedUsers {
    /// Reads the shared users of this host.
    ///
    /// # Errors
    /// When the file of subordinate user IDs exists and cannot be read.
    pub(crate) fn read() -> Result<Self> {
        let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
        let file = SUBORDINATE_USERS;
        let subordinate = SubordinateIds::read(Path::new(file)).map_err(|error| {
            Error::new(Kind::Config, format!("cannot read the subordinate user IDs in {file}: {error}"))
                .hint(format!("the gateway's user must be able to read it; as root: `chmod 644 {file}`"))
        })?;
        Ok(Self {
            overflow: overflow.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_OVERFLOW),
            subordinate,
        })
    }

    /// Whether a user ID is shared and no enabled client lists it.
    #[must_use]
    pub(crate) fn refuses<'a>(&self, user: u32, clients: impl IntoIterator<Item = &'a LocalClient>) -> bool {
        // User ID 0 is root, even if a range in the file begins at 0: its owner can already act as root.
        let is_subordinate = user != 0 && self.subordinate.owner(user).is_some();
        let is_shared = user == DEFAULT_OVERFLOW || user == self.overflow || is_subordinate;
        is_shared && !clients.into_iter().any(|client| !client.disabled && client.users.contains(&user))
    }
}
