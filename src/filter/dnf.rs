//! Predicates in disjunctive normal form: a list of terms, each an AND of comparisons.
//!
//! An OR of comparisons of one attribute becomes one comparison with the union of their sets, so a long list adds no
//! terms. `addr` and `port` (either end) become an OR of both ends.

use super::error::FilterError;
use super::predicate::{Attribute, Predicate, Set};
use super::terms::TERMS_MAX;
use std::collections::HashMap;

/// A distinct comparison; all terms share one list of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Atom {
    /// The attribute; never `addr`, `port` or an address of one family.
    pub attribute: Attribute,
    /// The members, sorted and without duplicates.
    pub set: Set,
}

/// An atom that a term requires to be true or to be false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Literal {
    /// The index of the atom in [`Atoms`].
    pub atom: usize,
    /// Whether the value must be a member.
    pub member: bool,
}

/// Literals that must all hold; an empty term is true.
pub type Term = Vec<Literal>;

/// All distinct comparisons, by index.
#[derive(Default)]
pub struct Atoms {
    /// In order of first use.
    pub list: Vec<Atom>,
    numbers: HashMap<Atom, usize>,
}

impl Atoms {
    fn number(&mut self, attribute: Attribute, mut set: Set) -> usize {
        set.normalize();
        let atom = Atom { attribute, set };
        if let Some(number) = self.numbers.get(&atom) {
            return *number;
        }
        self.list.push(atom.clone());
        self.numbers.insert(atom, self.list.len() - 1);
        self.list.len() - 1
    }
}

enum Form {
    Test(Attribute, Set, bool),
    All(Vec<Form>),
    Any(Vec<Form>),
}

/// The terms of which at least one must hold for `predicate` to hold. Comparisons that only user space can evaluate are
/// taken as true.
pub fn terms(predicate: &Predicate, atoms: &mut Atoms) -> Result<Vec<Term>, FilterError> {
    let mut terms = expand(form(predicate, true), atoms)?;
    drop_redundant(&mut terms);
    Ok(terms)
}

/// Pushes negations down to the comparisons.
fn form(predicate: &Predicate, holds: bool) -> Form {
    let forms = |list: &[Predicate]| list.iter().map(|p| form(p, holds)).collect();
    match predicate {
        Predicate::Not(inner) => form(inner, !holds),
        Predicate::All(list) if holds => all(forms(list)),
        Predicate::Any(list) if !holds => all(forms(list)),
        Predicate::All(list) | Predicate::Any(list) => any(forms(list)),
        Predicate::Test(attribute, set) => {
            let ends = attribute.tested_as();
            let literal = |end: &Attribute| Form::Test(*end, set.clone(), holds);
            let list: Vec<Form> = ends.iter().map(literal).collect();
            if holds && !list.is_empty() { any(list) } else { all(list) }
        }
    }
}

fn all(list: Vec<Form>) -> Form {
    let mut flat = Vec::with_capacity(list.len());
    for form in list {
        match form {
            Form::All(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    Form::All(flat)
}

/// Flattens an OR and merges its comparisons of the same attribute.
fn any(list: Vec<Form>) -> Form {
    let mut flat: Vec<Form> = Vec::with_capacity(list.len());
    for form in list {
        match form {
            Form::Any(inner) => inner.into_iter().for_each(|f| join(&mut flat, f)),
            other => join(&mut flat, other),
        }
    }
    if flat.len() == 1 { flat.remove(0) } else { Form::Any(flat) }
}

fn join(flat: &mut Vec<Form>, form: Form) {
    let form = match form {
        Form::All(mut inner) if inner.len() == 1 => inner.remove(0),
        other => other,
    };
    if let Form::Test(attribute, set, true) = &form {
        for known in flat.iter_mut() {
            if let Form::Test(theirs, known, true) = known
                && theirs == attribute
            {
                known.extend(set.clone());
                return;
            }
        }
    }
    flat.push(form);
}

fn expand(form: Form, atoms: &mut Atoms) -> Result<Vec<Term>, FilterError> {
    let terms = match form {
        Form::Test(attribute, set, member) => {
            vec![vec![Literal { atom: atoms.number(attribute, set), member }]]
        }
        Form::Any(list) => {
            let mut terms = Vec::new();
            for form in list {
                terms.extend(expand(form, atoms)?);
                check(terms.len())?;
            }
            terms
        }
        Form::All(list) => {
            let mut terms: Vec<Term> = vec![Vec::new()];
            for form in list {
                let factors = expand(form, atoms)?;
                check(terms.len().saturating_mul(factors.len()))?;
                terms = terms.iter().flat_map(|t| factors.iter().map(|f| conjoin(t, f))).collect();
            }
            terms
        }
    };
    Ok(terms)
}

/// The AND of both terms.
pub fn conjoin(left: &Term, right: &Term) -> Term {
    let mut both = left.clone();
    both.extend(right.iter().filter(|literal| !left.contains(literal)));
    both
}

/// Drops each term that implies another one.
fn drop_redundant(terms: &mut Vec<Term>) {
    let mut kept: Vec<Term> = Vec::with_capacity(terms.len());
    for term in terms.drain(..) {
        let implies = |a: &Term, b: &Term| b.iter().all(|literal| a.contains(literal));
        if !kept.iter().any(|k| implies(&term, k)) {
            kept.retain(|k| !implies(k, &term));
            kept.push(term);
        }
    }
    *terms = kept;
}

fn check(terms: usize) -> Result<(), FilterError> {
    if terms <= TERMS_MAX { Ok(()) } else { Err(FilterError::TooManyTerms) }
}
