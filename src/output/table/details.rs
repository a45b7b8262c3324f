//! What the last column says of an event.

use crate::{
    event::{Backlog, Close, CloseReason, Direction, EventKind, Process, Retransmit},
    output::{
        text::Glyphs,
        units,
        vocabulary::{self, escape},
    },
    process::container::is_hex_id,
    record::Record,
};

/// One thing to say. A narrow terminal shows the first few only, so what matters comes first.
#[derive(Debug, PartialEq, Eq)]
pub struct Fact {
    /// In a few words.
    pub text: String,
    /// Something went wrong.
    pub bad: bool,
}

/// A fact that is shown in plain colour.
pub fn good(text: impl Into<String>) -> Fact {
    Fact { text: text.into(), bad: false }
}

fn bad(text: impl Into<String>) -> Fact {
    Fact { text: text.into(), bad: true }
}

/// In words, or with `brief` signs.
pub fn facts(record: &Record, brief: Option<&Glyphs>) -> Vec<Fact> {
    let time = |duration| good(units::time(duration, brief.is_some()));
    let after = |duration| {
        let after = if brief.is_some() { "" } else { "after " };
        good(format!("{after}{}", units::time(duration, brief.is_some())))
    };
    let mut facts: Vec<Fact> = match &record.event.kind {
        EventKind::Request => vec![],
        EventKind::Connect { latency } => latency.map(time).into_iter().collect(),
        EventKind::Accept { backlog } | EventKind::Listen { backlog } | EventKind::ListenStop { backlog } => {
            backlog.map(queue).into_iter().collect()
        }
        EventKind::ListenDrop { backlog } => {
            backlog.map(|backlog| Fact { bad: true, ..queue(backlog) }).into_iter().collect()
        }
        EventKind::Retransmit(retransmit) => resent(retransmit),
        EventKind::Fail { error, latency } => {
            // What failed at once took no time worth telling.
            let latency = latency.filter(|latency| latency.as_micros() > 0);
            [Some(bad(vocabulary::failure(*error))), latency.map(after)].into_iter().flatten().collect()
        }
        EventKind::Close(close) => closed(close, record, brief),
        EventKind::StateChange { from, to, after: lasted, .. } => {
            let arrow = if brief.is_some() { ">" } else { " -> " };
            let step = good(format!("{}{arrow}{}", vocabulary::state(*from), vocabulary::state(*to)));
            [Some(step), lasted.map(after)].into_iter().flatten().collect()
        }
        EventKind::Existing(existing) => {
            let state = good(vocabulary::state(existing.state).to_owned());
            [Some(state), existing.backlog.map(queue), existing.direction.map(opener)]
                .into_iter()
                .flatten()
                .collect()
        }
    };
    if let Some(asked) = record.event.asked {
        facts.push(good(format!("for {asked}")));
    }
    if !record.names.names.is_empty() {
        // A name stands in its column.
        facts.push(good(record.event.remote.ip().to_string()));
    }
    facts.extend(record.process.as_deref().and_then(|entry| container(&entry.process)));
    facts
}

/// Where it runs: its pod, or its container by the best name there is.
fn container(process: &Process) -> Option<Fact> {
    /// As runtimes shorten an id.
    const ID_SHOWN: usize = 12;
    let id = process.container_id.as_deref()?;
    let named = process.container.as_deref();
    let name = named.and_then(|named| named.pod.as_deref().or(named.name.as_deref()));
    let name = name.unwrap_or(if is_hex_id(id) { &id[..ID_SHOWN] } else { id });
    Some(good(format!("in {}", escape(name))))
}

fn resent(retransmit: &Retransmit) -> Vec<Fact> {
    let segment = bad(vocabulary::segment(retransmit.segment));
    let count = good(format!("{} so far", retransmit.retransmits));
    let state = good(vocabulary::state(retransmit.state));
    let bytes = retransmit.seq_len.map(|bytes| good(format!("{bytes} B")));
    [Some(segment), Some(count), Some(state), bytes].into_iter().flatten().collect()
}

fn closed(close: &Close, record: &Record, brief: Option<&Glyphs>) -> Vec<Fact> {
    let is_brief = brief.is_some();
    let mut facts = Vec::with_capacity(6);
    let lasted = close.duration.map_or("?".to_owned(), |duration| units::time(duration, is_brief));
    facts.push(good(lasted));
    if let Some(bytes) = close.bytes {
        let (sent, received) = (units::bytes(bytes.sent, is_brief), units::bytes(bytes.received, is_brief));
        let (up, down) = brief.map_or(("sent ", "received "), |signs| (signs.sent, signs.received));
        facts.extend([good(format!("{up}{sent}")), good(format!("{down}{received}"))]);
    }
    match (close.reason, is_brief) {
        (CloseReason::LocalClose, true) => facts.push(good("local".to_owned())),
        (CloseReason::RemoteClose, true) => facts.push(good("remote".to_owned())),
        (CloseReason::LocalClose | CloseReason::RemoteClose, false) => {
            facts.push(good(vocabulary::reason(close.reason)));
        }
        (reason, _) => facts.insert(0, bad(vocabulary::reason(reason))),
    }
    if close.retransmits > 0 {
        facts.push(bad(match is_brief {
            true => format!("{}rx", close.retransmits),
            false => format!("{} retransmitted", close.retransmits),
        }));
    }
    if let Some(closer) = &record.closer {
        facts.push(good(format!("by {}[{}]", escape(&closer.process.filename), closer.process.pid)));
    }
    facts.push(opener(close.direction));
    facts
}

fn opener(direction: Direction) -> Fact {
    good(match direction {
        Direction::Egress => "outgoing".to_owned(),
        Direction::Ingress => "incoming".to_owned(),
    })
}

fn queue(backlog: Backlog) -> Fact {
    let text = format!("backlog {}/{}", backlog.len, backlog.max);
    if backlog.drops == 0 { good(text) } else { bad(format!("{text}, {} dropped", backlog.drops)) }
}
