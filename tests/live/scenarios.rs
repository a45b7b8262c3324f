//! Unusual connections, each in a separate network namespace.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    thread,
};

use crate::common::{
    self, Trace, all,
    net::{self, Pair, V4, V6},
    network, scenarios, sequence, the,
};
use libbpf_rs::btf::{Btf, types::Struct};
use serde_json::Value;

const CONNECT: &str = "TcpConnectionEstablish";
const ACCEPT: &str = "TcpConnectionAccept";
const CLOSE: &str = "TcpConnectionClose";
const FAIL: &str = "TcpConnectionFail";

/// Traces `cause` in a separate network namespace; returns its events, of which there must be exactly `count`.
fn events_of(count: usize, cause: impl FnOnce()) -> Vec<Value> {
    let mut trace = Trace::start(&[]);
    cause();
    trace.wait(&format!("{count} events"), |events| network::mine(events).len() >= count);
    let events = network::mine(&trace.stop().events);
    assert_eq!(events.len(), count, "{events:#?}");
    for event in &events {
        assert_eq!(event["process"]["pid"], std::process::id(), "{event:#}");
        assert_eq!(event["process"]["tid"], nix::unistd::gettid().as_raw(), "{event:#}");
    }
    events
}

/// Checks that both ends are reported from start to end; returns both closes, the connecting end's first.
fn whole(events: &[Value]) -> [&Value; 2] {
    let closes = all(events, CLOSE);
    [CONNECT, ACCEPT].map(|kind| {
        let cookie = &common::net(the(events, kind))["cookie"];
        assert_eq!(sequence(events, cookie), [kind, CLOSE], "{events:#?}");
        common::net(closes.iter().find(|close| common::net(close)["cookie"] == *cookie).expect("its close"))
    })
}

/// Whether a structure of the running kernel has a field, according to its BTF.
fn has_field(structure: &str, field: &str) -> bool {
    let btf = Btf::from_vmlinux().expect("type information");
    let found = btf.type_by_name::<Struct<'_>>(structure).expect("the structure");
    found.iter().any(|member| member.name.is_some_and(|name| name == field))
}

/// Checks that the only event is a failure with this errno and remote end.
fn failed(events: &[Value], error: &str, to: SocketAddr) {
    let fail = common::net(the(events, FAIL));
    assert_eq!(fail["error"], error, "{fail:#}");
    assert_eq!(fail["daddr"], to.ip().to_string(), "{fail:#}");
    assert_eq!(fail["dport"], to.port(), "{fail:#}");
    assert_ne!(fail["cookie"], 0, "{fail:#}");
}

fn fast_open() {
    network::own();
    scenarios::allow_fast_open();
    for way in [scenarios::fast_open_by_sendto, scenarios::fast_open_by_connect] {
        let events = events_of(4, || way(b"in the SYN"));
        let [out, back] = whole(&events);
        assert_eq!([&out["bytes_sent"], &out["bytes_received"]], [10, 0]);
        assert_eq!([&back["bytes_sent"], &back["bytes_received"]], [0, 10]);
    }
}

fn mptcp_on_both_ends() {
    network::own();
    let events = events_of(4, || scenarios::mptcp(b"over subflows"));
    let [out, back] = whole(&events);
    for event in &events {
        assert_eq!(common::net(event)["mptcp"], true, "{event:#}");
    }
    // The kernel counts them only since Linux 6.5.
    let counted = has_field("mptcp_sock", "bytes_sent");
    for (close, sent, received) in [(out, 13, 0), (back, 0, 13)] {
        assert_eq!(close.get("bytes_sent"), counted.then_some(&sent.into()));
        assert_eq!(close.get("bytes_received"), counted.then_some(&received.into()));
    }
}

fn io_uring_on_both_ends() {
    network::own();
    whole(&events_of(4, scenarios::io_uring));
}

fn io_uring_refused() {
    network::own();
    let events = events_of(1, || {
        scenarios::io_uring_refused();
    });
    failed(&events, "ECONNREFUSED", SocketAddr::from((Ipv4Addr::LOCALHOST, scenarios::DISCARD)));
}

fn syn_timeout_is_etimedout() {
    network::own();
    network::dig_black_hole();
    network::sysctl("net.ipv4.tcp_syn_retries", "1");
    let address = network::BLACK_HOLE.parse().expect("an address");
    let events = events_of(1, || scenarios::refused(address, libc::ETIMEDOUT));
    failed(&events, "ETIMEDOUT", address);
    assert!(common::net(&events[0])["latency_us"].as_u64() >= Some(1_000_000), "{events:#?}");
}

fn a_close_before_the_answer_is_aborted() {
    network::own();
    network::dig_black_hole();
    let address = network::BLACK_HOLE.parse().expect("an address");
    let events = events_of(1, || scenarios::given_up(address));
    failed(&events, "ABORTED", address);
}

fn no_route() {
    network::own();
    for address in scenarios::NOWHERE {
        let address = address.parse().expect("an address");
        let events = events_of(1, || scenarios::refused(address, libc::ENETUNREACH));
        failed(&events, "ENETUNREACH", address);
    }
}

fn ports_used_up() {
    network::own();
    let listener = net::listen(V4);
    let address = listener.local_addr().expect("an address");
    network::sysctl("net.ipv4.ip_local_port_range", "40000 40000");
    let _first = TcpStream::connect(address).expect("connect");
    let events = events_of(1, || scenarios::refused(address, libc::EADDRNOTAVAIL));
    failed(&events, "EADDRNOTAVAIL", address);
}

fn bind_clash() {
    network::own();
    let listener = net::listen(V4);
    let address = listener.local_addr().expect("an address");
    let (first, second) = (scenarios::bound_to(40000), scenarios::bound_to(40000));
    first.connect(&address.into()).expect("connect");
    let events = events_of(1, || {
        let error = second.connect(&address.into()).expect_err("the same four numbers");
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    });
    failed(&events, "EADDRNOTAVAIL", address);
}

fn resets_in_each_direction() {
    network::own();
    for address in [V4, V6] {
        let reasons = |way: fn(IpAddr)| {
            let events = events_of(4, || way(address));
            whole(&events).map(|close| close["reason"].clone())
        };
        assert_eq!(reasons(scenarios::reset_by_client), ["local_reset", "remote_reset"]);
        assert_eq!(reasons(scenarios::reset_by_server), ["remote_reset", "local_reset"]);
        assert_eq!(reasons(scenarios::left_unread), ["remote_reset", "local_reset"]);
    }
}

fn the_peer_stops_responding() {
    network::own();
    network::sysctl("net.ipv4.tcp_retries2", "1");
    let events = events_of(4, || {
        let mut pair = Pair::new(V4);
        let port = pair.client_port();
        // from now on nothing reaches the server
        network::ip("link set lo down");
        pair.client.write_all(b"into the void").expect("queue");
        let error = pair.client.read(&mut [0]).expect_err("the peer does not respond");
        assert!(matches!(error.raw_os_error(), Some(libc::ETIMEDOUT)), "{error} {port}");
        drop(pair.client);
        network::ip("link set lo up");
        drop(pair.server);
    });
    let [out, _] = whole(&events);
    assert_eq!(out["reason"], "timeout");
    assert!(out["retransmits"].as_u64() >= Some(1), "{out:#}");
}

fn mapped_addresses_are_ipv4() {
    network::own();
    let events = events_of(4, scenarios::mapped);
    whole(&events);
    for event in &events {
        let event = common::net(event);
        assert_eq!([&event["saddr"], &event["daddr"]], ["127.0.0.1", "127.0.0.1"]);
    }
}

fn a_thread_connects() {
    network::own();
    let mut trace = Trace::start(&[]);
    let pair = thread::spawn(|| (Pair::new(V4), nix::unistd::gettid())).join();
    let (pair, thread) = pair.expect("the thread");
    drop(pair);
    trace.wait("4 events", |events| network::mine(events).len() >= 4);
    for event in network::mine(&trace.stop().events) {
        assert_eq!(event["process"]["pid"], std::process::id());
        assert_eq!(event["process"]["tid"], thread.as_raw());
    }
}

/// Established before tcptrace started, accepted after.
fn accepted_after_the_start() {
    network::own();
    let listener = net::listen(V4);
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
    let mut trace = Trace::start(&[]);
    let (mut server, _) = listener.accept().expect("accept");
    drop(client);
    net::wait_for_end(&mut server);
    drop(server);
    let of_server = |events: &[Value]| {
        let events = network::mine(events);
        let cookie = all(&events, ACCEPT).first().map(|event| common::net(event)["cookie"].clone());
        sequence(&events, &cookie.unwrap_or_default())
    };
    trace.wait("the server's end", |events| of_server(events).len() == 2);
    assert_eq!(of_server(&trace.stop().events), [ACCEPT, CLOSE]);
}

crate::tests![
    fast_open,
    mptcp_on_both_ends,
    io_uring_on_both_ends,
    io_uring_refused,
    syn_timeout_is_etimedout,
    a_close_before_the_answer_is_aborted,
    no_route,
    ports_used_up,
    bind_clash,
    resets_in_each_direction,
    the_peer_stops_responding,
    mapped_addresses_are_ipv4,
    a_thread_connects,
    accepted_after_the_start,
];
