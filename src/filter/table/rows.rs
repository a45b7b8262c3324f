//! From the comparisons a value satisfies to the terms it leaves.

use std::collections::{BTreeMap, HashMap};

use crate::filter::{
    predicate::{Net, PortRange},
    terms::TermSet,
};

/// The values of a table.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Found when equal.
    Numbers(BTreeMap<u32, TermSet>),
    /// Found when equal.
    Texts(BTreeMap<Vec<u8>, TermSet>),
    /// The longest prefix is found.
    Prefixes(BTreeMap<Vec<u8>, TermSet>),
    /// Addresses, found when equal; then networks, of which the longest prefix is found.
    Nets {
        /// Single addresses, IPv4 at `::ffff:0:0/96`.
        hosts: BTreeMap<u128, TermSet>,
        /// Either empty, or with an entry for all of each family.
        nets: BTreeMap<Net, TermSet>,
        /// What at least one IPv4 address leaves, and one IPv6 address.
        reachable: [TermSet; 2],
    },
    /// Every port, in order, equal neighbours joined.
    Ports(Vec<(PortRange, TermSet)>),
}

/// The atoms a value is a member of, by number, ascending.
pub type Members = Vec<usize>;

/// The literals of one attribute: which term needs which atom, or its opposite.
pub struct RowMaker {
    literals: Vec<(usize, usize, bool)>,
    known: HashMap<Members, TermSet>,
}

impl RowMaker {
    /// For these literals: the term, the atom, and whether a member is asked for.
    pub fn new(literals: Vec<(usize, usize, bool)>) -> Self {
        RowMaker { literals, known: HashMap::new() }
    }

    /// What a value that is a member of these leaves.
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

/// Each value, with the atoms it is a member of.
pub fn collect<'a, K: Ord + 'a>(values: impl Iterator<Item = (usize, &'a K)>) -> BTreeMap<&'a K, Members> {
    let mut found: BTreeMap<&K, Members> = BTreeMap::new();
    values.for_each(|(atom, value)| found.entry(value).or_default().push(atom));
    found
}

/// Adds what a shorter prefix is a member of.
pub fn unite(members: &mut Members, inherited: &Members) {
    members.extend(inherited);
    members.sort_unstable();
    members.dedup();
}
