//! A set of terms: the result of every look-up of a filter.

/// Maximum number of terms of a filter.
pub const TERMS_MAX: usize = 256;
/// Number of 64-bit words in a set.
pub const WORDS: usize = TERMS_MAX / 64;

/// A bit set of the terms of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TermSet(pub [u64; WORDS]);

impl TermSet {
    /// The set without terms.
    pub const NONE: TermSet = TermSet([0; WORDS]);
    /// The set of all terms.
    pub const ALL: TermSet = TermSet([u64::MAX; WORDS]);

    /// Adds `term` to the set.
    pub fn insert(&mut self, term: usize) {
        self.0[term / 64] |= 1 << (term % 64);
    }

    /// Removes `term` from the set.
    pub fn remove(&mut self, term: usize) {
        self.0[term / 64] &= !(1 << (term % 64));
    }

    /// Whether `term` is in the set.
    pub fn contains(&self, term: usize) -> bool {
        self.0[term / 64] >> (term % 64) & 1 == 1
    }

    /// The intersection of both sets.
    #[must_use]
    pub fn and(self, other: TermSet) -> TermSet {
        TermSet(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// The union of both sets.
    #[must_use]
    pub fn or(self, other: TermSet) -> TermSet {
        TermSet(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// Whether the set has no terms.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The lowest term in the set.
    pub fn first(&self) -> Option<usize> {
        let word = self.0.iter().position(|word| *word != 0)?;
        Some(word * 64 + self.0[word].trailing_zeros() as usize)
    }
}
