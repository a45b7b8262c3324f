//! Connections on real sockets, from start to end.

use std::net::IpAddr;

use crate::common::{
    self, Trace, all,
    net::{self, Pair, V4, V6},
    sequence, the,
};
use serde_json::Value;

fn every_field_of_a_connection() {
    let mut trace = Trace::start(&[]);
    for address in [V4, V6] {
        for (sent, received) in [(0, 0), (1, 0), (0, 1), (1000, 77), (10_000_000, 1), (3, 10_000_000)] {
            check_connection(&mut trace, address, sent, received);
        }
    }
}

/// One connection, closed by the client first; checks every field with a known value.
fn check_connection(trace: &mut Trace, address: IpAddr, sent: usize, received: usize) {
    let mut pair = Pair::new(address);
    let (port, client_port) = (pair.port(), pair.client_port());
    net::transfer(&mut pair.client, &mut pair.server, sent);
    net::transfer(&mut pair.server, &mut pair.client, received);
    drop(pair.client);
    net::wait_for_end(&mut pair.server);
    drop(pair.server);

    let events = trace.wait_ports([client_port, port], 4);
    let connect = the(&events, "TcpConnectionEstablish");
    let accept = the(&events, "TcpConnectionAccept");
    let closes = all(&events, "TcpConnectionClose");
    for event in &events {
        let outgoing = event["network_event"]["sport"] == client_port;
        let (sport, dport) = if outgoing { (client_port, port) } else { (port, client_port) };
        let net = common::net(event);
        assert_eq!(net["saddr"], address.to_string());
        assert_eq!(net["daddr"], address.to_string());
        assert_eq!(net["sport"], sport);
        assert_eq!(net["dport"], dport);
        assert_eq!(net["netns"], common::network::number());
        assert_eq!(event["process"]["pid"], std::process::id());
        assert_eq!(event["process"]["tid"], nix::unistd::gettid().as_raw());
    }
    assert_eq!(common::net(accept)["backlog"]["len"], 0);
    assert_eq!(common::net(accept)["backlog"]["max"], 128.min(somaxconn()));
    for (opened, sent, received, direction, reason) in [
        (connect, sent, received, "egress", "local_close"),
        (accept, received, sent, "ingress", "remote_close"),
    ] {
        let cookie = &common::net(opened)["cookie"];
        assert_eq!(
            sequence(&events, cookie),
            [common::net(opened)["type"].as_str().unwrap_or_default(), "TcpConnectionClose"]
        );
        let close = closes.iter().find(|close| common::net(close)["cookie"] == *cookie).expect("its close");
        let close = common::net(close);
        assert_eq!(close["direction"], direction);
        assert_eq!(close["reason"], reason);
        assert_eq!(close["bytes_sent"], sent, "{address} {sent}/{received}");
        assert_eq!(close["bytes_received"], received, "{address} {sent}/{received}");
        assert_eq!(common::closer(close), &Value::Null);
    }
}

fn somaxconn() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("somaxconn");
    text.trim().parse().expect("a number")
}

crate::tests![every_field_of_a_connection,];
