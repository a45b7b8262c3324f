//! The event-specific fields that JSON and CSV share, one row each.

use std::time::Duration;

use super::{
    append::{number, put},
    vocabulary::{self, Word},
};
use crate::event::EventKind;

/// The value of a field.
pub enum Scalar {
    /// A count, or microseconds.
    Number(u64),
    /// A word that needs no quoting.
    Word(Word<'static>),
}

impl Scalar {
    /// Appends the value, a word without quotes.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Scalar::Number(value) => number(out, *value),
            Scalar::Word(Word::Known(word)) => out.extend_from_slice(word.as_bytes()),
            Scalar::Word(word) => put(out, format_args!("{word}")),
        }
    }
}

/// A field: its name, and its value in an event. None if events of this kind have no such field, or its value is not
/// known.
pub type Field = (&'static str, fn(&EventKind) -> Option<Scalar>);

/// The fields, in the order of the CSV columns.
pub static FIELDS: [Field; 11] = [
    ("latency_us", |kind| kind.latency().map(micros)),
    ("duration_us", |kind| kind.duration().map(micros)),
    ("bytes_sent", |kind| Some(Scalar::Number(kind.close()?.bytes?.sent))),
    ("bytes_received", |kind| Some(Scalar::Number(kind.close()?.bytes?.received))),
    ("segment", |kind| Some(Scalar::Word(Word::Known(vocabulary::segment(kind.retransmit()?.segment))))),
    ("seq", |kind| Some(Scalar::Number(kind.retransmit()?.seq?.into()))),
    ("seq_len", |kind| Some(Scalar::Number(kind.retransmit()?.seq_len?.into()))),
    ("retransmits", |kind| Some(Scalar::Number(kind.retransmits()?.into()))),
    ("srtt_us", |kind| Some(micros(kind.close()?.srtt))),
    ("reason", |kind| Some(Scalar::Word(vocabulary::reason(kind.close()?.reason)))),
    ("error", |kind| kind.failure().map(|error| Scalar::Word(vocabulary::failure(error)))),
];

fn micros(duration: Duration) -> Scalar {
    Scalar::Number(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
