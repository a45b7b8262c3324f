//! Recordings: the JSON lines that tcptrace has written, read back and printed in any format.
//!
//! Nothing is traced and no privilege is needed. A filter is applied by the reference evaluator, which the kernel
//! is tested against, so it selects from a recording what it would have selected live.

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

/// A line that is longer than this is none of ours; its end is looked for, and no more of it is kept.
const LINE_MAX: usize = 1 << 20;

/// What is left of it: no JSON.
const TOO_LONG: &[u8] = b"...";

/// Bytes of output that are gathered while more input is at hand.
const GATHERED: usize = 1 << 18;

/// Reads recordings, one after the other.
pub struct Replay<'a, Fd> {
    /// What to select.
    pub filter: &'a Filter,
    /// Which kinds of events; all, where none is asked for.
    pub events: Option<EventSet>,
    /// The format.
    pub sink: &'a mut dyn Sink,
    /// Where lines go.
    pub output: &'a mut Writer<Fd>,
    /// When to stop.
    pub stop: Stop,
    /// Told of each line that cannot be read: the file's name, the line's number, and why.
    pub skipped: &'a mut dyn FnMut(&str, u64, Unreadable),
    /// Where somebody waits.
    pub progress: Option<Progress>,
}

/// Lines that were skipped: the first few are reported, all are counted.
#[derive(Debug, Default)]
pub struct Skipped(u64);

/// How many of them are reported one by one.
const REPORTED: u64 = 5;

impl Skipped {
    /// One more.
    pub fn add(&mut self, to: &mut impl Write, file: &str, line: u64, why: Unreadable) {
        self.0 += 1;
        let why = match why {
            Unreadable::Broken => "is no complete JSON",
            Unreadable::Foreign => "is no event that this version of tcptrace knows",
        };
        if self.0 <= REPORTED {
            messages::line(to, &format!("{file}:{line}: {why}; the line is skipped"));
        }
    }

    /// How many there were, if any was not reported.
    pub fn total(&self, to: &mut impl Write) {
        if self.0 > REPORTED {
            messages::line(to, &format!("{} lines skipped", self.0));
        }
    }
}

impl<Fd: AsFd> Replay<'_, Fd> {
    /// Read all of it, or until `stop` says no more or the reader of the output is gone.
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
        // The line that began in what was read before.
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
            // What waits in a pipe may be all there is for now.
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

/// The verdict on a recorded event. As in the kernel, an event without a process matches no condition on one.
pub fn evaluate(filter: &Filter, record: &Record) -> Verdict {
    if filter.all.is_empty() && filter.rules.is_empty() {
        return Verdict::Admitted(None);
    }
    match &record.process {
        Some(_) => filter.evaluate(&record.subject()),
        None => filter.evaluate_unowned(&record.subject()),
    }
}
