//! The table format: aligned columns for people.

mod clock;
mod details;
mod layout;

use std::fmt::Write;

use owo_colors::{AnsiColors, OwoColorize, Style};

use clock::Clock;
pub use clock::Zone;
use details::{Facts, Look};
use layout::{Layout, Needs, PID};

use super::{
    sink::Sink,
    text::{self, Glyphs, address, endpoint, endpoint_width, pad, painted, shorten, width},
    vocabulary::{self, escape},
};
use crate::{
    event::{Direction, EventKind, Lifecycle},
    host::TerminalSize,
    record::Record,
};

/// Options of the table.
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// Whether it is coloured.
    pub color: bool,
    /// Whether the terminal shows UTF-8.
    pub utf8: bool,
    /// The time zone of the TIME column.
    pub zone: Zone,
}

/// The sink of the table format.
pub struct Table<S> {
    color: bool,
    glyphs: Glyphs,
    clock: Clock,
    screen: S,
    /// The size of the terminal, if it was queried in this batch.
    size: Option<Option<TerminalSize>>,
    /// The widths that the columns have needed so far.
    needs: Needs,
    /// The number of lines since the header, and the size and layout of the header.
    since_header: Option<(usize, Option<TerminalSize>, Layout)>,
    line: Line,
}

/// Buffers for the parts of a line, reused for every event.
#[derive(Default)]
struct Line {
    command: String,
    local: String,
    remote: String,
    facts: Facts,
    text: String,
}

impl<S: Fn() -> Option<TerminalSize>> Table<S> {
    /// `screen` returns the current size of the terminal; none if the output is no terminal, and then nothing is
    /// shortened.
    pub fn new(options: TableOptions, screen: S) -> Self {
        let TableOptions { color, utf8, zone } = options;
        Table {
            color,
            glyphs: if utf8 { text::UNICODE } else { text::ASCII },
            clock: Clock::new(zone),
            screen,
            size: None,
            needs: Needs::new(),
            since_header: None,
            line: Line::default(),
        }
    }

    /// Prints the header if there is none yet, if it has scrolled away, or if the columns have moved.
    fn header(&mut self, size: Option<TerminalSize>, layout: Layout, out: &mut Vec<u8>) {
        let shown = self.since_header.is_some_and(|(lines, of, columns)| {
            of == size && columns == layout && size.is_none_or(|size| lines + 2 < size.rows)
        });
        if !shown {
            let mut line = String::new();
            for (title, columns) in [
                (self.clock.title(layout.time), layout.time),
                ("EVENT", layout.event),
                ("    PID", PID),
                ("COMMAND", layout.command),
                ("LOCAL", layout.local),
                ("REMOTE", layout.remote),
            ] {
                cell(&mut line, columns, |line| line.push_str(title));
            }
            line.push_str("DETAILS");
            put(out, &if self.color { line.bold().to_string() } else { line });
            self.since_header = Some((0, size, layout));
        }
        if let Some((lines, ..)) = &mut self.since_header {
            *lines += 1;
        }
    }
}

impl<S: Fn() -> Option<TerminalSize>> Sink for Table<S> {
    /// The header is printed with the first line, when its columns are known.
    fn begin(&mut self, _: &mut Vec<u8>) {
        self.since_header = None;
    }

    /// The window may have been resized; the size is queried once per batch.
    fn begin_batch(&mut self) {
        self.size = None;
    }

    fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        let event = &record.event;
        let listens = event.kind.is_listener();
        let [local_port, remote_port] = [event.local.port(), event.remote.port()];
        self.line.name(record);
        let Line { command, local, remote, facts, text: line } = &mut self.line;

        let size = *self.size.get_or_insert_with(&self.screen);
        if size.is_some() {
            let remote_width = if listens { 0 } else { endpoint_width(remote, remote_port) };
            self.needs.grow(width(command), endpoint_width(local, local_port), remote_width);
        }
        let layout = Layout::of(size.map(|size| size.columns), self.needs);

        let cut = self.glyphs.cut;
        line.clear();
        cell(line, layout.time, |line| self.clock.put(line, record.wall_ns, layout.time));
        // The kind of the event, coloured.
        kind(line, &event.kind, &layout, cut, self.color);
        let mut digits = itoa::Buffer::new();
        let pid = if event.owner.pid == 0 { "-" } else { digits.format(event.owner.pid) };
        let start = line.len();
        pad(line, start, PID - pid.len().min(PID));
        line.push_str(pid);
        line.push(' ');
        cell(line, layout.command, |line| shorten(line, command, layout.room(layout.command), cut));
        let start = line.len();
        cell(line, layout.local, |line| endpoint(line, local, local_port, layout.room(layout.local), cut));
        let has_address = line[start..].contains(&**local);
        cell(line, layout.remote, |line| match listens {
            true => line.push('*'),
            false => endpoint(line, remote, remote_port, layout.room(layout.remote), cut),
        });
        let brief = layout.brief.then_some(&self.glyphs);
        // If the LOCAL column was too narrow for the listener's address, the details include it.
        facts.collect(record, brief, listens && !has_address);
        facts.put(line, Look { brief, room: layout.details, cut, color: self.color });

        self.header(size, layout, out);
        put(out, self.line.text.trim_end());
    }
}

/// Appends a column and the blank after it.
fn cell(line: &mut String, columns: usize, put: impl FnOnce(&mut String)) {
    let start = line.len();
    put(line);
    pad(line, start, columns);
    line.push(' ');
}

/// Appends the kind of an event, coloured and padded.
fn kind(line: &mut String, kind: &EventKind, layout: &Layout, cut: &str, color: bool) {
    let style = if color { style(kind) } else { Style::new() };
    painted(line, style, |line| {
        let start = line.len();
        shorten(line, event_name(kind), layout.event, cut);
        pad(line, start, layout.event);
    });
    line.push(' ');
}

/// The kind of an event, in at most seven letters where possible.
fn event_name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Existing(_) => "exists",
        EventKind::Retransmit(_) => "retrans",
        kind => vocabulary::event(kind),
    }
}

impl Line {
    /// Fills in the command and both ends, without shortening them.
    fn name(&mut self, record: &Record) {
        let Line { command, local, remote, .. } = self;
        [&mut *command, local, remote].into_iter().for_each(|text| text.clear());
        match record.process.as_deref() {
            Some(known) => command.push_str(&escape(&known.process.filename)),
            None if record.event.owner.pid == 0 => command.push('-'),
            None => command.push('?'),
        }
        if record.owners.len() > 1 {
            write!(command, " +{}", record.owners.len() - 1).expect("a String takes everything");
        }
        let event = &record.event;
        address(local, event.zoned(event.local.ip()));
        // Show the name, if there is one, instead of the address; `~` marks a guess.
        match record.names.all().first() {
            Some(name) => {
                remote.push_str(if record.names.guess { "~" } else { "" });
                remote.push_str(name);
            }
            None => address(remote, event.zoned(event.remote.ip())),
        }
    }
}

/// The style of a kind of event. Only basic colours, which are legible in every terminal theme.
fn style(kind: &EventKind) -> Style {
    match (kind.lifecycle(), kind.direction()) {
        (Lifecycle::Open, Some(Direction::Egress)) => Style::new().color(AnsiColors::Green),
        (Lifecycle::Open, _) => Style::new().color(AnsiColors::Cyan),
        (Lifecycle::Fail, _) => Style::new().color(AnsiColors::Red).bold(),
        (Lifecycle::Begin, None) => Style::new().color(AnsiColors::Blue),
        (
            Lifecycle::Attempt
            | Lifecycle::Begin
            | Lifecycle::Existing
            | Lifecycle::Continue
            | Lifecycle::Close
            | Lifecycle::StopListening,
            _,
        ) => Style::new(),
    }
}

fn put(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
