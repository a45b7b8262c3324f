//! Names of remote ends, learned by listening to the DNS answers that programs receive.
//!
//! ```text
//! Answer --message--> Binding --> NameCache --at the opening--> Names --> PerConnection, until the close
//! ```
//!
//! Everything here is pure: bytes and kernel times come in as values. Nothing is ever looked up.

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

/// Gives connections the names that led to them.
#[derive(Debug, Default)]
pub struct DnsTracker {
    cache: NameCache,
    open: PerConnection<Names>,
}

impl DnsTracker {
    /// Take note of an answer.
    ///
    /// # Errors
    /// [`BadMessage`] when it cannot be understood; nothing is taken from it then.
    pub fn observe(&mut self, answer: &Answer) -> Result<(), BadMessage> {
        for binding in read(answer.message)? {
            self.cache.learn(answer.netns, answer.time.0, &binding);
        }
        Ok(())
    }

    /// The names of the remote end, as they were when the connection was opened; none for one
    /// that came in.
    pub fn names(&mut self, event: &Event) -> Names {
        let latency = event.kind.latency();
        match (event.kind.lifecycle(), event.kind.direction()) {
            (Lifecycle::Attempt, _) => self.at(event, None),
            (Lifecycle::Begin | Lifecycle::Open, Some(Direction::Egress)) => self.keep(event, latency),
            (Lifecycle::Continue, _) => self.open.get(event.connection()).cloned().unwrap_or_default(),
            // Not ours, or opened before anything was heard.
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
                    // Its opening was not shown. The handshake's own time is not known here.
                    (Some(Direction::Egress), Some(open)) => {
                        kept.unwrap_or_else(|| self.at(event, Some(open)))
                    }
                    _ => kept.unwrap_or_default(),
                }
            }
        }
    }

    /// The names of a connection that opens, which it keeps.
    fn keep(&mut self, event: &Event, ago: Option<Duration>) -> Names {
        let names = self.at(event, ago);
        if names.all().is_empty() {
            self.open.remove(event.connection());
        } else {
            self.open.insert(event.connection(), names.clone());
        }
        names
    }

    /// The names at a time before the event.
    fn at(&mut self, event: &Event, ago: Option<Duration>) -> Names {
        let ago = u64::try_from(ago.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        let then = event.time.0.saturating_sub(ago);
        let names = self.cache.names(event.netns, event.remote.ip(), then);
        // What was asked for has the name that somebody knew.
        match event.asked.filter(|_| names.all().is_empty()) {
            Some(asked) => self.cache.names(event.netns, asked.ip(), then),
            None => names,
        }
    }
}

#[cfg(test)]
mod tests;
