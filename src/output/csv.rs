//! Comma-separated values (RFC 4180), the same columns for all events.

use std::borrow::Cow;

use super::{
    community_id,
    fields::{FIELDS, Scalar},
    sink::Sink,
    vocabulary,
};
use crate::{
    event::{Actor, Container, Direction, EventKind, Process, State},
    record::Record,
};

/// A column's name, and its value of a record; a field without a value is empty.
type Column = (&'static str, fn(&Row<'_>) -> Cow<'static, str>);

/// The columns before the fields that JSON has too, in order.
#[rustfmt::skip]
static FIRST: [Column; 37] = [
    ("timestamp", |row| vocabulary::time(row.record.wall_ns).into()),
    ("event", |row| vocabulary::event(row.kind()).into()),
    ("pid", |row| text(row.owner().map(|owner| owner.pid))),
    ("tid", |row| text(row.owner().map(|owner| owner.tid))),
    ("ppid", |row| text(row.process.map(|process| process.ppid))),
    ("uid", |row| text(row.process.map(|process| process.uid))),
    ("euid", |row| text(row.process.map(|process| process.euid))),
    ("gid", |row| text(row.process.map(|process| process.gid))),
    ("egid", |row| text(row.process.map(|process| process.egid))),
    ("auid", |row| text(row.process.map(|process| process.auid))),
    ("filename", |row| word(row.process.map(|process| process.filename.as_str()))),
    ("binary_path", |row| word(row.process.map(|process| process.binary_path.as_str()))),
    ("args", |row| word(row.process.and_then(|process| process.args.as_deref()))),
    ("container_id", |row| word(row.process.and_then(|process| process.container_id.as_deref()))),
    ("container_name", |row| word(row.container().and_then(|container| container.name.as_deref()))),
    ("container_image", |row| word(row.container().and_then(|container| container.image.as_deref()))),
    ("pod", |row| word(row.container().and_then(|container| container.pod.as_deref()))),
    ("namespace", |row| word(row.container().and_then(|container| container.namespace.as_deref()))),
    ("unit", |row| word(row.process.and_then(|process| process.unit.as_deref()))),
    ("saddr", |row| text(Some(row.record.event.local.ip()))),
    ("sport", |row| text(Some(row.record.event.local.port()))),
    ("daddr", |row| text(Some(row.record.event.remote.ip()))),
    ("dport", |row| text(Some(row.record.event.remote.port()))),
    ("asked_daddr", |row| text(row.record.event.asked.map(|asked| asked.ip()))),
    ("asked_dport", |row| text(row.record.event.asked.map(|asked| asked.port()))),
    ("ifindex", |row| text(row.record.event.interface)),
    ("dns", |row| row.record.names.names.join(" ").into()),
    ("dns_guess", |row| text(row.record.names.guess.then_some(true))),
    ("netns", |row| text(Some(row.record.event.netns))),
    ("cookie", |row| text(Some(row.record.event.cookie))),
    ("connection", |row| row.connection().into()),
    ("community_id", |row| row.community_id().into()),
    ("mptcp", |row| text(Some(row.record.event.mptcp))),
    ("state", |row| text(row.states().0.map(vocabulary::state))),
    ("old_state", |row| text(row.states().1.map(vocabulary::state))),
    ("owners", |row| row.owners().into()),
    ("direction", |row| text(row.direction().map(vocabulary::direction))),
];

/// The columns after the fields that JSON has too.
#[rustfmt::skip]
static LAST: [Column; 4] = [
    ("backlog_len", |row| text(row.kind().backlog().map(|backlog| backlog.len))),
    ("backlog_max", |row| text(row.kind().backlog().map(|backlog| backlog.max))),
    ("backlog_drops", |row| text(row.kind().backlog().map(|backlog| backlog.drops))),
    ("rule", |row| text(row.record.rule.as_deref())),
];

/// Writes lines of values. Control characters are escaped as in the table: RFC 4180 has no place
/// for them, and one event stays one line.
#[derive(Debug)]
pub struct Csv {
    header: bool,
    community_id: bool,
}

impl Csv {
    /// `header`: begin with the names of the columns; `community_id`: fill in the Community ID.
    pub fn new(header: bool, community_id: bool) -> Self {
        Csv { header, community_id }
    }
}

/// What the columns look at.
struct Row<'a> {
    record: &'a Record,
    process: Option<&'a Process>,
    community_id: bool,
}

impl Row<'_> {
    fn kind(&self) -> &EventKind {
        &self.record.event.kind
    }

    fn owner(&self) -> Option<Actor> {
        Some(self.record.event.owner).filter(|owner| owner.pid != 0)
    }

    fn container(&self) -> Option<&Container> {
        self.process?.container.as_deref()
    }

    fn owners(&self) -> String {
        let pids: Vec<String> = self.record.owners.iter().map(|(actor, _)| actor.pid.to_string()).collect();
        pids.join(" ")
    }

    /// Before there is one, a request has none.
    fn connection(&self) -> String {
        match self.kind() {
            EventKind::Request => String::new(),
            _ => self.record.event.connection().to_string(),
        }
    }

    fn community_id(&self) -> String {
        match self.kind() {
            EventKind::Request => None,
            kind if kind.is_listener() || !self.community_id => None,
            _ => community_id::of(self.record.event.local, self.record.event.remote),
        }
        .unwrap_or_default()
    }

    /// The state the socket is in, and the one it left.
    fn states(&self) -> (Option<State>, Option<State>) {
        match self.kind() {
            EventKind::StateChange { from, to, .. } => (Some(*to), Some(*from)),
            kind => (kind.lasting_state(), None),
        }
    }

    /// A change of state says nothing of it.
    fn direction(&self) -> Option<Direction> {
        match self.kind() {
            EventKind::StateChange { .. } => None,
            kind => kind.direction(),
        }
    }

    /// A field that JSON has too.
    fn field(&self, value: fn(&EventKind) -> Option<Scalar>) -> Cow<'static, str> {
        match value(self.kind()) {
            None => Cow::Borrowed(""),
            Some(Scalar::Number(number)) => number.to_string().into(),
            Some(Scalar::Word(word)) => word,
        }
    }
}

impl Sink for Csv {
    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.header {
            return;
        }
        let names = |columns: &'static [Column]| columns.iter().map(|(name, _)| *name);
        put(out, names(&FIRST).chain(FIELDS.iter().map(|(name, _)| *name)).chain(names(&LAST)));
    }

    fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        let process = record.process.as_deref().map(|entry| &entry.process);
        let row = Row { record, process, community_id: self.community_id };
        let values = |columns: &'static [Column]| columns.iter().map(|(_, value)| value(&row));
        let fields = FIELDS.iter().map(|&(_, value)| row.field(value));
        put(out, values(&FIRST).chain(fields).chain(values(&LAST)));
    }
}

/// Text from a process, which can neither move the cursor nor set a colour.
fn word(text: Option<&str>) -> Cow<'static, str> {
    vocabulary::escape(text.unwrap_or_default()).into()
}

fn text(value: Option<impl ToString>) -> Cow<'static, str> {
    value.map_or_else(Default::default, |value| value.to_string()).into()
}

/// One line.
fn put(out: &mut Vec<u8>, fields: impl IntoIterator<Item = impl AsRef<str>>) {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).buffer_capacity(1024).from_writer(out);
    let mut fields = fields.into_iter();
    fields
        .try_for_each(|field| writer.write_field(field.as_ref()))
        .and_then(|()| writer.write_record(None::<&[u8]>))
        .and_then(|()| Ok(writer.flush()?))
        .expect("a Vec takes everything");
}
