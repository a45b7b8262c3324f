//! The process table: from image ids in events to processes.

use std::{cell::OnceCell, collections::HashSet, rc::Rc};

use foldhash::{HashMap, HashMapExt};

use crate::{
    event::{BootTime, ImageId, Process},
    record::ProcessEntry,
};

pub mod argv;
pub mod container;
pub mod procfs;
pub mod systemd_unit;

/// From this number of images on, unused ones are dropped. They take 10 to 30 MB.
pub const SWEEP_AT: usize = 8192;

/// The process images sent by the kernel side.
///
/// Memory is bounded by what is in use. When the table has grown large, the kernel side is asked which images open
/// connections refer to, and images that are neither in use nor the parent of one that is are dropped; the kernel side
/// sends dropped images again when it needs them. Records already in the ring may still refer to dropped images, so
/// these are removed only when the last such record has been read. The table holds at most twice the images in use, or
/// [`SWEEP_AT`], plus those whose records fit into the ring.
/// [`SWEEP_AT`], plus those whose records fit into the ring.
#[derive(Debug)]
pub struct ProcessTable {
    known: HashMap<ImageId, Rc<ProcessEntry>>,
    /// Images received since the kernel side was asked; these are in use, whatever the answer was.
    fresh: HashSet<ImageId>,
    answer: Option<Answer>,
    at_least: usize,
    sweep_at: usize,
}

/// The images in use according to the kernel side, and the time of that answer.
#[derive(Debug)]
struct Answer {
    in_use: HashSet<ImageId>,
    at: BootTime,
}

impl Default for ProcessTable {
    fn default() -> Self {
        ProcessTable::new(SWEEP_AT)
    }
}

impl ProcessTable {
    /// A table that is not swept before it holds `at_least` images.
    pub fn new(at_least: usize) -> Self {
        ProcessTable {
            known: HashMap::new(),
            fresh: HashSet::new(),
            answer: None,
            at_least,
            sweep_at: at_least,
        }
    }

    /// Inserts a record. Arguments that the kernel side could not read come from `read_args`, if available.
    pub fn insert(
        &mut self,
        id: ImageId,
        mut process: Process,
        read_args: impl FnOnce(&Process) -> Option<String>,
    ) {
        if process.binary_path.is_empty() && !process.kernel_thread {
            self.complete(&mut process);
        }
        if process.args.is_none() {
            let before = self.known.get(&id).and_then(|known| known.process.args.clone());
            process.args = read_args(&process).or(before);
        }
        self.known.insert(id, Rc::new(ProcessEntry { id, process, rendered: OnceCell::new() }));
        self.fresh.insert(id);
    }

    /// Fills in the executable and arguments of an exiting process, which still closes its sockets when its memory is
    /// already gone: from its previous record, or from the process that forked it.
    fn complete(&self, process: &mut Process) {
        let get = |id| self.known.get(&id).map(|known| &known.process);
        let forked_by = || {
            // The parent may be one that adopted it.
            process.parent.and_then(get).filter(|parent| process.cloned && parent.comm == process.comm)
        };
        if let Some(known) = process.before.and_then(get).or_else(forked_by) {
            process.binary_path.clone_from(&known.binary_path);
            process.filename.clone_from(&known.filename);
            process.args.clone_from(&known.args);
        }
    }

    /// The process of an image, if its record was received.
    pub fn get(&self, id: ImageId) -> Option<Rc<ProcessEntry>> {
        self.known.get(&id).cloned()
    }

    /// Whether it is time to ask the kernel side which images are in use.
    pub fn is_crowded(&self) -> bool {
        self.answer.is_none() && self.known.len() >= self.sweep_at
    }

    /// To be called before asking the kernel side: images received from now on are in use.
    pub fn begin_sweep(&mut self) {
        self.fresh.clear();
    }

    /// Takes the answer of the kernel side, given at this time.
    pub fn answered(&mut self, in_use: HashSet<ImageId>, at: BootTime) {
        self.answer = Some(Answer { in_use, at });
    }

    /// To be called when all records before this time have been read.
    pub fn passed(&mut self, time: BootTime) {
        if let Some(answer) = self.answer.take_if(|answer| answer.at < time) {
            self.sweep(&answer.in_use);
        }
    }

    /// Drops images that are not in use, not fresh, and not the parent of one that is.
    fn sweep(&mut self, in_use: &HashSet<ImageId>) {
        let kept: HashSet<ImageId> = self
            .known
            .iter()
            .filter(|(id, _)| in_use.contains(id) || self.fresh.contains(id))
            .flat_map(|(id, known)| [Some(*id), known.process.parent])
            .flatten()
            .collect();
        self.known.retain(|id, _| kept.contains(id));
        self.known.shrink_to(self.at_least);
        self.fresh = HashSet::new();
        self.sweep_at = self.at_least.max(self.known.len() * 2);
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A machine on which no process has arguments.
    fn none(_: &Process) -> Option<String> {
        None
    }

    fn process(parent: Option<u64>, args: Option<&str>) -> Process {
        Process { parent: parent.map(ImageId), args: args.map(str::to_owned), ..Process::default() }
    }

    #[test]
    fn missing_arguments_are_read_from_proc() {
        let from_proc = |_: &Process| Some("from proc".to_owned());
        let mut table = ProcessTable::new(10);
        let args = |table: &ProcessTable| table.get(ImageId(1)).and_then(|entry| entry.process.args.clone());
        table.insert(ImageId(1), process(None, None), none);
        assert_eq!(args(&table), None);
        table.insert(ImageId(1), process(None, None), from_proc);
        assert_eq!(args(&table).as_deref(), Some("from proc"));
        // it has exited; what was known about it stays
        table.insert(ImageId(1), process(None, None), none);
        assert_eq!(args(&table).as_deref(), Some("from proc"));
        table.insert(ImageId(1), process(None, Some("its own")), from_proc);
        assert_eq!(args(&table).as_deref(), Some("its own"));
    }

    #[test]
    fn exiting_processes_keep_their_executable() {
        let curl = Process {
            binary_path: "/usr/bin/curl".to_owned(),
            filename: "curl".to_owned(),
            comm: "curl".to_owned(),
            ..process(None, Some("-s"))
        };
        let gone = |before, parent, comm: &str| Process {
            before: Some(ImageId(before)),
            cloned: true,
            filename: comm.to_owned(),
            comm: comm.to_owned(),
            ..process(Some(parent), None)
        };
        let mut table = ProcessTable::new(10);
        table.insert(ImageId(1), curl.clone(), none);
        // its previous record, a thread, a child, and a child adopted by another process
        for (id, after, path) in [
            (1, gone(1, 9, "curl"), "/usr/bin/curl"),
            (2, gone(1, 9, "thread"), "/usr/bin/curl"),
            (3, gone(9, 1, "curl"), "/usr/bin/curl"),
            (4, gone(9, 1, "adopted"), ""),
        ] {
            let comm = after.comm.clone();
            table.insert(ImageId(id), after, none);
            let known = &table.get(ImageId(id)).expect("known").process;
            let expected = if path.is_empty() { (comm.as_str(), None) } else { ("curl", Some("-s")) };
            assert_eq!(known.binary_path, path);
            assert_eq!((known.filename.as_str(), known.args.as_deref()), expected);
        }
    }

    #[test]
    fn images_of_records_in_the_ring_are_kept() {
        let mut table = ProcessTable::new(2);
        table.insert(ImageId(1), process(None, None), none);
        assert!(!table.is_crowded());
        table.insert(ImageId(2), process(None, None), none);
        assert!(table.is_crowded());
        table.begin_sweep();
        table.answered(HashSet::new(), BootTime(100));
        assert!(!table.is_crowded());
        table.passed(BootTime(100)); // from before the answer
        assert_eq!(table.len(), 2);
        table.passed(BootTime(101));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_hundred_thousand_short_lived_images_use_little_memory() {
        let mut table = ProcessTable::new(1000);
        for id in 1..=100_000 {
            table.insert(ImageId(id), process(Some(id / 2), None), none);
            if table.is_crowded() {
                table.begin_sweep();
                table.answered(HashSet::from([ImageId(id)]), BootTime(id));
            }
            table.passed(BootTime(id));
            assert!(table.len() <= 1001);
        }
    }

    proptest! {
        /// Regardless of the order of events: an image that is in use, arrived after the question, or is the parent of
        /// such an image is kept by a sweep; all others are dropped.
        #[test]
        fn a_sweep_drops_what_is_out_of_use_and_nothing_else(
            before in prop::collection::vec((1..50_u64, prop::option::of(1..50_u64)), 0..60),
            in_use in prop::collection::hash_set(1..50_u64, 0..20),
            after in prop::collection::vec((1..50_u64, prop::option::of(1..50_u64)), 0..20),
        ) {
            let mut table = ProcessTable::new(1);
            let mut parents = HashMap::new();
            for &(id, parent) in &before {
                table.insert(ImageId(id), process(parent, None), none);
                parents.insert(id, parent);
            }
            table.begin_sweep();
            table.answered(in_use.iter().copied().map(ImageId).collect(), BootTime(1));
            for &(id, parent) in &after {
                table.insert(ImageId(id), process(parent, None), none);
                parents.insert(id, parent);
            }
            table.passed(BootTime(2));
            let used = |id: u64| in_use.contains(&id) || after.iter().any(|&(fresh, _)| fresh == id);
            for &id in parents.keys() {
                let is_parent = parents.iter().any(|(&child, &parent)| used(child) && parent == Some(id));
                prop_assert_eq!(table.get(ImageId(id)).is_some(), used(id) || is_parent, "{}", id);
            }
        }
    }
}
