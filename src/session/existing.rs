//! What exists at the start: asked for once, put in order, and who has it.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use anyhow::Result;

use crate::{
    event::{Event, EventKind, Existing, ImageId, Lifecycle, Process, State},
    host::Host,
    process::ProcessTable,
    source::{Batch, Source},
    tracer::wire::{Decoded, decode},
};

/// What was found, and what came meanwhile.
#[derive(Debug, Default)]
pub struct ExistingSockets {
    /// The sockets, each once, in order.
    pub sockets: Vec<Event>,
    /// Who has them.
    pub table: ProcessTable,
    /// Records of the probes, to be read after these.
    pub pending: Batch,
}

impl ExistingSockets {
    /// Ask the kernel side for everything that exists.
    ///
    /// # Errors
    /// When an iterator or the ring cannot be read.
    pub fn read(source: &mut impl Source, host: &impl Host) -> Result<ExistingSockets> {
        let mut existing = ExistingSockets::default();
        let mut by_socket = HashMap::new();
        let mut batch = Batch::default();
        let mut more = true;
        while more {
            more = source.visit_existing()?;
            loop {
                source.read(&mut batch)?;
                if batch.is_empty() {
                    break;
                }
                for bytes in batch.iter() {
                    match decode(bytes) {
                        Ok(Decoded::Process(id, process)) => insert(&mut existing.table, id, *process, host),
                        Ok(Decoded::Event(event)) if matches!(event.kind, EventKind::Existing(_)) => {
                            existing.add(event, &mut by_socket);
                        }
                        Ok(Decoded::Event(_) | Decoded::Asked(..) | Decoded::Answer(_)) | Err(_) => {
                            existing.pending.push(bytes)
                        }
                    }
                }
            }
        }
        let begun = existing.begun();
        existing.sockets.retain(|event| !begun.contains(&socket(event)));
        existing.sockets.sort_by_cached_key(|event| {
            (event.netns, state(event) != Some(State::Listen), event.local, event.remote, event.cookie)
        });
        Ok(existing)
    }

    /// A socket may be found by both iterators, and again for each process that has it.
    fn add(&mut self, event: Event, by_socket: &mut HashMap<Socket, usize>) {
        let index = *by_socket.entry(socket(&event)).or_insert(self.sockets.len());
        match self.sockets.get_mut(index) {
            Some(known) => merge(known, event),
            None => self.sockets.push(event),
        }
    }

    /// The connections that the probes report from the beginning.
    fn begun(&self) -> HashSet<Socket> {
        let begins = |event: &Event| match event.kind.lifecycle() {
            Lifecycle::Open | Lifecycle::Fail => true,
            // A change of state alone is no report of the socket.
            Lifecycle::Begin => event.kind.is_listener(),
            Lifecycle::Attempt
            | Lifecycle::Existing
            | Lifecycle::Continue
            | Lifecycle::Close
            | Lifecycle::StopListening => false,
        };
        self.pending
            .iter()
            .filter_map(|bytes| match decode(bytes) {
                Ok(Decoded::Event(event)) if begins(&event) => Some(socket(&event)),
                Ok(Decoded::Event(_) | Decoded::Asked(..) | Decoded::Process(..) | Decoded::Answer(_))
                | Err(_) => None,
            })
            .collect()
    }
}

/// Take a process record, with what the kernel side does not know of it.
pub fn insert(table: &mut ProcessTable, id: ImageId, mut process: Process, host: &impl Host) {
    process.container = process.container_id.as_deref().and_then(|id| host.container(id));
    table.insert(id, process, |process| host.args(process));
}

/// A cookie, and where it leads: an accepted MPTCP socket may have its listener's cookie, and an MPTCP listener may have
/// none.
type Socket = (u64, SocketAddr);

fn socket(event: &Event) -> Socket {
    (event.cookie, if event.kind.is_listener() { event.local } else { event.remote })
}

/// Later observations win; the first process seen stays the owner.
fn merge(known: &mut Event, mut later: Event) {
    if let (EventKind::Existing(known), EventKind::Existing(later)) = (&known.kind, &mut later.kind) {
        let new = later.owners.iter().filter(|owner| known.owners.iter().all(|known| known.pid != owner.pid));
        later.owners = known.owners.iter().chain(new).copied().collect();
    }
    if let EventKind::Existing(Existing { owners, .. }) = &later.kind
        && let Some(&first) = owners.first()
    {
        later.owner = first;
    }
    *known = later;
}

fn state(event: &Event) -> Option<State> {
    event.kind.existing().map(|existing| existing.state)
}
