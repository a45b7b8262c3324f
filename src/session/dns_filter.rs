//! The filter on `dns` and the names of containers, which only user space knows: one verdict a connection.
//!
//! The kernel treats every comparison with them, negated or not, as true: it admits too much,
//! never too little, and what it has decided without the names stays decided.

use crate::{
    dns::per_connection::PerConnection,
    event::Lifecycle,
    filter::{
        Filter, Verdict,
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

/// For the rule that the kernel chose only the part on names is undecided, for later rules everything.
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
        let subject = record.subject();
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

#[cfg(test)]
mod tests;
