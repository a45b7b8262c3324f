//! `--read`: a recording is printed again, in any format and with any filter. Needs no root.

use std::{
    cell::OnceCell,
    fs::{self, File},
    io::{Read, Write},
    net::SocketAddr,
    process::{Command, Output, Stdio},
    rc::Rc,
};

use proptest::prelude::*;
use tcptrace::{
    event::*,
    filter::Subject,
    output::{self, Format},
    record::{Names, ProcessEntry, Record},
    recording::{evaluate, line::Reader},
};

#[path = "common/filter_cases.rs"]
mod filter_cases;

/// A section of the golden file.
fn golden(name: &str) -> String {
    let all = include_str!("../src/output/golden.txt");
    let (_, rest) = all.split_once(&format!("== {name}\n")).expect("the section");
    rest.split_once("\n\n").map_or(rest, |(section, _)| section).trim_end().to_owned() + "\n"
}

fn tcptrace(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start tcptrace");
    // It may exit before it has read everything.
    let _ = child.stdin.take().expect("stdin").write_all(stdin);
    child.wait_with_output().expect("wait")
}

/// Its output for a recording without invalid lines.
fn printed(arguments: &[&str], recording: &str) -> String {
    let output = tcptrace(&[&["-q", "-r", "-"], arguments].concat(), recording.as_bytes());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("compress");
    gzip.finish().expect("compress")
}

#[test]
fn every_format_is_the_same_as_when_tracing() {
    let json = golden("json");
    assert!(json.lines().count() > 5);
    assert_eq!(printed(&["-j", "--community-id"], &json), json);
    // JSON lacks the unit, and for a request, the cookie and the local end.
    let csv = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.contains(",request,")).map(str::to_owned).collect()
    };
    assert_eq!(csv(&printed(&["-f", "csv", "--community-id"], &json)), csv(&golden("csv")));
    let table = printed(&["--utc"], &json);
    let expected = golden("table in a file");
    for (line, expected) in table.lines().zip(expected.lines()).filter(|(line, _)| !line.contains("request"))
    {
        assert_eq!(line, expected);
    }
}

#[test]
fn compressed_files_and_several() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = golden("json");
    let (first, second) = json.split_at(json.match_indices('\n').nth(3).expect("lines").0 + 1);
    let path = |name: &str| folder.path().join(name);
    fs::write(path("plain"), first).expect("write");
    // concatenated compressed files are one file
    fs::write(path("gz"), [gzip(first), gzip(second)].concat()).expect("write");
    let frame = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("compress");
    fs::write(path("zst"), [frame(first), frame(second)].concat()).expect("write");
    fs::write(path("rest"), frame(second)).expect("write");
    fs::write(path("empty"), "").expect("write");
    let read = |names: &[&str]| {
        let files: Vec<String> = names.iter().map(|name| path(name).display().to_string()).collect();
        let mut arguments = vec!["-qj", "--community-id"];
        files.iter().for_each(|file| arguments.extend(["-r", file]));
        let output = tcptrace(&arguments, b"");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for names in [&["gz"][..], &["zst"], &["plain", "rest"], &["empty", "plain", "empty", "rest"]] {
        assert_eq!(read(names), json, "{names:?}");
    }
}

#[test]
fn invalid_lines_are_counted_and_the_others_shown() {
    let json = golden("json");
    let good: Vec<&str> = json.lines().collect();
    let cut = &good[2][..good[2].len() / 2];
    let recording = format!(
        "{}\nnonsense\n\n{{\"type\":\"Other\"}}\n{}\n[]\n{{}}\n{{\"type\":\"Summary\"}}\n{{\"type\":\"NetworkEvent\"}}\n\u{1b}[2J\n{cut}",
        good[0], good[1]
    );
    let output = tcptrace(&["-qj", "--community-id", "-r", "-"], recording.as_bytes());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n{}\n", good[0], good[1]));
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "tcptrace: -:2: is not complete JSON; line skipped\n\
         tcptrace: -:4: is not an event known to this version of tcptrace; line skipped\n\
         tcptrace: -:6: is not an event known to this version of tcptrace; line skipped\n\
         tcptrace: -:7: is not an event known to this version of tcptrace; line skipped\n\
         tcptrace: -:9: is not an event known to this version of tcptrace; line skipped\n\
         tcptrace: 7 lines skipped\n"
    );
    // a line of many megabytes is still one line
    let long = format!("{}\n{}\n{}\n", good[0], "x".repeat(5 << 20), good[1]);
    let output = tcptrace(&["-qj", "--community-id", "-r", "-"], long.as_bytes());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n{}\n", good[0], good[1]));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "tcptrace: -:2: is not complete JSON; line skipped\n"
    );
}

#[test]
fn unreadable_inputs_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("day.jsonl");
    fs::write(&file, golden("json")).expect("write");
    let file = file.to_str().expect("UTF-8");
    let said = |arguments: &[&str], code: i32| {
        let output = tcptrace(arguments, b"");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
        stderr
    };
    assert!(said(&["-r", "/nowhere/day.jsonl"], 1).starts_with("tcptrace: open /nowhere/day.jsonl: "));
    assert!(said(&["-r", "/"], 1).contains("is a directory"));
    assert!(said(&["-j", "-r", file, "-o", file], 1).contains("is also the output"));
    assert_eq!(fs::read_to_string(file).expect("it is still there"), golden("json"));
    for option in [
        &["--existing"][..],
        &["--snapshot"],
        &["--timeout", "1s"],
        &["--probes", "auto"],
        &["--ring-size", "1M"],
        &["--no-dns"],
        &["--", "true"],
    ] {
        said(&[&["-r", file], option].concat(), 2);
    }
    let broken = folder.path().join("broken.gz");
    fs::write(&broken, &gzip(&golden("json"))[..100]).expect("write");
    let output = tcptrace(&["-qj", "-r", broken.to_str().expect("UTF-8")], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("broken.gz"));
}

#[test]
fn filters_apply_to_a_recording() {
    let json = golden("json");
    let types = |arguments: &[&str]| -> Vec<String> {
        let lines = printed(&[&["-j"], arguments].concat(), &json);
        let events = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        events.map(|event| event["network_event"]["type"].as_str().expect("a type").to_owned()).collect()
    };
    let all = json.lines().count();
    assert_eq!(types(&[]).len(), all);
    assert_eq!(types(&["--failed"]), ["TcpConnectionFail"]);
    assert_eq!(types(&["-e", "close,fail"]), ["TcpConnectionClose", "TcpConnectionFail"]);
    assert_eq!(types(&["-b", "curl"]).len(), all);
    assert_eq!(types(&["-b", "/usr/bin/"]).len(), all);
    assert_eq!(types(&["-b", "curl", "--deny"]), [""; 0]);
    assert_eq!(types(&["--dport", "443", "--count", "2"]).len(), 2);
    assert_eq!(types(&["--dport", "444"]), [""; 0]);
    assert_eq!(types(&["dns == \"*.example\""]).len(), all);
    assert_eq!(types(&["dns == \"other.example\""]), [""; 0]);
    assert_eq!(types(&["--container", "app"]).len(), all);
    assert_eq!(types(&["--container", "other"]), [""; 0]);
    assert_eq!(types(&["--container", "3f4a9c5e1b2d"]).len(), all);
    assert_eq!(types(&["pod == \"web-*\" AND namespace == \"shop\""]).len(), all);
    assert_eq!(types(&["pid", "==", "42", "AND", "parent_binary_name", "!=", "\"sh\""]).len(), all);
    let summary = printed(&["--summary-only"], &json);
    assert!(summary.contains("/usr/bin/curl"), "{summary}");
}

#[test]
fn concurrent_processes_write_one_header() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("recording"), golden("json")).expect("write");
    for round in 0..10 {
        let file = path(&format!("{round}.csv"));
        let start = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
            command.arg("-qr").arg(path("recording")).args(["-f", "csv", "-o"]).arg(&file);
            command.spawn().expect("start tcptrace")
        };
        for mut child in [(); 4].map(|()| start()) {
            assert!(child.wait().expect("wait").success());
        }
        let text = fs::read_to_string(&file).expect("text");
        assert!(text.starts_with("timestamp,"), "{text}");
        assert_eq!(text.matches("timestamp,").count(), 1, "{text}");
        assert_eq!(text.lines().count(), 1 + 4 * golden("json").lines().count(), "{text}");
    }
}

/// Lines from a pipe are shown while the pipe is open.
#[test]
fn lines_from_a_pipe_are_shown_immediately() {
    let json = golden("json");
    let first = json.lines().next().expect("a line");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(["-qj", "--community-id", "-r", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start tcptrace");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(format!("{first}\n").as_bytes()).expect("write");
    let mut line = vec![0; first.len() + 1];
    child.stdout.take().expect("stdout").read_exact(&mut line).expect("the line");
    assert_eq!(String::from_utf8_lossy(&line), format!("{first}\n"));
    drop(stdin);
    assert!(child.wait().expect("wait").success());
}

/// An event of a subject, with the fields that JSON has.
fn record(subject: &Subject) -> Record {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let process = |id: u64, name: &[u8], path: &[u8]| {
        Rc::new(ProcessEntry {
            id: ImageId(id),
            process: Process {
                parent: (id == 1).then_some(ImageId(2)),
                pid: if id == 1 { subject.pid } else { subject.ppid },
                ppid: if id == 1 { subject.ppid } else { 0 },
                uid: subject.uid,
                euid: subject.euid,
                gid: subject.gid,
                egid: subject.egid,
                auid: subject.auid,
                filename: text(name),
                binary_path: text(path),
                container_id: Some(text(&subject.container_id)).filter(|id| !id.is_empty()),
                container: None,
                ..Process::default()
            },
            rendered: OnceCell::new(),
        })
    };
    let event = Event {
        time: BootTime(1_000_000_000),
        cookie: 7,
        begun: BootTime(9),
        local: SocketAddr::new(subject.saddr, subject.sport),
        remote: SocketAddr::new(subject.daddr, subject.dport),
        netns: subject.netns,
        asked: None,
        interface: None,
        mptcp: false,
        owner: Actor { image: Some(ImageId(1)), pid: subject.pid, tid: subject.pid },
        rule: None,
        kind: match subject.direction {
            Direction::Egress => EventKind::Connect { latency: None },
            Direction::Ingress => EventKind::Accept { backlog: None },
        },
    };
    let names = subject.dns.iter().map(|name| Rc::from(name.as_str())).collect::<Vec<_>>();
    let parent = process(2, &subject.parent_binary_name, &subject.parent_binary_path);
    let child = process(1, &subject.binary_name, &subject.binary_path);
    let get = |id: ImageId| Some(if id == ImageId(1) { child.clone() } else { parent.clone() });
    Record::new(event, Names::new(names, false), get, 1_700_000_000_000_000_000)
}

fn as_json(record: &Record) -> Vec<u8> {
    let options = output::Options { all_capabilities: u64::MAX, ..Default::default() };
    let null = File::open("/dev/null").expect("/dev/null").into();
    let mut sink =
        output::sink(Some(Format::Json), options, || unreachable!("no envelope"), &null).expect("a sink");
    let mut line = Vec::new();
    sink.write(record, &mut line);
    line
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_filter_selects_the_same_from_a_recording(
        filter in filter_cases::filter(),
        subject in filter_cases::subject(),
    ) {
        let live = record(&subject);
        let read = Reader::default().read(&as_json(&live)).expect("a line of ours").expect("an event");
        prop_assert_eq!(evaluate(&filter, &read), evaluate(&filter, &live));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..1_000_usize, line in 0..11_usize) {
        let _ = Reader::default().read(&bytes);
        // almost a line
        let json = golden("json");
        let mut line = json.lines().nth(line).expect("a line").as_bytes().to_vec();
        let at = at % line.len();
        line.splice(at..(at + bytes.len()).min(line.len()), bytes);
        let _ = Reader::default().read(&line);
    }
}
