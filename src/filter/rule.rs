//! The parts of a filter: conditions that must all hold, and named rules.

use std::rc::Rc;

use super::predicate::{Attribute, Predicate};

/// A condition with an optional name, from a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name shown with its events; `None` for a direction that is enabled without rules.
    pub name: Option<String>,
    /// The condition that must hold.
    pub predicate: Predicate,
    /// Its position, for error messages: `rules.yaml:4:7`.
    pub place: String,
}

/// A condition without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The condition that must hold.
    pub predicate: Predicate,
    /// Where it came from, for error messages: `--dport`, `FILTER`.
    pub origin: String,
}

/// Selects the connections to report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// All of these must hold.
    pub all: Vec<Clause>,
    /// If not empty, one of these must hold too; the first that does names the event.
    pub rules: Vec<Rule>,
    /// The value of [`Attribute::Cgroup`]: ids of cgroups (cgroup2).
    pub cgroups: Vec<u64>,
}

/// The result of evaluating a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The connection is not reported.
    Rejected,
    /// The connection is reported, under the rule with this index, if any.
    Admitted(Option<usize>),
}

impl Filter {
    /// Whether it uses a name that only user space knows. Then the kernel admits every connection the names could still
    /// admit, and user space evaluates the filter again ([`crate::session::dns_filter`]).
    pub fn needs_names(&self) -> bool {
        self.mentions(Attribute::is_name)
    }

    /// Whether any comparison uses an attribute for which `sort` is true.
    pub fn mentions(&self, sort: fn(Attribute) -> bool) -> bool {
        let clauses = self.all.iter().map(|clause| &clause.predicate);
        let mut predicates = clauses.chain(self.rules.iter().map(|rule| &rule.predicate));
        predicates.any(|p| p.mentions(sort))
    }

    /// Extends each set of strings by what `more` returns for its members.
    pub fn extend_texts(&mut self, mut more: impl FnMut(Attribute, &[u8]) -> Vec<Vec<u8>>) {
        let clauses = self.all.iter_mut().map(|clause| &mut clause.predicate);
        let rules = self.rules.iter_mut().map(|rule| &mut rule.predicate);
        clauses.chain(rules).for_each(|predicate| predicate.extend_texts(&mut more));
    }

    /// The names of the rules, by index; none for a direction enabled without rules.
    pub fn rule_names(&self) -> Vec<Option<Rc<str>>> {
        self.rules.iter().map(|rule| rule.name.as_deref().map(Rc::from)).collect()
    }
}
