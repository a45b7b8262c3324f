//! The summary of a run.

use std::{borrow::Borrow, collections::BTreeMap, hash::Hash, rc::Rc, time::Duration};

use foldhash::{HashMap, HashMapExt};

use super::vocabulary;
use crate::{
    event::{Direction, EventKind, Failure, Lifecycle, Zoned},
    record::Record,
    source::Lost,
};

/// Maximum number of processes and of remote ends tracked. Further ones are counted together, so memory is bounded.
const MAX_TRACKED_KEYS: usize = 16_384;

/// The counts of a run.
#[derive(Debug, Default)]
pub struct Summary {
    /// The number of events by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// The number of failures by error.
    pub failures: HashMap<Failure, u64>,
    /// Traffic by path of the executable.
    pub processes: Tally<String>,
    /// Traffic by remote end.
    pub remotes: Tally<Remote>,
    /// The most recent name of each remote address.
    pub names: HashMap<Zoned, Rc<str>>,
    /// The number of process records read.
    pub images: u64,
    /// What was lost, by cause.
    pub lost: Lost,
    /// The duration of the run; for a recording, from its first event to its last.
    pub elapsed: Duration,
}

/// A remote end. The port is included only if this host connected to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Remote {
    /// The IP address of the remote end, with its zone.
    pub address: Zoned,
    /// The remote port, if it identifies a service.
    pub port: Option<u16>,
}

/// The connections of one process or remote end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The number of connections opened or accepted.
    pub opened: u64,
    /// The number of connections closed.
    pub closed: u64,
    /// The number of connection attempts that failed.
    pub failed: u64,
    /// Bytes of payload sent on closed connections.
    pub bytes_sent: u64,
    /// Bytes of payload received on closed connections.
    pub bytes_received: u64,
}

impl Traffic {
    fn add(&mut self, kind: &EventKind) {
        match kind.lifecycle() {
            Lifecycle::Open => self.opened += 1,
            Lifecycle::Fail => self.failed += 1,
            Lifecycle::Close => {
                let bytes = kind.close().and_then(|close| close.bytes);
                self.closed += 1;
                self.bytes_sent += bytes.map_or(0, |bytes| bytes.sent);
                self.bytes_received += bytes.map_or(0, |bytes| bytes.received);
            }
            Lifecycle::Attempt
            | Lifecycle::Begin
            | Lifecycle::Existing
            | Lifecycle::Continue
            | Lifecycle::StopListening => {}
        }
    }

    /// Connections seen, at their beginning or at their end.
    pub fn connections(&self) -> u64 {
        self.opened.max(self.closed)
    }

    fn weight(&self) -> (u64, u64) {
        (self.connections() + self.failed, self.bytes_sent + self.bytes_received)
    }
}

/// Traffic by key, for a bounded number of keys.
#[derive(Debug)]
pub struct Tally<K> {
    known: HashMap<K, Traffic>,
    others: Traffic,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Tally { known: HashMap::new(), others: Traffic::default() }
    }
}

impl<K: Eq + Hash + Ord> Tally<K> {
    fn add<Q>(&mut self, key: &Q, kind: &EventKind)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(traffic) = self.known.get_mut(key) {
            return traffic.add(kind);
        }
        let new = if self.known.len() < MAX_TRACKED_KEYS {
            self.known.entry(key.to_owned()).or_default()
        } else {
            &mut self.others
        };
        new.add(kind);
    }

    /// Sets the traffic of a key.
    #[cfg(test)]
    pub(crate) fn insert(&mut self, key: K, traffic: Traffic) {
        self.known.insert(key, traffic);
    }

    /// The `count` most active keys, most active first.
    pub fn top(&self, count: usize) -> Vec<(&K, Traffic)> {
        let mut all: Vec<_> = self.known.iter().map(|(key, traffic)| (key, *traffic)).collect();
        all.sort_by(|(a, one), (b, other)| other.weight().cmp(&one.weight()).then(a.cmp(b)));
        all.truncate(count);
        all
    }

    /// The traffic of all keys beyond the limit.
    pub fn others(&self) -> Traffic {
        self.others
    }
}

impl Summary {
    /// Adds an event to the counts.
    pub fn add(&mut self, record: &Record) {
        let event = &record.event;
        *self.events.entry(vocabulary::event(&event.kind)).or_default() += 1;
        if let EventKind::Fail { error, .. } = &event.kind {
            *self.failures.entry(*error).or_default() += 1;
        }
        let direction = match event.kind.lifecycle() {
            Lifecycle::Open | Lifecycle::Fail | Lifecycle::Close => event.kind.direction(),
            // does not establish or end a connection
            Lifecycle::Attempt
            | Lifecycle::Begin
            | Lifecycle::Existing
            | Lifecycle::Continue
            | Lifecycle::StopListening => return,
        };
        let port = (direction == Some(Direction::Egress)).then_some(event.remote.port());
        let address = event.zoned(event.remote.ip());
        self.remotes.add(&Remote { address, port }, &event.kind);
        if let Some(name) = record.names.all().first()
            && (self.names.len() < MAX_TRACKED_KEYS || self.names.contains_key(&address))
        {
            self.names.insert(address, Rc::clone(name));
        }
        let process = record.process.as_deref().map(|known| &known.process);
        let path = process.map_or("?", |process| match process.binary_path.as_str() {
            "" => &process.filename,
            path => path,
        });
        self.processes.add(path, &event.kind);
    }

    /// The number of events of all kinds.
    pub fn total(&self) -> u64 {
        self.events.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: EventKind = EventKind::Connect { latency: None };

    #[test]
    fn the_most_active_come_first() {
        let mut tally = Tally::<String>::default();
        for name in ["one", "three", "two", "three", "two", "three"] {
            tally.add(name, &OPENED);
        }
        let top: Vec<_> = tally.top(2).into_iter().map(|(name, did)| (name.as_str(), did.opened)).collect();
        assert_eq!(top, [("three", 3), ("two", 2)]);
    }

    #[test]
    fn memory_is_bounded_and_all_traffic_is_counted() {
        let mut tally = Tally::<String>::default();
        for number in 0..MAX_TRACKED_KEYS + 10 {
            tally.add(number.to_string().as_str(), &OPENED);
        }
        tally.add("0", &OPENED);
        assert_eq!(tally.known.len(), MAX_TRACKED_KEYS);
        assert_eq!(tally.others().opened, 10);
        assert_eq!(tally.top(1)[0].1.opened, 2);
    }
}
