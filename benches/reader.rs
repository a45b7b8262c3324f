//! What the reader spends on an event, by format: records from memory, lines to /dev/null.
//!
//! `cargo bench --bench reader` (needs no root). `FORMAT=json` runs that one alone, for a profiler.

#[path = "../tests/common/recorded.rs"]
mod recorded;

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use recorded::Connections;
use tcptrace::output::{self, Format, Options, writer::Writer};

const BATCHES: usize = 100;
const RUNS: usize = 5;

fn main() {
    let only = std::env::var("FORMAT").ok();
    let runs = if only.is_some() { 1 } else { RUNS };
    let formats = [
        ("json", Some(Format::Json)),
        ("csv", Some(Format::Csv)),
        ("table", Some(Format::Table)),
        ("summary", None),
    ];
    for (name, format) in
        formats.into_iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name))
    {
        let fastest = (0..runs).map(|_| run(format)).min().expect("runs");
        println!(
            "{name:<8} {:>6.0} ns an event",
            fastest.as_nanos() as f64 / Connections::events(BATCHES) as f64
        );
    }
}

fn run(format: Option<Format>) -> Duration {
    let null = || OwnedFd::from(std::fs::File::options().write(true).open("/dev/null").expect("/dev/null"));
    let options = Options {
        color: false,
        utc: true,
        all_capabilities: u64::MAX,
        community_id: false,
        continues: false,
        one_document: false,
    };
    let metadata = || unreachable!("none of these formats has an envelope");
    let mut sink = output::sink(format, options, metadata, &null()).expect("a sink");
    let mut output = Writer::new(null());
    let mut source = Connections::new(BATCHES);
    let started = Instant::now();
    let summary = source.run(&mut *sink, &mut output);
    let took = started.elapsed();
    assert_eq!(summary.total(), Connections::events(BATCHES) as u64);
    took
}
