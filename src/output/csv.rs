//! Comma-separated values (RFC 4180), the same columns for all events.

use std::{borrow::Cow, time::Duration};

use super::{Sink, names};
use crate::{
    enrich::Record,
    event::{Backlog, Close, Process, State, What},
};

/// The columns, in order. A field without a value is empty.
pub const COLUMNS: [&str; 39] = [
    "timestamp",
    "event",
    "pid",
    "tid",
    "ppid",
    "uid",
    "euid",
    "gid",
    "egid",
    "auid",
    "filename",
    "binary_path",
    "args",
    "container_id",
    "unit",
    "saddr",
    "sport",
    "daddr",
    "dport",
    "dns",
    "dns_guess",
    "netns",
    "cookie",
    "mptcp",
    "state",
    "old_state",
    "owners",
    "direction",
    "latency_us",
    "duration_us",
    "bytes_sent",
    "bytes_received",
    "retransmits",
    "srtt_us",
    "reason",
    "error",
    "backlog_len",
    "backlog_max",
    "rule",
];

/// Writes lines of values. Control characters are escaped as in the table: RFC 4180 has no place
/// for them, and one event stays one line.
#[derive(Debug)]
pub struct Csv {
    rules: Vec<Option<String>>,
}

impl Csv {
    /// `rules`: names by number.
    pub fn new(rules: Vec<Option<String>>) -> Self {
        Csv { rules }
    }
}

/// What differs from event to event.
#[derive(Default)]
struct Details {
    state: Option<State>,
    old_state: Option<State>,
    direction: Option<&'static str>,
    latency: Option<Duration>,
    duration: Option<Duration>,
    close: Option<Close>,
    error: Option<String>,
    backlog: Option<Backlog>,
}

impl Sink for Csv {
    fn begin(&mut self, out: &mut Vec<u8>) {
        put(out, COLUMNS);
    }

    fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        let event = &record.event;
        let process = record.process.as_deref().map(|known| &known.process);
        let number = |of: fn(&Process) -> u32| text(process.map(of));
        let word =
            |of: fn(&Process) -> Option<&str>| names::escape(process.and_then(of).unwrap_or_default()).into();
        let rule = event.rule.and_then(|rule| self.rules.get(usize::from(rule))?.as_ref());
        let Details { state, old_state, direction, latency, duration, close, error, backlog } =
            details(&event.what);
        let owners: Vec<String> = record.owners.iter().map(|(actor, _)| actor.pid.to_string()).collect();
        let close = close.as_ref();
        let known = event.owner.pid != 0;
        let fields: [Cow<'_, str>; COLUMNS.len()] = [
            names::time(record.wall_ns).into(),
            names::event(&event.what).into(),
            text(known.then_some(event.owner.pid)),
            text(known.then_some(event.owner.tid)),
            number(|process| process.ppid),
            number(|process| process.uid),
            number(|process| process.euid),
            number(|process| process.gid),
            number(|process| process.egid),
            number(|process| process.auid),
            word(|process| Some(&process.filename)),
            word(|process| Some(&process.binary_path)),
            word(|process| process.args.as_deref()),
            word(|process| process.container_id.as_deref()),
            word(|process| process.unit.as_deref()),
            event.local.ip().to_string().into(),
            event.local.port().to_string().into(),
            event.remote.ip().to_string().into(),
            event.remote.port().to_string().into(),
            record.names.names.join(" ").into(),
            text(record.names.guess.then_some(true)),
            event.netns.to_string().into(),
            event.cookie.to_string().into(),
            event.mptcp.to_string().into(),
            state.map_or("", names::state).into(),
            old_state.map_or("", names::state).into(),
            owners.join(" ").into(),
            direction.unwrap_or_default().into(),
            text(latency.map(|latency| latency.as_micros())),
            text(duration.map(|duration| duration.as_micros())),
            text(close.and_then(|close| close.bytes).map(|bytes| bytes.sent)),
            text(close.and_then(|close| close.bytes).map(|bytes| bytes.received)),
            text(close.map(|close| close.retransmits)),
            text(close.map(|close| close.srtt.as_micros())),
            text(close.map(|close| names::reason(close.reason))),
            text(error),
            text(backlog.map(|backlog| backlog.len)),
            text(backlog.map(|backlog| backlog.max)),
            rule.map_or("", String::as_str).into(),
        ];
        put(out, fields.iter().map(AsRef::as_ref));
    }
}

fn details(what: &What) -> Details {
    match what {
        What::Request => Details { direction: Some("egress"), ..Details::default() },
        What::Connect { latency } => {
            Details { direction: Some("egress"), latency: *latency, ..Details::default() }
        }
        What::Accept { backlog } => {
            Details { direction: Some("ingress"), backlog: *backlog, ..Details::default() }
        }
        What::Fail { error, latency } => Details {
            direction: Some("egress"),
            latency: *latency,
            error: Some(names::failure(*error)),
            ..Details::default()
        },
        What::Close(close) => Details {
            direction: Some(names::direction(close.direction)),
            duration: close.duration,
            close: Some(close.clone()),
            ..Details::default()
        },
        What::Listen { backlog } | What::Unlisten { backlog } => {
            Details { backlog: *backlog, ..Details::default() }
        }
        What::Step { from, to, after, .. } => {
            Details { state: Some(*to), old_state: Some(*from), duration: *after, ..Details::default() }
        }
        What::Existing(existing) => Details {
            state: Some(existing.state),
            direction: existing.direction.map(names::direction),
            backlog: existing.backlog,
            ..Details::default()
        },
    }
}

fn text(value: Option<impl ToString>) -> Cow<'static, str> {
    value.map_or_else(Default::default, |value| value.to_string()).into()
}

/// One line.
fn put<'a>(out: &mut Vec<u8>, fields: impl IntoIterator<Item = &'a str>) {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).buffer_capacity(1024).from_writer(out);
    writer.write_record(fields).and_then(|()| Ok(writer.flush()?)).expect("a Vec takes everything");
}
