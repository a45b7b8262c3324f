//! What was decided when a connection was opened, kept until it ends.

use std::collections::{HashMap, VecDeque};

/// Connections kept; beyond it, those opened first are forgotten.
const CONNECTIONS_MAX: usize = 65_536;

/// One thing for each open connection, by socket cookie.
#[derive(Debug)]
pub struct PerConnection<T> {
    open: HashMap<u64, T>,
    /// Cookies in the order in which they came; some may be closed by now.
    order: VecDeque<u64>,
}

impl<T> Default for PerConnection<T> {
    fn default() -> Self {
        PerConnection { open: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> PerConnection<T> {
    /// Keeps it with the connection, in place of what was kept before.
    pub fn insert(&mut self, cookie: u64, value: T) {
        if self.open.insert(cookie, value).is_none() {
            self.order.push_back(cookie);
        }
        while self.open.len() > CONNECTIONS_MAX {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.open.remove(&oldest);
        }
        if self.order.len() > 2 * CONNECTIONS_MAX {
            self.order.retain(|cookie| self.open.contains_key(cookie));
        }
    }

    /// What is kept with the connection.
    pub fn get(&self, cookie: u64) -> Option<&T> {
        self.open.get(&cookie)
    }

    /// Takes it out: the connection is closed.
    pub fn remove(&mut self, cookie: u64) -> Option<T> {
        self.open.remove(&cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_keeps_it_until_it_is_closed() {
        let mut kept = PerConnection::default();
        kept.insert(7, "first");
        kept.insert(7, "second");
        assert_eq!(kept.get(7), Some(&"second"));
        assert_eq!(kept.remove(7), Some("second"));
        assert_eq!(kept.get(7), None);
        assert_eq!(kept.remove(7), None);
    }

    #[test]
    fn memory_is_bounded_whether_or_not_connections_close() {
        let mut kept = PerConnection::default();
        let max = CONNECTIONS_MAX as u64;
        for cookie in 0..3 * max {
            kept.insert(cookie, ());
        }
        assert_eq!(kept.open.len(), CONNECTIONS_MAX);
        assert_eq!(kept.remove(2 * max - 1), None, "the oldest go first");
        assert!(kept.remove(2 * max).is_some());
        for cookie in 3 * max..9 * max {
            kept.insert(cookie, ());
            kept.remove(cookie);
        }
        assert!(kept.order.len() <= 2 * CONNECTIONS_MAX);
    }
}
