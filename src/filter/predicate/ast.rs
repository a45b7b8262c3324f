//! A predicate, read.

use super::{attribute::Attribute, value::Set};

/// A condition on a connection and the process that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// One attribute's value is a member of a set.
    Test(Attribute, Set),
    /// The opposite.
    Not(Box<Predicate>),
    /// All of them; of none: true.
    All(Vec<Predicate>),
    /// At least one of them; of none: false.
    Any(Vec<Predicate>),
}

impl Predicate {
    /// The opposite of `self`.
    #[must_use]
    pub fn negate(self) -> Self {
        match self {
            Predicate::Not(inner) => *inner,
            other => Predicate::Not(Box::new(other)),
        }
    }

    /// Add to each string that is compared with what `more` knows of it.
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

    /// Does any comparison look at an attribute of this sort?
    pub fn mentions(&self, sort: fn(Attribute) -> bool) -> bool {
        match self {
            Predicate::Test(tested, _) => sort(*tested),
            Predicate::Not(inner) => inner.mentions(sort),
            Predicate::All(list) | Predicate::Any(list) => list.iter().any(|p| p.mentions(sort)),
        }
    }
}
