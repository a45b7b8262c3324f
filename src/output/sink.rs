//! What every format does.

use crate::record::Record;

/// A format. Lines go into a buffer, each ended by a newline.
pub trait Sink {
    /// What comes before the first record.
    fn begin(&mut self, out: &mut Vec<u8>);
    /// One record, one line.
    fn write(&mut self, record: &Record, out: &mut Vec<u8>);
    /// Records that have come together follow.
    fn begin_batch(&mut self) {}
    /// What comes after the last record.
    fn end(&mut self, _out: &mut Vec<u8>) {}
}

/// Prints no events: only their summary is asked for.
#[derive(Debug)]
pub struct Nothing;

impl Sink for Nothing {
    fn begin(&mut self, _: &mut Vec<u8>) {}
    fn write(&mut self, _: &Record, _: &mut Vec<u8>) {}
}
