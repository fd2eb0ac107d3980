//! Which users may ask: compares the kernel's user and groups of each connection with the configuration. Runs in the
//! parent.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::unistd::{Group, User};
use tokio::net::UnixStream;

use crate::config::Serve;
use crate::error::{Error, Kind, Result};
use crate::os::peer_groups;
use crate::os::subordinate_ids::{self, SubordinateIds};

/// The user and group for all IDs that a container's user namespace does not map.
const OVERFLOW: u32 = 65_534;

/// The minimum time between two log lines about the same refused user.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The maximum number of refused users whose last log line is remembered.
const REMEMBERED: usize = 1024;

/// The other end of a connection, as it was when it connected.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// 0 for a process outside this PID namespace.
    pub(super) pid: i32,
    groups: Vec<u32>,
}

/// The permission of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything.
    Ask,
    /// Read the state, but not ask for payloads.
    Look,
    /// Nothing.
    None,
}

/// The rules, with names resolved to numbers.
#[derive(Clone, Debug)]
pub(super) struct AccessRules {
    own_user: u32,
    overflow: u32,
    pub(super) socket_group: Option<u32>,
    allow_users: Vec<u32>,
    allow_groups: Vec<u32>,
    monitor_groups: Vec<u32>,
    subordinate_users: Arc<SubordinateIds>,
}

impl Peer {
    /// Reads the peer's credentials from its socket.
    ///
    /// # Errors
    /// When the kernel does not know them.
    pub(super) fn of(socket: &UnixStream) -> io::Result<Self> {
        // rustix's function cannot represent process ID 0, which stands for a process in another namespace, as in a
        // container.
        let credentials = socket.peer_cred()?;
        // An old kernel that cannot report the groups leaves the primary one.
        let groups = peer_groups::of(socket).unwrap_or_default();
        let pid = credentials.pid().unwrap_or_default();
        Ok(Self { uid: credentials.uid(), gid: credentials.gid(), pid, groups })
    }

    fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }
}

impl AccessRules {
    /// Resolves the names, and reads the subordinate user IDs.
    ///
    /// # Errors
    /// An unknown name, or unreadable subordinate IDs.
    pub(super) fn resolve(serve: &Serve) -> Result<Self> {
        let groups = |names: &[String]| names.iter().map(|name| group(name)).collect::<Result<Vec<_>>>();
        let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
        Ok(Self {
            own_user: rustix::process::geteuid().as_raw(),
            overflow: overflow.and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW),
            socket_group: serve.socket_group.as_deref().map(group).transpose()?,
            allow_users: serve.allow_users.iter().map(|name| user(name)).collect::<Result<_>>()?,
            allow_groups: groups(&serve.allow_groups)?,
            monitor_groups: groups(&serve.monitor_groups)?,
            subordinate_users: Arc::new(subordinate_ids(subordinate_ids::USERS)?),
        })
    }

    /// Warns about rules that cannot work on our own socket, which only its group can reach.
    pub(super) fn warn(&self) {
        let names_others = self.allow_users.iter().any(|user| *user != self.own_user && *user != 0)
            || !self.allow_groups.is_empty()
            || !self.monitor_groups.is_empty();
        if self.socket_group.is_none() && names_others {
            tracing::warn!(
                "without socket_group only root and the agent's own user can connect, even if the lists name others"
            );
        }
        if self.own_user == OVERFLOW {
            tracing::warn!("the agent runs as the overflow user, which is never served");
        }
    }

    /// The permission of a peer.
    ///
    /// Root and the agent's own user may always read the state: the file system gives both access to the socket. Root may ask if no list
    /// restricts it. The agent's own user may ask only where `allow_users` names it: otherwise the modules of all agents of that user could
    /// ask each other. The same holds for a subordinate user ID, since one user can have thousands of them. If there is a socket group, a
    /// list restricts it further. Without a group, the list alone decides.
    pub(super) fn judge(&self, peer: &Peer) -> Access {
        if peer.uid == OVERFLOW || peer.uid == self.overflow {
            return Access::None;
        }
        // An unmapped group gives no information about its members.
        let is_in = |group: &u32| *group != OVERFLOW && peer.is_in(*group);
        let (is_own, is_root, is_named) =
            (peer.uid == self.own_user, peer.uid == 0, self.allow_users.contains(&peer.uid));
        let is_at_home = is_own || is_root;
        if !is_at_home && !is_named && self.subordinate_users.owner(peer.uid).is_some() {
            return Access::None;
        }
        let may_connect = is_at_home || self.socket_group.iter().any(is_in);
        let is_monitor = self.monitor_groups.iter().any(is_in);
        let may_ask = if is_own {
            is_named
        } else if self.allow_users.is_empty() && self.allow_groups.is_empty() {
            // A monitor must be in the socket's group to connect, but may not ask.
            is_root || may_connect && !is_monitor
        } else {
            let is_listed = is_named || self.allow_groups.iter().any(is_in);
            is_listed && (may_connect || self.socket_group.is_none())
        };
        match may_ask {
            true => Access::Ask,
            false if is_at_home || is_monitor => Access::Look,
            false => Access::None,
        }
    }

    /// The reason why a peer is refused, or may only read; for the log.
    pub(super) fn why_refused(&self, peer: &Peer) -> String {
        if peer.uid == OVERFLOW || peer.uid == self.overflow {
            return "the overflow user is never served".into();
        }
        if peer.uid == self.own_user {
            return "the agent's own user may read the state, and may ask only if allow_users names it".into();
        }
        if let Some(owner) = self.subordinate_users.owner(peer.uid).filter(|_| peer.uid != 0) {
            let file = subordinate_ids::USERS;
            return format!("a subordinate user ID of {owner} ({file}) is served only if allow_users names it");
        }
        match self.judge(peer) {
            Access::Look => "may read the state, but not ask".into(),
            _ => "not served".into(),
        }
    }
}

/// The subordinate IDs in one of the two files.
///
/// # Errors
/// When the file exists and cannot be read: then no user can be distinguished from subordinate IDs.
pub(super) fn subordinate_ids(file: &str) -> Result<SubordinateIds> {
    SubordinateIds::read(Path::new(file)).map_err(|error| {
        Error::new(Kind::Config, format!("cannot read the subordinate IDs in {file}: {error}"))
            .hint(format!("the agent's user must be able to read it; as root: `chmod 644 {file}`"))
    })
}

/// A valid user or group number: -1 means none (chown(2)).
fn number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|number| *number != u32::MAX)
}

/// Resolves a user's name or number.
fn user(name: &str) -> Result<u32> {
    if let Some(number) = number(name) {
        return Ok(number);
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(unknown("user", name)),
        Err(error) => Err(Error::new(Kind::Config, format!("cannot look up the user '{name}': {error}"))),
    }
}

/// Resolves a group's name or number.
fn group(name: &str) -> Result<u32> {
    if let Some(number) = number(name) {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(unknown("group", name)),
        Err(error) => Err(Error::new(Kind::Config, format!("cannot look up the group '{name}': {error}"))),
    }
}

fn unknown(what: &str, name: &str) -> Error {
    Error::new(Kind::Config, format!("there is no {what} '{name}' on this host"))
        .hint(format!("`getent {}` lists them; numbers are accepted too", if what == "user" { "passwd" } else { what }))
}

/// Logs refused users, each at most once a minute, so that they cannot fill the log.
#[derive(Debug, Default)]
pub(super) struct RefusalLog(Mutex<HashMap<u32, (Instant, u64)>>);

impl RefusalLog {
    pub(super) fn note(&self, peer: &Peer, why: impl FnOnce() -> String) {
        let Ok(mut seen) = self.0.lock() else { return };
        if seen.len() >= REMEMBERED {
            seen.retain(|_, (since, _)| since.elapsed() < REFUSAL_LOG_INTERVAL);
        }
        let now = Instant::now();
        let (since, unlogged) = seen.get(&peer.uid).copied().unwrap_or((now, 0));
        if unlogged > 0 && since.elapsed() < REFUSAL_LOG_INTERVAL || seen.len() >= REMEMBERED {
            seen.entry(peer.uid).and_modify(|(_, unlogged)| *unlogged += 1);
            return;
        }
        seen.insert(peer.uid, (now, 1));
        let more =
            if unlogged > 1 { format!(", {} times more since the last notice", unlogged - 1) } else { String::new() };
        tracing::warn!("refused: user {} group {} (process {}): {}{more}", peer.uid, peer.gid, peer.pid, why());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, groups: &[u32]) -> Peer {
        Peer { uid, gid: 1000 + uid, pid: 1, groups: groups.to_vec() }
    }

    fn rules() -> AccessRules {
        AccessRules {
            own_user: 500,
            overflow: OVERFLOW,
            socket_group: Some(7),
            allow_users: vec![],
            allow_groups: vec![],
            monitor_groups: vec![9],
            subordinate_users: Arc::new(SubordinateIds::read(Path::new("/nonexistent")).unwrap()),
        }
    }

    #[test]
    fn members_of_the_group_may_ask_and_monitors_may_look() {
        let rules = rules();
        assert_eq!(rules.judge(&peer(1, &[7])), Access::Ask);
        assert_eq!(rules.judge(&Peer { gid: 7, ..peer(1, &[]) }), Access::Ask);
        assert_eq!(rules.judge(&peer(1, &[9])), Access::Look);
        assert_eq!(rules.judge(&peer(1, &[7, 9])), Access::Look);
        assert_eq!(rules.judge(&peer(1, &[8])), Access::None);
        assert_eq!(rules.judge(&peer(0, &[])), Access::Ask);
    }

    #[test]
    fn the_agents_own_user_reads_state_and_asks_only_if_named() {
        let rules = rules();
        for own_user in [500, 0] {
            let rules = AccessRules { own_user, ..rules.clone() };
            assert_eq!(rules.judge(&peer(own_user, &[7])), Access::Look);
            let by_group = AccessRules { allow_groups: vec![8], ..rules.clone() };
            assert_eq!(by_group.judge(&peer(own_user, &[7, 8])), Access::Look);
            let named = AccessRules { allow_users: vec![own_user], ..rules };
            assert_eq!(named.judge(&peer(own_user, &[])), Access::Ask);
        }
    }

    #[test]
    fn a_subordinate_user_id_gets_nothing_unless_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("subuid");
        fs::write(&path, "alice:100000:65536\n").unwrap();
        let ids = || Arc::new(SubordinateIds::read(&path).unwrap());
        let rules = AccessRules { subordinate_users: ids(), ..rules() };
        for groups in [&[7][..], &[9], &[7, 9]] {
            assert_eq!(rules.judge(&peer(100_000, groups)), Access::None);
            assert_eq!(rules.judge(&peer(165_535, groups)), Access::None);
        }
        assert_eq!(rules.judge(&peer(165_536, &[7])), Access::Ask);
        assert!(rules.why_refused(&peer(100_000, &[7])).contains("subordinate user ID of alice"));
        let named = AccessRules { allow_users: vec![100_001], ..rules };
        assert_eq!(named.judge(&peer(100_001, &[7])), Access::Ask);
        assert_eq!(named.judge(&peer(100_002, &[7])), Access::None);
    }

    #[test]
    fn a_list_restricts_root_too() {
        let rules = AccessRules { allow_users: vec![1], allow_groups: vec![8], ..rules() };
        assert_eq!(rules.judge(&peer(1, &[7])), Access::Ask);
        assert_eq!(rules.judge(&peer(1, &[])), Access::None);
        assert_eq!(rules.judge(&peer(2, &[7, 8])), Access::Ask);
        assert_eq!(rules.judge(&peer(2, &[7])), Access::None);
        assert_eq!(rules.judge(&peer(0, &[])), Access::Look);
        let without_group = AccessRules { socket_group: None, ..rules };
        assert_eq!(without_group.judge(&peer(1, &[])), Access::Ask);
        assert_eq!(without_group.judge(&peer(3, &[])), Access::None);
    }

    #[test]
    fn the_overflow_user_is_refused_with_any_configuration() {
        let all = AccessRules {
            own_user: OVERFLOW,
            allow_users: vec![OVERFLOW, 77],
            allow_groups: vec![OVERFLOW],
            ..rules()
        };
        assert_eq!(all.judge(&peer(OVERFLOW, &[7, 9])), Access::None);
        assert_eq!(all.judge(&Peer { gid: OVERFLOW, ..peer(3, &[]) }), Access::None);
        let elsewhere = AccessRules { overflow: 77, ..all };
        assert_eq!(elsewhere.judge(&peer(77, &[])), Access::None);
    }
}
