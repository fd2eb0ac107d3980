//! Finds allowed users who cannot reach the socket: the file system decides before the agent does. Runs in the parent.

use std::ffi::CString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist, getgroups};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use crate::config::Serve;
use crate::error::Result;
use crate::os::names::group_name;
use crate::os::subordinate_ids;
use crate::text::shell::{quoted, quoted_path};

/// The search or write bit in one class of a file's mode.
const SEARCH: u32 = 0o1;
const WRITE: u32 = 0o2;

/// A user who is allowed, but cannot connect.
#[derive(Clone, Debug)]
pub(crate) struct LockedOutUser {
    pub user: String,
    /// The obstacle.
    pub why: String,
    pub remedy: String,
}

/// All users whom the lists name, directly or as members of a group, and whom modes and groups keep from the socket.
/// Access lists (acl(5)) are not checked. Without the path of the socket, only its group is.
#[must_use]
pub(crate) fn locked_out(serve: &Serve, socket: Option<&Path>) -> Vec<LockedOutUser> {
    let groups = serve.allow_groups.iter().chain(&serve.monitor_groups);
    let unknown = |what: &str, name: &String| LockedOutUser {
        user: name.clone(),
        why: format!("there is no such {what} on this host"),
        remedy: "correct the name, or make it: useradd, groupadd".into(),
    };
    let no_user = serve.allow_users.iter().filter(|name| find_user(name).is_none()).map(|name| unknown("user", name));
    let no_group = groups.clone().filter(|name| find_group(name).is_none()).map(|name| unknown("group", name));
    let named = serve.allow_users.iter().filter_map(|name| find_user(name));
    let members = groups.clone().filter_map(|name| find_group(name)).flat_map(|group| group.mem);
    let mut users: Vec<User> = named.chain(members.filter_map(|name| find_user(&name))).collect();
    users.sort_by_key(|user| user.uid.as_raw());
    users.dedup_by_key(|user| user.uid);
    let door = serve.socket_group.as_deref().and_then(find_group);
    let kept_out = users.iter().filter_map(|user| in_the_way(user, door.as_ref(), socket));
    no_user.chain(no_group).chain(kept_out).collect()
}

/// A configured group that a user can enter through a user namespace, since its number is a subordinate group ID
/// (subgid(5)).
#[derive(Clone, Debug)]
pub(crate) struct SubordinateGroup {
    /// The group as configured.
    pub group: String,
    /// The owner of the range.
    pub owner: String,
}

/// The configured groups inside a range of `/etc/subgid`.
///
/// # Errors
/// When the file exists and cannot be read.
pub(crate) fn subordinate_groups(serve: &Serve) -> Result<Vec<SubordinateGroup>> {
    let ids = super::access::subordinate_ids(subordinate_ids::GROUPS)?;
    let names = serve.socket_group.iter().chain(&serve.allow_groups).chain(&serve.monitor_groups);
    let entered = names.filter_map(|name| {
        let number = find_group(name).map(|group| group.gid.as_raw()).or_else(|| name.parse().ok())?;
        ids.owner(number).map(|owner| SubordinateGroup { group: name.clone(), owner })
    });
    Ok(entered.collect())
}

impl std::fmt::Display for SubordinateGroup {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group, owner } = self;
        write!(out, "{owner} can enter the group {group}, which is a subordinate group ID of theirs (/etc/subgid)")
    }
}

/// The remedy for a socket of the group root.
const GROUP_FOR_CLIENTS: &str =
    "set socket_group in [serve] of the agent to a group for its clients, and put this user into it";

/// The obstacle between this process and a socket.
#[derive(Clone, Debug)]
pub(crate) struct Obstacle {
    pub why: String,
    pub remedy: String,
}

/// The obstacle between this process and an existing socket; `None` if none is visible. The kernel decides, so access
/// lists (acl(5)) count.
#[must_use]
pub(crate) fn own_obstacle(socket: &Path) -> Option<Obstacle> {
    let may = |path: &Path, what| accessat(CWD, path, what, AtFlags::EACCESS) != Err(Errno::ACCESS);
    let directories: Vec<&Path> = socket.ancestors().skip(1).filter(|part| !part.as_os_str().is_empty()).collect();
    for directory in directories.into_iter().rev() {
        if !may(directory, Access::EXEC_OK) {
            let why = format!("this user may not pass through {}", directory.display());
            return Some(Obstacle { why, remedy: through(directory) });
        }
    }
    if may(socket, Access::WRITE_OK) {
        return None;
    }
    let metadata = fs::metadata(socket).ok()?;
    let (own, door) = (User::from_uid(Uid::effective()).ok().flatten(), Gid::from_raw(metadata.gid()));
    let group = group_name(door.as_raw());
    let why = format!("only the group {group} may connect, and this process is not in it");
    let is_listed = own.as_ref().is_some_and(|own| {
        let name = CString::new(own.name.clone()).unwrap_or_default();
        getgrouplist(&name, own.gid).unwrap_or_default().contains(&door)
    });
    // Root's group opens far more than a socket.
    let remedy = if door.as_raw() == 0 {
        GROUP_FOR_CLIENTS.into()
    } else if is_listed {
        format!(
            "this user was added to {group} after this session began: log in again, or restart the service that runs this"
        )
    } else {
        let Some(name) = own.map(|own| own.name) else {
            let remedy = format!("give this user an entry in /etc/passwd, and put it into the group {group}");
            return Some(Obstacle { why, remedy });
        };
        format!("as root: `usermod -aG {} {}`; then log in again", quoted(&group), quoted(&name))
    };
    Some(Obstacle { why, remedy })
}

/// The user and groups of this process, in the form of `id`.
#[must_use]
pub(crate) fn own_name() -> String {
    let uid = Uid::effective();
    let name = User::from_uid(uid).ok().flatten().map_or_else(|| "without a name".into(), |user| user.name);
    let mut groups = vec![Gid::effective()];
    groups.extend(getgroups().unwrap_or_default().into_iter().filter(|group| *group != Gid::effective()));
    let named = |group: &Gid| group_name(group.as_raw());
    format!("{name} ({uid}), groups {}", groups.iter().map(named).collect::<Vec<_>>().join(", "))
}

fn through(directory: &Path) -> String {
    format!("as its owner: `chmod o+x {}`; or name another directory for the socket", quoted_path(directory))
}

fn find_user(name: &str) -> Option<User> {
    let by_number = name.parse().ok().and_then(|number| User::from_uid(Uid::from_raw(number)).ok().flatten());
    by_number.or_else(|| User::from_name(name).ok().flatten())
}

fn find_group(name: &str) -> Option<Group> {
    let by_number = name.parse().ok().and_then(|number| Group::from_gid(Gid::from_raw(number)).ok().flatten());
    by_number.or_else(|| Group::from_name(name).ok().flatten())
}

fn in_the_way(user: &User, door: Option<&Group>, socket: Option<&Path>) -> Option<LockedOutUser> {
    if user.uid.is_root() {
        return None;
    }
    let name = CString::new(user.name.clone()).unwrap_or_default();
    let groups: Vec<u32> = getgrouplist(&name, user.gid).unwrap_or_default().iter().map(|gid| gid.as_raw()).collect();
    let locked = |why: String, remedy: String| Some(LockedOutUser { user: user.name.clone(), why, remedy });
    if let Some(door) = door.filter(|door| !groups.contains(&door.gid.as_raw())) {
        let why = format!("not in the socket's group {}", door.name);
        if door.gid.as_raw() == 0 {
            return locked(why, GROUP_FOR_CLIENTS.into());
        }
        return locked(
            why,
            format!(
                "as root: `usermod -aG {} {}`; then log in again, or restart the services that run as {}",
                quoted(&door.name),
                quoted(&user.name),
                user.name
            ),
        );
    }
    let socket = socket?;
    let may = |metadata: &Metadata, bit| allows(metadata, user.uid.as_raw(), &groups, bit);
    let directories: Vec<&Path> = socket.ancestors().skip(1).collect();
    for directory in directories.into_iter().rev() {
        if fs::metadata(directory).is_ok_and(|metadata| !may(&metadata, SEARCH)) {
            let shown = directory.display();
            return locked(format!("may not pass through {shown}"), through(directory));
        }
    }
    match fs::metadata(socket) {
        Ok(metadata) if !may(&metadata, WRITE) => {
            let shown = socket.display();
            let remedy = "set socket_group in [serve] to a group that they are in, or SocketGroup= in the .socket unit";
            locked(format!("may not write to {shown}"), remedy.into())
        }
        _ => None,
    }
}

fn allows(metadata: &Metadata, user: u32, groups: &[u32], bit: u32) -> bool {
    let class = if metadata.uid() == user {
        metadata.mode() >> 6
    } else if groups.contains(&metadata.gid()) {
        metadata.mode() >> 3
    } else {
        metadata.mode()
    };
    class & bit != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_users_own_class_decides_as_the_kernel_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let with = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            fs::metadata(directory.path()).unwrap()
        };
        let (owner, group) = (with(0o700).uid(), with(0o700).gid());
        assert!(allows(&with(0o100), owner, &[], SEARCH) && !allows(&with(0o011), owner, &[group], SEARCH));
        assert!(allows(&with(0o020), owner + 1, &[group], WRITE) && !allows(&with(0o002), owner + 1, &[group], WRITE));
        assert!(allows(&with(0o001), owner + 1, &[group + 1], SEARCH));
    }
}
