//! From the comparisons that a value satisfies to the terms it leaves.

use std::collections::{BTreeMap, HashMap};

use crate::filter::{
    predicate::{Net, PortRange},
    terms::TermSet,
};

/// The rows of a table, by the type of look-up.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Numbers, looked up by equality.
    Numbers(BTreeMap<u32, TermSet>),
    /// Strings, looked up by equality.
    Texts(BTreeMap<Vec<u8>, TermSet>),
    /// Strings, looked up by longest prefix.
    Prefixes(BTreeMap<Vec<u8>, TermSet>),
    /// Addresses, looked up by equality, then networks, by longest prefix.
    Nets {
        /// Single addresses, IPv4 at `::ffff:0:0/96`.
        hosts: BTreeMap<u128, TermSet>,
        /// Either empty, or with an entry for the whole of each family.
        nets: BTreeMap<Net, TermSet>,
        /// The terms left by at least one IPv4 address, and by at least one IPv6 address.
        reachable: [TermSet; 2],
    },
    /// All ports in order, with adjacent equal rows merged.
    Ports(Vec<(PortRange, TermSet)>),
}

/// The indexes of the atoms that a value is a member of, ascending.
pub type Members = Vec<usize>;

/// Makes rows from the literals of one attribute: which term requires which atom, or its negation.
pub struct RowMaker {
    literals: Vec<(usize, usize, bool)>,
    known: HashMap<Members, TermSet>,
}

impl RowMaker {
    /// From literals: the term, the atom, and whether membership is required.
    pub fn new(literals: Vec<(usize, usize, bool)>) -> Self {
        RowMaker { literals, known: HashMap::new() }
    }

    /// The terms left by a value that is a member of these atoms.
    pub fn row(&mut self, members: &Members) -> TermSet {
        if let Some(row) = self.known.get(members) {
            return *row;
        }
        let mut row = TermSet::ALL;
        for (term, atom, member) in &self.literals {
            if members.binary_search(atom).is_ok() != *member {
                row.remove(*term);
            }
        }
        self.known.insert(members.clone(), row);
        row
    }
}

/// Collects, for each value, the atoms it is a member of.
pub fn collect<'a, K: Ord + 'a>(values: impl Iterator<Item = (usize, &'a K)>) -> BTreeMap<&'a K, Members> {
    let mut found: BTreeMap<&K, Members> = BTreeMap::new();
    values.for_each(|(atom, value)| found.entry(value).or_default().push(atom));
    found
}

/// Adds the memberships of a shorter prefix.
pub fn unite(members: &mut Members, inherited: &Members) {
    members.extend(inherited);
    members.sort_unstable();
    members.dedup();
}
