//! `-e`: only what the chosen kinds of events need is traced, and they are the same as among all.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
};

use serde_json::Value;

use crate::common::{
    self, Trace,
    net::{self, Pair, V4},
    network, scenarios,
};

/// Values of -e, and the types of their events.
const KINDS: [(&str, &[&str]); 9] = [
    ("connect", &["TcpConnectionEstablish"]),
    ("accept", &["TcpConnectionAccept"]),
    ("close", &["TcpConnectionClose"]),
    ("fail", &["TcpConnectionFail"]),
    ("request", &["NetTCPConnect"]),
    ("listen", &["TcpListenStart", "TcpListenStop"]),
    ("state", &["TcpStateChange"]),
    ("retransmit", &["TcpRetransmit"]),
    ("accept,listen", &["TcpConnectionAccept", "TcpListenStart", "TcpListenStop"]),
];

/// What happened in this thread's namespace, without what differs from run to run.
fn stories(events: &[Value]) -> Vec<String> {
    let (netns, thread) = (network::number(), nix::unistd::gettid().as_raw());
    let ours = events.iter().filter(|event| match common::net(event).get("netns") {
        Some(number) => *number == netns,
        None => event["process"]["tid"] == thread, // a request
    });
    let mut stories: Vec<String> = ours
        .map(|event| {
            let facts = ["type", "dstIP", "error", "reason", "state", "old_state", "new_state", "direction"];
            facts.map(|fact| common::net(event)[fact].as_str().unwrap_or("-")).join(" ")
        })
        .collect();
    stories.sort();
    stories
}

/// Connections that end in each way, failures with and without a SYN, and listeners; some exist before the trace.
fn everything(arguments: &[&str]) -> Vec<String> {
    let listener = net::listen(V4);
    let address = listener.local_addr().expect("an address");
    let (before, taken) = (Pair::new(V4), scenarios::bound_to(1000));
    taken.connect(&address.into()).expect("connect");
    let trace = Trace::start(arguments);

    let mut pair = Pair::new(V4);
    pair.client.write_all(b"x").expect("send");
    pair.server.read_exact(&mut [0]).expect("receive");
    drop(pair.client);
    net::wait_for_end(&mut pair.server);
    drop(pair.server);
    scenarios::reset_by_server(V4);
    scenarios::refused(SocketAddr::from((V4, scenarios::DISCARD)), libc::ECONNREFUSED);
    scenarios::refused(scenarios::NOWHERE[1].parse().expect("an address"), libc::ENETUNREACH);
    let clash = scenarios::bound_to(1000).connect(&address.into());
    assert_eq!(clash.expect_err("the same four numbers").raw_os_error(), Some(libc::EADDRNOTAVAIL));
    let unanswered = scenarios::begun(network::BLACK_HOLE.parse().expect("an address"));
    common::wait_until("no SYN is retransmitted", || {
        let table = fs::read_to_string("/proc/thread-self/net/tcp").expect("sockets");
        let mut lines = table.lines().map(|line| Vec::from_iter(line.split_whitespace()));
        lines.any(|words| words[3] == "02" && words[6] == "00000001")
    });
    drop((unanswered, before, taken, pair.listener, listener));
    network::wait_until_closed(|_| true);
    stories(&trace.stop().events)
}

fn each_is_the_same_alone() {
    network::in_own(|_| {
        network::dig_black_hole();
        let all = everything(&["-e", "all"]);
        for (_, types) in KINDS {
            for name in types {
                assert!(all.iter().any(|story| story.contains(name)), "no {name} in {all:#?}");
            }
        }
        for (kind, types) in KINDS {
            let expected = all.iter().filter(|story| types.iter().any(|name| story.contains(name)));
            let expected: Vec<&String> = expected.collect();
            assert_eq!(everything(&["-e", kind]).iter().collect::<Vec<_>>(), expected, "{kind}");
        }
    });
}

crate::tests![each_is_the_same_alone,];
