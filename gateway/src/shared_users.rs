//! User IDs that may stand for several users of the host: the overflow user ID, and subordinate user IDs. The gateway
//! serves such an ID only if a client lists it.

use std::fs;
use std::path::Path;

use crate::config::LocalClient;
use crate::library::{Error, Kind, Result, SUBORDINATE_USERS, SubordinateIds};

/// The default overflow user ID of Linux. The kernel shows it in place of an ID that it cannot map.
const OVERFLOW: u32 = 65_534;

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
        Ok(Self { overflow: overflow.and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW), subordinate })
    }

    /// Whether a user is shared and no active client lists it.
    #[must_use]
    pub(crate) fn refuses<'a>(&self, user: u32, clients: impl IntoIterator<Item = &'a LocalClient>) -> bool {
        let is_shared =
            user == OVERFLOW || user == self.overflow || user != 0 && self.subordinate.owner(user).is_some();
        is_shared && !clients.into_iter().any(|client| !client.disabled && client.users.contains(&user))
    }
}
