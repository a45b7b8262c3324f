//! NetworkEvent JSON, one object per line.

use std::{io::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::Serialize;

use super::{Sink, names};
use crate::{
    enrich::Record,
    event::{Actor, Backlog, BootTime, Process, What},
    process::Known,
};

/// Writes NetworkEvent objects.
pub struct Json {
    all_capabilities: u64,
    rules: Vec<Option<String>>,
}

#[derive(Serialize)]
struct BeforeTid {
    start_time: String,
    cloned: bool,
    pid: u32,
}

#[derive(Serialize)]
struct AfterTid<'a> {
    ppid: u32,
    uid: u32,
    euid: u32,
    gid: u32,
    egid: u32,
    auid: u32,
    cap_inheritable: String,
    cap_permitted: String,
    cap_effective: String,
    secureexec: String,
    filename: &'a str,
    binary_path: &'a str,
    args: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<&'a str>,
    exec_id: String,
    parent_exec_id: String,
}

#[derive(Serialize)]
struct NetworkEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    saddr: std::net::IpAddr,
    sport: u16,
    daddr: std::net::IpAddr,
    dport: u16,
    cookie: u64,
    netns: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    mptcp: bool,
    #[serde(flatten)]
    details: Details<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns: Vec<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dns_guess: bool,
}

/// An attempt to connect, as seed 004 has it.
#[derive(Serialize)]
struct NetTcpConnect<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "dstIP")]
    dst_ip: std::net::IpAddr,
    #[serde(rename = "dstPort")]
    dst_port: u16,
    results: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Details<'a> {
    Connect {
        #[serde(skip_serializing_if = "Option::is_none")]
        latency_us: Option<u64>,
    },
    Accept {
        #[serde(skip_serializing_if = "Option::is_none")]
        backlog: Option<BacklogObject>,
    },
    Fail {
        error: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        latency_us: Option<u64>,
    },
    Close {
        direction: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        duration_us: Option<u64>,
        bytes_sent: u64,
        bytes_received: u64,
        retransmits: u32,
        srtt_us: u64,
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        closer: Option<Bystander<'a>>,
    },
    Listen {
        #[serde(skip_serializing_if = "Option::is_none")]
        backlog: Option<BacklogObject>,
    },
    Step {
        old_state: &'static str,
        new_state: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        duration_us: Option<u64>,
    },
    Existing {
        state: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        direction: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        backlog: Option<BacklogObject>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        owners: Vec<Bystander<'a>>,
    },
}

#[derive(Serialize)]
struct BacklogObject {
    len: u32,
    max: u32,
}

/// A process that is not the event's own.
#[derive(Serialize)]
struct Bystander<'a> {
    pid: u32,
    filename: &'a str,
}

impl Json {
    /// `all_capabilities`: every capability this kernel knows; `rules`: names by number.
    pub fn new(all_capabilities: u64, rules: Vec<Option<String>>) -> Self {
        Json { all_capabilities, rules }
    }

    /// A process object but for the `tid` in its middle, which differs from event to event.
    fn process_object(&self, known: &Known, wall_offset: i128) -> [String; 2] {
        let Process { pid, ppid, start, parent_start, .. } = known.process;
        let process = &known.process;
        let caps = |set| names::capabilities(set, self.all_capabilities);
        let before = BeforeTid {
            start_time: names::time(i128::from(start.0) + wall_offset),
            cloned: process.cloned,
            pid,
        };
        let after = AfterTid {
            ppid,
            uid: process.uid,
            euid: process.euid,
            gid: process.gid,
            egid: process.egid,
            auid: process.auid,
            cap_inheritable: caps(process.cap_inheritable),
            cap_permitted: caps(process.cap_permitted),
            cap_effective: caps(process.cap_effective),
            secureexec: names::secureexec(process.secureexec),
            filename: &process.filename,
            binary_path: &process.binary_path,
            args: process.args.as_deref().unwrap_or_default(),
            container_id: process.container_id.as_deref(),
            exec_id: exec_id(pid, start),
            parent_exec_id: if ppid == 0 { String::new() } else { exec_id(ppid, parent_start) },
        };
        let before = text(&before);
        let after = text(&after);
        [before.trim_end_matches('}').to_owned(), after.trim_start_matches('{').to_owned()]
    }

    /// A process object, or what little is known of a process whose record was lost, or null where
    /// there is no owner.
    fn put_process(&self, out: &mut Vec<u8>, known: Option<&Known>, actor: Actor, wall_offset: i128) {
        let Some(known) = known else {
            if actor.pid == 0 {
                out.extend_from_slice(b"null");
                return;
            }
            put(out, format_args!("{{\"pid\":{},\"tid\":{}}}", actor.pid, actor.tid));
            return;
        };
        let [before, after] = known.rendered.get_or_init(|| self.process_object(known, wall_offset));
        put(out, format_args!("{before},\"tid\":{},{after}", actor.tid));
    }
}

impl Sink for Json {
    fn begin(&mut self, _: &mut Vec<u8>) {}

    fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        put(
            out,
            format_args!(
                "{{\"type\":\"NetworkEvent\",\"timestamp\":\"{}\",\"process\":",
                names::time(record.wall_ns)
            ),
        );
        self.put_process(out, record.process.as_deref(), record.event.owner, record.wall_offset);
        out.extend_from_slice(b",\"parent\":");
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
        out.extend_from_slice(b",\"network_event\":");
        out.extend_from_slice(network_event(record).as_bytes());
        if let Some(rule) = record.event.rule.and_then(|rule| self.rules.get(usize::from(rule))?.as_deref()) {
            put(out, format_args!(",\"rule\":{}", text(&rule)));
        }
        out.extend_from_slice(b"}\n");
    }
}

fn network_event(record: &Record) -> String {
    let event = &record.event;
    let names: Vec<&str> = record.names.names.iter().map(|name| &**name).collect();
    let (kind, details) = match &event.what {
        What::Request => {
            return text(&NetTcpConnect {
                kind: "NetTCPConnect",
                dst_ip: event.remote.ip(),
                dst_port: event.remote.port(),
                results: names,
            });
        }
        What::Connect { latency } => {
            ("TcpConnectionEstablish", Details::Connect { latency_us: latency.map(micros) })
        }
        What::Accept { backlog } => {
            ("TcpConnectionAccept", Details::Accept { backlog: backlog.map(BacklogObject::from) })
        }
        What::Fail { error, latency } => (
            "TcpConnectionFail",
            Details::Fail { error: names::failure(*error), latency_us: latency.map(micros) },
        ),
        What::Close(close) => (
            "TcpConnectionClose",
            Details::Close {
                direction: names::direction(close.direction),
                duration_us: close.duration.map(micros),
                bytes_sent: close.bytes_sent,
                bytes_received: close.bytes_received,
                retransmits: close.retransmits,
                srtt_us: micros(close.srtt),
                reason: names::reason(close.reason),
                closer: record
                    .closer
                    .as_deref()
                    .map(|closer| Bystander { pid: closer.process.pid, filename: &closer.process.filename }),
            },
        ),
        What::Listen { backlog } => {
            ("TcpListenStart", Details::Listen { backlog: backlog.map(BacklogObject::from) })
        }
        What::Unlisten { backlog } => {
            ("TcpListenStop", Details::Listen { backlog: backlog.map(BacklogObject::from) })
        }
        What::Step { from, to, after, .. } => (
            "TcpStateChange",
            Details::Step {
                old_state: names::state(*from),
                new_state: names::state(*to),
                duration_us: after.map(micros),
            },
        ),
        What::Existing(existing) => (
            "TcpConnectionExisting",
            Details::Existing {
                state: names::state(existing.state),
                direction: existing.direction.map(names::direction),
                backlog: existing.backlog.map(BacklogObject::from),
                owners: if record.owners.len() > 1 { owners(record) } else { Vec::new() },
            },
        ),
    };
    text(&NetworkEvent {
        kind,
        saddr: event.local.ip(),
        sport: event.local.port(),
        daddr: event.remote.ip(),
        dport: event.remote.port(),
        cookie: event.cookie,
        netns: event.netns,
        mptcp: event.mptcp,
        details,
        dns: names,
        dns_guess: record.names.guess,
    })
}

fn owners(record: &Record) -> Vec<Bystander<'_>> {
    record
        .owners
        .iter()
        .map(|(actor, known)| Bystander {
            pid: actor.pid,
            filename: known.as_deref().map_or("", |known| &known.process.filename),
        })
        .collect()
}

impl From<Backlog> for BacklogObject {
    fn from(Backlog { len, max }: Backlog) -> Self {
        BacklogObject { len, max }
    }
}

/// base64 without padding of `PID:START_NS`.
fn exec_id(pid: u32, start: BootTime) -> String {
    STANDARD_NO_PAD.encode(format!("{pid}:{}", start.0))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers always serialise")
}

fn put(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a Vec takes everything");
}
