//! Filters and rules: what [`Filter`](crate::filter::Filter) means, and the [`Program`](crate::filter::Program) that the kernel runs for it.
//!
//! Every option, predicate and rule becomes terms, a term being an AND of comparisons. Each value
//! an attribute can take is mapped to the set of terms it does not rule out (`TermSet`): one
//! look-up per attribute in use and one AND of four words, however many terms there are and
//! however long their lists. What is left after the last attribute are the terms that hold.
//! Terms belong to groups: of each group one term must hold, and in the group of the rules the
//! first that holds names the event.

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
