//! Whole runs on scripted records.

use std::{
    cell::RefCell,
    collections::{HashSet, VecDeque},
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;
use crate::{
    event::{BootTime, Container, ImageId, Process},
    process::SWEEP_AT,
    tracer::{layout::netmon_kind as kinds, wire::samples},
};

/// The calls that a session made to its source, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Read,
    Detach,
    InUse,
}

/// Returns its batches one at a time, and the remaining records after it is detached.
struct Script {
    batches: VecDeque<Vec<Vec<u8>>>,
    after_detach: VecDeque<Vec<Vec<u8>>>,
    open: bool,
    lost: Lost,
    /// Set when the batches have been read, like Ctrl-C.
    finished: Arc<AtomicBool>,
    asked: Rc<RefCell<Vec<Asked>>>,
    never_readable: OwnedFd,
    _writer: OwnedFd,
}

impl Script {
    fn new(batches: Vec<Vec<Vec<u8>>>) -> Script {
        let (never_readable, _writer) = nix::unistd::pipe().expect("a pipe");
        Script {
            batches: batches.into(),
            after_detach: VecDeque::new(),
            open: false,
            lost: Lost::default(),
            finished: Arc::default(),
            asked: Rc::default(),
            never_readable,
            _writer,
        }
    }
}

impl Source for Script {
    fn ready_fd(&self) -> BorrowedFd<'_> {
        self.never_readable.as_fd()
    }

    fn read(&mut self, into: &mut Batch) -> Result<()> {
        self.asked.borrow_mut().push(Asked::Read);
        let mut records = Batch::default();
        match self.batches.pop_front() {
            Some(batch) => batch.iter().for_each(|record| records.push(record)),
            None => self.finished.store(true, Ordering::Relaxed),
        }
        into.swap(&mut records);
        Ok(())
    }

    fn visit_existing(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn has_open(&self) -> bool {
        self.open
    }

    fn detach(&mut self) {
        self.asked.borrow_mut().push(Asked::Detach);
        self.batches = std::mem::take(&mut self.after_detach);
    }

    fn lost(&self) -> Lost {
        self.lost
    }

    fn images_in_use(&mut self) -> Result<HashSet<ImageId>> {
        self.asked.borrow_mut().push(Asked::InUse);
        Ok(HashSet::new())
    }
}

struct Clock;

impl Host for Clock {
    fn wall_offset(&self) -> i128 {
        0
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

/// The clocks, in seconds since boot and since 1970, for each read of the source.
struct Clocks(RefCell<VecDeque<(u64, u64)>>);

const SECOND: u64 = 1_000_000_000;

impl Host for Clocks {
    fn wall_offset(&self) -> i128 {
        let (boot, wall) = self.0.borrow()[0];
        (i128::from(wall) - i128::from(boot)) * i128::from(SECOND)
    }

    fn boot_time(&self) -> BootTime {
        if self.0.borrow().len() > 1 {
            self.0.borrow_mut().pop_front();
        }
        BootTime(self.0.borrow()[0].0 * SECOND)
    }

    fn args(&self, _: &Process) -> Option<String> {
        None
    }

    fn container(&self, _: &str) -> Option<Rc<Container>> {
        None
    }
}

/// A sink that records the second since 1970 of each event.
struct Seconds(Vec<i128>);

impl Sink for Seconds {
    fn begin(&mut self, _: &mut Vec<u8>) {}

    fn write(&mut self, record: &Record, _: &mut Vec<u8>) {
        self.0.push(record.wall_ns / i128::from(SECOND));
    }

    fn end(&mut self, _: &mut Vec<u8>) {}
}

/// A format that prints only the cookie of each event.
struct Cookies;

impl Sink for Cookies {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"begin\n");
    }

    fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{}\n", record.event.cookie).as_bytes());
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"end\n");
    }
}

fn connects(cookies: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    cookies.map(|cookie| samples::event(kinds::NETMON_KIND_CONNECT, cookie)).collect()
}

fn run_into(source: &mut Script, stop: Stop, existing: ExistingSockets, output: OwnedFd) -> Summary {
    run_on(&Clock, &mut Cookies, source, stop, existing, output, &mut || None)
}

fn run_on(
    host: &impl Host,
    sink: &mut dyn Sink,
    source: &mut Script,
    stop: Stop,
    existing: ExistingSockets,
    output: OwnedFd,
    next_output: &mut dyn FnMut() -> Option<OwnedFd>,
) -> Summary {
    let mut output = Writer::new(output);
    let session = Session {
        source,
        host,
        sink,
        output: &mut output,
        next_output,
        stop,
        existing,
        asked: Default::default(),
        rules: Vec::new(),
        dns: DnsTracker::default(),
        dns_filter: None,
    };
    session.run().expect("a run")
}

/// Returns the printed lines and the summary. The output must fit into a pipe.
fn run(source: &mut Script, stop: Stop) -> (Vec<String>, Summary) {
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    let summary = run_into(source, stop, ExistingSockets::default(), writer);
    let mut text = String::new();
    std::fs::File::from(reader).read_to_string(&mut text).expect("text");
    (text.lines().map(str::to_owned).collect(), summary)
}

fn until_finished(source: &Script) -> Stop {
    Stop::new(Arc::clone(&source.finished), None, None)
}

#[test]
fn waiting_records_are_read_after_detaching() {
    let mut source = Script::new(vec![connects(1..3)]);
    source.after_detach = [connects(3..4), connects(4..5)].into();
    let stop = until_finished(&source);
    let (lines, summary) = run(&mut source, stop);
    assert_eq!(lines, ["begin", "1", "2", "3", "4", "end"]);
    assert_eq!(summary.total(), 4);
    use Asked::{Detach, Read};
    assert_eq!(*source.asked.borrow(), [Read, Read, Detach, Read, Read, Read]);
}

#[test]
fn later_events_go_to_the_next_output() {
    let mut source = Script::new(vec![connects(1..3), connects(3..4), connects(4..6)]);
    let stop = until_finished(&source);
    let (readers, writers): (Vec<_>, Vec<_>) =
        [(), ()].map(|()| nix::unistd::pipe().expect("a pipe")).into_iter().unzip();
    let [first, second] = <[OwnedFd; 2]>::try_from(writers).expect("two");
    let mut outputs = [None, None, Some(second)].into_iter();
    let existing = ExistingSockets::default();
    run_on(&Clock, &mut Cookies, &mut source, stop, existing, first, &mut || outputs.next().flatten());
    let texts = readers.into_iter().map(|reader| std::io::read_to_string(std::fs::File::from(reader)));
    let texts: Vec<String> = texts.map(|text| text.expect("text")).collect();
    assert_eq!(texts, ["begin\n1\n2\n3\n", "begin\n4\n5\nend\n"]);
}

#[test]
fn no_more_events_are_printed_than_were_asked_for() {
    let mut source = Script::new(vec![connects(1..3), connects(3..9)]);
    source.after_detach = [connects(9..12)].into();
    let (lines, summary) = run(&mut source, Stop::new(Arc::default(), None, Some(4)));
    assert_eq!(lines, ["begin", "1", "2", "3", "4", "end"]);
    assert_eq!(summary.total(), 4);
}

#[test]
fn losses_of_source_and_reader_are_counted() {
    let broken = vec![vec![], vec![255; 40], samples::event(kinds::NETMON_KIND_CLOSE, 1)[..9].to_vec()];
    let bad_answer = samples::answer(b"no message");
    let mut source = Script::new(vec![[broken, vec![bad_answer]].concat(), connects(1..2)]);
    source.lost = Lost { ring: 5, table: 6, ..Lost::default() };
    let stop = until_finished(&source);
    let (lines, summary) = run(&mut source, stop);
    assert_eq!(lines, ["begin", "1", "end"]);
    assert_eq!(summary.lost, Lost { ring: 5, table: 6, undecodable: 3, bad_answers: 1, ..Lost::default() });
}

#[test]
fn events_not_read_by_a_stopped_reader_are_counted() {
    let events = 40_000;
    let mut source = Script::new(vec![connects(1..events + 1)]);
    source.after_detach = [connects(events + 1..events + 11)].into();
    source.finished.store(true, Ordering::Relaxed);
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    // The signal arrives while the first batch is being written.
    let pending = source.batches.drain(..).flatten().fold(Batch::default(), |mut batch, record| {
        batch.push(&record);
        batch
    });
    let stop = until_finished(&source);
    let existing = ExistingSockets { pending, ..ExistingSockets::default() };
    let summary = run_into(&mut source, stop, existing, writer);
    let mut text = String::new();
    std::fs::File::from(reader).read_to_string(&mut text).expect("text");
    let printed = text.matches('\n').count() as u64 - 1; // without `begin`
    assert!(printed < events, "a pipe does not hold so much");
    assert_eq!(printed + summary.lost.undelivered, events + 10);
}

#[test]
fn a_closed_output_ends_the_run() {
    let mut source = Script::new(vec![connects(1..3)]);
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    drop(reader);
    let summary =
        run_into(&mut source, Stop::new(Arc::default(), None, None), ExistingSockets::default(), writer);
    assert_eq!(summary.lost, Lost::default());
    assert!(source.asked.borrow().contains(&Asked::Detach));
}

#[test]
fn a_command_that_ended_is_waited_for_only_while_connections_are_open() {
    let ended = Arc::new(OnceLock::new());
    ended.set(Instant::now()).expect("set once");
    let mut source = Script::new(vec![connects(1..2)]);
    let stop = Stop::new(Arc::default(), None, None).after(Arc::clone(&ended));
    let (lines, _) = run(&mut source, stop.clone());
    assert_eq!(lines, ["begin", "1", "end"]);
    let reads = source.asked.borrow().iter().filter(|asked| **asked == Asked::Read).count();
    assert_eq!(reads, 3, "one with records, one without, and the drain");

    let mut source = Script::new(vec![connects(1..2)]);
    source.open = true;
    run(&mut source, stop);
    let reads = source.asked.borrow().iter().filter(|asked| **asked == Asked::Read).count();
    assert!(reads > 3, "it goes on reading until the grace second is over");
}

#[test]
fn processes_are_swept_when_there_are_many() {
    let processes = |ids: std::ops::Range<u64>| ids.map(samples::process).collect::<Vec<_>>();
    let most = SWEEP_AT as u64;
    let mut source = Script::new(vec![processes(1..most), connects(1..2), processes(most..most + 1)]);
    let stop = until_finished(&source);
    let (_, summary) = run(&mut source, stop);
    assert_eq!(summary.images, most);
    let sweeps = source.asked.borrow().iter().filter(|asked| **asked == Asked::InUse).count();
    assert_eq!(sweeps, 1);
}

/// Both clocks include suspends; setting the wall clock affects the events read afterwards.
#[test]
fn times_survive_a_suspend_and_follow_the_wall_clock() {
    let at = |second: u64| {
        let raw = samples::raw_event(kinds::NETMON_KIND_CONNECT, second);
        samples::bytes(&crate::tracer::layout::netmon_event { time: second * SECOND, ..raw })
    };
    let mut source = Script::new(vec![vec![at(9)], vec![at(10), at(3611)], vec![at(3612)]]);
    // an hour of suspend; then the wall clock is set a day ahead
    let readings = [(0, 0), (10, 1010), (3612, 4612), (3613, 91_013)];
    let (host, mut sink) = (Clocks(RefCell::new(readings.into())), Seconds(Vec::new()));
    let (_reader, writer) = nix::unistd::pipe().expect("a pipe");
    let stop = until_finished(&source);
    run_on(&host, &mut sink, &mut source, stop, ExistingSockets::default(), writer, &mut || None);
    assert_eq!(sink.0, [1009, 1010, 4611, 91_012]);
}
