//! Names of remote ends, learned by listening to the DNS answers that programs receive.
//!
//! ```text
//! payload --message--> Binding --> NameCache --bind(when opened)--> Names --> NameBook (until close)
//! ```
//!
//! Everything here is pure: bytes and kernel times (CLOCK_BOOTTIME ns) come in as values.
//! Nothing is ever looked up.

mod book;
mod cache;
mod message;
mod pattern;

pub use book::NameBook;
pub use cache::{NameCache, Names};
pub use message::{BadMessage, Binding, read};
pub use pattern::matches;
