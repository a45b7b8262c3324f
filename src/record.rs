//! An [`Event`](crate::event::Event) with its wall-clock time, processes and names.

use std::{cell::OnceCell, rc::Rc};

use crate::{
    event::{Actor, Container, Direction, Event, EventKind, ImageId, Process},
    filter::Subject,
};

/// The DNS names of a remote end, most recently answered first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    names: Option<Rc<[Rc<str>]>>,
    /// Whether the answers came from another network namespace: likely, not certain.
    pub guess: bool,
}

impl Names {
    /// At most four names, each as a program asked for it. Without names, `guess` is ignored.
    pub fn new(names: Vec<Rc<str>>, guess: bool) -> Names {
        if names.is_empty() { Names::default() } else { Names { names: Some(names.into()), guess } }
    }

    /// The names, most recently answered first.
    pub fn all(&self) -> &[Rc<str>] {
        self.names.as_deref().unwrap_or_default()
    }
}

/// A process image, and its cached rendering.
#[derive(Debug)]
pub struct ProcessEntry {
    /// The id that events refer to.
    pub id: ImageId,
    /// The details of the process.
    pub process: Process,
    /// The sink's rendering of it, in parts; equal parts of several processes are shared.
    pub rendered: OnceCell<Box<[Rc<str>]>>,
}

/// An event with the processes it refers to.
#[derive(Debug)]
pub struct Record {
    /// The event, as decoded from the ring or a recording.
    pub event: Event,
    /// The time of the event in nanoseconds since 1970.
    pub wall_ns: i128,
    /// Add this to a boot time to get nanoseconds since 1970.
    pub wall_offset: i128,
    /// The owner; none if its record was lost.
    pub process: Option<Rc<ProcessEntry>>,
    /// The parent of the owner, if known.
    pub parent: Option<Rc<ProcessEntry>>,
    /// The process that closed the connection, if not the owner.
    pub closer: Option<Rc<ProcessEntry>>,
    /// The names of the remote end when the connection was opened.
    pub names: Names,
    /// The name of the rule that admitted it.
    pub rule: Option<Rc<str>>,
    /// For a socket found at the start: all processes that hold it, the owner first.
    pub owners: Vec<(Actor, Option<Rc<ProcessEntry>>)>,
}

/// A forked child may outlive the owner and close the socket while it exits. Its memory is gone by then, so its
/// executable is the one it inherited from the owner.
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
    /// The attributes that a filter looks at.
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
            // The kernel has already evaluated --cgroup.
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

    /// Looks up the processes of an event with `get`.
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

/// The direction as the kernel evaluates it (src/bpf/existing.h): unknown ones count as egress, listeners as ingress.
fn direction(kind: &EventKind) -> Direction {
    kind.direction().unwrap_or(if kind.is_listener() { Direction::Ingress } else { Direction::Egress })
}
