use std::{net::SocketAddr, rc::Rc, time::Duration};

use nix::errno::Errno;

use super::*;
use crate::{
    event::{Actor, Backlog, BootTime, Bytes, Close, CloseReason, Event, Failure, ImageId, Process},
    record::{Names, ProcessEntry},
};

fn process(filename: &str) -> Rc<ProcessEntry> {
    let process = Process { pid: 4_194_303, filename: filename.to_owned(), ..Process::default() };
    Rc::new(ProcessEntry { id: ImageId(1), process, rendered: std::cell::OnceCell::new() })
}

fn record(filename: &str, local: &str, remote: &str, what: EventKind) -> Record {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    Record {
        event: Event {
            time: BootTime(0),
            cookie: 1,
            begun: BootTime(0),
            local: address(local),
            remote: address(remote),
            netns: 1,
            asked: None,
            interface: None,
            mptcp: false,
            owner: Actor { image: Some(ImageId(1)), pid: 4_194_303, tid: 4_194_303 },
            rule: None,
            kind: what,
        },
        wall_ns: 59_613_074_000_000,
        wall_offset: 0,
        process: Some(process(filename)),
        parent: None,
        closer: Some(process("a closer")),
        names: Names::default(),
        rule: None,
        owners: Vec::new(),
    }
}

fn close(reason: CloseReason) -> EventKind {
    EventKind::Close(Close {
        duration: Some(Duration::from_micros(23_240)),
        bytes: Some(Bytes { sent: 81, received: 1_200_205 }),
        retransmits: 2,
        reason,
        ..Close::sample()
    })
}

/// One event of each kind, short and long.
fn records() -> Vec<Record> {
    const V4: (&str, &str) = ("127.0.0.1:51692", "142.250.185.142:443");
    const V6: (&str, &str) =
        ("[2a00:1370:81a6:3f56:3fd6:26ed:b655:ec7a]:33978", "[2a00:1450:4010:c01::64]:65535");
    let ms = Duration::from_millis(3);
    let kinds = || {
        [
            EventKind::Connect { latency: Some(ms) },
            EventKind::Accept { backlog: Some(Backlog { len: 4096, max: 65_535, drops: 0 }) },
            EventKind::Fail { error: Failure::Errno(Errno::EADDRNOTAVAIL), latency: Some(ms) },
            close(CloseReason::RemoteReset),
            close(CloseReason::LocalClose),
        ]
    };
    let mut records = Vec::new();
    for ((local, remote), name) in [(V4, "curl"), (V6, "systemd-resolved"), (V6, "名前\x1b[31m名前名前\n")]
    {
        records.extend(kinds().into_iter().map(|what| record(name, local, remote, what)));
    }
    records
}

fn print(records: &[Record], look: TableOptions, size: Option<TerminalSize>) -> String {
    let mut table = Table::new(look, || size);
    let mut out = Vec::new();
    table.begin(&mut out);
    for record in records {
        table.write(record, &mut out);
    }
    String::from_utf8(out).expect("text")
}

const PLAIN: fn() -> TableOptions = || TableOptions { color: false, utf8: true, zone: Zone::utc() };

#[test]
fn lines_fit_every_terminal_and_show_full_ports() {
    for columns in 80..=220 {
        let size = TerminalSize { columns, rows: 1000 };
        for utf8 in [true, false] {
            let text = print(&records(), TableOptions { utf8, ..PLAIN() }, Some(size));
            let mut remote_at = 0;
            let mut records = records().into_iter();
            for line in text.lines() {
                if let Some(at) = line.find("REMOTE") {
                    remote_at = at;
                    continue;
                }
                let record = records.next().expect("a line of each");
                assert!(text::width(line) <= columns, "{columns}: {line}");
                let port = format!(":{} ", record.event.remote.port());
                assert!(line.contains(&port), "{columns}: {port} in {line}");
                assert!(line.contains(&format!(":{} ", record.event.local.port())), "{columns}: {line}");
                // the remote end is aligned with its header
                let before: String = line
                    .chars()
                    .scan(0, |at, c| {
                        *at += text::width(c.encode_utf8(&mut [0; 4]));
                        (*at <= remote_at).then_some(c)
                    })
                    .collect();
                assert!(before.ends_with(' ') && text::width(&before) == remote_at, "{columns}: {line}");
            }
            assert!(records.next().is_none());
        }
    }
}

#[test]
fn nothing_is_shortened_in_a_file() {
    let text = print(&records(), PLAIN(), None);
    assert_eq!(text.matches("TIME (UTC)").count(), 1);
    for whole in [
        "systemd-resolved",
        "[2a00:1370:81a6:3f56:3fd6:26ed:b655:ec7a]:33978",
        "[2a00:1450:4010:c01::64]:65535",
        "remote_reset, 23.2 ms, sent 81 B, received 1.2 MB, 2 retransmitted, by a closer[4194303], outgoing",
    ] {
        assert!(text.contains(whole), "{whole} in {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn problems_are_red_and_shown_first() {
    let look = TableOptions { color: true, ..PLAIN() };
    let text = print(&records(), look, Some(TerminalSize { columns: 80, rows: 100 }));
    assert!(text.contains("\x1b[31mEADDRNOTAVAIL\x1b[0m"), "{text:?}");
    assert!(text.contains("\x1b[31mremote_reset\x1b[0m"), "{text:?}");
    assert!(!text.contains("\x1b[31m名"), "a name must not set a colour: {text:?}");
}

#[test]
fn the_header_is_repeated_after_scrolling() {
    let headers = |rows, lines: usize| {
        let records: Vec<Record> = std::iter::repeat_with(records).flatten().take(lines).collect();
        print(&records, PLAIN(), Some(TerminalSize { columns: 80, rows })).matches("DETAILS").count()
    };
    assert_eq!(headers(10, 8), 1);
    assert_eq!(headers(10, 9), 2);
    assert_eq!(headers(10, 100), 13);
    assert_eq!(headers(0, 5), 5);
}

#[test]
fn the_columns_follow_the_terminal() {
    let columns = std::cell::Cell::new(80);
    let mut table = Table::new(PLAIN(), || Some(TerminalSize { columns: columns.get(), rows: 100 }));
    let mut out = Vec::new();
    let records = records();
    table.write(&records[0], &mut out);
    columns.set(200);
    table.begin_batch();
    table.write(&records[0], &mut out);
    let text = String::from_utf8(out).expect("text");
    assert_eq!(text.matches("DETAILS").count(), 2, "{text}");
}

#[test]
fn listeners_have_no_remote_end() {
    let backlog = Some(Backlog { len: 0, max: 128, drops: 0 });
    let records = [record("sshd", "127.0.0.53:22", "0.0.0.0:0", EventKind::Listen { backlog })];
    let at = |columns| print(&records, PLAIN(), Some(TerminalSize { columns, rows: 100 }));
    assert!(at(80).contains(" :22    *                127.0.0.53\n"), "{}", at(80));
    assert!(at(100).contains(" 127.0.0.53:22    *"), "{}", at(100));
}

#[test]
fn a_link_local_address_has_its_zone() {
    let on = |interface, local: &str, remote: &str, what| {
        let mut record = record("curl", local, remote, what);
        record.event.interface = std::num::NonZero::new(interface);
        print(&[record], PLAIN(), None)
    };
    let (local, connect) = ("[fe80::2]:40000", || EventKind::Connect { latency: None });
    for (interface, remote, expected) in [
        (3, "[fe80::1]:80", " [fe80::2%3]:40000 "),
        (3, "[fe80::1]:80", " [fe80::1%3]:80 "),
        (4, "[fe80::1]:80", " [fe80::1%4]:80 "),
        (0, "[fe80::1]:80", " [fe80::1]:80 "),
        (3, "[2001:db8::1]:80", " [2001:db8::1]:80 "),
        (3, "169.254.0.1:80", " 169.254.0.1:80 "),
    ] {
        let text = on(interface, local, remote, connect());
        assert!(text.replace('\n', " ").contains(expected), "{expected} in {text}");
    }
    let listen = EventKind::Listen { backlog: None };
    assert!(on(3, local, "[::]:0", listen).contains(" [fe80::2%3]:40000 "));
}
