//! Once it knows the processes, the reader allocates no memory per event, in any format.

#[path = "common/recorded.rs"]
mod recorded;

use allocation_counter::measure;
use recorded::Run;
use tcptrace::output::Format;

const FORMATS: [Option<Format>; 4] = [None, Some(Format::Table), Some(Format::Json), Some(Format::Csv)];

/// The number of allocations in a run with this many batches of events.
fn allocations(format: Option<Format>, color: bool, batches: usize) -> u64 {
    let run = Run::new(format, color, batches);
    measure(|| {
        run.finish();
    })
    .count_total
}

#[test]
fn an_event_allocates_nothing() {
    for format in FORMATS {
        for color in [false, true] {
            // The first run of a process initialises shared data.
            let [_, few, many] = [1, 2, 12].map(|batches| allocations(format, color, batches));
            assert!(few > 0, "what a run begins with is counted");
            assert_eq!(few, many, "{format:?}, in colour: {color}");
        }
    }
}
