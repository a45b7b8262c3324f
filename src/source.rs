//! The source of a session's records: the kernel, or a script in tests.

use std::{collections::HashSet, os::fd::BorrowedFd};

use anyhow::Result;

use crate::event::ImageId;

/// A source of records.
pub trait Source {
    /// A descriptor that is readable when enough records wait to be worth a wakeup.
    fn ready_fd(&self) -> BorrowedFd<'_>;
    /// Takes waiting records; an empty batch when there are none.
    ///
    /// # Errors
    /// When the ring can no longer be read.
    fn read(&mut self, into: &mut Batch) -> Result<()>;
    /// Visits some of the existing sockets, whose records can then be read; false when all have been visited.
    ///
    /// # Errors
    /// When an iterator can no longer be read.
    fn visit_existing(&mut self) -> Result<bool>;
    /// Whether a connection that has an owner is open.
    fn has_open(&self) -> bool;
    /// Stops producing records. Those that wait can still be read.
    fn detach(&mut self);
    /// What the kernel side has lost so far.
    fn lost(&self) -> Lost;
    /// The images that open connections refer to. Process records sent before the call for
    /// any other image are sent again before they are next referred to.
    ///
    /// # Errors
    /// When the connection table cannot be read.
    fn images_in_use(&mut self) -> Result<HashSet<ImageId>>;
}

/// Records stored back to back in one buffer.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Appends a copy of one record.
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// Removes all records and keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Takes the records of `other` in place of its own, and leaves `other` empty.
    pub fn swap(&mut self, other: &mut Batch) {
        self.clear();
        std::mem::swap(self, other);
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }
}

/// Maximum number of connections that the kernel side tracks at a time.
pub const CONNECTIONS_MAX: u64 = 1 << 20;

/// Lost records, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Lost {
    /// Events lost because the ring was full.
    pub ring: u64,
    /// Connections lost because the connection table was full.
    pub table: u64,
    /// Process records lost because the ring was full or memory was short.
    pub process: u64,
    /// Processes of the command that could not be followed.
    pub follow: u64,
    /// Events lost because the kernel skipped a program, as it does if that is already running on that CPU.
    pub missed: u64,
    /// DNS answers dropped because the ring was more than half full.
    pub answers: u64,
    /// Records that this build cannot decode.
    pub undecodable: u64,
    /// DNS answers that cannot be parsed.
    pub bad_answers: u64,
    /// Events that the reader of the output never took.
    pub undelivered: u64,
}
