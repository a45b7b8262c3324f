//! Runs the reader without a kernel: records of connections, from memory to a descriptor.

use std::{
    collections::HashSet,
    fs::File,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tcptrace::{
    dns::DnsTracker,
    event::{BootTime, Container, ImageId, Process},
    host::Host,
    output::{self, Format, Options, Sink, writer::Writer},
    session::{Session, existing::ExistingSockets, stop::Stop},
    source::{Batch, Lost, Source},
    tracer::{
        layout::{netmon_event, netmon_flag, netmon_kind},
        wire::samples,
    },
};

/// The number of executables, and of processes with open connections.
const PROCESSES: u64 = 100;
/// Records per batch: as many as the tracer takes from the ring at a time.
const BATCH: usize = 1024;
/// Events per connection.
const EVENTS: usize = 4;

/// A run that prints to /dev/null.
pub struct Run {
    source: Connections,
    sink: Box<dyn Sink>,
    output: Writer<OwnedFd>,
    events: usize,
}

impl Run {
    /// A run in this format, or only a summary, over this many batches of events.
    pub fn new(format: Option<Format>, color: bool, batches: usize) -> Run {
        let null = || OwnedFd::from(File::options().write(true).open("/dev/null").expect("/dev/null"));
        let options = Options { color, utc: true, all_capabilities: u64::MAX, ..Default::default() };
        let metadata = || unreachable!("none of these formats has an envelope");
        Run {
            source: Connections::new(batches),
            sink: output::sink(format, options, metadata, &null()).expect("a sink"),
            output: Writer::new(null()),
            events: batches * BATCH,
        }
    }

    /// Runs to the end and returns the number of events shown, which must be all.
    pub fn finish(mut self) -> usize {
        let stop = Stop::new(Arc::clone(&self.source.finished), None, None);
        let session = Session {
            source: &mut self.source,
            host: &Clock,
            sink: &mut *self.sink,
            output: &mut self.output,
            next_output: &mut || None,
            stop,
            existing: ExistingSockets::default(),
            asked: Default::default(),
            rules: Vec::new(),
            dns: DnsTracker::default(),
            dns_filter: None,
        };
        let summary = session.run().expect("a run");
        assert_eq!(summary.total(), self.events as u64);
        self.events
    }
}

/// Loopback connections: each is opened, accepted and closed at both ends.
struct Connections {
    batches: Vec<Vec<Vec<u8>>>,
    /// How often each batch is returned.
    left: Range<usize>,
    finished: Arc<AtomicBool>,
    never_readable: OwnedFd,
    _writer: OwnedFd,
}

impl Connections {
    /// One batch of processes, then this many of events.
    fn new(batches: usize) -> Connections {
        let (never_readable, _writer) = nix::unistd::pipe().expect("a pipe");
        let processes = (1..=PROCESSES).map(samples::process).collect();
        let events: Vec<_> = (0..(BATCH / EVENTS) as u64).flat_map(connection).collect();
        Connections {
            batches: vec![processes, events],
            left: 0..batches + 1,
            finished: Arc::default(),
            never_readable,
            _writer,
        }
    }
}

/// The events of a connection, in the order of the kernel.
fn connection(number: u64) -> [Vec<u8>; EVENTS] {
    use netmon_kind as kinds;
    let image = 1 + number % PROCESSES;
    let end = |kind: netmon_kind, egress: bool| {
        let mut raw = samples::raw_event(kind, 2 * number + u64::from(egress));
        raw.time = 1_000_000 * number;
        raw.image = image;
        if !egress {
            raw.flags = (netmon_flag::NETMON_FLAG_TIMED.0 | netmon_flag::NETMON_FLAG_BACKLOG.0) as u16;
            std::mem::swap(&mut raw.flow.saddr, &mut raw.flow.daddr);
            std::mem::swap(&mut raw.flow.sport, &mut raw.flow.dport);
        }
        netmon_event { retransmits: 0, ..raw }
    };
    [
        end(kinds::NETMON_KIND_CONNECT, true),
        end(kinds::NETMON_KIND_ACCEPT, false),
        end(kinds::NETMON_KIND_CLOSE, true),
        end(kinds::NETMON_KIND_CLOSE, false),
    ]
    .map(|raw| samples::bytes(&raw))
}

impl Source for Connections {
    fn ready_fd(&self) -> BorrowedFd<'_> {
        self.never_readable.as_fd()
    }

    fn read(&mut self, into: &mut Batch) -> anyhow::Result<()> {
        into.clear();
        match self.left.next() {
            Some(turn) => self.batches[turn.min(1)].iter().for_each(|record| into.push(record)),
            None => self.finished.store(true, Ordering::Relaxed),
        }
        Ok(())
    }

    fn visit_existing(&mut self) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn has_open(&self) -> bool {
        true
    }

    fn detach(&mut self) {}

    fn lost(&self) -> Lost {
        Lost::default()
    }

    fn images_in_use(&mut self) -> anyhow::Result<HashSet<ImageId>> {
        Ok(HashSet::new())
    }
}

struct Clock;

impl Host for Clock {
    fn wall_offset(&self) -> i128 {
        1_700_000_000_000_000_000
    }

    fn boot_time(&self) -> BootTime {
        BootTime(0)
    }

    fn args(&self, _: &Process) -> Option<String> {
        None
    }

    fn container(&self, _: &str) -> Option<Rc<Container>> {
        None
    }
}
