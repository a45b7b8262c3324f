//! Who the image ids in events stand for.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use crate::{
    event::{ImageId, Process},
    host::Host,
};

/// Images kept before those that nothing refers to any more are dropped.
pub const SWEEP_AT: usize = 16_384;

/// A process image, with whatever a sink made of it once and for all.
#[derive(Debug)]
pub struct Known {
    /// Its id.
    pub id: ImageId,
    /// What is known of it.
    pub process: Process,
}

/// The images sent by the kernel side.
///
/// Memory is bounded by what is alive: when the table has grown large, the images that no open
/// connection and no kept image's parentage refers to are dropped, and the kernel side is told to
/// send again what it needs.
#[derive(Debug)]
pub struct ProcessTable {
    known: HashMap<ImageId, Rc<Known>>,
    /// Images received since the sweep began: they are in use, whatever the kernel said before.
    fresh: HashSet<ImageId>,
    at_least: usize,
    sweep_at: usize,
}

impl ProcessTable {
    /// A table that is not swept before it holds `at_least` images.
    pub fn new(at_least: usize) -> Self {
        ProcessTable { known: HashMap::new(), fresh: HashSet::new(), at_least, sweep_at: at_least }
    }

    /// Take a record. Arguments the kernel side could not read come from /proc.
    pub fn insert(&mut self, id: ImageId, mut process: Process, host: &impl Host) {
        if process.args.is_none() {
            let before = self.known.get(&id).and_then(|known| known.process.args.clone());
            process.args = host.args(&process).or(before);
        }
        self.known.insert(id, Rc::new(Known { id, process }));
        self.fresh.insert(id);
    }

    /// Who it is, if its record came.
    pub fn get(&self, id: ImageId) -> Option<Rc<Known>> {
        self.known.get(&id).cloned()
    }

    /// Whether it is time to ask the kernel side what is in use, and [`ProcessTable::sweep`].
    pub fn is_crowded(&self) -> bool {
        self.known.len() >= self.sweep_at
    }

    /// A question to the kernel side begins: what comes from here on is in use.
    pub fn begin_sweep(&mut self) {
        self.fresh.clear();
    }

    /// Drop what is neither in use nor fresh, nor the parent of such.
    pub fn sweep(&mut self, in_use: &HashSet<ImageId>) {
        let kept: HashSet<ImageId> = self
            .known
            .keys()
            .filter(|id| in_use.contains(id) || self.fresh.contains(id))
            .flat_map(|id| [Some(*id), self.known[id].process.parent])
            .flatten()
            .collect();
        self.known.retain(|id, _| kept.contains(id));
        self.sweep_at = self.at_least.max(self.known.len() * 2);
    }

    /// How many images are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}
