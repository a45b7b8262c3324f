//! What a session reads from: the kernel, a recorded file, a test's script.

use std::{collections::HashSet, os::fd::BorrowedFd};

use anyhow::Result;

use crate::event::ImageId;

/// Where records come from.
pub trait Source {
    /// Readable when records wait and the source thinks it is time.
    fn ready_fd(&self) -> BorrowedFd<'_>;
    /// Take waiting records; an empty batch when there are none.
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    fn read(&mut self, into: &mut Batch) -> Result<()>;
    /// Visit some of the sockets that exist, whose records can then be read; false when all were.
    ///
    /// # Errors
    /// When an iterator cannot be read any more.
    fn visit_existing(&mut self) -> Result<bool>;
    /// Whether a connection that has an owner is open.
    fn has_open(&self) -> bool;
    /// Stop producing records. Those that wait can still be read.
    fn detach(&mut self);
    /// What was lost so far on the kernel side.
    fn lost(&self) -> Lost;
    /// The images that open connections refer to. Records sent before the call and not among
    /// them are sent again before they are next referred to.
    ///
    /// # Errors
    /// When the connection table cannot be read.
    fn images_in_use(&mut self) -> Result<HashSet<ImageId>>;
}

/// Records one after the other in one piece of memory.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Append a copy of one record.
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// Drop all records, and keep their room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Exchange with an empty one.
    pub fn swap(&mut self, other: &mut Batch) {
        self.clear();
        std::mem::swap(self, other);
    }

    /// No record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }
}

/// Connections that the kernel side tracks at a time.
pub const CONNECTIONS_MAX: u64 = 1 << 20;

/// What was lost, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Lost {
    /// Events: the ring was full.
    pub ring: u64,
    /// Connections: the connection table was full.
    pub table: u64,
    /// Process records: the ring was full, or no memory.
    pub process: u64,
    /// Processes of the command that could not be followed.
    pub follow: u64,
    /// Events: the kernel skipped the program, it was already running on that CPU.
    pub missed: u64,
    /// DNS answers: the ring was more than half full.
    pub answers: u64,
    /// Records this build cannot read.
    pub undecodable: u64,
    /// DNS answers that cannot be understood.
    pub bad_answers: u64,
    /// Events that were never taken by the reader of our output.
    pub undelivered: u64,
}
