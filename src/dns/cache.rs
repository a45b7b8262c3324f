//! Names by address and network namespace, for as long as their TTL lasts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::message::Binding;
use crate::record::Names;

/// Names kept in total; beyond this, those of the least recently used address are evicted.
const NAMES_MAX: usize = 16_384;
/// Names kept and shown per address.
const NAMES_PER_ADDRESS: usize = 4;
/// Namespaces searched when guessing.
const GUESSES_MAX: usize = 256;
/// Minimum TTL in seconds: programs keep addresses a little longer than the TTL.
const TTL_FLOOR_S: u32 = 60;
const NS_PER_S: u64 = 1_000_000_000;

/// A name, and the period in which it resolved to the address.
#[derive(Clone, Debug)]
struct TimedName {
    name: Rc<str>,
    since: u64,
    answered: u64,
    until: u64,
}

impl TimedName {
    fn holds(&self, at: u64) -> bool {
        self.since <= at && at < self.until
    }
}

#[derive(Debug, Default)]
struct Entry {
    leases: Vec<TimedName>,
    used: u64,
}

/// Address and network namespace. The address comes first so that the namespaces that know it are adjacent.
type Key = (IpAddr, u32);

/// The answers seen so far.
///
/// Expired answers stay until they are evicted, because names are also looked up at the end of a connection, for the
/// time at which it was opened.
#[derive(Debug, Default)]
pub struct NameCache {
    slots: BTreeMap<Key, Entry>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    len: usize,
}

impl NameCache {
    /// Records an answer received in `netns` (inode number) at `time` (ns since boot).
    pub fn learn(&mut self, netns: u32, time: u64, binding: &Binding) {
        let ttl = u64::from(binding.ttl.max(TTL_FLOOR_S));
        let until = time.saturating_add(ttl * NS_PER_S);
        let key = (binding.addr.to_canonical(), netns);
        let leases = &mut self.slots.entry(key).or_default().leases;
        let before = leases.len();
        let mut lease = TimedName { name: binding.name.clone(), since: time, answered: time, until };
        if let Some(known) = leases.iter().position(|known| known.name == lease.name) {
            let known = leases.remove(known);
            if known.holds(time) {
                lease.since = known.since;
                // A program may still be using an earlier answer.
                lease.until = until.max(known.until);
            }
        }
        leases.insert(0, lease);
        leases.truncate(NAMES_PER_ADDRESS);
        self.len += leases.len() - before;
        self.touch(key);
        self.shrink();
    }

    /// The names that resolved to `addr` in `netns` at the time `at`; if there are none, those from the host's other
    /// namespaces, as a guess.
    pub fn names(&mut self, netns: u32, addr: IpAddr, at: u64) -> Names {
        let key = (addr.to_canonical(), netns);
        let own = self.slots.get(&key).map(|slot| list(held(slot, at)));
        if let Some(names) = own.filter(|names| !names.is_empty()) {
            self.touch(key);
            return Names::new(names, false);
        }
        let names = if is_shared(key.0) { self.guess(key.0, at) } else { Vec::new() };
        Names::new(names, true)
    }

    fn guess(&self, addr: IpAddr, at: u64) -> Vec<Rc<str>> {
        let everywhere = self.slots.range((addr, 0)..=(addr, u32::MAX)).take(GUESSES_MAX);
        let mut leases: Vec<_> = everywhere.flat_map(|(_, slot)| held(slot, at)).collect();
        leases.sort_by(|a, b| b.answered.cmp(&a.answered).then_with(|| a.name.cmp(&b.name)));
        list(leases)
    }

    fn touch(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        self.uses += 1;
        self.by_use.remove(&slot.used);
        slot.used = self.uses;
        self.by_use.insert(slot.used, key);
    }

    fn shrink(&mut self) {
        while self.len > NAMES_MAX {
            let Some((_, key)) = self.by_use.pop_first() else {
                return;
            };
            let gone = self.slots.remove(&key).map_or(0, |slot| slot.leases.len());
            self.len -= gone;
        }
    }
}

fn held(slot: &Entry, at: u64) -> impl Iterator<Item = &TimedName> {
    slot.leases.iter().filter(move |lease| lease.holds(at))
}

fn list<'a>(leases: impl IntoIterator<Item = &'a TimedName>) -> Vec<Rc<str>> {
    let mut names: Vec<Rc<str>> = Vec::new();
    for lease in leases {
        if names.len() < NAMES_PER_ADDRESS && !names.contains(&lease.name) {
            names.push(lease.name.clone());
        }
    }
    names
}

/// Whether the address means the same host in every namespace. Loopback and link-local addresses do not.
fn is_shared(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()),
    }
}

#[cfg(test)]
mod tests;
