//! Values set when a connection is opened and kept until it is closed.

use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt};

use crate::event::ConnectionId;

/// Connections kept; beyond this, the oldest are dropped.
const CONNECTIONS_MAX: usize = 65_536;

/// One value for each open connection.
#[derive(Debug)]
pub struct PerConnection<T> {
    open: HashMap<ConnectionId, T>,
    /// In order of insertion; some may be closed by now.
    order: VecDeque<ConnectionId>,
}

impl<T> Default for PerConnection<T> {
    fn default() -> Self {
        PerConnection { open: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> PerConnection<T> {
    /// Stores the value of a connection, replacing an earlier one.
    pub fn insert(&mut self, id: ConnectionId, value: T) {
        if self.open.insert(id, value).is_none() {
            self.order.push_back(id);
        }
        while self.open.len() > CONNECTIONS_MAX {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.open.remove(&oldest);
        }
        if self.order.len() > 2 * CONNECTIONS_MAX {
            self.order.retain(|id| self.open.contains_key(id));
        }
    }

    /// The value of a connection.
    pub fn get(&self, id: ConnectionId) -> Option<&T> {
        self.open.get(&id)
    }

    /// Removes the value of a connection that is closed.
    pub fn remove(&mut self, id: ConnectionId) -> Option<T> {
        if self.open.is_empty() { None } else { self.open.remove(&id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::BootTime;

    fn id(cookie: u64) -> ConnectionId {
        ConnectionId { cookie, begun: BootTime(1) }
    }

    #[test]
    fn values_are_kept_until_close() {
        let mut kept = PerConnection::default();
        kept.insert(id(7), "first");
        kept.insert(id(7), "second");
        assert_eq!(kept.get(id(7)), Some(&"second"));
        assert_eq!(kept.remove(id(7)), Some("second"));
        assert_eq!(kept.get(id(7)), None);
        assert_eq!(kept.remove(id(7)), None);
    }

    #[test]
    fn connections_of_one_socket_are_distinct() {
        let mut kept = PerConnection::default();
        kept.insert(id(7), "first");
        kept.insert(ConnectionId { begun: BootTime(2), ..id(7) }, "second");
        assert_eq!(kept.remove(id(7)), Some("first"));
    }

    #[test]
    fn memory_is_bounded_whether_or_not_connections_close() {
        let mut kept = PerConnection::default();
        let max = CONNECTIONS_MAX as u64;
        for cookie in 0..3 * max {
            kept.insert(id(cookie), ());
        }
        assert_eq!(kept.open.len(), CONNECTIONS_MAX);
        assert_eq!(kept.remove(id(2 * max - 1)), None, "the oldest go first");
        assert!(kept.remove(id(2 * max)).is_some());
        for cookie in 3 * max..9 * max {
            kept.insert(id(cookie), ());
            kept.remove(id(cookie));
        }
        assert!(kept.order.len() <= 2 * CONNECTIONS_MAX);
    }
}
