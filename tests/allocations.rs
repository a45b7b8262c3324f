//! Once it knows the processes, the reader allocates nothing for an event, whatever the format.

#[path = "common/recorded.rs"]
mod recorded;

use std::os::fd::OwnedFd;

use allocation_counter::measure;
use recorded::Connections;
use tcptrace::output::{self, Format, Options, writer::Writer};

const FORMATS: [Option<Format>; 4] = [None, Some(Format::Table), Some(Format::Json), Some(Format::Csv)];

/// Allocations of a run over so many batches of events.
fn allocations(format: Option<Format>, color: bool, batches: usize) -> u64 {
    let null = || OwnedFd::from(std::fs::File::options().write(true).open("/dev/null").expect("/dev/null"));
    let options = Options {
        color,
        utc: true,
        all_capabilities: u64::MAX,
        community_id: false,
        continues: false,
        one_document: false,
    };
    let metadata = || unreachable!("none of these formats has an envelope");
    let mut sink = output::sink(format, options, metadata, &null()).expect("a sink");
    let mut output = Writer::new(null());
    let mut source = Connections::new(batches);
    let counted = measure(|| {
        let summary = source.run(&mut *sink, &mut output);
        assert_eq!(summary.total(), Connections::events(batches) as u64);
    });
    counted.count_total
}

#[test]
fn an_event_allocates_nothing() {
    for format in FORMATS {
        for color in [false, true] {
            // The first run of a process sets up what all share.
            let [_, few, many] = [1, 2, 12].map(|batches| allocations(format, color, batches));
            assert!(few > 0, "what a run begins with is counted");
            assert_eq!(few, many, "{format:?}, in colour: {color}");
        }
    }
}
