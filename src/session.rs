//! A run: from the source to the sink until it is told to stop.

use std::{
    collections::HashSet,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    dns::Namer,
    enrich::Record,
    event::{Event, ImageId},
    host::Host,
    judge::Judge,
    output::{Flushed, Output, is_gone},
    process::ProcessTable,
    sink::Sink,
    stop::Stop,
    summary::Summary,
    survey::Survey,
    wire::{Decoded, decode},
};

/// The kernel side does not wake us for each record; we come this often.
const TICK: Duration = Duration::from_millis(20);

/// Sockets that exist at the start, printed between two looks at whether to stop.
const PART: usize = 512;

/// Where records come from.
pub trait Source {
    /// Readable when records wait and the source thinks it is time.
    fn ready_fd(&self) -> BorrowedFd<'_>;
    /// Take waiting records; an empty batch when there are none.
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    fn read(&mut self, into: &mut Batch) -> Result<()>;
    /// Visit some of the sockets that exist, whose records can then be read; false when all were.
    ///
    /// # Errors
    /// When an iterator cannot be read any more.
    fn survey(&mut self) -> Result<bool>;
    /// Whether a connection that has an owner is open.
    fn has_open(&self) -> bool;
    /// Stop producing records. Those that wait can still be read.
    fn detach(&mut self);
    /// What was lost so far on the kernel side.
    fn lost(&self) -> Lost;
    /// The images that open connections refer to. Records sent before the call and not among
    /// them are sent again before they are next referred to.
    ///
    /// # Errors
    /// When the connection table cannot be read.
    fn images_in_use(&mut self) -> Result<HashSet<ImageId>>;
}

/// Records one after the other in one piece of memory.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Append a copy of one record.
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// Exchange with an empty one.
    pub fn swap(&mut self, other: &mut Batch) {
        self.bytes.clear();
        self.ends.clear();
        std::mem::swap(self, other);
    }

    /// No record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }
}

/// What was lost, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Lost {
    /// Events: the ring was full.
    pub ring: u64,
    /// Connections: the connection table was full.
    pub table: u64,
    /// Process records: the ring was full, or no memory.
    pub process: u64,
    /// Processes of the command that could not be followed.
    pub follow: u64,
    /// Events: the kernel skipped the program, it was already running on that CPU.
    pub missed: u64,
    /// DNS answers: the ring was more than half full.
    pub answers: u64,
    /// Records this build cannot read.
    pub undecodable: u64,
    /// DNS answers that cannot be understood.
    pub bad_answers: u64,
    /// Events that were never taken by the reader of our output.
    pub undelivered: u64,
}

/// A run in progress.
pub struct Session<'a, S, H, Fd> {
    /// Where records come from.
    pub source: &'a mut S,
    /// The machine.
    pub host: &'a H,
    /// The format.
    pub sink: &'a mut dyn Sink,
    /// Where lines go.
    pub output: &'a mut Output<Fd>,
    /// When to stop.
    pub stop: Stop,
    /// What exists at the start.
    pub survey: Survey,
    /// What remote ends are called.
    pub namer: Namer,
    /// Who has the last word on what is shown, where the kernel cannot.
    pub judge: Option<Judge>,
}

impl<S: Source, H: Host, Fd: AsFd> Session<'_, S, H, Fd> {
    /// Go on until `stop` says no more, or the reader of the output is gone.
    ///
    /// # Errors
    /// When the source cannot be read or the output cannot be written.
    pub fn run(mut self) -> Result<Summary> {
        let started = Instant::now();
        let Survey { sockets, mut table, pending } = std::mem::take(&mut self.survey);
        let mut summary = Summary { images: table.len() as u64, ..Summary::default() };
        let mut batch = Batch::default();

        self.sink.begin(self.output.buffer());
        let mut end = self.flush()?;
        for part in sockets.chunks(PART) {
            if end == Flushed::All {
                end = self.print(part, &table, &mut summary)?;
            }
        }
        if end == Flushed::All {
            end = self.take(&pending, &mut table, &mut summary)?;
        }
        while let (Flushed::All, Some(left)) = (end, self.stop.left(Instant::now())) {
            let before = self.host.boot_time();
            self.source.read(&mut batch)?;
            if batch.is_empty() {
                table.passed(before);
                if self.stop.only_waits_for_closes() && !self.source.has_open() {
                    break;
                }
                if self.wait(left.min(TICK)) {
                    end = Flushed::ReaderGone;
                }
                continue;
            }
            end = self.take(&batch, &mut table, &mut summary)?;
            if table.is_crowded() {
                table.begin_sweep();
                table.answered(self.source.images_in_use()?, self.host.boot_time());
            }
        }

        summary.elapsed = started.elapsed();
        // In this order what is counted as lost is lost, and nothing else.
        self.source.detach();
        while end == Flushed::All && self.stop.admits() {
            self.source.read(&mut batch)?;
            if batch.is_empty() {
                break;
            }
            end = self.take(&batch, &mut table, &mut summary)?;
        }
        if end == Flushed::All {
            self.sink.end(self.output.buffer());
            end = self.flush()?;
        }
        let Lost { undecodable, bad_answers, .. } = summary.lost;
        summary.lost = Lost { undecodable, bad_answers, ..self.source.lost() };
        if end == Flushed::GaveUp {
            summary.lost.undelivered = self.output.pending_lines() + self.abandon(&mut batch)?;
        }
        Ok(summary)
    }

    /// Print some of what exists at the start.
    fn print(&mut self, sockets: &[Event], table: &ProcessTable, summary: &mut Summary) -> Result<Flushed> {
        let wall_offset = self.host.wall_offset();
        for event in sockets {
            if self.stop.admits() {
                self.show(event.clone(), table, wall_offset, summary);
            }
        }
        self.flush()
    }

    fn show(&mut self, event: Event, table: &ProcessTable, wall_offset: i128, summary: &mut Summary) {
        let names = self.namer.names(&event);
        let mut record = Record::new(event, names, table, wall_offset);
        if self.judge.as_mut().is_some_and(|judge| !judge.admits(&mut record)) {
            return;
        }
        summary.add(&record);
        self.sink.write(&record, self.output.buffer());
        self.stop.counted();
    }

    /// Print a batch. All of it is written before the next is taken: a reader that is slower
    /// than the events fills the ring, where losses are counted, and not our memory.
    fn take(&mut self, batch: &Batch, table: &mut ProcessTable, summary: &mut Summary) -> Result<Flushed> {
        let wall_offset = self.host.wall_offset();
        for bytes in batch.iter() {
            match decode(bytes) {
                Ok(Decoded::Event(event)) if self.stop.admits() => {
                    table.passed(event.time);
                    self.show(event, table, wall_offset, summary);
                }
                Ok(Decoded::Event(_)) => break,
                Ok(Decoded::Process(id, process)) => {
                    summary.images += 1;
                    table.insert(id, *process, self.host);
                }
                Ok(Decoded::Answer(answer)) => {
                    summary.lost.bad_answers += u64::from(self.namer.hear(&answer).is_err());
                }
                Err(_) => summary.lost.undecodable += 1,
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<Flushed> {
        let stop = &self.stop;
        self.output.flush(|| stop.gives_up(Instant::now())).context("write the output")
    }

    /// Wait for records; returns whether the reader of the output went away.
    fn wait(&self, at_most: Duration) -> bool {
        let mut fds = [
            PollFd::new(self.output.fd(), PollFlags::empty()),
            PollFd::new(self.source.ready_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let outcome = poll(&mut fds, timeout);
        is_gone(outcome, &fds[..1])
    }

    /// Count the events that wait and will not be printed.
    fn abandon(&mut self, batch: &mut Batch) -> Result<u64> {
        let mut events = 0;
        loop {
            self.source.read(batch)?;
            if batch.is_empty() {
                return Ok(events);
            }
            events +=
                batch.iter().filter(|bytes| matches!(decode(bytes), Ok(Decoded::Event(_)))).count() as u64;
        }
    }
}
