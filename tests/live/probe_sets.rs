//! Both probe sets report the same events.

use std::{collections::BTreeMap, net::SocketAddr, thread};

use crate::common::{
    Launch, Trace,
    harness::in_guest,
    net::{self, Pair, V4, V6, half_close},
    network, scenarios, tcptrace,
};
use libtest_mimic::Trial;
use serde_json::Value;

/// Makes each kind of event, in cases where the order is deterministic.
fn workload() {
    for address in [V4, V6] {
        let mut pair = Pair::new(address);
        net::transfer(&mut pair.client, &mut pair.server, 100_000);
        net::transfer(&mut pair.server, &mut pair.client, 7);
        half_close(&pair.server);
        net::wait_for_end(&mut pair.client);
        drop(pair.client);
        drop(pair.server);
        scenarios::reset_by_client(address);
        scenarios::reset_by_server(address);
        scenarios::left_unread(address);
        scenarios::refused(SocketAddr::new(address, scenarios::DISCARD), libc::ECONNREFUSED);
    }
    scenarios::mapped();
    scenarios::fast_open_by_sendto(b"in the SYN");
    scenarios::fast_open_by_connect(b"in the SYN");
    scenarios::mptcp(b"over subflows");
    scenarios::io_uring();
    scenarios::io_uring_refused();
    for address in scenarios::NOWHERE {
        scenarios::refused(address.parse().expect("an address"), libc::ENETUNREACH);
    }
    network::dig_black_hole();
    scenarios::given_up(network::BLACK_HOLE.parse().expect("an address"));
    thread::scope(|scope| {
        scope.spawn(|| drop(Pair::new(V4)));
    });
}

/// The number of events of the workload.
const COUNT: usize = 2 * (4 * 4 + 1) + 4 + 8 + 4 + 4 + 1 + 2 + 1 + 4;

/// The parts that must be equal: everything except times, in an order that does not depend on the order of arrival.
/// Cookies, which differ between runs, are replaced by the connection's position in that order, and so is `connection`,
/// which includes the time.
fn comparable(events: Vec<Value>) -> Vec<Value> {
    let mut events = network::mine(&events);
    for event in &mut events {
        event["timestamp"] = Value::Null;
        for field in ["latency_us", "duration_us", "srtt_us"] {
            if let Some(value) = event["network_event"].get_mut(field) {
                *value = Value::Null;
            }
        }
    }
    let key = |event: &Value| {
        let net = &event["network_event"];
        ["dport", "sport", "daddr", "direction", "type"].map(|field| net[field].to_string())
    };
    events.sort_by_key(key);
    for name in ["cookie", "connection"] {
        let mut places = BTreeMap::new();
        for event in &mut events {
            let value = &mut event["network_event"][name];
            assert!(!value.is_null() && *value != 0);
            let next = places.len();
            *value = (*places.entry(value.to_string()).or_insert(next)).into();
        }
    }
    events
}

fn both_probe_sets_report_the_same() {
    network::own();
    scenarios::allow_fast_open();
    let mut traces = ["trampoline", "tracepoint"]
        .map(|probes| Trace::of(Launch::with(tcptrace()).args(["-j", "--probes", probes])));
    workload();
    for trace in &mut traces {
        trace.wait("all events", |events| network::mine(events).len() >= COUNT);
    }
    let [trampoline, mut tracepoint] = traces.map(|trace| comparable(trace.stop().events));
    assert_eq!(trampoline.len(), COUNT);
    assert_eq!(tracepoint.len(), COUNT);
    let mut extra = 0;
    for (one, other) in trampoline.iter().zip(&mut tracepoint) {
        // only the tracepoint set knows the listener of an accept through io_uring
        if one["network_event"].get("backlog").is_none() {
            let event = other["network_event"].as_object_mut().expect("an object");
            extra += usize::from(event.remove("backlog").is_some());
        }
        assert_eq!(one, other);
    }
    assert_eq!(extra, 1);
}

pub fn tests() -> Vec<Trial> {
    vec![in_guest(
        |name| name.ends_with("-trampoline-rest"),
        "a kernel with BPF trampolines",
        module_path!(),
        "both_probe_sets_report_the_same",
        both_probe_sets_report_the_same,
    )]
}
