//! Rows for addresses. The row of a nested network includes what the networks around it say.

use super::rows::{Members, RowMaker, Rows, collect, unite};
use crate::filter::error::FilterError;
use crate::filter::limits::CIDRS_MAX;
use crate::filter::predicate::{Net, Set};
use crate::filter::terms::TermSet;
use std::collections::BTreeMap;

/// The rows for addresses and networks.
pub fn nets(sets: &[(usize, &Set)], rows_of: &mut RowMaker) -> Result<Rows, FilterError> {
    let values = sets.iter().flat_map(|(atom, set)| match set {
        Set::Nets(list) => list.iter().map(|net| (*atom, net)).collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let mut members = collect(values);
    let listed = members.keys().filter(|net| !net.is_host()).count();
    if listed > CIDRS_MAX {
        return Err(FilterError::TooManyCidrs(listed));
    }
    for root in [&Net::IPV4, &Net::IPV6] {
        members.entry(root).or_default();
    }
    let (mut hosts, mut nets) = (BTreeMap::new(), BTreeMap::new());
    let mut reachable = [TermSet::NONE; 2];
    for (family, reachable) in reachable.iter_mut().enumerate() {
        // A network is popped once everything inside it has been visited; then it is known whether it has any address
        // that is in no smaller network.
        let mut above: Vec<(&Net, Members, u128, bool)> = Vec::new();
        let ours = members.iter().filter(|(net, _)| net.is_ipv4() == (family == 0));
        for (net, own) in ours {
            while above.last().is_some_and(|(outer, ..)| !outer.contains(net.bits())) {
                leave(&mut above, reachable, rows_of);
            }
            let mut own = own.clone();
            if let Some((_, inherited, ..)) = above.last() {
                unite(&mut own, inherited);
            }
            if net.is_host() {
                hosts.insert(net.bits(), rows_of.row(&own));
            } else {
                nets.insert(**net, rows_of.row(&own));
            }
            above.push((net, own, 0, false));
        }
        while !above.is_empty() {
            leave(&mut above, reachable, rows_of);
        }
    }
    if listed == 0 {
        nets.clear();
    }
    Ok(Rows::Nets { hosts, nets, reachable })
}

fn leave(above: &mut Vec<(&Net, Members, u128, bool)>, reachable: &mut TermSet, rows_of: &mut RowMaker) {
    let Some((net, members, covered, split)) = above.pop() else {
        return;
    };
    // The size of ::/0 wraps to 0, and so does the sum of the sizes inside it.
    let size = 1u128.checked_shl(128 - u32::from(net.prefix_len())).unwrap_or(0);
    if !(split && covered == size) {
        *reachable = reachable.or(rows_of.row(&members));
    }
    if let Some((_, _, outer, split)) = above.last_mut() {
        *outer = outer.wrapping_add(size);
        *split = true;
    }
}
