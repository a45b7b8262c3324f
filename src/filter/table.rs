//! The table of one attribute: maps each value to the terms it does not rule out.
//!
//! A trie returns only the longest match, so each entry includes the terms of the shorter ones.

mod nets;
mod ports;
mod rows;

use super::dnf::{Atoms, Term};
use super::error::FilterError;
use super::limits::VALUES_MAX;
use super::predicate::{Attribute as A, Net, Set, unmap};
use super::subject::Subject;
use super::terms::TermSet;
pub use rows::Rows;
use rows::{Members, RowMaker, collect, unite};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The terms left by each value of one attribute.
#[derive(Clone, Debug)]
pub struct Table {
    /// The terms left by a value that is not in `rows`.
    pub miss: TermSet,
    /// The terms left by each value that some term mentions.
    pub rows: Rows,
    /// Whether there are only two possible values, both with a row.
    pub two_valued: bool,
}

impl Table {
    /// Builds the table of `attribute`; none if no term uses it.
    pub fn build(attribute: A, atoms: &Atoms, terms: &[Term]) -> Result<Option<Table>, FilterError> {
        let literals = terms.iter().enumerate().flat_map(|(number, term)| {
            let ours = term.iter().filter(|l| atoms.list[l.atom].attribute == attribute);
            ours.map(move |l| (number, l.atom, l.member))
        });
        let literals: Vec<_> = literals.collect();
        if literals.is_empty() {
            return Ok(None);
        }
        let mut rows_of = RowMaker::new(literals);
        let sets = atoms.list.iter().enumerate().filter(|(_, atom)| atom.attribute == attribute);
        let sets: Vec<(usize, &Set)> = sets.map(|(number, atom)| (number, &atom.set)).collect();
        let rows = match sets[0].1 {
            Set::Numbers(_) => Rows::Numbers(numbers(attribute, &sets, &mut rows_of)),
            Set::Texts(_) => texts(attribute, &sets, &mut rows_of),
            Set::Nets(_) => nets::nets(&sets, &mut rows_of)?,
            Set::Ports(_) => Rows::Ports(ports::ports(&sets, &mut rows_of)),
        };
        let values = match &rows {
            Rows::Numbers(rows) => rows.len(),
            Rows::Texts(rows) | Rows::Prefixes(rows) => rows.len(),
            Rows::Nets { hosts, .. } => hosts.len(),
            Rows::Ports(_) => 0,
        };
        if values > VALUES_MAX {
            return Err(FilterError::TooManyValues(attribute.name(), values));
        }
        let miss = rows_of.row(&Vec::new());
        let two_valued = matches!(attribute, A::Family | A::Direction | A::Cgroup);
        Ok(Some(Table { miss, rows, two_valued }))
    }

    /// Both rows of an attribute with only two values, in the kernel's order.
    pub fn flags(&self) -> Option<[TermSet; 2]> {
        match &self.rows {
            Rows::Numbers(rows) if rows.len() == 2 => {
                let pair = |low, high| Some([*rows.get(&low)?, *rows.get(&high)?]);
                if self.two_valued { pair(0, 1).or_else(|| pair(4, 6)) } else { None }
            }
            _ => None,
        }
    }

    /// The terms left by the value of `subject`, looked up as the kernel does it.
    pub fn look_up(&self, attribute: A, subject: &Subject) -> TermSet {
        let found = match &self.rows {
            Rows::Numbers(rows) => subject.number(attribute).and_then(|n| rows.get(&n)).copied(),
            Rows::Texts(rows) => rows.get(subject.text(attribute)).copied(),
            Rows::Prefixes(rows) => longest(rows, subject.text(attribute)),
            Rows::Nets { hosts, nets, .. } => {
                let address = if attribute == A::Saddr { subject.saddr } else { subject.daddr };
                hosts.get(&unmap(address)).copied().or_else(|| longest_net(nets, address))
            }
            Rows::Ports(runs) => {
                let port = if attribute == A::PortSrc { subject.sport } else { subject.dport };
                let run = runs.partition_point(|(range, _)| range.high < port);
                runs.get(run).map(|(_, row)| *row)
            }
        };
        found.unwrap_or(self.miss)
    }
}

/// The row of the longest prefix of `text`.
pub fn longest(rows: &BTreeMap<Vec<u8>, TermSet>, text: &[u8]) -> Option<TermSet> {
    (0..=text.len()).rev().find_map(|len| rows.get(&text[..len]).copied())
}

fn longest_net(nets: &BTreeMap<Net, TermSet>, address: IpAddr) -> Option<TermSet> {
    let matching = nets.iter().filter(|(net, _)| net.contains(unmap(address)));
    matching.max_by_key(|(net, _)| net.prefix_len()).map(|(_, row)| *row)
}

fn numbers(attribute: A, sets: &[(usize, &Set)], rows_of: &mut RowMaker) -> BTreeMap<u32, TermSet> {
    let values = sets.iter().flat_map(|(atom, set)| match set {
        Set::Numbers(list) => list.iter().map(|n| (*atom, n)).collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let mut members = collect(values);
    // Where all possible values are known, each has a row, so there is no miss.
    let possible: &[u32] = match attribute {
        A::Family => &[4, 6],
        A::Direction | A::Cgroup => &[0, 1],
        _ => &[],
    };
    for value in possible {
        members.entry(value).or_default();
    }
    members.into_iter().map(|(value, members)| (*value, rows_of.row(&members))).collect()
}

fn texts(attribute: A, sets: &[(usize, &Set)], rows_of: &mut RowMaker) -> Rows {
    let values = sets.iter().flat_map(|(atom, set)| match set {
        Set::Texts(list) => list.iter().map(|text| (*atom, text)).collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let members = collect(values);
    if !matches!(attribute, A::BinaryPrefix | A::ParentBinaryPrefix | A::ContainerId) {
        return Rows::Texts(members.into_iter().map(|(text, m)| (text.clone(), rows_of.row(&m))).collect());
    }
    let mut rows = BTreeMap::new();
    let mut above: Vec<(&Vec<u8>, Members)> = Vec::new();
    for (text, mut members) in members {
        while above.last().is_some_and(|(prefix, _)| !text.starts_with(prefix)) {
            above.pop();
        }
        if let Some((_, inherited)) = above.last() {
            unite(&mut members, inherited);
        }
        rows.insert(text.clone(), rows_of.row(&members));
        above.push((text, members));
    }
    Rows::Prefixes(rows)
}
