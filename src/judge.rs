//! The last word on `dns`, the attribute that user space alone knows: one verdict a connection.
//!
//! The kernel takes a comparison with `dns` as holding, whichever way it is meant: it admits too
//! much, never too little, and what it has decided without the names stays decided.

use crate::{
    book::Book,
    enrich::Record,
    event::{Direction, State, What},
    filter::{Filter, Subject, Verdict},
    predicate::{Attribute, Predicate},
};

/// Judges connections by their names, and keeps the verdicts until they end.
#[derive(Debug)]
pub struct Judge {
    /// What the kernel has left open of the conditions that all must hold.
    open: Vec<Predicate>,
    rules: Vec<Rule>,
    kept: Book<Verdict>,
}

/// Of the rule that the kernel chose only a part is open; of those after it, everything is.
#[derive(Debug)]
struct Rule {
    open: Predicate,
    whole: Predicate,
}

impl Judge {
    /// One for this filter; none where the kernel can judge it all.
    pub fn new(filter: &Filter) -> Option<Judge> {
        filter.needs_names().then(|| Judge {
            open: filter.all.iter().map(|clause| open_part(&clause.predicate)).collect(),
            rules: filter
                .rules
                .iter()
                .map(|rule| Rule { open: open_part(&rule.predicate), whole: rule.predicate.clone() })
                .collect(),
            kept: Book::default(),
        })
    }

    /// Is it to be shown? Then it is told under which rule.
    pub fn admits(&mut self, record: &mut Record) -> bool {
        let cookie = record.event.cookie;
        let verdict = match record.event.what {
            // Of a socket that may never connect, or elsewhere.
            What::Request => self.judge(record),
            What::Fail { .. } | What::Close(_) | What::Unlisten { .. } => {
                self.kept.close(cookie).unwrap_or_else(|| self.judge(record))
            }
            What::Step { from, .. } if from != State::Closed => match self.kept.get(cookie) {
                Some(verdict) => *verdict,
                None => self.judge_and_keep(record),
            },
            // A socket can be connected again: whatever was kept is of another connection.
            What::Connect { .. }
            | What::Accept { .. }
            | What::Listen { .. }
            | What::Step { .. }
            | What::Existing(_) => self.judge_and_keep(record),
        };
        let Verdict::Admitted(rule) = verdict else {
            return false;
        };
        record.event.rule = rule.and_then(|index| u16::try_from(index).ok());
        true
    }

    fn judge_and_keep(&mut self, record: &Record) -> Verdict {
        let verdict = self.judge(record);
        self.kept.open(record.event.cookie, verdict);
        verdict
    }

    fn judge(&self, record: &Record) -> Verdict {
        let subject = subject(record);
        let holds = |predicate: &Predicate| {
            // As in the kernel: what nobody owns meets no condition on its owner.
            let known = record.process.is_some() || !predicate.mentions(Attribute::is_of_process);
            known && subject.satisfies(predicate)
        };
        if !self.open.iter().all(holds) {
            return Verdict::Rejected;
        }
        if self.rules.is_empty() {
            return Verdict::Admitted(None);
        }
        // No rule before the kernel's choice can hold.
        let chosen = record.event.rule.map(usize::from);
        let from = chosen.unwrap_or(0);
        let rules = self.rules.iter().enumerate().skip(from);
        let mut held = rules
            .filter(|(index, rule)| holds(if chosen == Some(*index) { &rule.open } else { &rule.whole }));
        held.next().map_or(Verdict::Rejected, |(index, _)| Verdict::Admitted(Some(index)))
    }
}

/// The parts of an AND that mention names; the kernel has seen to the others.
fn open_part(predicate: &Predicate) -> Predicate {
    match predicate {
        Predicate::All(list) => Predicate::All(list.iter().map(open_part).collect()),
        other if other.mentions(Attribute::is_name) => other.clone(),
        _ => Predicate::All(Vec::new()),
    }
}

fn subject(record: &Record) -> Subject {
    let event = &record.event;
    let process = record.process.as_deref().map(|known| &known.process);
    let parent = record.parent.as_deref().map(|known| &known.process);
    let bytes = |text: Option<&String>| text.map(|text| text.clone().into_bytes()).unwrap_or_default();
    let number = |of: fn(&crate::event::Process) -> u32| process.map_or(0, of);
    Subject {
        binary_name: bytes(process.map(|p| &p.filename)),
        binary_path: bytes(process.map(|p| &p.binary_path)),
        parent_binary_name: bytes(parent.map(|p| &p.filename)),
        parent_binary_path: bytes(parent.map(|p| &p.binary_path)),
        uid: number(|p| p.uid),
        euid: number(|p| p.euid),
        gid: number(|p| p.gid),
        egid: number(|p| p.egid),
        auid: number(|p| p.auid),
        pid: event.owner.pid,
        ppid: number(|p| p.ppid),
        container_id: bytes(process.and_then(|p| p.container_id.as_ref())),
        // --cgroup stands for itself: the kernel has seen to it.
        in_cgroup: true,
        netns: event.netns,
        saddr: event.local.ip(),
        daddr: event.remote.ip(),
        sport: event.local.port(),
        dport: event.remote.port(),
        direction: direction(&event.what),
        dns: record.names.names.iter().map(|name| name.to_string()).collect(),
    }
}

/// As the kernel has it (src/bpf/existing.h): what is left of a socket counts as opened here.
fn direction(what: &What) -> Direction {
    match what {
        What::Request | What::Connect { .. } | What::Fail { .. } => Direction::Egress,
        What::Accept { .. } | What::Listen { .. } | What::Unlisten { .. } => Direction::Ingress,
        What::Close(close) => close.direction,
        What::Step { direction, .. } => *direction,
        What::Existing(existing) => existing.direction.unwrap_or(match existing.state {
            State::Listen => Direction::Ingress,
            _ => Direction::Egress,
        }),
    }
}

#[cfg(test)]
mod tests;
