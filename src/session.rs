//! The loop of a run: from source to sink until a stop condition holds.

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

/// Polling interval: the kernel side does not wake the reader for every record.
const TICK: Duration = Duration::from_millis(20);

/// Existing sockets printed between two checks of the stop condition.
const CHUNK: usize = 512;

/// A run in progress.
pub struct Session<'a, S, H, Fd> {
    /// The source of the records.
    pub source: &'a mut S,
    /// The machine: clocks, /proc and container names.
    pub host: &'a H,
    /// The sink of the output format.
    pub sink: &'a mut dyn Sink,
    /// The destination of lines.
    pub output: &'a mut Writer<Fd>,
    /// Polled: returns the file to continue in when it is to change.
    pub next_output: &'a mut dyn FnMut() -> Option<Fd>,
    /// The stop conditions of the run.
    pub stop: Stop,
    /// The sockets that existed at the start.
    pub existing: ExistingSockets,
    /// The address passed to connect(), for connections that a cgroup program redirected.
    pub asked: PerConnection<SocketAddr>,
    /// The names of remote ends.
    pub dns: DnsTracker,
    /// The names of the rules, by index.
    pub rules: Vec<Option<Rc<str>>>,
    /// The filter on names, if there is one.
    pub dns_filter: Option<DnsFilter>,
}

impl<S: Source, H: Host, Fd: AsFd> Session<'_, S, H, Fd> {
    /// Runs until `stop` ends it or the reader of the output is gone.
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
            if let Some(next) = (self.next_output)() {
                end = self.switch_to(next)?;
                continue;
            }
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
        // Detach first, then read the rest, then count losses: so the count is exact.
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

    /// Prints a part of the existing sockets.
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

    /// Prints a batch. It is written completely before the next one is read: if the reader is slower than the events,
    /// the ring fills up, where losses are counted, instead of our memory.
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
                    if self.output.is_full() {
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

    /// The output has no pending data: each batch is written before the next is read.
    fn switch_to(&mut self, next: Fd) -> Result<Flushed> {
        *self.output = Writer::new(next);
        self.sink.begin(self.output.buffer());
        self.flush()
    }

    fn flush(&mut self) -> Result<Flushed> {
        let stop = &self.stop;
        self.output.flush(|stalled| stop.abandons_output(Instant::now(), stalled)).context("write the output")
    }

    /// Waits for records; returns whether the reader of the output is gone.
    fn wait(&self, at_most: Duration) -> bool {
        let mut fds = [
            PollFd::new(self.output.fd(), PollFlags::empty()),
            PollFd::new(self.source.ready_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let outcome = poll(&mut fds, timeout);
        is_gone(outcome, &fds[..1])
    }

    /// Counts the waiting events that will not be printed.
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
