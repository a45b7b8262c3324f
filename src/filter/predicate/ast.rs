//! The syntax tree of a predicate.

use super::{attribute::Attribute, value::Set};

/// A condition on a connection and the process that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// True if the value of the attribute is a member of the set.
    Test(Attribute, Set),
    /// The negation of a predicate.
    Not(Box<Predicate>),
    /// The AND of all; true if empty.
    All(Vec<Predicate>),
    /// The OR of all; false if empty.
    Any(Vec<Predicate>),
}

impl Predicate {
    /// The negation of `self`.
    #[must_use]
    pub fn negate(self) -> Self {
        match self {
            Predicate::Not(inner) => *inner,
            other => Predicate::Not(Box::new(other)),
        }
    }

    /// Extends each set of strings by what `more` returns for its members.
    pub fn extend_texts(&mut self, more: &mut impl FnMut(Attribute, &[u8]) -> Vec<Vec<u8>>) {
        match self {
            Predicate::Test(attribute, Set::Texts(texts)) => {
                let found: Vec<Vec<u8>> = texts.iter().flat_map(|text| more(*attribute, text)).collect();
                texts.extend(found);
            }
            Predicate::Test(..) => {}
            Predicate::Not(inner) => inner.extend_texts(more),
            Predicate::All(list) | Predicate::Any(list) => list.iter_mut().for_each(|p| p.extend_texts(more)),
        }
    }

    /// Whether any comparison uses an attribute for which `sort` is true.
    pub fn mentions(&self, sort: fn(Attribute) -> bool) -> bool {
        match self {
            Predicate::Test(tested, _) => sort(*tested),
            Predicate::Not(inner) => inner.mentions(sort),
            Predicate::All(list) | Predicate::Any(list) => list.iter().any(|p| p.mentions(sort)),
        }
    }
}
