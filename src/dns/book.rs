//! The names a connection was opened with, kept until it is closed.

use std::collections::{HashMap, VecDeque};

use super::Names;

/// Connections with names kept; beyond it, those opened first lose theirs.
const CONNECTIONS_MAX: usize = 65_536;

/// Names by socket cookie.
#[derive(Debug, Default)]
pub struct NameBook {
    open: HashMap<u64, Names>,
    /// Cookies in the order in which they came; some may be closed by now.
    order: VecDeque<u64>,
}

impl NameBook {
    /// Keeps the names with the connection. Nothing is kept of a connection without names.
    pub fn open(&mut self, cookie: u64, names: &Names) {
        if names.names.is_empty() {
            return;
        }
        if self.open.insert(cookie, names.clone()).is_none() {
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

    /// Takes the names out: the connection is closed.
    pub fn close(&mut self, cookie: u64) -> Option<Names> {
        self.open.remove(&cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str) -> Names {
        Names { names: [name.into()].into(), guess: false }
    }

    #[test]
    fn a_connection_keeps_its_names_until_it_is_closed() {
        let mut book = NameBook::default();
        book.open(7, &names("a.example"));
        book.open(8, &Names::default());
        assert_eq!(book.close(7), Some(names("a.example")));
        assert_eq!(book.close(7), None);
        assert_eq!(book.close(8), None);
    }

    #[test]
    fn memory_is_bounded_whether_or_not_connections_close() {
        let mut book = NameBook::default();
        let max = CONNECTIONS_MAX as u64;
        for cookie in 0..3 * max {
            book.open(cookie, &names("a.example"));
        }
        assert_eq!(book.open.len(), CONNECTIONS_MAX);
        assert_eq!(book.close(2 * max - 1), None, "the oldest go first");
        assert!(book.close(2 * max).is_some());
        for cookie in 3 * max..9 * max {
            book.open(cookie, &names("a.example"));
            book.close(cookie);
        }
        assert!(book.order.len() <= 2 * CONNECTIONS_MAX);
    }
}
