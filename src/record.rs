//! From an [`Event`] to what a person wants to read.

use std::rc::Rc;

use crate::{
    dns::Names,
    event::{Actor, Event, What},
    process::{Known, ProcessTable},
};

/// An event with everyone it speaks of.
#[derive(Debug)]
pub struct Record {
    /// What happened.
    pub event: Event,
    /// Its time, nanoseconds since 1970.
    pub wall_ns: i128,
    /// Add this to a boot time for nanoseconds since 1970.
    pub wall_offset: i128,
    /// The owner; none when its record was lost.
    pub process: Option<Rc<Known>>,
    /// The owner's parent.
    pub parent: Option<Rc<Known>>,
    /// The process that closed the connection, when that is not the owner.
    pub closer: Option<Rc<Known>>,
    /// What the remote end was called when the connection was opened.
    pub names: Names,
    /// Of a socket found at the start: all processes that have it, the owner first.
    pub owners: Vec<(Actor, Option<Rc<Known>>)>,
}

impl Record {
    /// Look up everyone.
    pub fn new(event: Event, names: Names, table: &ProcessTable, wall_offset: i128) -> Record {
        let process = event.owner.image.and_then(|id| table.get(id));
        let parent = process.as_ref().and_then(|known| table.get(known.process.parent?));
        let closer = match &event.what {
            What::Close(close) => close.closer.and_then(|id| table.get(id)),
            _ => None,
        };
        let owners = match &event.what {
            What::Existing(existing) => existing
                .owners
                .iter()
                .map(|&owner| (owner, owner.image.and_then(|id| table.get(id))))
                .collect(),
            _ => Vec::new(),
        };
        Record {
            wall_ns: i128::from(event.time.0) + wall_offset,
            wall_offset,
            event,
            process,
            parent,
            closer,
            names,
            owners,
        }
    }
}
