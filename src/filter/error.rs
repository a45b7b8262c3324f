//! Errors in compiling a filter.

use crate::hostile::printable;

use super::{
    limits::{CIDRS_MAX, GROUPS_MAX, RULES_MAX, VALUES_MAX},
    terms::TERMS_MAX,
};

/// Why a filter cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// The disjunctive normal form is too large.
    TooManyTerms,
    /// Too many options that need several terms each.
    TooManyGroups,
    /// More named rules than the kernel side supports.
    TooManyRules(usize),
    /// More values of one attribute than its map can hold.
    TooManyValues(&'static str, usize),
    /// More networks than the tries can hold.
    TooManyCidrs(usize),
    /// No connection can ever match this rule: its name, and where it is written.
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
                    "more than {GROUPS_MAX} conditions with alternatives must hold at once; combine some with AND in one FILTER"
                )
            }
            FilterError::TooManyRules(n) => {
                write!(f, "too many rules: {n} (the limit is {RULES_MAX})")
            }
            FilterError::TooManyValues(name, n) => {
                write!(f, "too many values of {name}: {n} (the limit is {VALUES_MAX})")
            }
            FilterError::TooManyCidrs(n) => {
                write!(f, "too many CIDRs: {n} (the limit is {CIDRS_MAX})")
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
