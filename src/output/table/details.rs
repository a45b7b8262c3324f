//! The text of the DETAILS column.

use std::fmt::{Arguments, Write};

use owo_colors::Style;

use crate::{
    event::{Backlog, Close, CloseReason, Direction, EventKind, Process, Retransmit},
    output::{
        text::{Glyphs, painted, shorten, width},
        units::{Bytes, Time},
        vocabulary::{self, escape},
    },
    process::container::is_hex_id,
    record::Record,
};

/// The details of one event, in order.
#[derive(Debug, Default)]
pub struct Facts {
    text: String,
    facts: Vec<Fact>,
}

/// One detail: its end in the text, and its importance.
#[derive(Debug)]
struct Fact {
    end: usize,
    /// Whether it reports a problem, and is shown in red.
    bad: bool,
    /// If there is too little room, details with the highest rank are dropped first.
    rank: usize,
}

/// How details are shown.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// Symbols to use instead of words on a narrow terminal.
    pub brief: Option<&'a Glyphs>,
    /// Columns available; none for no limit.
    pub room: Option<usize>,
    /// The mark for omitted text.
    pub cut: &'a str,
    /// Whether to use colour.
    pub color: bool,
}

impl Facts {
    /// Collects the details of an event; `listens` adds the address of a listener that did not fit into its column.
    pub fn collect(&mut self, record: &Record, brief: Option<&Glyphs>, listens: bool) {
        self.text.clear();
        self.facts.clear();
        let event = &record.event;
        if listens {
            self.good(format_args!("{}", event.zoned(event.local.ip())));
        }
        let is_brief = brief.is_some();
        let after = if is_brief { "" } else { "after " };
        match &event.kind {
            EventKind::Request => {}
            EventKind::Connect { latency } => {
                latency.iter().for_each(|&time| self.good(format_args!("{}", Time(time, is_brief))));
            }
            EventKind::Accept { backlog }
            | EventKind::Listen { backlog }
            | EventKind::ListenStop { backlog } => {
                self.queue(*backlog, false);
            }
            EventKind::ListenDrop { backlog } => self.queue(*backlog, true),
            EventKind::Retransmit(retransmit) => self.resent(retransmit),
            EventKind::Fail { error, latency } => {
                self.bad(format_args!("{}", vocabulary::failure(*error)));
                // Immediate failures have no duration worth showing.
                if let Some(latency) = latency.filter(|latency| latency.as_micros() > 0) {
                    self.good(format_args!("{after}{}", Time(latency, is_brief)));
                }
            }
            EventKind::Close(close) => self.closed(close, record, brief),
            EventKind::StateChange { from, to, after: lasted, .. } => {
                let arrow = if is_brief { ">" } else { " -> " };
                self.good(format_args!("{}{arrow}{}", vocabulary::state(*from), vocabulary::state(*to)));
                lasted.iter().for_each(|&time| self.good(format_args!("{after}{}", Time(time, is_brief))));
            }
            EventKind::Existing(existing) => {
                self.good(format_args!("{}", vocabulary::state(existing.state)));
                self.queue(existing.backlog, false);
                existing.direction.into_iter().for_each(|direction| self.opener(direction));
            }
        }
        if let Some(asked) = event.asked {
            self.good(format_args!("for {asked}"));
        }
        if !record.names.all().is_empty() {
            // The REMOTE column shows the name, so the address goes here.
            self.good(format_args!("{}", event.zoned(event.remote.ip())));
        }
        if let Some(known) = &record.process {
            self.container(&known.process);
        }
    }

    /// Adds the pod, or the name of the container, or its id.
    fn container(&mut self, process: &Process) {
        /// The length to which runtimes shorten an id.
        const ID_SHOWN: usize = 12;
        let Some(id) = process.container_id.as_deref() else { return };
        let named = process.container.as_deref();
        let name = named.and_then(|named| named.pod.as_deref().or(named.name.as_deref()));
        let name = name.unwrap_or(if is_hex_id(id) { &id[..ID_SHOWN] } else { id });
        self.good(format_args!("in {}", escape(name)));
    }

    fn resent(&mut self, retransmit: &Retransmit) {
        self.bad(format_args!("{}", vocabulary::segment(retransmit.segment)));
        self.good(format_args!("{} so far", retransmit.retransmits));
        self.good(format_args!("{}", vocabulary::state(retransmit.state)));
        retransmit.seq_len.iter().for_each(|bytes| self.good(format_args!("{bytes} B")));
    }

    fn closed(&mut self, close: &Close, record: &Record, brief: Option<&Glyphs>) {
        let is_brief = brief.is_some();
        // A regular close is not highlighted, but is kept as long as an abnormal one.
        let in_order = matches!(close.reason, CloseReason::LocalClose | CloseReason::RemoteClose);
        if !in_order {
            self.bad(format_args!("{}", vocabulary::reason(close.reason)));
        }
        let lasted = usize::from(in_order) + self.facts.len();
        match close.duration {
            Some(duration) => self.add(false, lasted, format_args!("{}", Time(duration, is_brief))),
            None => self.add(false, lasted, format_args!("?")),
        }
        if let Some(bytes) = close.bytes {
            let (up, down) = brief.map_or(("sent ", "received "), |signs| (signs.sent, signs.received));
            self.add(false, lasted + 1, format_args!("{up}{}", Bytes(bytes.sent, is_brief)));
            self.add(false, lasted + 2, format_args!("{down}{}", Bytes(bytes.received, is_brief)));
        }
        match close.reason {
            CloseReason::LocalClose if is_brief => self.add(false, 0, format_args!("local")),
            CloseReason::RemoteClose if is_brief => self.add(false, 0, format_args!("remote")),
            reason if in_order => self.add(false, 0, format_args!("{}", vocabulary::reason(reason))),
            _ => {}
        }
        if close.retransmits > 0 {
            let unit = if is_brief { "rx" } else { " retransmitted" };
            self.bad(format_args!("{}{unit}", close.retransmits));
        }
        if let Some(closer) = &record.closer {
            self.good(format_args!("by {}[{}]", escape(&closer.process.filename), closer.process.pid));
        }
        self.opener(close.direction);
    }

    fn opener(&mut self, direction: Direction) {
        self.good(match direction {
            Direction::Egress => format_args!("outgoing"),
            Direction::Ingress => format_args!("incoming"),
        });
    }

    fn queue(&mut self, backlog: Option<Backlog>, is_full: bool) {
        let Some(Backlog { len, max, drops }) = backlog else { return };
        let rank = self.facts.len();
        self.add(is_full, rank + usize::from(drops > 0), format_args!("backlog {len}/{max}"));
        if drops > 0 {
            self.add(true, rank, format_args!("{drops} dropped"));
        }
    }

    fn good(&mut self, text: Arguments<'_>) {
        self.add(false, self.facts.len(), text);
    }

    fn bad(&mut self, text: Arguments<'_>) {
        self.add(true, self.facts.len(), text);
    }

    fn add(&mut self, bad: bool, rank: usize, text: Arguments<'_>) {
        match text.as_str() {
            Some(text) => self.text.push_str(text),
            None => self.text.write_fmt(text).expect("a String takes everything"),
        }
        self.facts.push(Fact { end: self.text.len(), bad, rank });
    }

    /// The number of details that fit, in the order of their ranks; at least one.
    fn fitting(&self, room: Option<usize>, separator: &str) -> usize {
        let Some(mut left) = room else { return self.facts.len() };
        let mut shown = 0;
        for rank in 0..self.facts.len() {
            let needed: usize =
                self.texts().filter(|(fact, _)| fact.rank == rank).map(|(_, text)| width(text)).sum();
            let needed = needed + if rank > 0 { separator.len() } else { 0 };
            if needed > left && rank > 0 {
                break;
            }
            left = left.saturating_sub(needed);
            shown = rank + 1;
        }
        shown
    }

    /// Appends as many details as fit; the one with the lowest rank is always included.
    pub fn put(&self, line: &mut String, look: Look<'_>) {
        let separator = if look.brief.is_some() { " " } else { ", " };
        let shown = self.fitting(look.room, separator);
        let start = line.len();
        for (fact, text) in self.texts().filter(|(fact, _)| fact.rank < shown) {
            if line.len() > start {
                line.push_str(separator);
            }
            let room = look.room.filter(|_| shown == 1).unwrap_or(usize::MAX);
            let style = if fact.bad && look.color { Style::new().red() } else { Style::new() };
            painted(line, style, |line| shorten(line, text, room, look.cut));
        }
    }

    fn texts(&self) -> impl Iterator<Item = (&Fact, &str)> {
        let starts = std::iter::once(0).chain(self.facts.iter().map(|fact| fact.end));
        starts.zip(&self.facts).map(|(start, fact)| (fact, &self.text[start..fact.end]))
    }
}
