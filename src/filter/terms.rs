//! A set of terms: the one value that every look-up of a filter yields.

/// How many terms a filter can have.
pub const TERMS_MAX: usize = 256;
/// How many 64-bit words hold them.
pub const WORDS: usize = TERMS_MAX / 64;

/// One bit for each term of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TermSet(pub [u64; WORDS]);

impl TermSet {
    /// No term.
    pub const NONE: TermSet = TermSet([0; WORDS]);
    /// Every term.
    pub const ALL: TermSet = TermSet([u64::MAX; WORDS]);

    /// Adds `term`.
    pub fn insert(&mut self, term: usize) {
        self.0[term / 64] |= 1 << (term % 64);
    }

    /// Takes `term` out.
    pub fn remove(&mut self, term: usize) {
        self.0[term / 64] &= !(1 << (term % 64));
    }

    /// Is `term` in it?
    pub fn contains(&self, term: usize) -> bool {
        self.0[term / 64] >> (term % 64) & 1 == 1
    }

    /// The terms in both.
    #[must_use]
    pub fn and(self, other: TermSet) -> TermSet {
        TermSet(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// The terms in either.
    #[must_use]
    pub fn or(self, other: TermSet) -> TermSet {
        TermSet(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// Has it no term?
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The lowest term in it.
    pub fn first(&self) -> Option<usize> {
        let word = self.0.iter().position(|word| *word != 0)?;
        Some(word * 64 + self.0[word].trailing_zeros() as usize)
    }
}
