//! The sockets that exist at the start, in order, with their owners.

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

/// The sockets found, and the records that arrived meanwhile.
#[derive(Debug, Default)]
pub struct ExistingSockets {
    /// The sockets, without duplicates, in order.
    pub sockets: Vec<Event>,
    /// The processes that own them.
    pub table: ProcessTable,
    /// Records of the probes, to be handled after these sockets.
    pub pending: Batch,
}

impl ExistingSockets {
    /// Reads all existing sockets from the kernel side.
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

    /// Adds a socket, which both iterators may report, and one of them for each process that holds it.
    fn add(&mut self, event: Event, by_socket: &mut HashMap<Socket, usize>) {
        let index = *by_socket.entry(socket(&event)).or_insert(self.sockets.len());
        match self.sockets.get_mut(index) {
            Some(known) => merge(known, event),
            None => self.sockets.push(event),
        }
    }

    /// The connections whose beginning the probes report.
    fn begun(&self) -> HashSet<Socket> {
        let begins = |event: &Event| match event.kind.lifecycle() {
            Lifecycle::Open | Lifecycle::Fail => true,
            // A change of state alone does not report the socket.
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

/// Inserts a process record, completed with what only user space knows.
pub fn insert(table: &mut ProcessTable, id: ImageId, mut process: Process, host: &impl Host) {
    process.container = process.container_id.as_deref().and_then(|id| host.container(id));
    table.insert(id, process, |process| host.args(process));
}

/// A cookie and a remote address (for a listener, the local one): an accepted MPTCP socket may have the cookie of its
/// listener, and an MPTCP listener may have none.
type Socket = (u64, SocketAddr);

fn socket(event: &Event) -> Socket {
    (event.cookie, if event.kind.is_listener() { event.local } else { event.remote })
}

/// Later observations replace earlier ones, but the first process stays the owner.
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
