//! The names of users and groups, or their numbers where there is no name.
//!
//! Runs in both processes.

use nix::unistd::{Gid, Group, Uid, User};

#[must_use]
pub(crate) fn user_name(user: u32) -> String {
    User::from_uid(Uid::from_raw(user)).ok().flatten().map_or_else(|| user.to_string(), |user| user.name)
}

#[must_use]
pub(crate) fn group_name(group: u32) -> String {
    Group::from_gid(Gid::from_raw(group)).ok().flatten().map_or_else(|| group.to_string(), |group| group.name)
}
