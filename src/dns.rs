//! Names of remote ends, learned by listening to the DNS answers that programs receive.
//!
//! ```text
//! Answer --message--> Binding --> NameCache --at the opening--> Names --> Book, until the close
//! ```
//!
//! Everything here is pure: bytes and kernel times come in as values. Nothing is ever looked up.

mod cache;
mod message;
mod pattern;

use std::time::Duration;

use crate::{
    book::Book,
    event::{Answer, Direction, Event, State, What},
};

use cache::NameCache;
pub use cache::Names;
pub use message::{BadMessage, Binding, read};
pub use pattern::matches;

/// Gives connections the names that led to them.
#[derive(Debug, Default)]
pub struct Namer {
    cache: NameCache,
    book: Book<Names>,
}

impl Namer {
    /// Take note of an answer.
    ///
    /// # Errors
    /// [`BadMessage`] when it cannot be understood; nothing is taken from it then.
    pub fn hear(&mut self, answer: &Answer) -> Result<(), BadMessage> {
        for binding in read(answer.message)? {
            self.cache.learn(answer.netns, answer.time.0, &binding);
        }
        Ok(())
    }

    /// The names of the remote end, as they were when the connection was opened; none for one
    /// that came in.
    pub fn names(&mut self, event: &Event) -> Names {
        match &event.what {
            What::Request => self.at(event, None),
            What::Fail { latency, .. } => {
                self.book.close(event.cookie);
                self.at(event, *latency)
            }
            What::Connect { latency } => self.keep(event, *latency),
            What::Step { to: State::SynSent, .. } => self.keep(event, None),
            What::Step { .. } => self.book.get(event.cookie).cloned().unwrap_or_default(),
            // Not ours, or opened before anything was heard.
            What::Accept { .. } | What::Listen { .. } | What::Unlisten { .. } | What::Existing(_) => {
                Names::default()
            }
            What::Close(close) => {
                let kept = self.book.close(event.cookie);
                match (close.direction, close.duration) {
                    // Its opening was not shown. The handshake's own time is not known here.
                    (Direction::Egress, Some(open)) => kept.unwrap_or_else(|| self.at(event, Some(open))),
                    _ => kept.unwrap_or_default(),
                }
            }
        }
    }

    /// The names of a connection that opens, which it keeps.
    fn keep(&mut self, event: &Event, ago: Option<Duration>) -> Names {
        let names = self.at(event, ago);
        if names.names.is_empty() {
            self.book.close(event.cookie);
        } else {
            self.book.open(event.cookie, names.clone());
        }
        names
    }

    /// The names at a time before the event.
    fn at(&mut self, event: &Event, ago: Option<Duration>) -> Names {
        let ago = u64::try_from(ago.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        self.cache.names(event.netns, event.remote.ip(), event.time.0.saturating_sub(ago))
    }
}

#[cfg(test)]
mod tests;
