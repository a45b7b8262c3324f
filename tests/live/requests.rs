//! Attempts: every way to start a connection is reported as one NetTCPConnect.
//!
//! The targets are loopback addresses that nothing else uses; the sockets belong to this process.

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use crate::common::{self, Trace, folder::Folder, harness::skipped, net, sys::landlock_abi};
use landlock::{AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated};
use libtest_mimic::Completion;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, connect, sendto, setsockopt,
        socket, sockopt,
    },
};
use serde_json::{Value, json};

/// The events for a test's own targets: tests run in parallel with different targets.
fn ours(events: &[Value], targets: &[&str]) -> Vec<Value> {
    let is_ours = |event: &&Value| {
        let net = net(event);
        let target = net["dstIP"].as_str().or(net["daddr"].as_str()).unwrap_or_default();
        targets.iter().any(|&ours| target.starts_with(ours))
    };
    events.iter().filter(is_ours).cloned().collect()
}

fn tcp(family: AddressFamily, flags: SockFlag) -> OwnedFd {
    socket(family, SockType::Stream, flags, None).expect("a socket")
}

fn at(address: &str) -> SockaddrIn {
    SockaddrIn::from(address.parse::<std::net::SocketAddrV4>().expect("an address"))
}

fn every_attempt_is_reported_once() {
    let listener = TcpListener::bind("0.0.0.0:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let closed = TcpListener::bind("127.99.0.9:0").expect("listen");
    let closed_port = closed.local_addr().expect("an address").port();
    common::net::stop_listening(closed);
    let mut trace = Trace::start(&["-e", "request"]);

    drop(TcpStream::connect(("127.99.0.1", port)).expect("connect"));

    let mapped: SocketAddr = format!("[::ffff:127.99.0.2]:{port}").parse().expect("an address");
    drop(TcpStream::connect(mapped).expect("connect through a mapped address"));

    let nonblocking = tcp(AddressFamily::Inet, SockFlag::SOCK_NONBLOCK);
    let target = at(&format!("127.99.0.3:{port}"));
    assert_eq!(connect(nonblocking.as_raw_fd(), &target), Err(Errno::EINPROGRESS));
    // Checking the progress is not another attempt.
    let mut writable = [PollFd::new(nonblocking.as_fd(), PollFlags::POLLOUT)];
    poll(&mut writable, PollTimeout::NONE).expect("poll");
    assert_eq!(connect(nonblocking.as_raw_fd(), &target), Ok(()));

    // Fast Open, without and with connect(): the security hook sees only the second.
    let fast = tcp(AddressFamily::Inet, SockFlag::empty());
    let target = at(&format!("127.99.0.4:{port}"));
    let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    assert_eq!(sendto(fast.as_raw_fd(), b"x", &target, flags), Ok(1));
    let deferred = tcp(AddressFamily::Inet, SockFlag::empty());
    setsockopt(&deferred, sockopt::TcpFastOpenConnect, &true).expect("TCP_FASTOPEN_CONNECT");
    connect(deferred.as_raw_fd(), &at(&format!("127.99.0.5:{port}"))).expect("connect");

    // Must be ignored: UDP and AF_UNIX.
    UdpSocket::bind("127.0.0.1:0").and_then(|udp| udp.connect(("127.99.0.6", port))).expect("connect");
    std::os::unix::net::UnixStream::connect("/nowhere").expect_err("nobody is there");

    // No route: it fails before the SYN, but is still an attempt.
    let nowhere = tcp(AddressFamily::Inet, SockFlag::empty());
    assert_eq!(connect(nowhere.as_raw_fd(), &at("255.255.255.255:7")), Err(Errno::ENETUNREACH));

    TcpStream::connect(("127.99.0.9", closed_port)).expect_err("refused");

    let expected = [
        ("127.99.0.1", port),
        ("127.99.0.2", port),
        ("127.99.0.3", port),
        ("127.99.0.4", port),
        ("127.99.0.5", port),
        ("255.255.255.255", 7),
        ("127.99.0.9", closed_port),
    ];
    let targets = ["127.99.0.", "255.255.255.255"];
    trace.wait("all requests", |events| ours(events, &targets).len() >= expected.len());
    let ended = trace.stop();
    let events = ours(&ended.events, &targets);
    let reported: Vec<&Value> = events.iter().map(net).collect();
    let expected = expected
        .map(|(ip, port)| json!({"type": "NetTCPConnect", "dstIP": ip, "dstPort": port, "results": []}));
    assert_eq!(reported, expected.iter().collect::<Vec<_>>());
    for event in &events {
        assert_eq!(event["process"]["pid"], std::process::id());
        assert_eq!(event["process"]["tid"], nix::unistd::gettid().as_raw());
        assert_eq!(event["parent"]["pid"], nix::unistd::getppid().as_raw());
    }
}

fn an_attempt_precedes_its_result() {
    let listener = TcpListener::bind("127.99.1.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let port = address.port();
    let mut trace = Trace::start(&["-e", "request,connect,fail"]);
    drop(TcpStream::connect(address).expect("connect"));
    let fast = tcp(AddressFamily::Inet, SockFlag::empty());
    let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    assert_eq!(sendto(fast.as_raw_fd(), b"x", &at(&address.to_string()), flags), Ok(1));
    common::net::stop_listening(listener);
    TcpStream::connect(address).expect_err("refused");
    let mine = |events: &[Value]| -> Vec<String> {
        let events = events.iter().map(net).filter(|net| net["dstPort"] == port || net["dport"] == port);
        events.map(|net| net["type"].as_str().expect("a type").to_owned()).collect()
    };
    trace.wait("three attempts and their ends", |events| mine(events).len() >= 6);
    assert_eq!(
        mine(&trace.events),
        [
            "NetTCPConnect",
            "TcpConnectionEstablish",
            "NetTCPConnect",
            "TcpConnectionEstablish",
            "NetTCPConnect",
            "TcpConnectionFail"
        ]
    );
}

/// An attempt refused by a security module never becomes a connection: it fails.
fn a_refused_attempt_is_reported() -> Completion {
    if landlock_abi() < 4 {
        return skipped("this kernel has no Landlock rules for networks (Linux 6.7)");
    }
    let listener = TcpListener::bind("127.99.2.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let mut trace = Trace::start(&["-e", "request,connect,fail"]);
    let attempt = move || {
        // Applies only to this thread.
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessNet::ConnectTcp)
            .and_then(Ruleset::create)
            .and_then(RulesetCreated::restrict_self)
            .expect("Landlock rules");
        TcpStream::connect(address).expect_err("Landlock refuses").kind()
    };
    let refused = std::thread::spawn(attempt).join().expect("the thread");
    assert_eq!(refused, std::io::ErrorKind::PermissionDenied);
    let mine = |events: &[Value]| -> Vec<Value> {
        let port = address.port();
        let is_mine = |net: &&Value| net["dstPort"] == port || net["dport"] == port;
        events.iter().map(net).filter(is_mine).cloned().collect()
    };
    trace.wait("the request and its failure", |events| mine(events).len() >= 2);
    let reported = mine(&trace.stop().events);
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert_eq!(reported[0]["type"], "NetTCPConnect");
    assert_eq!([&reported[1]["type"], &reported[1]["error"]], ["TcpConnectionFail", "EACCES"]);
    Completion::Completed
}

fn an_ipv6_attempt() {
    let listener = TcpListener::bind("[::1]:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let mut trace = Trace::start(&["-e", "request"]);
    let socket = tcp(AddressFamily::Inet6, SockFlag::empty());
    let address: std::net::SocketAddrV6 = format!("[::1]:{port}").parse().expect("an address");
    connect(socket.as_raw_fd(), &SockaddrIn6::from(address)).expect("connect");
    trace.wait("the request", |events| events.iter().any(|event| net(event)["dstPort"] == port));
    let event = trace.events.iter().map(net).find(|net| net["dstPort"] == port).expect("the request");
    assert_eq!(event, &json!({"type": "NetTCPConnect", "dstIP": "::1", "dstPort": port, "results": []}));
}

/// Filters apply to an attempt as to the connection: by caller and destination.
fn filters_apply_to_attempts() {
    let listener = TcpListener::bind("127.99.3.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let other = TcpListener::bind("127.99.3.2:0").expect("listen");
    let other_address = other.local_addr().expect("an address");
    let (port, other_port) = (address.port(), other_address.port());
    let this = std::env::current_exe().expect("this program");
    let this = this.to_string_lossy();
    let rules = format!(
        "egress:\n  rules:\n  - rule: first\n    scope: binary_path == \"{this}\"\n    \
         event: port_dst == {port}\n  - rule: second\n    event: ipv4_dst in [\"127.99.3.2\"]\n"
    );
    let folder = Folder::new();
    let name = folder.write("rules.yaml", &rules);
    let dport = port.to_string();
    let pid = std::process::id().to_string();
    for (arguments, expected) in [
        (&["--dport", &dport][..], vec![(port, None)]),
        (&["--daddr", "127.99.3.2"], vec![(other_port, None)]),
        (&["--daddr", "127.99.3.0/24", "-p", &pid, "-b", &this], vec![(port, None), (other_port, None)]),
        (&["--daddr", "127.99.3.0/24", "--deny", "-b", &this], vec![]),
        (&["-6", "-p", &pid], vec![]),
        (&[&format!("daddr == \"127.99.3.0/24\" AND NOT port_dst == {port}")], vec![(other_port, None)]),
        (&["-c", &name], vec![(port, Some("first")), (other_port, Some("second"))]),
        (&["-c", &name, "--dport", &dport], vec![(port, Some("first"))]),
    ] {
        let trace = Trace::start(&[&["-e", "request"], arguments].concat());
        for to in [address, other_address] {
            drop(TcpStream::connect(to).expect("connect"));
        }
        // They are reported before connect() returns.
        let events = ours(&trace.stop().events, &["127.99.3."]);
        let reported: Vec<_> =
            events.iter().map(|event| (net(event)["dstPort"].clone(), event["rule"].as_str())).collect();
        let expected: Vec<_> = expected.into_iter().map(|(port, rule)| (Value::from(port), rule)).collect();
        assert_eq!(reported, expected, "{arguments:?}");
    }
}

crate::tests![
    every_attempt_is_reported_once,
    an_attempt_precedes_its_result,
    a_refused_attempt_is_reported,
    an_ipv6_attempt,
    filters_apply_to_attempts,
];
