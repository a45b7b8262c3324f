//! Connections made and lost in unusual ways, each in a network of its own. Needs root.

mod common;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use common::{
    Trace, all,
    net::{self, Pair, V4, V6},
    network, story, the,
};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

const MSG_FASTOPEN: i32 = libc::MSG_FASTOPEN;
const CONNECT: &str = "TcpConnectionEstablish";
const ACCEPT: &str = "TcpConnectionAccept";
const CLOSE: &str = "TcpConnectionClose";
const FAIL: &str = "TcpConnectionFail";

/// Trace `cause` in a network of its own; the `count` events it makes, and no others.
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

/// Both ends' stories are whole; returns the two closes, the connecting end's first.
fn whole(events: &[Value]) -> [&Value; 2] {
    let closes = all(events, CLOSE);
    [CONNECT, ACCEPT].map(|kind| {
        let cookie = &common::net(the(events, kind))["cookie"];
        assert_eq!(story(events, cookie), [kind, CLOSE], "{events:#?}");
        common::net(closes.iter().find(|close| common::net(close)["cookie"] == *cookie).expect("its close"))
    })
}

/// The one event is a failure with this errno and this other end.
fn failed(events: &[Value], error: &str, to: SocketAddr) {
    let fail = common::net(the(events, FAIL));
    assert_eq!(fail["error"], error, "{fail:#}");
    assert_eq!(fail["daddr"], to.ip().to_string(), "{fail:#}");
    assert_eq!(fail["dport"], to.port(), "{fail:#}");
    assert_ne!(fail["cookie"], 0, "{fail:#}");
}

/// Take what was sent, and close both ends, the client first.
fn finish(listener: &Socket, client: Socket, expected: &[u8]) {
    let (mut server, _) = listener.accept().expect("accept");
    let mut taken = vec![0; expected.len()];
    server.read_exact(&mut taken).expect("receive");
    assert_eq!(taken, expected);
    drop(client);
    assert_eq!(server.read(&mut taken).expect("the end"), 0);
}

fn listener(protocol: Protocol) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).expect("a socket");
    socket.bind(&net::any(V4).into()).expect("bind");
    socket.listen(8).expect("listen");
    let address = socket.local_addr().expect("an address").as_socket().expect("IPv4");
    (socket, address)
}

fn client(protocol: Protocol) -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).expect("a socket")
}

#[test]
fn fast_open_by_sendto() {
    network::own();
    network::sysctl("net.ipv4.tcp_fastopen", "1543"); // both ends, without cookies, every listener
    let (listener, address) = listener(Protocol::TCP);
    let events = events_of(4, || {
        let client = client(Protocol::TCP);
        let sent = client.send_to_with_flags(b"in the SYN", &address.into(), MSG_FASTOPEN).expect("sendto");
        assert_eq!(sent, 10);
        finish(&listener, client, b"in the SYN");
    });
    let [out, back] = whole(&events);
    assert_eq!([&out["bytes_sent"], &out["bytes_received"]], [10, 0]);
    assert_eq!([&back["bytes_sent"], &back["bytes_received"]], [0, 10]);
}

#[test]
fn fast_open_by_connect() {
    network::own();
    network::sysctl("net.ipv4.tcp_fastopen", "1543");
    let (listener, address) = listener(Protocol::TCP);
    let events = events_of(4, || {
        let mut client = client(Protocol::TCP);
        setsockopt(&client, sockopt::TcpFastOpenConnect, &true).expect("TCP_FASTOPEN_CONNECT");
        client.connect(&address.into()).expect("connect");
        client.write_all(b"in the SYN").expect("write");
        finish(&listener, client, b"in the SYN");
    });
    let [out, back] = whole(&events);
    assert_eq!([&out["bytes_sent"], &out["bytes_received"]], [10, 0]);
    assert_eq!([&back["bytes_sent"], &back["bytes_received"]], [0, 10]);
}

#[test]
fn mptcp_on_both_ends() {
    network::own();
    let (listener, address) = listener(Protocol::MPTCP);
    let events = events_of(4, || {
        let mut client = client(Protocol::MPTCP);
        client.connect(&address.into()).expect("connect");
        client.write_all(b"over subflows").expect("write");
        finish(&listener, client, b"over subflows");
    });
    let [out, back] = whole(&events);
    for event in &events {
        assert_eq!(common::net(event)["mptcp"], true, "{event:#}");
    }
    // older kernels do not count the bytes of an MPTCP connection
    if !std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release").starts_with("6.1.") {
        assert_eq!([&out["bytes_sent"], &out["bytes_received"]], [13, 0]);
        assert_eq!([&back["bytes_sent"], &back["bytes_received"]], [0, 13]);
    }
}

#[test]
fn io_uring_on_both_ends() {
    network::own();
    let listener = TcpListener::bind((V4, 0)).expect("bind and listen");
    let address = listener.local_addr().expect("an address");
    let events = events_of(4, || {
        tokio_uring::start(async move {
            let listener = tokio_uring::net::TcpListener::from_std(listener);
            let client = tokio_uring::net::TcpStream::connect(address).await.expect("connect");
            let (server, _) = listener.accept().await.expect("accept");
            drop(client);
            let (end, _) = server.read(vec![0; 1]).await;
            assert_eq!(end.expect("the end"), 0);
        });
    });
    whole(&events);
}

#[test]
fn io_uring_refused() {
    network::own();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let events = events_of(1, || {
        tokio_uring::start(async move {
            tokio_uring::net::TcpStream::connect(address).await.err().expect("nobody listens");
        });
    });
    failed(&events, "ECONNREFUSED", address);
}

#[test]
fn no_answer() {
    network::own();
    network::ip("route add 192.0.2.0/24 dev lo");
    network::sysctl("net.ipv4.tcp_syn_retries", "1");
    let address = network::BLACK_HOLE.parse().expect("an address");
    let events = events_of(1, || {
        let error = TcpStream::connect(address).expect_err("nobody answers");
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    });
    failed(&events, "ETIMEDOUT", address);
    assert!(common::net(&events[0])["latency_us"].as_u64() >= Some(1_000_000), "{events:#?}");
}

#[test]
fn no_answer_and_closed() {
    network::own();
    network::ip("route add 192.0.2.0/24 dev lo");
    let address: SocketAddr = network::BLACK_HOLE.parse().expect("an address");
    let events = events_of(1, || {
        let client = client(Protocol::TCP);
        client.set_nonblocking(true).expect("O_NONBLOCK");
        let error = client.connect(&address.into()).expect_err("not at once");
        assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
    });
    failed(&events, "ABORTED", address);
}

#[test]
fn no_route() {
    network::own();
    for address in ["192.0.2.1:9", "[2001:db8::1]:9"] {
        let address = address.parse().expect("an address");
        let events = events_of(1, || {
            let error = TcpStream::connect(address).expect_err("there is no way");
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        });
        failed(&events, "ENETUNREACH", address);
    }
}

#[test]
fn ports_used_up() {
    network::own();
    network::sysctl("net.ipv4.ip_local_port_range", "40000 40000");
    let listener = TcpListener::bind((V4, 80)).expect("bind and listen");
    let address = listener.local_addr().expect("an address");
    let _first = TcpStream::connect(address).expect("connect");
    let events = events_of(1, || {
        let error = TcpStream::connect(address).expect_err("the only port is taken");
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    });
    failed(&events, "EADDRNOTAVAIL", address);
}

#[test]
fn bind_clash() {
    network::own();
    let listener = TcpListener::bind((V4, 80)).expect("bind and listen");
    let address = listener.local_addr().expect("an address");
    let bound = || {
        let socket = client(Protocol::TCP);
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 40000)).into()).expect("bind");
        socket
    };
    let (first, second) = (bound(), bound());
    first.connect(&address.into()).expect("connect");
    let events = events_of(1, || {
        let error = second.connect(&address.into()).expect_err("the same four numbers");
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    });
    failed(&events, "EADDRNOTAVAIL", address);
}

#[test]
fn resets_in_each_direction() {
    network::own();
    for address in [V4, V6] {
        let closes = |events: &[Value]| whole(events).map(|close| close["reason"].clone());
        let events = events_of(4, || {
            let mut pair = Pair::new(address);
            net::reset(pair.client);
            net::wait_for_end(&mut pair.server);
        });
        assert_eq!(closes(&events), ["local_reset", "remote_reset"]);

        let events = events_of(4, || {
            let mut pair = Pair::new(address);
            net::reset(pair.server);
            net::wait_for_end(&mut pair.client);
        });
        assert_eq!(closes(&events), ["remote_reset", "local_reset"]);

        // data that nobody read
        let events = events_of(4, || {
            let mut pair = Pair::new(address);
            pair.client.write_all(b"unread").expect("send");
            pair.server.peek(&mut [0]).expect("it has come");
            drop(pair.server);
            net::wait_for_end(&mut pair.client);
        });
        assert_eq!(closes(&events), ["remote_reset", "local_reset"]);
    }
}

#[test]
fn peer_vanishes() {
    network::own();
    network::sysctl("net.ipv4.tcp_retries2", "1");
    let events = events_of(4, || {
        let mut pair = Pair::new(V4);
        let port = pair.client_port();
        // from now on nothing reaches the server's end
        network::ip("link set lo down");
        pair.client.write_all(b"into the void").expect("queue");
        let error = pair.client.read(&mut [0]).expect_err("nobody answers");
        assert!(matches!(error.raw_os_error(), Some(libc::ETIMEDOUT)), "{error} {port}");
        drop(pair.client);
        network::ip("link set lo up");
        drop(pair.server);
    });
    let [out, _] = whole(&events);
    assert_eq!(out["reason"], "timeout");
    assert!(out["retransmits"].as_u64() >= Some(1), "{out:#}");
}

#[test]
fn mapped_addresses_are_ipv4() {
    network::own();
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a dual-stack listener");
    let port = listener.local_addr().expect("an address").port();
    let events = events_of(4, || {
        let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
        let client = TcpStream::connect(mapped).expect("connect");
        let (mut server, _) = listener.accept().expect("accept");
        drop(client);
        net::wait_for_end(&mut server);
    });
    whole(&events);
    for event in &events {
        let event = common::net(event);
        assert_eq!([&event["saddr"], &event["daddr"]], ["127.0.0.1", "127.0.0.1"]);
    }
}

#[test]
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

/// Established before tcptrace was there, accepted after.
#[test]
fn accepted_late() {
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
        story(&events, &cookie.unwrap_or_default())
    };
    trace.wait("the server's end", |events| of_server(events).len() == 2);
    assert_eq!(of_server(&trace.stop().events), [ACCEPT, CLOSE]);
}
