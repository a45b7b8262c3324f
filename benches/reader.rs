//! The cost of the reader per event, by format: records from memory, lines to /dev/null.
//!
//! `cargo bench --bench reader` (needs no root). `FORMAT=json` runs only one format, for a profiler.

#[path = "../tests/common/recorded.rs"]
mod recorded;

use std::time::Instant;

use recorded::Run;
use tcptrace::output::Format;

const BATCHES: usize = 400;
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
        let fastest = (0..runs).map(|_| run(format)).fold(f64::INFINITY, f64::min);
        println!("{name:<8} {fastest:>6.0} ns an event");
    }
}

/// Nanoseconds per event.
fn run(format: Option<Format>) -> f64 {
    let run = Run::new(format, false, BATCHES);
    let started = Instant::now();
    let events = run.finish();
    started.elapsed().as_nanos() as f64 / events as f64
}
