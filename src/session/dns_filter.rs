//! The filter on `dns`, the attribute that only user space knows: one verdict a connection.
//!
//! The kernel treats every comparison with `dns`, negated or not, as true: it admits too much,
//! never too little, and what it has decided without the names stays decided.

use crate::{
    dns::per_connection::PerConnection,
    event::{Direction, EventKind, Lifecycle},
    filter::{
        Filter, Subject, Verdict,
        predicate::{Attribute, Predicate},
    },
    record::Record,
};

/// Evaluates the filter once the names are known, and keeps the verdicts until connections end.
#[derive(Debug)]
pub struct DnsFilter {
    /// What the kernel has left undecided of the conditions that all must hold.
    open: Vec<Predicate>,
    rules: Vec<SplitRule>,
    kept: PerConnection<Verdict>,
}

/// For the rule that the kernel chose only the `dns` part is undecided, for later rules everything.
#[derive(Debug)]
struct SplitRule {
    open: Predicate,
    whole: Predicate,
}

impl DnsFilter {
    /// One for this filter; none where the kernel can evaluate all of it.
    pub fn new(filter: &Filter) -> Option<DnsFilter> {
        filter.needs_names().then(|| DnsFilter {
            open: filter.all.iter().map(|clause| open_part(&clause.predicate)).collect(),
            rules: filter
                .rules
                .iter()
                .map(|rule| SplitRule { open: open_part(&rule.predicate), whole: rule.predicate.clone() })
                .collect(),
            kept: PerConnection::default(),
        })
    }

    /// The rule under which it is shown, or that it is not.
    pub fn evaluate(&mut self, record: &Record) -> Verdict {
        let connection = record.event.connection();
        match record.event.kind.lifecycle() {
            Lifecycle::Attempt => self.verdict(record),
            Lifecycle::Fail | Lifecycle::Close | Lifecycle::StopListening => {
                self.kept.remove(connection).unwrap_or_else(|| self.verdict(record))
            }
            Lifecycle::Continue => match self.kept.get(connection) {
                Some(verdict) => *verdict,
                None => self.evaluate_and_keep(record),
            },
            // A socket can be connected again: whatever was kept is of another connection.
            Lifecycle::Begin | Lifecycle::Open | Lifecycle::Existing => self.evaluate_and_keep(record),
        }
    }

    fn evaluate_and_keep(&mut self, record: &Record) -> Verdict {
        let verdict = self.verdict(record);
        self.kept.insert(record.event.connection(), verdict);
        verdict
    }

    fn verdict(&self, record: &Record) -> Verdict {
        let subject = subject(record);
        let holds = |predicate: &Predicate| {
            // As in the kernel: a socket without an owner matches no condition on it.
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
    let process = record.process.as_deref().map(|entry| &entry.process);
    let parent = record.parent.as_deref().map(|entry| &entry.process);
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
        direction: direction(&event.kind),
        dns: record.names.names.iter().map(|name| name.to_string()).collect(),
    }
}

/// As the kernel has it (src/bpf/existing.h): what is left of a socket counts as opened here.
fn direction(kind: &EventKind) -> Direction {
    kind.direction().unwrap_or(if kind.is_listener() { Direction::Ingress } else { Direction::Egress })
}

#[cfg(test)]
mod tests;
