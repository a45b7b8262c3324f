//! Comma-separated values (RFC 4180), with the same columns for all events.

use super::{
    append::{address, number, put},
    community_id,
    fields::FIELDS,
    sink::Sink,
    timestamp::Timestamps,
    vocabulary::{self, escape},
};
use crate::{
    event::{Actor, Container, Direction, EventKind, Process, State},
    record::Record,
};

/// A column: its name, and a function that appends its value. A missing value is an empty field.
type Column<Put> = (&'static str, Put);

type OfEvent = fn(&Row<'_>, &mut Vec<u8>);
type OfProcess = fn(&Process, &mut Vec<u8>);

/// Columns between the timestamp and the process.
static EVENT: [Column<OfEvent>; 3] = [
    ("event", |row, out| word(out, Some(vocabulary::event(row.kind())))),
    ("pid", |row, out| integer(out, row.owner().map(|owner| owner.pid))),
    ("tid", |row, out| integer(out, row.owner().map(|owner| owner.tid))),
];

/// Columns of the process, the same for all its events.
static PROCESS: [Column<OfProcess>; 15] = [
    ("ppid", |process, out| number(out, process.ppid)),
    ("uid", |process, out| number(out, process.uid)),
    ("euid", |process, out| number(out, process.euid)),
    ("gid", |process, out| number(out, process.gid)),
    ("egid", |process, out| number(out, process.egid)),
    ("auid", |process, out| number(out, process.auid)),
    ("filename", |process, out| text(out, &process.filename)),
    ("binary_path", |process, out| text(out, &process.binary_path)),
    ("args", |process, out| text(out, process.args.as_deref().unwrap_or_default())),
    ("container_id", |process, out| text(out, process.container_id.as_deref().unwrap_or_default())),
    ("container_name", |process, out| container(out, process, |container| &container.name)),
    ("container_image", |process, out| container(out, process, |container| &container.image)),
    ("pod", |process, out| container(out, process, |container| &container.pod)),
    ("namespace", |process, out| container(out, process, |container| &container.namespace)),
    ("unit", |process, out| text(out, process.unit.as_deref().unwrap_or_default())),
];

/// Columns of the connection, before the fields shared with JSON.
#[rustfmt::skip]
static CONNECTION: [Column<OfEvent>; 18] = [
    ("saddr", |row, out| address(out, row.record.event.local.ip())),
    ("sport", |row, out| number(out, row.record.event.local.port())),
    ("daddr", |row, out| address(out, row.record.event.remote.ip())),
    ("dport", |row, out| number(out, row.record.event.remote.port())),
    ("asked_daddr", |row, out| row.record.event.asked.iter().for_each(|asked| address(out, asked.ip()))),
    ("asked_dport", |row, out| integer(out, row.record.event.asked.map(|asked| asked.port()))),
    ("ifindex", |row, out| integer(out, row.record.event.interface.map(|index| index.get()))),
    ("dns", |row, out| list(out, row.record.names.all().iter().map(|name| |out: &mut _| text(out, name)))),
    ("dns_guess", |row, out| word(out, row.record.names.guess.then_some("true"))),
    ("netns", |row, out| number(out, row.record.event.netns)),
    ("cookie", |row, out| number(out, row.record.event.cookie)),
    ("connection", |row, out| row.connection(out)),
    ("community_id", |row, out| row.community_id(out)),
    ("mptcp", |row, out| word(out, Some(if row.record.event.mptcp { "true" } else { "false" }))),
    ("state", |row, out| word(out, row.states().0.map(vocabulary::state))),
    ("old_state", |row, out| word(out, row.states().1.map(vocabulary::state))),
    ("owners", |row, out| list(out, row.record.owners.iter().map(|(actor, _)| |out: &mut _| number(out, actor.pid)))),
    ("direction", |row, out| word(out, row.direction().map(vocabulary::direction))),
];

/// Columns after the fields shared with JSON.
static LAST: [Column<OfEvent>; 4] = [
    ("backlog_len", |row, out| integer(out, row.kind().backlog().map(|backlog| backlog.len))),
    ("backlog_max", |row, out| integer(out, row.kind().backlog().map(|backlog| backlog.max))),
    ("backlog_drops", |row, out| integer(out, row.kind().backlog().map(|backlog| backlog.drops))),
    ("rule", |row, out| text(out, row.record.rule.as_deref().unwrap_or_default())),
];

/// Writes lines of values. Control characters are escaped as in the table, so that each event stays on one line.
#[derive(Debug)]
pub struct Csv {
    header: bool,
    community_id: bool,
    timestamps: Timestamps,
}

impl Csv {
    /// `header`: start with the names of the columns; `community_id`: fill in the Community ID.
    pub fn new(header: bool, community_id: bool) -> Self {
        Csv { header, community_id, timestamps: Timestamps::default() }
    }
}

/// The input of the columns.
struct Row<'a> {
    record: &'a Record,
    community_id: bool,
}

impl Row<'_> {
    fn kind(&self) -> &EventKind {
        &self.record.event.kind
    }

    fn owner(&self) -> Option<Actor> {
        Some(self.record.event.owner).filter(|owner| owner.pid != 0)
    }

    /// A request has no connection yet, so its field is empty.
    fn connection(&self, out: &mut Vec<u8>) {
        if !matches!(self.kind(), EventKind::Request) {
            put(out, format_args!("{}", self.record.event.connection()));
        }
    }

    fn community_id(&self, out: &mut Vec<u8>) {
        if self.community_id && !matches!(self.kind(), EventKind::Request) && !self.kind().is_listener() {
            word(out, community_id::of(self.record.event.local, self.record.event.remote).as_deref());
        }
    }

    /// The state after the event, and the previous one.
    fn states(&self) -> (Option<State>, Option<State>) {
        match self.kind() {
            EventKind::StateChange { from, to, .. } => (Some(*to), Some(*from)),
            kind => (kind.lasting_state(), None),
        }
    }

    /// The direction; empty for a change of state.
    fn direction(&self) -> Option<Direction> {
        match self.kind() {
            EventKind::StateChange { .. } => None,
            kind => kind.direction(),
        }
    }
}

impl Sink for Csv {
    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.header {
            header(out);
        }
    }

    fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        let row = Row { record, community_id: self.community_id };
        self.timestamps.put(out, record.wall_ns);
        columns(out, &EVENT, |put, out| put(&row, out));
        match &record.process {
            Some(known) => {
                let of_process = || {
                    let mut values = Vec::new();
                    columns(&mut values, &PROCESS, |put, out| put(&known.process, out));
                    Box::from([String::from_utf8(values).expect("made of text").into()])
                };
                let parts = known.rendered.get_or_init(of_process);
                parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
            }
            None => out.extend_from_slice(&[b','; PROCESS.len()]),
        }
        columns(out, &CONNECTION, |put, out| put(&row, out));
        columns(out, &FIELDS, |value, out| value(row.kind()).iter().for_each(|value| value.put(out)));
        columns(out, &LAST, |put, out| put(&row, out));
        out.extend_from_slice(b"\r\n");
    }
}

/// The names of the columns.
pub fn header(out: &mut Vec<u8>) {
    out.extend_from_slice(b"timestamp");
    let all = names(&EVENT).chain(names(&PROCESS)).chain(names(&CONNECTION));
    for name in all.chain(names(&FIELDS)).chain(names(&LAST)) {
        out.push(b',');
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn names<Put>(columns: &'static [Column<Put>]) -> impl Iterator<Item = &'static str> {
    columns.iter().map(|(name, _)| *name)
}

/// Appends values, each after a comma.
fn columns<Put>(out: &mut Vec<u8>, columns: &[Column<Put>], put: impl Fn(&Put, &mut Vec<u8>)) {
    for (_, value) in columns {
        out.push(b',');
        put(value, out);
    }
}

/// Appends values separated by blanks.
fn list(out: &mut Vec<u8>, values: impl Iterator<Item = impl FnOnce(&mut Vec<u8>)>) {
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        value(out);
    }
}

fn integer(out: &mut Vec<u8>, value: Option<impl itoa::Integer>) {
    value.into_iter().for_each(|value| number(out, value));
}

/// Appends a word from the vocabulary, which needs no quoting.
fn word(out: &mut Vec<u8>, word: Option<&str>) {
    out.extend_from_slice(word.unwrap_or_default().as_bytes());
}

/// Appends one of the names of the container.
fn container(out: &mut Vec<u8>, of: &Process, name: fn(&Container) -> &Option<String>) {
    text(out, of.container.as_deref().and_then(|container| name(container).as_deref()).unwrap_or_default());
}

/// Appends untrusted text with control characters escaped, quoted if the format requires it.
fn text(out: &mut Vec<u8>, text: &str) {
    let text = escape(text);
    if !text.contains([',', '"', '\r', '\n']) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A different CSV library reads back what was written.
        #[test]
        fn text_round_trips(values in prop::collection::vec("[ -~é名]{0,20}", 2..5)) {
            let mut line = Vec::new();
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    line.push(b',');
                }
                text(&mut line, value);
            }
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&line[..]);
            let row = reader.records().next().map(|row| row.expect("a row"));
            let read: Vec<String> = row.iter().flatten().map(str::to_owned).collect();
            prop_assert_eq!(read, if line == b"," { vec![String::new(); 2] } else { values });
        }
    }
}
