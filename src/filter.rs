//! Filters and rules: what [`Filter`] means, and the [`Program`] that the kernel runs for it.
//!
//! Every option, predicate and rule becomes terms, a term being an AND of comparisons. Each value
//! an attribute can take is mapped to the set of terms it does not rule out ([`TermSet`]): one
//! look-up per attribute in use and one AND of four words, however many terms there are and
//! however long their lists. What is left after the last attribute are the terms that hold.
//! Terms belong to groups: of each group one term must hold, and in the group of the rules the
//! first that holds names the event.

mod dnf;
mod options;
mod program;
mod subject;
mod table;
mod terms;

pub use options::{BinaryPattern, FilterOptions, ProcessFilter};
pub use program::{GROUPS_MAX, Program, RULES_MAX};
pub use subject::{Direction, Subject};
pub use table::{CIDRS_MAX, Rows, Table, VALUES_MAX};
pub use terms::{TERMS_MAX, TermSet, WORDS};

use crate::predicate::{Attribute, Predicate, printable};

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
    /// The verdict, by the book: what the compiled program must agree with.
    pub fn judge(&self, subject: &Subject) -> Verdict {
        if !self.all.iter().all(|clause| subject.satisfies(&clause.predicate)) {
            return Verdict::Rejected;
        }
        if self.rules.is_empty() {
            return Verdict::Admitted(None);
        }
        let rule = self.rules.iter().position(|rule| subject.satisfies(&rule.predicate));
        rule.map_or(Verdict::Rejected, |rule| Verdict::Admitted(Some(rule)))
    }

    /// Does it mention `dns`? Then the kernel admits whatever the names could still admit, and
    /// [`Judge`](crate::judge::Judge) has the last word, in user space.
    pub fn needs_names(&self) -> bool {
        let clauses = self.all.iter().map(|clause| &clause.predicate);
        let mut predicates = clauses.chain(self.rules.iter().map(|rule| &rule.predicate));
        predicates.any(|p| p.mentions(Attribute::is_name))
    }

    /// The names of the rules, by number; none for what is enabled without a rule.
    pub fn rule_names(&self) -> Vec<Option<String>> {
        self.rules.iter().map(|rule| rule.name.clone()).collect()
    }

    /// The program for the kernel.
    pub fn compile(&self) -> Result<Program, FilterError> {
        Program::compile(self)
    }
}

/// Why a filter cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// The disjunctive form is too large.
    TooManyTerms,
    /// Too many options that each need several terms.
    TooManyGroups,
    /// More named rules than the kernel side numbers.
    TooManyRules(usize),
    /// More values of one attribute than its map holds.
    TooManyValues(&'static str, usize),
    /// More networks than the tries hold.
    TooManyCidrs(usize),
    /// No connection can ever match the rule with this name, written at this place.
    RuleNeverMatches(String, String),
    /// No connection can ever match these clauses.
    NeverMatches(String),
}

impl std::fmt::Display for FilterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FilterError::TooManyTerms => write!(
                f,
                "the filter needs more than {TERMS_MAX} terms in disjunctive form; use lists (`in [...]`) instead of OR, or fewer rules"
            ),
            FilterError::TooManyGroups => {
                write!(
                    f,
                    "more than {GROUPS_MAX} alternatives must hold at once; join some with AND in one FILTER"
                )
            }
            FilterError::TooManyRules(n) => {
                write!(f, "{n} rules; at most {RULES_MAX} are possible")
            }
            FilterError::TooManyValues(name, n) => {
                write!(f, "{n} different values of {name}; at most {VALUES_MAX} are possible")
            }
            FilterError::TooManyCidrs(n) => {
                write!(f, "{n} different CIDRs; at most {CIDRS_MAX} are possible")
            }
            FilterError::RuleNeverMatches(rule, place) => {
                write!(
                    f,
                    "{place}: rule \"{}\" can never match: its conditions exclude each other",
                    printable(rule)
                )
            }
            FilterError::NeverMatches(origin) => {
                write!(f, "{origin}: no connection can ever match: the conditions exclude each other")
            }
        }
    }
}

impl std::error::Error for FilterError {}
