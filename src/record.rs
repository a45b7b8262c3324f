//! From an [`Event`](crate::event::Event) to what a person wants to read.

use std::{cell::OnceCell, rc::Rc};

use crate::{
    event::{Actor, Container, Direction, Event, EventKind, ImageId, Process},
    filter::Subject,
};

/// The names of one remote end, most recently answered first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    names: Option<Rc<[Rc<str>]>>,
    /// Another network namespace got the answers: likely, not certain.
    pub guess: bool,
}

impl Names {
    /// At most four, each the one a program asked for. Where there is none, nothing is guessed.
    pub fn new(names: Vec<Rc<str>>, guess: bool) -> Names {
        if names.is_empty() { Names::default() } else { Names { names: Some(names.into()), guess } }
    }

    /// All of them.
    pub fn all(&self) -> &[Rc<str>] {
        self.names.as_deref().unwrap_or_default()
    }
}

/// A process image, with whatever a sink made of it once and for all.
#[derive(Debug)]
pub struct ProcessEntry {
    /// Its id.
    pub id: ImageId,
    /// What is known of it.
    pub process: Process,
    /// What the sink wrote of it, before and after the thread.
    pub rendered: OnceCell<[String; 2]>,
}

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
    pub process: Option<Rc<ProcessEntry>>,
    /// The owner's parent.
    pub parent: Option<Rc<ProcessEntry>>,
    /// The process that closed the connection, when that is not the owner.
    pub closer: Option<Rc<ProcessEntry>>,
    /// What the remote end was called when the connection was opened.
    pub names: Names,
    /// The rule that admitted it, by name.
    pub rule: Option<Rc<str>>,
    /// Of a socket found at the start: all processes that have it, the owner first.
    pub owners: Vec<(Actor, Option<Rc<ProcessEntry>>)>,
}

/// A child that outlives the owner, its parent, and exits: all that is left of its executable is what it inherited.
fn named_after(closer: Rc<ProcessEntry>, owner: Option<&ProcessEntry>) -> Rc<ProcessEntry> {
    let its = &closer.process;
    let is_fork_of = |owner: &Process| its.cloned && its.binary_path.is_empty() && its.comm == owner.comm;
    match owner.map(|owner| &owner.process).filter(|&owner| is_fork_of(owner)) {
        Some(Process { binary_path, filename, .. }) => Rc::new(ProcessEntry {
            id: closer.id,
            process: Process { binary_path: binary_path.clone(), filename: filename.clone(), ..its.clone() },
            rendered: OnceCell::new(),
        }),
        None => closer,
    }
}

impl Record {
    /// What a filter can look at.
    pub fn subject(&self) -> Subject {
        let event = &self.event;
        let process = self.process.as_deref().map(|entry| &entry.process);
        let parent = self.parent.as_deref().map(|entry| &entry.process);
        let bytes = |text: Option<&String>| text.map(|text| text.clone().into_bytes()).unwrap_or_default();
        let container = |of: fn(&Container) -> Option<&String>| {
            bytes(process.and_then(|p| p.container.as_deref()).and_then(of))
        };
        let number = |of: fn(&Process) -> u32| process.map_or(0, of);
        Subject {
            binary_name: bytes(process.map(|p| &p.filename)),
            binary_path: bytes(process.map(|p| &p.binary_path)),
            parent_binary_name: bytes(parent.map(|p| &p.filename)),
            parent_binary_path: bytes(parent.map(|p| &p.binary_path)),
            uid: number(|p| p.uid),
            euid: number(|p| p.euid),
            gid: number(|p| p.gid),
            egid: number(|p| p.egid),
            auid: number(|p| p.auid),
            pid: event.owner.pid,
            ppid: number(|p| p.ppid),
            container_id: bytes(process.and_then(|p| p.container_id.as_ref())),
            container_name: container(|c| c.name.as_ref()),
            pod: container(|c| c.pod.as_ref()),
            namespace: container(|c| c.namespace.as_ref()),
            // --cgroup stands for itself: the kernel has seen to it.
            in_cgroup: true,
            netns: event.netns,
            saddr: event.local.ip(),
            daddr: event.remote.ip(),
            sport: event.local.port(),
            dport: event.remote.port(),
            direction: direction(&event.kind),
            dns: self.names.all().iter().map(|name| name.to_string()).collect(),
        }
    }

    /// Look up everyone with `get`.
    pub fn new(
        event: Event,
        names: Names,
        get: impl Fn(ImageId) -> Option<Rc<ProcessEntry>>,
        wall_offset: i128,
    ) -> Record {
        let process = event.owner.image.and_then(&get);
        let parent = process.as_ref().and_then(|known| get(known.process.parent?));
        let closer = event.kind.close().and_then(|close| close.closer).and_then(&get);
        let closer = closer.map(|closer| named_after(closer, process.as_deref()));
        let owners = event.kind.existing().map_or(&[][..], |existing| &existing.owners);
        let owners = owners.iter().map(|&owner| (owner, owner.image.and_then(&get))).collect();
        Record {
            wall_ns: i128::from(event.time.0) + wall_offset,
            wall_offset,
            event,
            process,
            parent,
            closer,
            names,
            rule: None,
            owners,
        }
    }
}

/// As the kernel has it (src/bpf/existing.h): what is left of a socket counts as opened here.
fn direction(kind: &EventKind) -> Direction {
    kind.direction().unwrap_or(if kind.is_listener() { Direction::Ingress } else { Direction::Egress })
}
