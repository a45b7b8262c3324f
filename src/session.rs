//! A run: from the source to the sink until it is to stop.

use std::{
    net::SocketAddr,
    os::fd::AsFd,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    dns::{DnsTracker, per_connection::PerConnection},
    event::{Event, Lifecycle},
    filter::Verdict,
    host::Host,
    output::{
        Sink,
        summary::Summary,
        writer::{Flushed, Writer, is_gone},
    },
    process::ProcessTable,
    record::Record,
    source::{Batch, Lost, Source},
    tracer::wire::{Decoded, decode},
};

pub mod dns_filter;
pub mod existing;
pub mod stop;

use dns_filter::DnsFilter;
use existing::{ExistingSockets, insert};
use stop::Stop;

/// The kernel side does not wake us for each record; we come this often.
const TICK: Duration = Duration::from_millis(20);

/// Bytes of lines that wait for one write(2), at most: what a pipe takes at a time.
const LINES_MAX: usize = 1 << 16;

/// Sockets that exist at the start, printed between two looks at whether to stop.
const CHUNK: usize = 512;

/// A run in progress.
pub struct Session<'a, S, H, Fd> {
    /// Where records come from.
    pub source: &'a mut S,
    /// The machine.
    pub host: &'a H,
    /// The format.
    pub sink: &'a mut dyn Sink,
    /// Where lines go.
    pub output: &'a mut Writer<Fd>,
    /// When to stop.
    pub stop: Stop,
    /// What exists at the start.
    pub existing: ExistingSockets,
    /// Where connections were to go that went elsewhere.
    pub asked: PerConnection<SocketAddr>,
    /// What remote ends are called.
    pub dns: DnsTracker,
    /// Names of the rules, by number.
    pub rules: Vec<Option<Rc<str>>>,
    /// The filter on names, where there is one.
    pub dns_filter: Option<DnsFilter>,
}

impl<S: Source, H: Host, Fd: AsFd> Session<'_, S, H, Fd> {
    /// Go on until `stop` says no more, or the reader of the output is gone.
    ///
    /// # Errors
    /// When the source cannot be read or the output cannot be written.
    pub fn run(mut self) -> Result<Summary> {
        let started = Instant::now();
        let ExistingSockets { sockets, mut table, pending } = std::mem::take(&mut self.existing);
        let mut summary = Summary { images: table.len() as u64, ..Summary::default() };
        let mut batch = Batch::default();

        self.sink.begin(self.output.buffer());
        let mut end = self.flush()?;
        for part in sockets.chunks(CHUNK) {
            if end == Flushed::All {
                end = self.print(part, &table, &mut summary)?;
            }
        }
        if end == Flushed::All {
            end = self.take(&pending, &mut table, &mut summary)?;
        }
        while let (Flushed::All, Some(left)) = (end, self.stop.remaining(Instant::now())) {
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
        while end == Flushed::All && self.stop.wants_more() {
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
        let Lost { undecodable, bad_answers, undelivered, .. } = summary.lost;
        summary.lost = Lost { undecodable, bad_answers, ..self.source.lost() };
        if end == Flushed::GaveUp {
            summary.lost.undelivered =
                undelivered + self.output.pending_lines() + self.abandon(&mut batch)?;
        }
        Ok(summary)
    }

    /// Print some of what exists at the start.
    fn print(&mut self, sockets: &[Event], table: &ProcessTable, summary: &mut Summary) -> Result<Flushed> {
        let wall_offset = self.host.wall_offset();
        self.sink.begin_batch();
        for event in sockets {
            if self.stop.wants_more() {
                self.show(event.clone(), table, wall_offset, summary);
            }
        }
        self.flush()
    }

    fn show(&mut self, mut event: Event, table: &ProcessTable, wall_offset: i128, summary: &mut Summary) {
        event.asked = match event.kind.lifecycle() {
            Lifecycle::Close | Lifecycle::Fail => self.asked.remove(event.connection()),
            _ => self.asked.get(event.connection()).copied(),
        };
        let names = self.dns.names(&event);
        let mut record = Record::new(event, names, |id| table.get(id), wall_offset);
        if let Some(filter) = &mut self.dns_filter {
            let Verdict::Admitted(rule) = filter.evaluate(&record) else { return };
            record.event.rule = rule.and_then(|index| u16::try_from(index).ok());
        }
        let rule = record.event.rule.map(usize::from);
        record.rule = rule.and_then(|rule| self.rules.get(rule)?.clone());
        summary.add(&record);
        self.sink.write(&record, self.output.buffer());
        self.stop.record_printed();
    }

    /// Print a batch. All of it is written before the next is taken: a reader that is slower
    /// than the events fills the ring, where losses are counted, and not our memory.
    fn take(&mut self, batch: &Batch, table: &mut ProcessTable, summary: &mut Summary) -> Result<Flushed> {
        let wall_offset = self.host.wall_offset();
        self.sink.begin_batch();
        let mut end = Flushed::All;
        for bytes in batch.iter() {
            match decode(bytes) {
                Ok(Decoded::Event(_)) if end != Flushed::All => summary.lost.undelivered += 1,
                Ok(Decoded::Event(event)) if self.stop.wants_more() => {
                    table.passed(event.time);
                    self.show(event, table, wall_offset, summary);
                    if self.output.buffer().len() >= LINES_MAX {
                        end = self.flush()?;
                    }
                }
                Ok(Decoded::Event(_)) => break,
                Ok(Decoded::Process(id, process)) => {
                    summary.images += 1;
                    insert(table, id, *process, self.host);
                }
                Ok(Decoded::Asked(connection, address)) => self.asked.insert(connection, address),
                Ok(Decoded::Answer(answer)) => {
                    summary.lost.bad_answers += u64::from(self.dns.observe(&answer).is_err());
                }
                Err(_) => summary.lost.undecodable += 1,
            }
        }
        if end == Flushed::All { self.flush() } else { Ok(end) }
    }

    fn flush(&mut self) -> Result<Flushed> {
        let stop = &self.stop;
        self.output.flush(|stalled| stop.abandons_output(Instant::now(), stalled)).context("write the output")
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

#[cfg(test)]
mod tests;
