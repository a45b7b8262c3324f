//! The JSON format: one NetworkEvent object per line.

mod encode;
mod network_event;
mod process;

use encode::{key, text};
use network_event::network_event;
use process::Processes;

use super::{
    append::{number, put},
    sink::Sink,
    timestamp::Timestamps,
};
use crate::{
    event::Actor,
    record::{ProcessEntry, Record},
};

/// The sink of the JSON format.
pub struct Json {
    processes: Processes,
    community_id: bool,
    timestamps: Timestamps,
}

impl Json {
    /// `all_capabilities`: all capabilities known to the kernel; `community_id`: whether to add the Community ID.
    pub fn new(all_capabilities: u64, community_id: bool) -> Self {
        Json { processes: Processes::new(all_capabilities), community_id, timestamps: Timestamps::default() }
    }

    /// Appends a process object; only its ids if its record was lost; null if there is no owner.
    fn put_process(
        &mut self,
        out: &mut Vec<u8>,
        known: Option<&ProcessEntry>,
        actor: Actor,
        wall_offset: i128,
    ) {
        let Some(known) = known else {
            if actor.pid == 0 {
                out.extend_from_slice(b"null");
                return;
            }
            put(out, format_args!("{{\"pid\":{},\"tid\":{}}}", actor.pid, actor.tid));
            return;
        };
        let parts = known.rendered.get_or_init(|| self.processes.render(&known.process, wall_offset));
        for (index, part) in parts.iter().enumerate() {
            if index == process::TID {
                number(out, actor.tid);
            }
            out.extend_from_slice(part.as_bytes());
        }
    }
}

impl Sink for Json {
    fn begin(&mut self, _: &mut Vec<u8>) {}

    fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"NetworkEvent\",\"timestamp\":\"");
        self.timestamps.put(out, record.wall_ns);
        out.extend_from_slice(b"\",\"process\":");
        self.put_process(out, record.process.as_deref(), record.event.owner, record.wall_offset);
        key(out, "parent");
        match &record.parent {
            Some(parent) => {
                let pid = parent.process.pid;
                let leader = Actor { image: Some(parent.id), pid, tid: pid };
                self.put_process(out, Some(parent), leader, record.wall_offset);
            }
            None => match record.process.as_ref().map(|known| known.process.ppid) {
                Some(pid) if pid != 0 => {
                    self.put_process(out, None, Actor { image: None, pid, tid: pid }, record.wall_offset);
                }
                _ => out.extend_from_slice(b"null"),
            },
        }
        key(out, "network_event");
        network_event(record, self.community_id, out);
        if let Some(rule) = &record.rule {
            key(out, "rule");
            text(out, &**rule);
        }
        out.extend_from_slice(b"}\n");
    }
}
