//! What was decided when a connection was opened, kept until it ends.

use std::collections::{HashMap, VecDeque};

/// Connections kept; beyond it, those opened first are forgotten.
const CONNECTIONS_MAX: usize = 65_536;

/// One thing for each open connection, by socket cookie.
#[derive(Debug)]
pub struct Book<T> {
    open: HashMap<u64, T>,
    /// Cookies in the order in which they came; some may be closed by now.
    order: VecDeque<u64>,
}

impl<T> Default for Book<T> {
    fn default() -> Self {
        Book { open: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Book<T> {
    /// Keeps it with the connection, in place of what was kept before.
    pub fn open(&mut self, cookie: u64, kept: T) {
        if self.open.insert(cookie, kept).is_none() {
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
    pub fn close(&mut self, cookie: u64) -> Option<T> {
        self.open.remove(&cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_keeps_it_until_it_is_closed() {
        let mut book = Book::default();
        book.open(7, "first");
        book.open(7, "second");
        assert_eq!(book.get(7), Some(&"second"));
        assert_eq!(book.close(7), Some("second"));
        assert_eq!(book.get(7), None);
        assert_eq!(book.close(7), None);
    }

    #[test]
    fn memory_is_bounded_whether_or_not_connections_close() {
        let mut book = Book::default();
        let max = CONNECTIONS_MAX as u64;
        for cookie in 0..3 * max {
            book.open(cookie, ());
        }
        assert_eq!(book.open.len(), CONNECTIONS_MAX);
        assert_eq!(book.close(2 * max - 1), None, "the oldest go first");
        assert!(book.close(2 * max).is_some());
        for cookie in 3 * max..9 * max {
            book.open(cookie, ());
            book.close(cookie);
        }
        assert!(book.order.len() <= 2 * CONNECTIONS_MAX);
    }
}
