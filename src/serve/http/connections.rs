//! The open connections: their maximum number, and the choice of one to close when another one arrives.
//!
//! Runs in the parent. Only a complete request keeps its connection. Otherwise, connections of refused users close
//! first, then those of the user with most connections, oldest first. So idle or half-sent requests cannot block other
//! users. A new connection is kept for a moment, since its request may still be in the kernel. If all others are new or
//! busy, the next one must wait. A user with a full share makes room among their own connections at once, and delays no
//! other user.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::serve::access::Access;

/// The time for which a new connection counts as fresh.
const FRESH_TIME: Duration = Duration::from_millis(100);

/// The number of connections that a user may have without making room among their own.
const SHARE: usize = 1024;

#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    fresh: Duration,
    open: Mutex<OpenConnections>,
    /// Notified when a connection closes or has been answered.
    eased: Notify,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    users: HashMap<ConnectionOwner, BTreeMap<u64, ConnectionState>>,
}

/// The owner of a connection. All refused peers share one entry: one user can have thousands of user IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ConnectionOwner {
    Refused,
    Served(u32),
}

#[derive(Debug)]
struct ConnectionState {
    /// Requests in progress.
    busy: usize,
    /// The time of its start, or of its last answer.
    touched: Instant,
    leave: Arc<Notify>,
    /// Notified when no request is in progress any more.
    idle: Arc<Notify>,
}

/// A connection, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    all: Arc<Connections>,
    place: ConnectionKey,
    /// Notified when it must close.
    pub(super) leave: Arc<Notify>,
    idle: Arc<Notify>,
}

/// A request in progress, until dropped.
#[derive(Debug)]
pub(super) struct RequestGuard(Arc<Connections>, ConnectionKey);

/// Where a connection is among all.
type ConnectionKey = (ConnectionOwner, u64);

impl Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), fresh: FRESH_TIME, open: Mutex::default(), eased: Notify::new() })
    }

    /// Waits until there is room for one more, and may close another one for it.
    pub(super) async fn room(&self) {
        while !self.make_room() {
            // A connection that is no longer fresh may be closed, too. No event tells when, so this looks again.
            let _ = tokio::time::timeout(self.fresh, self.eased.notified()).await;
        }
    }

    /// Adds a connection.
    pub(super) fn enter(self: &Arc<Self>, uid: u32, access: Access) -> Connection {
        let mut open = self.lock();
        let user = if access == Access::None { ConnectionOwner::Refused } else { ConnectionOwner::Served(uid) };
        if open.users.get(&user).is_some_and(|connections| connections.len() >= SHARE) {
            open.dismiss(user, Duration::ZERO);
        }
        open.next += 1;
        let number = open.next;
        let (leave, idle) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let shared = (Arc::clone(&leave), Arc::clone(&idle));
        let entry = ConnectionState { busy: 0, touched: Instant::now(), leave: shared.0, idle: shared.1 };
        open.users.entry(user).or_default().insert(number, entry);
        Connection { all: Arc::clone(self), place: (user, number), leave, idle }
    }

    fn make_room(&self) -> bool {
        let mut open = self.lock();
        open.count() < self.most || open.make_room(self.fresh)
    }

    pub(super) fn count(&self) -> usize {
        self.lock().count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    fn count(&self) -> usize {
        self.users.values().map(BTreeMap::len).sum()
    }

    fn entry(&mut self, (user, number): ConnectionKey) -> Option<&mut ConnectionState> {
        self.users.get_mut(&user)?.get_mut(&number)
    }

    fn forget(&mut self, (user, number): ConnectionKey) -> Option<ConnectionState> {
        let connections = self.users.get_mut(&user)?;
        let entry = connections.remove(&number);
        if connections.is_empty() {
            self.users.remove(&user);
        }
        entry
    }

    /// Closes one connection.
    fn make_room(&mut self, fresh: Duration) -> bool {
        let mut users: Vec<(ConnectionOwner, usize)> =
            self.users.iter().map(|(user, connections)| (*user, connections.len())).collect();
        users.sort_by_key(|(user, count)| (*user != ConnectionOwner::Refused, usize::MAX - count));
        users.into_iter().any(|(user, _)| self.dismiss(user, fresh))
    }

    /// Closes a user's oldest connection that is neither busy nor fresh. It is removed at once, though its task needs a
    /// moment to end.
    fn dismiss(&mut self, user: ConnectionOwner, fresh: Duration) -> bool {
        let Some(connections) = self.users.get(&user) else { return false };
        let now = Instant::now();
        let idle =
            connections.iter().filter(|(_, entry)| entry.busy == 0 && now.duration_since(entry.touched) >= fresh);
        let Some(number) = idle.min_by_key(|(_, entry)| entry.touched).map(|(number, _)| *number) else { return false };
        if let Some(entry) = self.forget((user, number)) {
            entry.leave.notify_one();
        }
        true
    }
}

impl Connection {
    /// Marks a request as arrived. It is in progress until the result is dropped.
    pub(super) fn begin(&self) -> RequestGuard {
        if let Some(entry) = self.all.lock().entry(self.place) {
            entry.busy += 1;
        }
        RequestGuard(Arc::clone(&self.all), self.place)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.all.lock().entry(self.place).is_some_and(|entry| entry.busy > 0)
    }

    /// Waits until no request is in progress.
    pub(super) async fn idle(&self) {
        while self.is_busy() {
            self.idle.notified().await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.lock().forget(self.place);
        self.all.eased.notify_one();
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut open = self.0.lock();
        if let Some(entry) = open.entry(self.1) {
            (entry.busy, entry.touched) = (entry.busy.saturating_sub(1), Instant::now());
            if entry.busy == 0 {
                entry.idle.notify_one();
            }
        }
        self.0.eased.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(most: usize) -> Arc<Connections> {
        let fresh = Duration::ZERO;
        Arc::new(Connections { most, fresh, open: Mutex::default(), eased: Notify::new() })
    }

    #[test]
    fn refused_users_connections_close_first_then_the_oldest_of_the_busiest_user() {
        let all = connections(4);
        let connections_held = [(1, Access::Ask), (2, Access::Ask), (2, Access::Ask), (9, Access::None)]
            .map(|(uid, access)| all.enter(uid, access));
        let left = |number: usize| all.lock().entry(connections_held[number].place).is_none();
        assert!(all.make_room() && left(3));
        let _one = all.enter(1, Access::Ask);
        let _two = all.enter(2, Access::Ask);
        assert!(all.make_room() && left(1) && !left(0) && !left(2));
    }

    #[test]
    fn a_connection_with_a_request_is_kept_and_a_new_one_for_a_while() {
        let all = connections(1);
        let one = all.enter(1, Access::Ask);
        let busy = one.begin();
        assert!(!all.make_room());
        drop(busy);
        assert!(all.make_room());
        let all = Connections::new(1);
        let _fresh = all.enter(1, Access::Ask);
        assert!(!all.make_room());
    }

    #[test]
    fn a_user_with_a_full_share_makes_room_among_their_own() {
        let all = Connections::new(SHARE * 4);
        let connections_held: Vec<Connection> = (0..SHARE + 10).map(|_| all.enter(1, Access::Ask)).collect();
        let _other = all.enter(2, Access::Ask);
        assert_eq!(all.count(), SHARE + 1);
        assert!(connections_held[..10].iter().all(|connection| all.lock().entry(connection.place).is_none()));
        drop(connections_held);
        assert_eq!((all.count(), all.lock().users.len()), (1, 1));
    }

    #[test]
    fn all_refused_user_ids_have_one_share_together() {
        let all = Connections::new(SHARE * 4);
        let served = all.enter(1, Access::Look);
        let refusal_log: Vec<Connection> =
            (0..u32::try_from(SHARE).unwrap() + 10).map(|at| all.enter(100_000 + at, Access::None)).collect();
        assert_eq!(all.count(), SHARE + 1);
        assert!(refusal_log[..10].iter().all(|connection| all.lock().entry(connection.place).is_none()));
        assert!(all.lock().entry(served.place).is_some());
    }
}
