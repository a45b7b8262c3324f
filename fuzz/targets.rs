//! The fuzz targets: all code that reads untrusted bytes. A target panics if it finds a bug. Run by libFuzzer
//! (fuzz_targets/) and, for a short time, by `cargo test` (tests/fuzz.rs).

use std::{cell::RefCell, fs::File, os::fd::OwnedFd, time::SystemTime};

use tcptrace::{
    dns::{DnsTracker, per_connection::PerConnection},
    filter::{
        Filter, FilterError, FilterOptions, Subject, Verdict,
        netmon_yaml::NetMonConfig,
        predicate::{self, Predicate},
    },
    hostile::is_hostile,
    output::{self, Format, Metadata, Options, Sink},
    process::{ProcessTable, container::metadata},
    record::Record,
    recording::line::Reader,
    tracer::wire::{Decoded, decode},
};

#[path = "../tests/common/subject.rs"]
mod subject;

/// A target, with the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("wire", wire),
    ("table", table),
    ("dns", dns),
    ("predicate", predicate),
    ("yaml", yaml),
    ("recording", recording),
    ("container", container),
];

/// Decodes one record of the ring.
pub fn wire(bytes: &[u8]) {
    match decode(bytes) {
        Ok(Decoded::Event(event)) => show(&Record::new(event, Default::default(), |_| None, 0)),
        Ok(Decoded::Process(id, process)) => {
            let mut table = ProcessTable::default();
            table.insert(id, *process, |_| None);
        }
        Ok(Decoded::Answer(answer)) => drop(DnsTracker::default().observe(&answer)),
        Ok(Decoded::Asked(connection, address)) => drop(format!("{connection} {address}")),
        Err(_) => {}
    }
}

/// Decodes records, each after its length in two bytes, and prints them in every format.
pub fn table(mut bytes: &[u8]) {
    let mut processes = ProcessTable::new(16);
    let mut dns = DnsTracker::default();
    let mut asked = PerConnection::default();
    while let [low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (record, rest) = rest.split_at(length);
        bytes = rest;
        match decode(record) {
            Ok(Decoded::Event(mut event)) => {
                event.asked = asked.get(event.connection()).copied();
                let names = dns.names(&event);
                show(&Record::new(event, names, |id| processes.get(id), 1));
            }
            Ok(Decoded::Process(id, process)) => processes.insert(id, *process, |_| None),
            Ok(Decoded::Answer(answer)) => drop(dns.observe(&answer)),
            Ok(Decoded::Asked(connection, address)) => asked.insert(connection, address),
            Err(_) => {}
        }
    }
}

/// Reads lines of a recording and prints them in every format.
pub fn recording(bytes: &[u8]) {
    let mut reader = Reader::default();
    for line in bytes.split(|&byte| byte == b'\n') {
        if let Ok(Some(record)) = reader.read(line) {
            show(&record);
        }
    }
}

/// Parses a file with the metadata of a container, as that of each runtime.
pub fn container(file: &[u8]) {
    const ID: &str = "ca42dca2b9082acf14875d8d68006bed44ca7ac3043bfa41834c28b9359b666b";
    let found = [
        metadata::docker(file),
        metadata::containerd(file),
        metadata::crio(file),
        metadata::storage(file, ID),
    ];
    for found in found.into_iter().flatten() {
        assert!(!found.is_empty());
        for name in [found.name, found.image, found.pod, found.namespace].into_iter().flatten() {
            assert!(!name.is_empty() && name.len() <= 512 && !name.contains('\0'), "{name:?}");
        }
    }
    assert!(metadata::docker_data_root(file).is_none_or(|path| path.starts_with('/')));
}

/// Parses a DNS message.
pub fn dns(message: &[u8]) {
    let Ok(bindings) = tcptrace::dns::read(message) else { return };
    for binding in bindings {
        assert!(binding.name.bytes().all(|byte| byte.is_ascii_graphic()), "{:?}", binding.name);
    }
}

/// Parses a predicate.
pub fn predicate(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match predicate::parse(text) {
        Ok(predicate) => compile(predicate),
        Err(error) => {
            let report = error.report(text);
            assert!(report.lines().count() == 3 && report.len() < 4096, "{report}");
            assert!(report.chars().all(|c| c == '\n' || !is_hostile(c)), "{report:?}");
        }
    }
}

/// Parses a NetMon configuration.
pub fn yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match NetMonConfig::parse("file", text) {
        Ok(config) => {
            let rules = config.rules();
            check(&Filter::new(&FilterOptions::default(), None, config.process, rules));
        }
        Err(error) => {
            assert!(error.place.line > 0 && error.place.column > 0, "{error:?}");
            assert!(error.message.len() < 4096, "{error:?}");
        }
    }
}

fn compile(predicate: Predicate) {
    check(&Filter::new(&FilterOptions::default(), Some(predicate), None, Vec::new()));
}

/// Checks that the compiled filter agrees with the reference.
fn check(filter: &Filter) {
    let compiled = filter.compile();
    if filter.needs_names() {
        return;
    }
    for subject in subjects() {
        let expected = filter.evaluate(&subject);
        match &compiled {
            Ok(program) => assert_eq!(program.evaluate(&subject), expected, "{subject:?}"),
            Err(FilterError::NeverMatches(_)) => assert_eq!(expected, Verdict::Rejected, "{subject:?}"),
            Err(_) => {}
        }
    }
}

fn subjects() -> [Subject; 3] {
    let curl = subject::curl();
    let other = Subject {
        saddr: "2001:db8::1".parse().expect("an address"),
        daddr: "::1".parse().expect("an address"),
        uid: 0,
        container_id: b"3f4a9c5e1b2d".to_vec(),
        direction: tcptrace::filter::Direction::Ingress,
        ..curl.clone()
    };
    let nobody = Subject { binary_name: Vec::new(), binary_path: Vec::new(), sport: 0, ..curl.clone() };
    [curl, other, nobody]
}

thread_local! {
    static SINKS: RefCell<Vec<(Format, Box<dyn Sink>)>> = RefCell::new(sinks());
}

fn sinks() -> Vec<(Format, Box<dyn Sink>)> {
    let null: OwnedFd = File::options().write(true).open("/dev/null").expect("/dev/null").into();
    let metadata = || Metadata {
        agent_id: "agent".to_owned(),
        agent_type: "tcptrace".to_owned(),
        project: "fuzz".to_owned(),
        source: "host".to_owned(),
        expiration: SystemTime::UNIX_EPOCH,
    };
    let sink = |format| {
        let options = Options {
            color: false,
            utc: true,
            all_capabilities: u64::MAX,
            community_id: true,
            has_header: false,
            one_document: false,
        };
        (format, output::sink(Some(format), options, metadata, &null).expect("a sink"))
    };
    [Format::Table, Format::Json, Format::Csv, Format::Odr].map(sink).into()
}

/// Prints a line in each format and checks that formats for people contain no control characters.
fn show(record: &Record) {
    SINKS.with_borrow_mut(|sinks| {
        for (format, sink) in sinks {
            let mut out = Vec::new();
            sink.write(record, &mut out);
            let text = std::str::from_utf8(&out).expect("UTF-8");
            // The table sometimes has a header.
            let lines = text.matches('\n').count();
            assert!(text.ends_with('\n') && (lines == 1 || *format == Format::Table), "{format:?}: {text:?}");
            let line = text.trim_end_matches(['\r', '\n']);
            match format {
                Format::Table => assert!(line.chars().all(|c| c == '\n' || !is_hostile(c)), "{line:?}"),
                Format::Json | Format::Odr => {
                    drop(serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
                }
                Format::Csv => assert!(!line.chars().any(is_hostile), "{line:?}"),
            }
        }
    });
}
