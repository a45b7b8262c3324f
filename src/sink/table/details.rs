//! What the last column says of an event.

use super::{text::Signs, units};
use crate::{
    enrich::Record,
    event::{Close, CloseReason, Direction, What},
    sink::names::{self, escape},
};

/// One thing to say. A narrow terminal shows the first few only, so what matters comes first.
#[derive(Debug, PartialEq, Eq)]
pub struct Fact {
    /// In a few words.
    pub text: String,
    /// Something went wrong.
    pub bad: bool,
}

fn good(text: String) -> Fact {
    Fact { text, bad: false }
}

fn bad(text: String) -> Fact {
    Fact { text, bad: true }
}

/// In words, or with `brief` signs.
pub fn facts(record: &Record, brief: Option<&Signs>) -> Vec<Fact> {
    let time = |duration| good(units::time(duration, brief.is_some()));
    match &record.event.what {
        What::Connect { latency } => vec![time(*latency)],
        What::Accept { backlog: Some(backlog) } => {
            vec![good(format!("backlog {}/{}", backlog.len, backlog.max))]
        }
        What::Accept { backlog: None } => vec![],
        What::Fail { error, latency } => {
            let after = if brief.is_some() { "" } else { "after " };
            let time = units::time(*latency, brief.is_some());
            vec![bad(names::failure(*error)), good(format!("{after}{time}"))]
        }
        What::Close(close) => closed(close, record, brief),
    }
}

fn closed(close: &Close, record: &Record, brief: Option<&Signs>) -> Vec<Fact> {
    let is_brief = brief.is_some();
    let mut facts = Vec::with_capacity(6);
    let lasted = close.duration.map_or("?".to_owned(), |duration| units::time(duration, is_brief));
    facts.push(good(lasted));
    let (sent, received) =
        (units::bytes(close.bytes_sent, is_brief), units::bytes(close.bytes_received, is_brief));
    let (up, down) = brief.map_or(("sent ", "received "), |signs| (signs.sent, signs.received));
    facts.extend([good(format!("{up}{sent}")), good(format!("{down}{received}"))]);
    match (close.reason, is_brief) {
        (CloseReason::LocalClose, true) => facts.push(good("local".to_owned())),
        (CloseReason::RemoteClose, true) => facts.push(good("remote".to_owned())),
        (CloseReason::LocalClose | CloseReason::RemoteClose, false) => {
            facts.push(good(names::reason(close.reason)));
        }
        (reason, _) => facts.insert(0, bad(names::reason(reason))),
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
    facts.push(good(match close.direction {
        Direction::Egress => "outgoing".to_owned(),
        Direction::Ingress => "incoming".to_owned(),
    }));
    facts
}
