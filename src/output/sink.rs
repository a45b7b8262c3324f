//! The interface of all formats.

use crate::record::Record;

/// An output format. It appends lines to a buffer, each ended by a newline.
pub trait Sink {
    /// Appends what comes before the first record of a run, and of each file that it continues in.
    fn begin(&mut self, out: &mut Vec<u8>);
    /// Appends one record as one line.
    fn write(&mut self, record: &Record, out: &mut Vec<u8>);
    /// Called before each batch of records that were read together.
    fn begin_batch(&mut self) {}
    /// Appends what comes after the last record.
    fn end(&mut self, _out: &mut Vec<u8>) {}
}

/// Prints no events, for when only the summary is wanted.
#[derive(Debug)]
pub struct Nothing;

impl Sink for Nothing {
    fn begin(&mut self, _: &mut Vec<u8>) {}
    fn write(&mut self, _: &Record, _: &mut Vec<u8>) {}
}
