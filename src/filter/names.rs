//! The last word where a filter mentions `dns`, which user space alone knows.

use super::{Direction, Filter, Subject, Verdict};
use crate::{
    enrich::Record,
    event::{self, What},
    process::Known,
};

impl Filter {
    /// The verdict on what the kernel let through. Where the owner's record was lost, which is
    /// counted, its verdict stands.
    pub fn judge_named(&self, record: &Record) -> Verdict {
        match subject(record) {
            Some(subject) => self.judge(&subject),
            None => Verdict::Admitted(record.event.rule.map(usize::from)),
        }
    }
}

fn subject(record: &Record) -> Option<Subject> {
    let event = &record.event;
    let process = &record.process.as_deref()?.process;
    let parent = record.parent.as_deref().map(|Known { process, .. }| process);
    let bytes = |text: &str| text.as_bytes().to_vec();
    Some(Subject {
        binary_name: bytes(&process.filename),
        binary_path: bytes(&process.binary_path),
        parent_binary_name: bytes(parent.map_or("", |parent| &parent.filename)),
        parent_binary_path: bytes(parent.map_or("", |parent| &parent.binary_path)),
        uid: process.uid,
        euid: process.euid,
        gid: process.gid,
        egid: process.egid,
        auid: process.auid,
        pid: process.pid,
        ppid: process.ppid,
        container_id: bytes(process.container_id.as_deref().unwrap_or_default()),
        // The option --cgroup must be met, so it was.
        in_cgroup: true,
        netns: event.netns,
        saddr: event.local.ip(),
        daddr: event.remote.ip(),
        sport: event.local.port(),
        dport: event.remote.port(),
        direction: direction(&event.what),
        dns: record.names.names.iter().map(|name| name.to_string()).collect(),
    })
}

fn direction(what: &What) -> Direction {
    let known = match what {
        What::Accept { .. } | What::Listen { .. } | What::Unlisten { .. } => event::Direction::Ingress,
        What::Close(close) => close.direction,
        What::Existing(existing) => existing.direction.unwrap_or(event::Direction::Ingress),
        What::Connect { .. } | What::Fail { .. } | What::Request | What::Step { .. } => {
            event::Direction::Egress
        }
    };
    match known {
        event::Direction::Egress => Direction::Egress,
        event::Direction::Ingress => Direction::Ingress,
    }
}
