//! Checks a line of every format for every kind of event against golden.txt.

use std::{
    cell::OnceCell,
    num::NonZero,
    rc::Rc,
    time::{Duration, SystemTime},
};

use super::{csv::Csv, json::Json, odr::Odr, table::Table, *};
use crate::{
    event::{Backlog, Container, EventKind, ImageId, Process, State},
    record::{Names, ProcessEntry, Record},
    tracer::wire::{
        Decoded, decode,
        samples::{self, EVENT_KINDS},
    },
};

fn process(id: u64) -> Rc<ProcessEntry> {
    let bytes = samples::process(id);
    let Ok(Decoded::Process(id, process)) = decode(&bytes) else { panic!("a process") };
    let container = |name: &str, pod: &str| Container {
        name: Some(name.to_owned()),
        image: Some("example/image:1".to_owned()),
        pod: (!pod.is_empty()).then(|| pod.to_owned()),
        namespace: (!pod.is_empty()).then(|| "shop".to_owned()),
    };
    let container_id = Some("3f4a9c5e1b2d7f80".repeat(4));
    let container = Some(Rc::new(if id.0 == 1 { container("app", "web-0") } else { container("web", "") }));
    let process = Process { container_id, container, ..*process };
    Rc::new(ProcessEntry { id, process, rendered: OnceCell::new() })
}

/// One record of each kind, with all fields filled in.
fn records() -> Vec<Record> {
    let record = |kind| {
        let bytes = samples::event(kind, 7);
        let Ok(Decoded::Event(mut event)) = decode(&bytes) else { panic!("an event") };
        let backlog = Some(Backlog { len: 3, max: 128, drops: 4 });
        match &mut event.kind {
            EventKind::Accept { backlog: queue }
            | EventKind::Listen { backlog: queue }
            | EventKind::ListenStop { backlog: queue }
            | EventKind::ListenDrop { backlog: queue } => *queue = backlog,
            EventKind::Close(close) => {
                close.closer = Some(ImageId(2));
                close.retransmits = 2;
            }
            EventKind::Existing(existing) => {
                existing.state = State::Established;
                existing.backlog = backlog;
                existing.owners.push(existing.owners[0]);
            }
            EventKind::Connect { .. } => {
                event.asked = Some("198.51.100.1:80".parse().expect("an address"));
                event.interface = NonZero::new(3);
            }
            EventKind::Request
            | EventKind::Fail { .. }
            | EventKind::StateChange { .. }
            | EventKind::Retransmit(_) => {}
        }
        let names = Names::new(vec![Rc::from("www.example")], false);
        let table = [process(1), process(2)];
        let get = |id: ImageId| table.iter().find(|entry| entry.id == id).cloned();
        Record { rule: Some("a rule".into()), ..Record::new(event, names, get, 1_700_000_000_000_000_000) }
    };
    EVENT_KINDS.into_iter().map(record).collect()
}

fn text(sink: &mut dyn Sink) -> String {
    let mut out = Vec::new();
    sink.begin(&mut out);
    records().iter().for_each(|record| sink.write(record, &mut out));
    sink.end(&mut out);
    String::from_utf8(out).expect("text")
}

#[test]
fn lines_of_every_format_and_kind() {
    let options = || TableOptions { color: false, utf8: true, zone: Zone::utc() };
    let metadata = Metadata {
        agent_id: "id".to_owned(),
        agent_type: "type".to_owned(),
        project: "project".to_owned(),
        source: "host".to_owned(),
        expiration: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    };
    let size = |columns| Some(host::TerminalSize { columns, rows: 100 });
    let formats = [
        ("table in a file", text(&mut Table::new(options(), || None))),
        ("table of 80 columns", text(&mut Table::new(options(), || size(80)))),
        ("table of 200 columns", text(&mut Table::new(options(), || size(200)))),
        ("json", text(&mut Json::new(u64::MAX >> 23, true))),
        ("csv", text(&mut Csv::new(true, true))),
        ("odr", text(&mut Odr::new(metadata.clone(), Framing::Lines))),
        ("odr document", text(&mut Odr::new(metadata, Framing::Document { wall_ns: 0 }))),
    ];
    let all: String = formats.iter().map(|(name, text)| format!("== {name}\n{text}\n")).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/output/golden.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &all).expect("write the golden lines");
    }
    let golden = std::fs::read_to_string(path).expect("the golden lines");
    for (line, expected) in all.lines().zip(golden.lines()) {
        assert_eq!(line, expected, "UPDATE=1 cargo test --lib writes src/output/golden.txt");
    }
    assert_eq!(all, golden);
}

/// Every event field in the schema that some kind can have is printed in some line.
#[test]
fn csv_has_a_column_for_every_field_of_json() {
    let json = text(&mut Json::new(u64::MAX, true));
    let csv = text(&mut Csv::new(true, true));
    let header: Vec<&str> = csv.lines().next().expect("a header").split(',').collect();
    // In another place, under another name, or not in a flat table.
    let known = ["type", "new_state", "backlog", "closer", "asked", "dstIP", "dstPort", "results"];
    for line in json.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        for field in event["network_event"].as_object().expect("an object").keys() {
            assert!(
                header.contains(&field.as_str()) || known.contains(&field.as_str()),
                "{field} in {header:?}"
            );
        }
    }
}
