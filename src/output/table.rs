//! Aligned columns for people.

mod clock;
mod details;
mod layout;

use owo_colors::{AnsiColors, OwoColorize, Style};

pub use clock::Zone;
use details::{Fact, facts};
use layout::Layout;

use super::{
    sink::Sink,
    text::{self, Glyphs, endpoint, pad, shorten, width},
    vocabulary::{self, escape},
};
use crate::{
    event::{Direction, EventKind, Lifecycle},
    host::TerminalSize,
    record::Record,
};

/// How the table looks.
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// With colour.
    pub color: bool,
    /// The reader shows UTF-8.
    pub utf8: bool,
    /// Of the clock.
    pub zone: Zone,
}

/// Writes the table.
pub struct Table<S> {
    options: TableOptions,
    glyphs: Glyphs,
    screen: S,
    /// Its size, where it has been asked for since the batch began.
    size: Option<Option<TerminalSize>>,
    /// Lines since the header, and the size it was made for.
    since_header: Option<(usize, Option<TerminalSize>)>,
}

impl<S: Fn() -> Option<TerminalSize>> Table<S> {
    /// `screen` returns the terminal's current size; none where the output is no terminal, and then
    /// nothing is shortened.
    pub fn new(options: TableOptions, screen: S) -> Self {
        let glyphs = if options.utf8 { text::UNICODE } else { text::ASCII };
        Table { options, glyphs, screen, size: None, since_header: None }
    }

    /// The header: at the start, when it has scrolled away and when the terminal's size changed.
    fn header(&mut self, size: Option<TerminalSize>, layout: &Layout, out: &mut Vec<u8>) {
        let shown = self
            .since_header
            .is_some_and(|(lines, of)| of == size && size.is_none_or(|size| lines + 2 < size.rows));
        if !shown {
            let line = layout.line(
                self.options.zone.title(layout.time),
                &pad("EVENT", layout.event),
                "PID",
                "COMMAND",
                "LOCAL",
                "REMOTE",
            );
            let line = format!("{line}DETAILS");
            put(out, &if self.options.color { line.bold().to_string() } else { line });
            self.since_header = Some((0, size));
        }
        if let Some((lines, _)) = &mut self.since_header {
            *lines += 1;
        }
    }

    fn paint(&self, text: &str, style: Style) -> String {
        if self.options.color { text.style(style).to_string() } else { text.to_owned() }
    }

    /// As many of the facts as fit, the first of them always.
    fn details(&self, facts: &[Fact], room: Option<usize>, separator: &str) -> String {
        let mut line = String::new();
        let mut left = room.unwrap_or(usize::MAX);
        for (index, fact) in facts.iter().enumerate() {
            let separator = if index == 0 { "" } else { separator };
            let text = if index == 0 {
                shorten(&fact.text, left, self.glyphs.cut)
            } else {
                fact.text.as_str().into()
            };
            let needed = separator.len() + width(&text);
            if needed > left {
                break;
            }
            left -= needed;
            line.push_str(separator);
            let style = if fact.bad { Style::new().red() } else { Style::new() };
            line.push_str(&self.paint(&text, style));
        }
        line
    }
}

impl<S: Fn() -> Option<TerminalSize>> Sink for Table<S> {
    fn begin(&mut self, _: &mut Vec<u8>) {}

    /// A window may have another size by now; within a batch it is asked for once.
    fn begin_batch(&mut self) {
        self.size = None;
    }

    fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        let size = *self.size.get_or_insert_with(&self.screen);
        let layout = Layout::of(size.map(|size| size.columns));
        self.header(size, &layout, out);

        let event = &record.event;
        let cut = self.glyphs.cut;
        let command = command(record);
        let pid = event.owner.pid;
        // The kind is what the eye looks for.
        let kind = pad(&shorten(event_name(&event.kind), layout.event, cut), layout.event);
        let (local, remote) = ends(record, &layout, cut);
        let columns = layout.line(
            &self.options.zone.clock(record.wall_ns, layout.time),
            &self.paint(&kind, style(&event.kind)),
            &if pid == 0 { "-".to_owned() } else { pid.to_string() },
            &shorten(&command, layout.room(layout.command), cut),
            &local,
            &remote,
        );
        let brief = layout.details.is_some_and(|room| room < layout::VERBOSE_MIN);
        let mut facts = facts(record, brief.then_some(&self.glyphs));
        let address = event.local.ip().to_string();
        if record.event.kind.is_listener() && !local.contains(&address) {
            // Where it listens is half of what there is to say.
            facts.insert(0, details::good(address));
        }
        let details = self.details(&facts, layout.details, if brief { " " } else { ", " });
        put(out, format!("{columns}{details}").trim_end());
    }
}

/// The two ends, as far as there is room for them.
fn ends(record: &Record, layout: &Layout, cut: &str) -> (String, String) {
    let event = &record.event;
    let local = endpoint(&event.local.ip().to_string(), event.local.port(), layout.room(layout.local), cut);
    let remote = match record.event.kind.is_listener() {
        true => "*".to_owned(),
        false => endpoint(&remote(record), event.remote.port(), layout.room(layout.remote), cut),
    };
    (local, remote)
}

/// A kind of event in seven letters where that can be.
fn event_name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Existing(_) => "exists",
        EventKind::Retransmit(_) => "retrans",
        kind => vocabulary::event(kind),
    }
}

/// The owner's name, and how many more there are.
fn command(record: &Record) -> String {
    let name = match record.process.as_deref() {
        Some(known) => escape(&known.process.filename),
        None if record.event.owner.pid == 0 => "-".to_owned(),
        None => "?".to_owned(),
    };
    match record.owners.len() {
        0 | 1 => name,
        owners => format!("{name} +{}", owners - 1),
    }
}

/// Of a kind of event. Basic colours only: every terminal's theme keeps them legible.
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

/// The name, if one is known, in the place of the address; `~` marks a guess.
fn remote(record: &Record) -> String {
    match record.names.names.first() {
        Some(name) if record.names.guess => format!("~{name}"),
        Some(name) => name.to_string(),
        None => record.event.remote.ip().to_string(),
    }
}

fn put(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
