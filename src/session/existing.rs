//! What exists at the start: asked for once, put in order, and who has it.

use std::collections::{HashMap, HashSet};

use anyhow::Result;

use crate::{
    event::{Event, Existing, State, What},
    host::Host,
    process::ProcessTable,
    session::{Batch, Source},
    wire::{Decoded, decode},
};

/// What was found, and what came meanwhile.
#[derive(Debug, Default)]
pub struct Survey {
    /// The sockets, each once, in order.
    pub sockets: Vec<Event>,
    /// Who has them.
    pub table: ProcessTable,
    /// Records of the probes, to be read after these.
    pub pending: Batch,
}

impl Survey {
    /// Ask the kernel side for everything that exists.
    ///
    /// # Errors
    /// When an iterator or the ring cannot be read.
    pub fn take(source: &mut impl Source, host: &impl Host) -> Result<Survey> {
        let mut survey = Survey::default();
        let mut by_cookie = HashMap::new();
        let mut batch = Batch::default();
        let mut more = true;
        while more {
            more = source.survey()?;
            loop {
                source.read(&mut batch)?;
                if batch.is_empty() {
                    break;
                }
                for bytes in batch.iter() {
                    match decode(bytes) {
                        Ok(Decoded::Process(id, process)) => survey.table.insert(id, *process, host),
                        Ok(Decoded::Event(event)) if matches!(event.what, What::Existing(_)) => {
                            survey.add(event, &mut by_cookie);
                        }
                        _ => survey.pending.push(bytes),
                    }
                }
            }
        }
        let begun = survey.begun();
        survey.sockets.retain(|event| !begun.contains(&event.cookie));
        survey.sockets.sort_by_cached_key(|event| {
            (event.netns, state(event) != Some(State::Listen), event.local, event.remote, event.cookie)
        });
        Ok(survey)
    }

    /// A socket may be found by both iterators, and again for each process that has it.
    fn add(&mut self, event: Event, by_cookie: &mut HashMap<u64, usize>) {
        let index = *by_cookie.entry(event.cookie).or_insert(self.sockets.len());
        match self.sockets.get_mut(index) {
            Some(known) => merge(known, event),
            None => self.sockets.push(event),
        }
    }

    /// The connections whose story the probes tell from the beginning.
    fn begun(&self) -> HashSet<u64> {
        let starts = |what: &What| {
            matches!(
                what,
                What::Connect { .. } | What::Accept { .. } | What::Fail { .. } | What::Listen { .. }
            )
        };
        self.pending
            .iter()
            .filter_map(|bytes| match decode(bytes) {
                Ok(Decoded::Event(event)) if starts(&event.what) => Some(event.cookie),
                _ => None,
            })
            .collect()
    }
}

/// What was seen later counts, but for the owner: that is whoever was seen first.
fn merge(known: &mut Event, mut later: Event) {
    if let (What::Existing(known), What::Existing(later)) = (&known.what, &mut later.what) {
        let new = later.owners.iter().filter(|owner| known.owners.iter().all(|known| known.pid != owner.pid));
        later.owners = known.owners.iter().chain(new).copied().collect();
    }
    if let What::Existing(Existing { owners, .. }) = &later.what
        && let Some(&first) = owners.first()
    {
        later.owner = first;
    }
    *known = later;
}

fn state(event: &Event) -> Option<State> {
    match &event.what {
        What::Existing(existing) => Some(existing.state),
        _ => None,
    }
}
