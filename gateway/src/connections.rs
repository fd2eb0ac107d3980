//! The open connections of the listeners. At a limit, a new connection replaces an idle one, or is refused.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::source::CallerSource;

/// The maximum number of all connections.
pub(crate) const MAX_CONNECTIONS: usize = 4096;

/// The maximum number of connections from one source.
const MAX_PER_SOURCE: usize = 1024;

/// The connections that are open now.
#[derive(Debug, Default)]
pub(crate) struct ConnectionTable(Mutex<OpenConnections>);

#[derive(Debug, Default)]
struct OpenConnections {
    last_number: u64,
    /// The connections by number. An older connection has a smaller number.
    entries: BTreeMap<u64, ConnectionEntry>,
}

#[derive(Debug)]
struct ConnectionEntry {
    source: CallerSource,
    is_busy: bool,
    must_close: Arc<Notify>,
}

/// One open connection. Dropping it removes it from the table.
#[derive(Debug)]
pub(crate) struct AdmittedConnection {
    table: Arc<ConnectionTable>,
    number: u64,
    /// Notified when the connection must close.
    pub must_close: Arc<Notify>,
}

/// Marks a connection as busy with a request, until it is dropped.
#[derive(Debug)]
pub(crate) struct BusyConnection {
    table: Arc<ConnectionTable>,
    number: u64,
}

impl ConnectionTable {
    /// Adds a connection. If the source has reached its limit, its oldest idle connection is closed. If the table is
    /// full, the oldest idle connection of the largest source that has one is closed. Returns `None` if no idle
    /// connection can be closed.
    #[must_use]
    pub(crate) fn admit(self: &Arc<Self>, source: CallerSource) -> Option<AdmittedConnection> {
        let mut open = self.lock();
        let from_source = open.entries.values().filter(|entry| entry.source == source).count();
        if from_source >= MAX_PER_SOURCE && !open.close_idle_of(source) {
            return None;
        }
        // A tool reconnects after it has lost an idle connection. A refused caller loses its login.
        if open.entries.len() >= MAX_CONNECTIONS && !open.close_idle_of_largest() {
            return None;
        }
        open.last_number += 1;
        let number = open.last_number;
        let must_close = Arc::new(Notify::new());
        open.entries.insert(number, ConnectionEntry { source, is_busy: false, must_close: Arc::clone(&must_close) });
        Some(AdmittedConnection { table: Arc::clone(self), number, must_close })
    }

    /// The number of open connections.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.lock().entries.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OpenConnections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_busy(&self, number: u64, is_busy: bool) {
        if let Some(entry) = self.lock().entries.get_mut(&number) {
            entry.is_busy = is_busy;
        }
    }
}

impl OpenConnections {
    /// Closes the oldest idle connection of the largest source that has one. Returns `false` if all connections are busy.
    fn close_idle_of_largest(&mut self) -> bool {
        let mut counts: HashMap<CallerSource, usize> = HashMap::new();
        for entry in self.entries.values() {
            *counts.entry(entry.source).or_default() += 1;
        }
        let idle = self.entries.iter().filter(|(_, entry)| !entry.is_busy);
        let chosen = idle.max_by_key(|(number, entry)| (counts.get(&entry.source), Reverse(**number)));
        let chosen = chosen.map(|(number, _)| *number);
        self.close(chosen)
    }

    /// Closes the oldest idle connection of a source. Returns `false` if all its connections are busy.
    fn close_idle_of(&mut self, source: CallerSource) -> bool {
        let idle = self.entries.iter().find(|(_, entry)| entry.source == source && !entry.is_busy);
        let idle = idle.map(|(number, _)| *number);
        self.close(idle)
    }

    fn close(&mut self, number: Option<u64>) -> bool {
        let Some(entry) = number.and_then(|number| self.entries.remove(&number)) else { return false };
        entry.must_close.notify_one();
        true
    }
}

impl AdmittedConnection {
    /// Marks the connection as busy until the result is dropped.
    #[must_use]
    pub(crate) fn mark_busy(&self) -> BusyConnection {
        self.table.set_busy(self.number, true);
        BusyConnection { table: Arc::clone(&self.table), number: self.number }
    }
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        self.table.lock().entries.remove(&self.number);
    }
}

impl Drop for BusyConnection {
    fn drop(&mut self) {
        self.table.set_busy(self.number, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(table: &Arc<ConnectionTable>, user: u32) -> AdmittedConnection {
        table.admit(CallerSource::User(user)).unwrap()
    }

    fn admit_busy(table: &Arc<ConnectionTable>, user: u32) -> (AdmittedConnection, BusyConnection) {
        let connection = admit(table, user);
        let busy = connection.mark_busy();
        (connection, busy)
    }

    fn is_open(table: &ConnectionTable, connection: &AdmittedConnection) -> bool {
        table.lock().entries.contains_key(&connection.number)
    }

    #[test]
    fn a_source_at_its_limit_closes_its_own_oldest_idle_connection() {
        let table = Arc::new(ConnectionTable::default());
        let open: Vec<AdmittedConnection> = (0..MAX_PER_SOURCE).map(|_| admit(&table, 1)).collect();
        let busy = open[0].mark_busy();
        let _other = admit(&table, 2);
        let _more = admit(&table, 1);
        assert_eq!(table.count(), MAX_PER_SOURCE + 1);
        assert!(is_open(&table, &open[0]) && !is_open(&table, &open[1]));
        drop(busy);
        drop(open);
        assert_eq!(table.count(), 2);
    }

    #[test]
    fn a_source_at_its_limit_without_an_idle_connection_is_refused() {
        let table = Arc::new(ConnectionTable::default());
        let open: Vec<_> = (0..MAX_PER_SOURCE).map(|_| admit_busy(&table, 1)).collect();
        assert!(table.admit(CallerSource::User(1)).is_none() && table.admit(CallerSource::User(2)).is_some());
        drop(open);
    }

    #[test]
    fn a_full_table_closes_an_idle_connection_of_the_largest_source() {
        let table = Arc::new(ConnectionTable::default());
        let small: Vec<_> = (0..3).map(|_| admit(&table, 4)).collect();
        let large: Vec<_> = (0..MAX_CONNECTIONS - 3).map(|number| admit(&table, number as u32 % 4)).collect();
        assert_eq!(table.count(), MAX_CONNECTIONS);
        // The source 0 has one connection more than the sources 1, 2 and 3.
        let _new = admit(&table, 5);
        assert!(!is_open(&table, &large[0]) && small.iter().all(|connection| is_open(&table, connection)));
        assert_eq!(table.count(), MAX_CONNECTIONS);
    }

    #[test]
    fn a_full_table_refuses_a_caller_only_if_every_connection_is_busy() {
        let table = Arc::new(ConnectionTable::default());
        let idle = admit(&table, 5);
        let busy: Vec<_> = (0..MAX_CONNECTIONS - 1).map(|number| admit_busy(&table, number as u32 % 4)).collect();
        // The largest sources have no idle connection, but a small source has one.
        let new = table.admit(CallerSource::User(6)).expect("an idle connection is open");
        assert!(!is_open(&table, &idle) && is_open(&table, &new));
        let _new_is_busy = new.mark_busy();
        assert!(table.admit(CallerSource::User(7)).is_none());
        assert_eq!(table.count(), MAX_CONNECTIONS);
        drop(busy);
    }
}
