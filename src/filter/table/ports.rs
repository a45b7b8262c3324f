//! Rows for ports: all 65,536, as ranges with the same row.

use super::rows::RowMaker;
use crate::filter::predicate::{PortRange, Set};
use crate::filter::terms::TermSet;
use std::collections::BTreeSet;

/// The rows for ports.
pub fn ports(sets: &[(usize, &Set)], rows_of: &mut RowMaker) -> Vec<(PortRange, TermSet)> {
    let listed = sets.iter().filter_map(|(atom, set)| match set {
        Set::Ports(list) => Some((*atom, disjoint(list))),
        _ => None,
    });
    let listed: Vec<(usize, Vec<PortRange>)> = listed.collect();
    // All ports between two adjacent cuts are members of the same atoms.
    let ends = |range: &PortRange| [u32::from(range.low), u32::from(range.high) + 1];
    let mut cuts: BTreeSet<u32> = listed.iter().flat_map(|(_, l)| l.iter().flat_map(ends)).collect();
    cuts.insert(0);
    let starts: Vec<u16> = cuts.into_iter().filter_map(|cut| u16::try_from(cut).ok()).collect();
    let holds = |list: &Vec<PortRange>, port| {
        let at = list.partition_point(|range| range.high < port);
        list.get(at).is_some_and(|range| range.low <= port)
    };
    let mut runs: Vec<(PortRange, TermSet)> = Vec::new();
    for (index, low) in starts.iter().enumerate() {
        let high = starts.get(index + 1).map_or(u16::MAX, |next| next - 1);
        let members = listed.iter().filter(|(_, list)| holds(list, *low)).map(|(atom, _)| *atom);
        let row = rows_of.row(&members.collect());
        match runs.last_mut() {
            Some((range, last)) if *last == row => range.high = high,
            _ => runs.push((PortRange { low: *low, high }, row)),
        }
    }
    runs
}

/// Ranges sorted by `low`, with overlapping ones merged.
fn disjoint(list: &[PortRange]) -> Vec<PortRange> {
    let mut joined: Vec<PortRange> = Vec::with_capacity(list.len());
    for range in list {
        match joined.last_mut() {
            Some(last) if range.low <= last.high => last.high = last.high.max(range.high),
            _ => joined.push(*range),
        }
    }
    joined
}
