//! Names of a connection from its first event to its last.

use std::time::Duration;

use super::*;
use crate::event::{Actor, Answer, BootTime, Close, Direction, Event, EventKind, Failure};

const S: u64 = 1_000_000_000;

/// An answer for one.example: 192.0.2.1 with a TTL of one minute.
const ANSWER: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x03one\x07example\0\0\x01\0\x01\
    \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";

fn event(what: EventKind, at: u64) -> Event {
    Event {
        time: BootTime(at),
        cookie: 7,
        begun: BootTime(0),
        local: "192.0.2.9:40000".parse().expect("an address"),
        remote: "192.0.2.1:443".parse().expect("an address"),
        netns: 1,
        asked: None,
        interface: None,
        mptcp: false,
        owner: Actor { image: None, pid: 1, tid: 1 },
        rule: None,
        kind: what,
    }
}

fn connect(latency: u64) -> EventKind {
    EventKind::Connect { latency: Some(Duration::from_nanos(latency)) }
}

fn close(direction: Direction, duration: Option<u64>) -> EventKind {
    let duration = duration.map(Duration::from_nanos);
    EventKind::Close(Close { direction, duration, ..Close::sample() })
}

/// A tracker that has seen the answer at second 100.
fn namer() -> DnsTracker {
    let mut namer = DnsTracker::default();
    namer.observe(&Answer { time: BootTime(100 * S), netns: 1, message: ANSWER }).expect("a good answer");
    namer
}

#[track_caller]
fn assert_names(namer: &mut DnsTracker, what: EventKind, at: u64, expected: &[&str]) {
    let names = namer.names(&event(what, at));
    let names: Vec<&str> = names.all().iter().map(|name| &**name).collect();
    assert_eq!(names, expected);
}

#[test]
fn names_are_those_at_the_opening() {
    let mut namer = namer();
    assert_names(&mut namer, connect(S), 100 * S, &[]);
    assert_names(&mut namer, connect(0), 100 * S, &["one.example"]);
    assert_names(&mut namer, connect(120 * S), 221 * S, &["one.example"]);
    assert_names(&mut namer, connect(0), 160 * S, &[]);
    let fail = EventKind::Fail { error: Failure::Aborted, latency: Some(Duration::from_secs(127)) };
    assert_names(&mut namer, fail, 228 * S, &["one.example"]);
    assert_names(&mut namer, EventKind::Request, 101 * S, &["one.example"]);
}

#[test]
fn names_are_kept_until_close() {
    let mut namer = namer();
    assert_names(&mut namer, connect(0), 101 * S, &["one.example"]);
    for n in 0..100_000_u32 {
        let addr = std::net::IpAddr::from((n + (1 << 24)).to_be_bytes());
        let binding = Binding { name: "other".into(), addr, ttl: 60 };
        namer.cache.learn(1, 150 * S, &binding);
    }
    assert_names(&mut namer, close(Direction::Egress, Some(0)), 9000 * S, &["one.example"]);
    assert_names(&mut namer, close(Direction::Egress, Some(0)), 9000 * S, &[]);
}

#[test]
fn names_at_close_are_those_at_open_time() {
    let mut namer = namer();
    assert_names(&mut namer, close(Direction::Egress, Some(8900 * S)), 9001 * S, &["one.example"]);
    assert_names(&mut namer, close(Direction::Egress, None), 101 * S, &[]);
}

#[test]
fn incoming_connections_have_no_name() {
    let mut namer = namer();
    assert_names(&mut namer, EventKind::Accept { backlog: None }, 101 * S, &[]);
    assert_names(&mut namer, close(Direction::Ingress, Some(0)), 101 * S, &[]);
}
