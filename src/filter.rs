//! Filters and rules: the definition of a [`Filter`](crate::filter::Filter), and the
//! [`Program`](crate::filter::Program) that the kernel runs for it.
//!
//! Every option, predicate and rule is converted to terms; a term is an AND of comparisons. For each attribute, a table
//! maps a value to the set of terms it does not rule out (`TermSet`). Evaluating a filter takes one look-up per
//! attribute in use and one AND of four words each, regardless of the number of terms and the length of their lists.
//! The terms left after the last attribute hold. Terms belong to groups: one term of each group must hold, and in the
//! group of rules the first that holds names the event.

mod dnf;
pub mod domain_pattern;
mod error;
mod limits;
pub mod netmon_yaml;
mod options;
pub mod predicate;
mod program;
mod rule;
mod subject;
mod table;
mod terms;

pub use error::FilterError;
pub use limits::{CIDRS_MAX, GROUPS_MAX, RULES_MAX, VALUES_MAX};
pub use options::{BinaryPattern, FilterOptions, ProcessFilter};
pub use program::Program;
pub use rule::{Clause, Filter, Rule, Verdict};
pub use subject::{Direction, Subject};
pub use table::{Rows, Table};
pub use terms::{TERMS_MAX, TermSet, WORDS};
