//! Names of remote ends, learned from the DNS answers that programs receive.
//!
//! ```text
//! Answer --message--> Binding --> NameCache --on open--> Names --> PerConnection, until close
//! ```
//!
//! No I/O happens here: bytes and kernel times come in as values. tcptrace never does a DNS lookup itself.

mod cache;
mod message;
pub mod per_connection;

use std::time::Duration;

use crate::{
    event::{Answer, Direction, Event, Lifecycle},
    record::Names,
};

use cache::NameCache;
pub use message::{BadMessage, Binding, read};
use per_connection::PerConnection;

/// Assigns to each connection the names that were resolved before it.
#[derive(Debug, Default)]
pub struct DnsTracker {
    cache: NameCache,
    open: PerConnection<Names>,
}

impl DnsTracker {
    /// Records an answer.
    ///
    /// # Errors
    /// [`BadMessage`] when the message cannot be parsed; nothing is recorded then.
    pub fn observe(&mut self, answer: &Answer) -> Result<(), BadMessage> {
        for binding in read(answer.message)? {
            self.cache.learn(answer.netns, answer.time.0, &binding);
        }
        Ok(())
    }

    /// The names of the remote end, as known when the connection was opened; none for an incoming connection.
    pub fn names(&mut self, event: &Event) -> Names {
        let latency = event.kind.latency();
        match (event.kind.lifecycle(), event.kind.direction()) {
            (Lifecycle::Attempt, _) => self.at(event, None),
            (Lifecycle::Begin | Lifecycle::Open, Some(Direction::Egress)) => self.keep(event, latency),
            (Lifecycle::Continue, _) => self.open.get(event.connection()).cloned().unwrap_or_default(),
            // No outgoing connection, or it was opened before tracing began.
            (Lifecycle::Begin | Lifecycle::Open | Lifecycle::Existing | Lifecycle::StopListening, _) => {
                Names::default()
            }
            (Lifecycle::Fail, _) => {
                self.open.remove(event.connection());
                self.at(event, latency)
            }
            (Lifecycle::Close, direction) => {
                let kept = self.open.remove(event.connection());
                match (direction, event.kind.close().and_then(|close| close.duration)) {
                    // The opening event was not shown, so the length of the handshake is not known.
                    (Some(Direction::Egress), Some(open)) => {
                        kept.unwrap_or_else(|| self.at(event, Some(open)))
                    }
                    _ => kept.unwrap_or_default(),
                }
            }
        }
    }

    /// Looks up the names of a connection that opens, and keeps them.
    fn keep(&mut self, event: &Event, ago: Option<Duration>) -> Names {
        let names = self.at(event, ago);
        if names.all().is_empty() {
            self.open.remove(event.connection());
        } else {
            self.open.insert(event.connection(), names.clone());
        }
        names
    }

    /// Looks up the names at `ago` before the event.
    fn at(&mut self, event: &Event, ago: Option<Duration>) -> Names {
        let ago = u64::try_from(ago.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        let then = event.time.0.saturating_sub(ago);
        let names = self.cache.names(event.netns, event.remote.ip(), then);
        // The address before a cgroup program rewrote it is the one that has a name.
        match event.asked.filter(|_| names.all().is_empty()) {
            Some(asked) => self.cache.names(event.netns, asked.ip(), then),
            None => names,
        }
    }
}

#[cfg(test)]
mod tests;
