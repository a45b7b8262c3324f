//! Recordings: reads JSON lines written by tcptrace and prints them in any format.
//!
//! This needs neither tracing nor privileges. Filters are applied by the reference evaluator, which the kernel is
//! tested against, so they select the same events as during tracing.

use std::{
    io::{self, BufRead, Write},
    os::fd::AsFd,
    time::Instant,
};

use anyhow::{Context, Result};

use crate::{
    cli::plan::EventSet,
    filter::{Filter, Verdict},
    output::{
        Sink, messages,
        summary::Summary,
        writer::{Flushed, Writer},
    },
    record::Record,
    session::stop::Stop,
};

pub mod file;
pub mod line;
pub mod progress;

use file::Input;
use line::{Reader, Unreadable};
use progress::Progress;

/// Longer lines are not from tcptrace: they are skipped without being kept in memory.
const LINE_MAX: usize = 1 << 20;

/// Replaces a line that is too long; not valid JSON.
const TOO_LONG: &[u8] = b"...";

/// Bytes of output buffered while more input is available.
const GATHERED: usize = 1 << 18;

/// Replays recordings, one after the other.
pub struct Replay<'a, Fd> {
    /// The filter to apply.
    pub filter: &'a Filter,
    /// The kinds of events to show; none for all.
    pub events: Option<EventSet>,
    /// The sink of the output format.
    pub sink: &'a mut dyn Sink,
    /// The destination of lines.
    pub output: &'a mut Writer<Fd>,
    /// Polled: returns the file to continue in when it is to change.
    pub next_output: &'a mut dyn FnMut() -> Option<Fd>,
    /// The stop conditions of the replay.
    pub stop: Stop,
    /// Called for each line that cannot be read: file name, line number, reason.
    pub skipped: &'a mut dyn FnMut(&str, u64, Unreadable),
    /// The progress bar, if one is shown.
    pub progress: Option<Progress>,
}

/// Reports skipped lines: the first few one by one, then only their number.
#[derive(Debug, Default)]
pub struct Skipped(u64);

/// Maximum number of lines reported one by one.
const REPORTED: u64 = 5;

impl Skipped {
    /// Counts a skipped line, and reports it if it is one of the first.
    pub fn add(&mut self, to: &mut impl Write, file: &str, line: u64, why: Unreadable) {
        self.0 += 1;
        let why = match why {
            Unreadable::Broken => "is not complete JSON",
            Unreadable::Foreign => "is not an event known to this version of tcptrace",
        };
        if self.0 <= REPORTED {
            messages::line(to, &format!("{file}:{line}: {why}; line skipped"));
        }
    }

    /// Reports the total number, if not all were reported.
    pub fn total(&self, to: &mut impl Write) {
        if self.0 > REPORTED {
            messages::line(to, &format!("{} lines skipped", self.0));
        }
    }
}

impl<Fd: AsFd> Replay<'_, Fd> {
    /// Replays all inputs, until `stop` ends it or the reader of the output is gone.
    ///
    /// # Errors
    /// When an input cannot be read or the output cannot be written.
    pub fn run(mut self, inputs: Vec<Input>) -> Result<Summary> {
        let mut summary = Summary::default();
        let mut reader = Reader::default();
        self.sink.begin(self.output.buffer());
        for mut input in inputs {
            input.stops_with(&self.stop);
            let name = std::mem::take(&mut input.name);
            let read = self.read(&name, &mut input, &mut reader, &mut summary);
            if read.with_context(|| format!("read {name}"))? != Flushed::All {
                break;
            }
        }
        self.sink.end(self.output.buffer());
        self.flush()?;
        summary.elapsed = reader.span();
        Ok(summary)
    }

    fn read(
        &mut self,
        name: &str,
        input: &mut Input,
        reader: &mut Reader,
        summary: &mut Summary,
    ) -> Result<Flushed> {
        // The beginning of a line that continues in the next chunk.
        let (mut begun, mut number, mut too_long) = (Vec::new(), 0, false);
        loop {
            let chunk = match input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if self.stop.signalled() => return self.flush().map(|_| Flushed::ReaderGone),
                Err(error) => {
                    self.flush()?;
                    return Err(error.into());
                }
            };
            if let Some(next) = (self.next_output)() {
                self.flush()?;
                *self.output = Writer::new(next);
                self.sink.begin(self.output.buffer());
            }
            let length = chunk.len();
            self.sink.begin_batch();
            let mut rest = chunk;
            while let Some(end) = memchr::memchr(b'\n', rest) {
                let (line, behind) = rest.split_at(end);
                rest = &behind[1..];
                number += 1;
                if begun.is_empty() && !too_long {
                    self.line(name, number, line, reader, summary);
                } else {
                    begun.extend_from_slice(line);
                    self.line(name, number, if too_long { TOO_LONG } else { &begun }, reader, summary);
                    begun.clear();
                    too_long = false;
                }
                if !self.goes_on() {
                    return self.flush().map(|_| Flushed::ReaderGone);
                }
            }
            if begun.len() + rest.len() > LINE_MAX {
                too_long = true;
                begun.clear();
            } else if !too_long {
                begun.extend_from_slice(rest);
            }
            input.consume(length);
            if length == 0 {
                if !begun.is_empty() || too_long {
                    self.line(name, number + 1, if too_long { TOO_LONG } else { &begun }, reader, summary);
                }
                return self.flush();
            }
            if let Some(progress) = &mut self.progress {
                progress.show();
            }
            // On a pipe, more input may be long in coming.
            if self.output.buffer().len() >= GATHERED || input.is_live() {
                let flushed = self.flush()?;
                if flushed != Flushed::All {
                    return Ok(flushed);
                }
            }
        }
    }

    fn goes_on(&self) -> bool {
        self.stop.wants_more() && !self.stop.signalled()
    }

    fn line(&mut self, name: &str, number: u64, line: &[u8], reader: &mut Reader, summary: &mut Summary) {
        match reader.read(line) {
            Ok(Some(record)) => self.show(record, summary),
            Ok(None) => {}
            Err(why) => (self.skipped)(name, number, why),
        }
    }

    fn show(&mut self, mut record: Record, summary: &mut Summary) {
        if self.events.is_some_and(|events| !events.shows(&record.event.kind)) {
            return;
        }
        match evaluate(self.filter, &record) {
            Verdict::Rejected => return,
            Verdict::Admitted(None) => {}
            Verdict::Admitted(Some(rule)) => {
                record.rule = self.filter.rules[rule].name.as_deref().map(Into::into);
            }
        }
        summary.add(&record);
        self.sink.write(&record, self.output.buffer());
        self.stop.record_printed();
    }

    fn flush(&mut self) -> Result<Flushed> {
        let stop = &self.stop;
        self.output.flush(|stalled| stop.abandons_output(Instant::now(), stalled)).context("write the output")
    }
}

/// Evaluates the filter on a recorded event. As in the kernel, an event without a process matches no condition on the
/// process.
pub fn evaluate(filter: &Filter, record: &Record) -> Verdict {
    if filter.all.is_empty() && filter.rules.is_empty() {
        return Verdict::Admitted(None);
    }
    match &record.process {
        Some(_) => filter.evaluate(&record.subject()),
        None => filter.evaluate_unowned(&record.subject()),
    }
}
