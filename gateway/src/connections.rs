//! The open connections of the listeners. At a limit, a new connection replaces an idle one, or is refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::source::CallerSource;

/// The maximum number of all connections.
pub(crate) const MOST: usize = 4096;

/// The maximum number of connections from one source.
const SHARE: usize = 1024;

/// The connections that are open now.
#[derive(Debug, Default)]
pub(crate) struct ConnectionTable(Mutex<ConnectionList>);

#[derive(Debug, Default)]
struct ConnectionList {
    next: u64,
    all: BTreeMap<u64, ConnectionEntry>,
}

#[derive(Debug)]
struct ConnectionEntry {
    source: CallerSource,
    busy: bool,
    leave: Arc<Notify>,
}

/// One open connection. Dropping it removes it from the table.
#[derive(Debug)]
pub(crate) struct AdmittedConnection {
    all: Arc<ConnectionTable>,
    number: u64,
    /// Notified when the connection must close.
    pub leave: Arc<Notify>,
}

/// Marks a connection as busy with a request, until it is dropped.
#[derive(Debug)]
pub(crate) struct BusyConnection(Arc<ConnectionTable>, u64);

impl ConnectionTable {
    /// Adds a connection. If the source has reached its limit, its oldest idle connection is closed. If the table is
    /// full, the oldest idle connection of the source with the most connections is closed. Returns `None` if that source
    /// has no idle connection.
    #[must_use]
    pub(crate) fn enter(self: &Arc<Self>, source: CallerSource) -> Option<AdmittedConnection> {
        let mut open = self.lock();
        let own = open.all.values().filter(|entry| entry.source == source).count();
        if own >= SHARE && !open.close_idle(source) {
            return None;
        }
        if open.all.len() >= MOST {
            let largest = open.largest()?;
            if !open.close_idle(largest) {
                return None;
            }
        }
        open.next += 1;
        let number = open.next;
        let leave = Arc::new(Notify::new());
        open.all.insert(number, ConnectionEntry { source, busy: false, leave: Arc::clone(&leave) });
        Some(AdmittedConnection { all: Arc::clone(self), number, leave })
    }

    /// The number of open connections.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.lock().all.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ConnectionList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_busy(&self, number: u64, busy: bool) {
        if let Some(entry) = self.lock().all.get_mut(&number) {
            entry.busy = busy;
        }
    }
}

impl ConnectionList {
    fn largest(&self) -> Option<CallerSource> {
        let mut counts: HashMap<CallerSource, usize> = HashMap::new();
        for entry in self.all.values() {
            *counts.entry(entry.source).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(source, _)| source)
    }

    fn close_idle(&mut self, source: CallerSource) -> bool {
        let idle = self.all.iter().find(|(_, entry)| entry.source == source && !entry.busy).map(|(number, _)| *number);
        let Some(entry) = idle.and_then(|number| self.all.remove(&number)) else { return false };
        entry.leave.notify_one();
        true
    }
}

impl AdmittedConnection {
    /// Marks the connection as busy until the result is dropped.
    #[must_use]
    pub(crate) fn begin(&self) -> BusyConnection {
        self.all.set_busy(self.number, true);
        BusyConnection(Arc::clone(&self.all), self.number)
    }
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        self.all.lock().all.remove(&self.number);
    }
}

impl Drop for BusyConnection {
    fn drop(&mut self) {
        self.0.set_busy(self.1, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_with_its_share_closes_its_own_oldest_idle_connection() {
        let all = Arc::new(ConnectionTable::default());
        let open: Vec<AdmittedConnection> = (0..SHARE).map(|_| all.enter(CallerSource::User(1)).unwrap()).collect();
        let busy = open[0].begin();
        let _other = all.enter(CallerSource::User(2)).unwrap();
        let _more = all.enter(CallerSource::User(1)).unwrap();
        assert_eq!(all.count(), SHARE + 1);
        assert!(all.lock().all.contains_key(&open[0].number) && !all.lock().all.contains_key(&open[1].number));
        drop(busy);
        drop(open);
        assert_eq!(all.count(), 2);
    }

    #[test]
    fn a_source_whose_connections_are_all_busy_gets_no_further_one() {
        let all = Arc::new(ConnectionTable::default());
        let open: Vec<(AdmittedConnection, BusyConnection)> = (0..SHARE)
            .map(|_| all.enter(CallerSource::User(1)).unwrap())
            .map(|connection| {
                let busy = connection.begin();
                (connection, busy)
            })
            .collect();
        assert!(all.enter(CallerSource::User(1)).is_none() && all.enter(CallerSource::User(2)).is_some());
        drop(open);
    }
}
