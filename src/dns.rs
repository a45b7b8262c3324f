//! Names of remote ends, learned by listening to the DNS answers that programs receive.
//!
//! ```text
//! Answer --message--> Binding --> NameCache --at the opening--> Names --> NameBook, until the close
//! ```
//!
//! Everything here is pure: bytes and kernel times come in as values. Nothing is ever looked up.

mod book;
mod cache;
mod message;
mod pattern;

use crate::event::{Answer, Direction, Event, What};

use book::NameBook;
use cache::NameCache;
pub use cache::Names;
pub use message::{BadMessage, Binding, read};
pub use pattern::matches;

/// Gives connections the names that led to them.
#[derive(Debug, Default)]
pub struct Namer {
    cache: NameCache,
    book: NameBook,
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
            What::Accept { .. } => Names::default(),
            What::Request => self.at(event, 0),
            What::Fail { latency, .. } => self.at(event, latency.as_nanos()),
            What::Connect { latency } => {
                let names = self.at(event, latency.as_nanos());
                self.book.open(event.cookie, &names);
                names
            }
            What::Close(close) => {
                let kept = self.book.close(event.cookie);
                match (close.direction, close.duration) {
                    // Its opening was not shown. The handshake's own time is not known here.
                    (Direction::Egress, Some(open)) => {
                        kept.unwrap_or_else(|| self.at(event, open.as_nanos()))
                    }
                    _ => kept.unwrap_or_default(),
                }
            }
        }
    }

    /// The names at the time `ago` nanoseconds before the event.
    fn at(&mut self, event: &Event, ago: u128) -> Names {
        let ago = u64::try_from(ago).unwrap_or(u64::MAX);
        self.cache.names(event.netns, event.remote.ip(), event.time.0.saturating_sub(ago))
    }
}

#[cfg(test)]
mod tests;
