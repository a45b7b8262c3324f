//! Verdicts on events while the names of their connections change.

use std::{cell::OnceCell, rc::Rc};

use super::*;
use crate::{
    event::{
        Actor, BootTime, Close, Container, Direction, Event, EventKind, Failure, ImageId, Process,
        SecureExec, State,
    },
    filter::{FilterOptions, netmon_yaml::NetMonConfig, predicate::parse},
    record::{Names, ProcessEntry},
};

fn named(predicate: &str) -> DnsFilter {
    let predicate = parse(predicate).expect("a predicate");
    DnsFilter::new(&Filter::new(&FilterOptions::default(), Some(predicate), None, Vec::new()))
        .expect("names are asked for")
}

fn rules(text: &str) -> DnsFilter {
    let config = NetMonConfig::parse("rules.yaml", text).expect("rules");
    DnsFilter::new(&Filter::new(&FilterOptions::default(), None, config.process.clone(), config.rules()))
        .expect("names are asked for")
}

const CONNECT: EventKind = EventKind::Connect { latency: None };
const FAIL: EventKind = EventKind::Fail { error: Failure::Aborted, latency: None };

fn close() -> EventKind {
    EventKind::Close(Close::sample())
}

/// An event of connection 7, to a host with this name, as user 1000; the kernel chose rule 0.
fn record(what: EventKind, name: &str) -> Record {
    let names: Vec<Rc<str>> = (!name.is_empty()).then(|| name.into()).into_iter().collect();
    let process = Process {
        comm: "curl".to_owned(),
        before: None,
        parent: None,
        pid: 1,
        ppid: 1,
        start: BootTime(1),
        cloned_at: BootTime(1),
        parent_start: BootTime(1),
        cloned: false,
        kernel_thread: false,
        uid: 1000,
        euid: 1000,
        gid: 1000,
        egid: 1000,
        auid: 1000,
        cap_inheritable: 0,
        cap_permitted: 0,
        cap_effective: 0,
        secureexec: SecureExec::default(),
        binary_path: "/usr/bin/curl".to_owned(),
        filename: "curl".to_owned(),
        args: None,
        argv_len: 0,
        container_id: None,
        container: None,
        unit: None,
    };
    Record {
        event: Event {
            time: BootTime(1),
            cookie: 7,
            begun: BootTime(0),
            local: "192.0.2.9:40000".parse().expect("an address"),
            remote: "192.0.2.1:443".parse().expect("an address"),
            netns: 1,
            asked: None,
            interface: None,
            mptcp: false,
            owner: Actor { image: Some(ImageId(1)), pid: 1, tid: 1 },
            rule: Some(0),
            kind: what,
        },
        wall_ns: 0,
        wall_offset: 0,
        process: Some(Rc::new(ProcessEntry { id: ImageId(1), process, rendered: OnceCell::new() })),
        parent: None,
        closer: None,
        names: Names::new(names, false),
        rule: None,
        owners: Vec::new(),
    }
}

fn admits(filter: &mut DnsFilter, kind: EventKind, name: &str) -> bool {
    filter.evaluate(&record(kind, name)) != Verdict::Rejected
}

fn step(from: State, to: State) -> EventKind {
    EventKind::StateChange { direction: Direction::Egress, from, to, after: None }
}

#[test]
fn filters_without_names_are_evaluated_in_the_kernel() {
    let predicate = parse("port == 443").expect("a predicate");
    assert!(
        DnsFilter::new(&Filter::new(&FilterOptions::default(), Some(predicate), None, Vec::new())).is_none()
    );
}

#[test]
fn comparisons_of_names() {
    for (predicate, name, expected) in [
        (r#"dns == "a.example""#, "a.example", true),
        (r#"dns == "A.Example.""#, "a.example", true),
        (r#"dns == "a.example""#, "b.example", false),
        (r#"dns == "a.example""#, "", false),
        (r#"dns != "a.example""#, "a.example", false),
        (r#"dns != "a.example""#, "", true),
        (r#"dns in ["b.example", "*.a.example"]"#, "x.a.example", true),
        (r#"dns in ["b.example", "*.a.example"]"#, "a.example", false),
        (r#"NOT dns in ["*.a.example"]"#, "x.a.example", false),
        (r#"dns == "a.example" OR port_dst == 443"#, "", true),
        (r#"dns == "a.example" OR port_dst == 80"#, "", false),
        (r#"NOT (dns == "a.example" OR port_dst == 80)"#, "b.example", true),
        (r#"dns == "a.example" OR NOT binary_name == "curl""#, "", false),
        (r#"dns == "a.example" OR binary_prefix == "/usr/" AND uid == 1000"#, "", true),
        (r#"dns == "a.example" OR direction == "egress""#, "", true),
    ] {
        assert_eq!(admits(&mut named(predicate), CONNECT, name), expected, "{predicate} of {name:?}");
    }
}

#[test]
fn the_end_has_the_verdict_of_the_beginning() {
    let mut filter = named(r#"dns == "a.example""#);
    assert!(admits(&mut filter, CONNECT, "a.example"));
    assert!(admits(&mut filter, step(State::Established, State::FinWait1), ""));
    assert!(admits(&mut filter, close(), ""));
    assert!(!admits(&mut filter, CONNECT, "b.example"));
    assert!(!admits(&mut filter, close(), "a.example"));
}

#[test]
fn the_verdict_is_dropped_at_the_end() {
    for end in [close(), FAIL] {
        let mut filter = named(r#"dns == "a.example""#);
        assert!(admits(&mut filter, step(State::Closed, State::SynSent), "a.example"));
        assert!(admits(&mut filter, end.clone(), ""));
        // Without an earlier event it is evaluated on its own.
        assert!(!admits(&mut filter, end.clone(), ""));
        assert!(admits(&mut filter, end, "a.example"));
    }
}

#[test]
fn a_reconnected_socket_is_evaluated_again() {
    let mut filter = named(r#"dns == "a.example""#);
    // An attempt has no effect on later events.
    assert!(admits(&mut filter, EventKind::Request, "a.example"));
    assert!(!admits(&mut filter, EventKind::Request, "b.example"));
    // The end of the previous connection was not reported, or was lost.
    assert!(admits(&mut filter, CONNECT, "a.example"));
    assert!(!admits(&mut filter, CONNECT, "b.example"));
    assert!(!admits(&mut filter, close(), ""));
}

#[test]
fn the_first_matching_rule_names_the_event() {
    let mut filter = rules(
        "egress:\n  rules:\n  - rule: a\n    scope: uid == 1000\n    event: dns == \"a.example\"\n  \
         - rule: b\n    event: dns == \"*.example\" AND uid == 0\n  - rule: c\n    event: port_dst == 443\n    scope: dns == \"b.example\"\n",
    );
    let mut rule = |what, name, chosen| {
        let mut record = record(what, name);
        record.event.rule = chosen;
        match filter.evaluate(&record) {
            Verdict::Rejected => None,
            Verdict::Admitted(rule) => Some(rule),
        }
    };
    assert_eq!(rule(CONNECT, "a.example", Some(0)), Some(Some(0)));
    assert_eq!(rule(close(), "", Some(0)), Some(Some(0)));
    assert_eq!(rule(CONNECT, "b.example", Some(0)), Some(Some(2)));
    assert_eq!(rule(close(), "", Some(0)), Some(Some(2)));
    assert_eq!(rule(CONNECT, "c.example", Some(0)), None);
    assert_eq!(rule(close(), "a.example", Some(0)), None);
    // The kernel ruled out the rules before; of the one it chose only the names are evaluated.
    assert_eq!(rule(EventKind::Request, "a.example", Some(2)), None);
    assert_eq!(rule(EventKind::Request, "b.example", Some(1)), Some(Some(1)));
    assert_eq!(rule(EventKind::Request, "b.example", None), Some(Some(2)));
}

#[test]
fn container_names_are_those_of_the_owner() {
    for (predicate, expected) in [
        (r#"container_name == "web""#, true),
        (r#"container_name != "web""#, false),
        (r#"pod == "shop-*" AND dns == "a.example""#, true),
        (r#"pod == "shop-*" AND dns == "b.example""#, false),
        (r#"namespace == "other" OR uid == 1000"#, true),
    ] {
        let text = |text: &str| Some(text.to_owned());
        let container =
            Container { name: text("web"), image: None, pod: text("shop-1"), namespace: text("shop") };
        let mut record = record(CONNECT, "a.example");
        let process = record.process.take().expect("an owner").process.clone();
        let process = Process { container: Some(Rc::new(container)), ..process };
        record.process = Some(Rc::new(ProcessEntry { id: ImageId(1), process, rendered: OnceCell::new() }));
        let admitted = named(predicate).evaluate(&record) != Verdict::Rejected;
        assert_eq!(admitted, expected, "{predicate}");
        // It matches no condition on a container either, negated or not.
        record.process = None;
        assert_eq!(named(predicate).evaluate(&record), Verdict::Rejected, "{predicate}");
    }
}

#[test]
fn an_unknown_owner_matches_no_process_condition() {
    for (predicate, expected) in [
        // The kernel has already evaluated the user.
        (r#"uid == 1000 AND dns == "a.example""#, true),
        (r#"uid == 0 OR dns == "a.example""#, false),
        (r#"uid != 5 OR dns == "a.example""#, false),
        (r#"port == 443 OR dns == "b.example""#, true),
    ] {
        let mut record = record(CONNECT, "a.example");
        record.process = None;
        let admitted = named(predicate).evaluate(&record) != Verdict::Rejected;
        assert_eq!(admitted, expected, "{predicate}");
    }
}
