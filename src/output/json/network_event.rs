//! The object `network_event`.

use std::{net::IpAddr, time::Duration};

use serde::Serialize;

use super::encode::text;
use crate::{
    event::{Backlog, EventKind},
    output::vocabulary,
    record::Record,
};

#[derive(Serialize)]
struct NetworkEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    saddr: IpAddr,
    sport: u16,
    daddr: IpAddr,
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
    dst_ip: IpAddr,
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
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes_sent: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes_received: Option<u64>,
        retransmits: u32,
        srtt_us: u64,
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        closer: Option<ProcessRef<'a>>,
    },
    Listen {
        #[serde(skip_serializing_if = "Option::is_none")]
        backlog: Option<BacklogObject>,
    },
    StateChange {
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
        owners: Vec<ProcessRef<'a>>,
    },
}

#[derive(Serialize)]
struct BacklogObject {
    len: u32,
    max: u32,
}

/// A process that is not the event's own.
#[derive(Serialize)]
struct ProcessRef<'a> {
    pid: u32,
    filename: &'a str,
}

/// What happened, as an object.
pub fn network_event(record: &Record) -> String {
    let event = &record.event;
    let names: Vec<&str> = record.names.names.iter().map(|name| &**name).collect();
    let (kind, details) = match &event.kind {
        EventKind::Request => {
            return text(&NetTcpConnect {
                kind: "NetTCPConnect",
                dst_ip: event.remote.ip(),
                dst_port: event.remote.port(),
                results: names,
            });
        }
        EventKind::Connect { latency } => {
            ("TcpConnectionEstablish", Details::Connect { latency_us: latency.map(micros) })
        }
        EventKind::Accept { backlog } => {
            ("TcpConnectionAccept", Details::Accept { backlog: backlog.map(BacklogObject::from) })
        }
        EventKind::Fail { error, latency } => (
            "TcpConnectionFail",
            Details::Fail { error: vocabulary::failure(*error), latency_us: latency.map(micros) },
        ),
        EventKind::Close(close) => (
            "TcpConnectionClose",
            Details::Close {
                direction: vocabulary::direction(close.direction),
                duration_us: close.duration.map(micros),
                bytes_sent: close.bytes.map(|bytes| bytes.sent),
                bytes_received: close.bytes.map(|bytes| bytes.received),
                retransmits: close.retransmits,
                srtt_us: micros(close.srtt),
                reason: vocabulary::reason(close.reason),
                closer: record
                    .closer
                    .as_deref()
                    .map(|closer| ProcessRef { pid: closer.process.pid, filename: &closer.process.filename }),
            },
        ),
        EventKind::Listen { backlog } => {
            ("TcpListenStart", Details::Listen { backlog: backlog.map(BacklogObject::from) })
        }
        EventKind::ListenStop { backlog } => {
            ("TcpListenStop", Details::Listen { backlog: backlog.map(BacklogObject::from) })
        }
        EventKind::StateChange { from, to, after, .. } => (
            "TcpStateChange",
            Details::StateChange {
                old_state: vocabulary::state(*from),
                new_state: vocabulary::state(*to),
                duration_us: after.map(micros),
            },
        ),
        EventKind::Existing(existing) => (
            "TcpConnectionExisting",
            Details::Existing {
                state: vocabulary::state(existing.state),
                direction: existing.direction.map(vocabulary::direction),
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

fn owners(record: &Record) -> Vec<ProcessRef<'_>> {
    record
        .owners
        .iter()
        .map(|(actor, known)| ProcessRef {
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

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
