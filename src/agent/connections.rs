//! The open connections: how many there may be, and which one goes when there is no room for another.
//!
//! A connection that waits for nothing is the first to go: strangers', then those of the user who has most, the oldest
//! first. So neither idle nor half-sent requests can keep anybody out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::peer::Access;

/// All of them.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    uid: u32,
    access: Access,
    /// Requests in hand.
    busy: usize,
    /// The connection's or its last answer's number: the lower, the longer ago.
    touched: u64,
    leave: Arc<Notify>,
}

/// One of them, which leaves when dropped.
#[derive(Debug)]
pub(super) struct Connection {
    all: Arc<Connections>,
    number: u64,
    /// Told when it must make room.
    pub(super) leave: Arc<Notify>,
}

/// A request in hand, until dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connections>, u64);

impl Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), open: Mutex::default() })
    }

    /// Takes one more in; `None` where all others have a request in hand.
    pub(super) fn enter(self: &Arc<Self>, uid: u32, access: Access) -> Option<Connection> {
        let mut open = self.lock();
        if open.all.len() >= self.most && !open.make_room() {
            return None;
        }
        let number = open.tick();
        let leave = Arc::new(Notify::new());
        open.all.insert(number, Entry { uid, access, busy: 0, touched: number, leave: Arc::clone(&leave) });
        Some(Connection { all: Arc::clone(self), number, leave })
    }

    pub(super) fn count(&self) -> usize {
        self.lock().all.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Has one leave. It is forgotten at once, though its task takes a moment to end.
    fn make_room(&mut self) -> bool {
        let mut of_user: HashMap<u32, usize> = HashMap::new();
        self.all.values().for_each(|entry| *of_user.entry(entry.uid).or_default() += 1);
        let idle = self.all.iter().filter(|(_, entry)| entry.busy == 0);
        let goes_first = |(_, entry): &(&u64, &Entry)| {
            let is_stranger = entry.access == Access::None;
            let crowd = of_user.get(&entry.uid).copied().unwrap_or_default();
            (!is_stranger, usize::MAX - crowd, entry.touched)
        };
        let Some((number, _)) = idle.min_by_key(goes_first) else { return false };
        let number = *number;
        if let Some(entry) = self.all.remove(&number) {
            entry.leave.notify_one();
        }
        true
    }
}

impl Connection {
    /// A request is in hand until the result is dropped.
    pub(super) fn begin(&self) -> Busy {
        if let Some(entry) = self.all.lock().all.get_mut(&self.number) {
            entry.busy += 1;
        }
        Busy(Arc::clone(&self.all), self.number)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.all.lock().all.get(&self.number).is_some_and(|entry| entry.busy > 0)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.lock().all.remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut open = self.0.lock();
        let touched = open.tick();
        if let Some(entry) = open.all.get_mut(&self.1) {
            (entry.busy, entry.touched) = (entry.busy.saturating_sub(1), touched);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_go_first_then_the_oldest_of_whoever_has_most() {
        let all = Connections::new(4);
        let held: Vec<Connection> = [(1, Access::Ask), (2, Access::Ask), (2, Access::Ask), (9, Access::None)]
            .into_iter()
            .map(|(uid, access)| all.enter(uid, access).unwrap())
            .collect();
        let left = |number: usize| !all.lock().all.contains_key(&held[number].number);
        let _first = all.enter(1, Access::Ask).unwrap();
        assert!(left(3) && !left(1));
        let _second = all.enter(3, Access::Ask).unwrap();
        assert!(left(0) || left(1));
        assert!(!left(2));
    }

    #[test]
    fn a_connection_with_a_request_in_hand_never_goes() {
        let all = Connections::new(1);
        let one = all.enter(1, Access::Ask).unwrap();
        let busy = one.begin();
        assert!(all.enter(2, Access::Ask).is_none());
        drop(busy);
        assert!(all.enter(2, Access::Ask).is_some());
    }
}
