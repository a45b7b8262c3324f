//! What a filter consists of: conditions that must all hold, and named rules.

use std::rc::Rc;

use super::predicate::{Attribute, Predicate};

/// A named condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What its events are called; `None` for a direction that is enabled without rules.
    pub name: Option<String>,
    /// What it asks for.
    pub predicate: Predicate,
    /// Where it was written, for errors: `rules.yaml:4:7`.
    pub place: String,
}

/// A condition without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// What it asks for.
    pub predicate: Predicate,
    /// What it came from, for errors: `--dport`, `FILTER`.
    pub origin: String,
}

/// What is to be reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// All of these must hold.
    pub all: Vec<Clause>,
    /// If there are any, one of these must hold; the first that does names the event.
    pub rules: Vec<Rule>,
    /// What [`Attribute::Cgroup`] stands for: ids in the cgroup2 tree.
    pub cgroups: Vec<u64>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not reported.
    Rejected,
    /// It is reported, under the rule with this index, if any.
    Admitted(Option<usize>),
}

impl Filter {
    /// Does it mention a name that only user space knows? Then the kernel admits whatever the names could still
    /// admit, and user space evaluates it once more ([`crate::session::dns_filter`]).
    pub fn needs_names(&self) -> bool {
        self.mentions(Attribute::is_name)
    }

    /// Does it mention an attribute of this sort?
    pub fn mentions(&self, sort: fn(Attribute) -> bool) -> bool {
        let clauses = self.all.iter().map(|clause| &clause.predicate);
        let mut predicates = clauses.chain(self.rules.iter().map(|rule| &rule.predicate));
        predicates.any(|p| p.mentions(sort))
    }

    /// Add to each string that is compared with what `more` knows of it.
    pub fn extend_texts(&mut self, mut more: impl FnMut(Attribute, &[u8]) -> Vec<Vec<u8>>) {
        let clauses = self.all.iter_mut().map(|clause| &mut clause.predicate);
        let rules = self.rules.iter_mut().map(|rule| &mut rule.predicate);
        clauses.chain(rules).for_each(|predicate| predicate.extend_texts(&mut more));
    }

    /// The names of the rules, by number; none for what is enabled without a rule.
    pub fn rule_names(&self) -> Vec<Option<Rc<str>>> {
        self.rules.iter().map(|rule| rule.name.as_deref().map(Rc::from)).collect()
    }
}
