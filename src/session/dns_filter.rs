//! The filter on DNS and container names, which only user space knows: one verdict per connection.
//!
//! The kernel treats every comparison with a name, negated or not, as true. So it never rejects too much, and what it
//! rejects or decides without names is final.

use crate::{
    dns::per_connection::PerConnection,
    event::Lifecycle,
    filter::{
        Filter, Verdict,
        predicate::{Attribute, Predicate},
    },
    record::Record,
};

/// Evaluates the filter once the names are known, and keeps each verdict until the connection ends.
#[derive(Debug)]
pub struct DnsFilter {
    /// What the kernel left undecided of the conditions that must all hold.
    open: Vec<Predicate>,
    rules: Vec<SplitRule>,
    kept: PerConnection<Verdict>,
}

/// For the rule that the kernel chose, only the comparisons with names are undecided; for later rules, everything is.
#[derive(Debug)]
struct SplitRule {
    open: Predicate,
    whole: Predicate,
}

impl DnsFilter {
    /// The evaluator of a filter; none if the kernel can evaluate all of it.
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

    /// Whether the event is shown, and under which rule.
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
            // A socket can connect again, so an earlier verdict belongs to another connection.
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
            // As in the kernel, a socket without an owner matches no condition on the owner.
            let known = record.process.is_some() || !predicate.mentions(Attribute::is_of_process);
            known && subject.satisfies(predicate)
        };
        if !self.open.iter().all(holds) {
            return Verdict::Rejected;
        }
        if self.rules.is_empty() {
            return Verdict::Admitted(None);
        }
        // The kernel has ruled out all rules before the one it chose.
        let chosen = record.event.rule.map(usize::from);
        let from = chosen.unwrap_or(0);
        let rules = self.rules.iter().enumerate().skip(from);
        let mut held = rules
            .filter(|(index, rule)| holds(if chosen == Some(*index) { &rule.open } else { &rule.whole }));
        held.next().map_or(Verdict::Rejected, |(index, _)| Verdict::Admitted(Some(index)))
    }
}

/// The parts of an AND that use names; the kernel has evaluated the others.
fn open_part(predicate: &Predicate) -> Predicate {
    match predicate {
        Predicate::All(list) => Predicate::All(list.iter().map(open_part).collect()),
        other if other.mentions(Attribute::is_name) => other.clone(),
        _ => Predicate::All(Vec::new()),
    }
}

#[cfg(test)]
mod tests;
