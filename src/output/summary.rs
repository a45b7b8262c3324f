//! What a run amounted to.

use std::{borrow::Borrow, collections::BTreeMap, hash::Hash, net::IpAddr, rc::Rc, time::Duration};

use foldhash::{HashMap, HashMapExt};

use super::vocabulary;
use crate::{
    event::{Direction, EventKind, Failure, Lifecycle},
    record::Record,
    source::Lost,
};

/// How many processes, and how many remote ends, are tracked. Memory stays bounded however
/// many there are; those that come later are counted together.
const MAX_TRACKED_KEYS: usize = 16_384;

/// How a run went.
#[derive(Debug, Default)]
pub struct Summary {
    /// Events by name.
    pub events: BTreeMap<&'static str, u64>,
    /// Failures by error.
    pub failures: HashMap<Failure, u64>,
    /// By executable.
    pub processes: Tally<String>,
    /// By remote end.
    pub remotes: Tally<Remote>,
    /// What remote ends were called last.
    pub names: HashMap<IpAddr, Rc<str>>,
    /// Process records read.
    pub images: u64,
    /// What was lost.
    pub lost: Lost,
    /// How long it took.
    pub elapsed: Duration,
}

/// The other end. Its port names a service only where this host connected to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Remote {
    /// Where.
    pub address: IpAddr,
    /// Which service.
    pub port: Option<u16>,
}

/// What someone did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections opened or accepted.
    pub opened: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Connections that did not come up.
    pub failed: u64,
    /// Payload of those that ended.
    pub bytes_sent: u64,
    /// Payload of those that ended.
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

    /// Connections seen, whether at their beginning or at their end.
    pub fn connections(&self) -> u64 {
        self.opened.max(self.closed)
    }

    fn weight(&self) -> (u64, u64) {
        (self.connections() + self.failed, self.bytes_sent + self.bytes_received)
    }
}

/// Who did what.
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

    /// Someone who did all this.
    #[cfg(test)]
    pub(crate) fn insert(&mut self, key: K, traffic: Traffic) {
        self.known.insert(key, traffic);
    }

    /// The most active, in order.
    pub fn top(&self, count: usize) -> Vec<(&K, Traffic)> {
        let mut all: Vec<_> = self.known.iter().map(|(key, traffic)| (key, *traffic)).collect();
        all.sort_by(|(a, one), (b, other)| other.weight().cmp(&one.weight()).then(a.cmp(b)));
        all.truncate(count);
        all
    }

    /// What was done by those beyond the limit.
    pub fn others(&self) -> Traffic {
        self.others
    }
}

impl Summary {
    /// Count an event.
    pub fn add(&mut self, record: &Record) {
        let event = &record.event;
        *self.events.entry(vocabulary::event(&event.kind)).or_default() += 1;
        if let EventKind::Fail { error, .. } = &event.kind {
            *self.failures.entry(*error).or_default() += 1;
        }
        let direction = match event.kind.lifecycle() {
            Lifecycle::Open | Lifecycle::Fail | Lifecycle::Close => event.kind.direction(),
            // no connection that came up, failed or ended
            Lifecycle::Attempt
            | Lifecycle::Begin
            | Lifecycle::Existing
            | Lifecycle::Continue
            | Lifecycle::StopListening => return,
        };
        let port = (direction == Some(Direction::Egress)).then_some(event.remote.port());
        let address = event.remote.ip();
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

    /// How many events.
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
    fn memory_is_bounded_and_nothing_goes_uncounted() {
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
