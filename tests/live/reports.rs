//! Bugs that users of similar tools have reported; each test is such a case.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    path::PathBuf,
    process::Command,
    thread,
};

use landlock::{AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated};
use libbpf_rs::Link;
use libtest_mimic::Completion;
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{setsockopt, sockopt},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use tcptrace::{host, tracer::others};

use crate::common::{
    self, Trace,
    actor::{self, Actor},
    all,
    harness::skipped,
    net,
    net::{Pair, V4, V6},
    network, scenarios, sequence, sys, the,
};

const CONNECT: &str = "TcpConnectionEstablish";
const ACCEPT: &str = "TcpConnectionAccept";
const CLOSE: &str = "TcpConnectionClose";
const FAIL: &str = "TcpConnectionFail";
const STATE: &str = "TcpStateChange";

/// Traces `cause` in a separate network namespace; returns its events, of which there must be exactly `count`.
fn events_of(arguments: &[&str], count: usize, cause: impl FnOnce()) -> Vec<Value> {
    network::own();
    let mut trace = Trace::start(arguments);
    cause();
    trace.wait(&format!("{count} events"), |events| network::mine(events).len() >= count);
    let ended = trace.stop();
    assert_eq!(ended.lost(), Vec::<&str>::new());
    let events = network::mine(&ended.events);
    assert_eq!(events.len(), count, "{events:#?}");
    events.iter().for_each(common::schema::check);
    events
}

fn close_of<'a>(events: &'a [Value], direction: &str) -> &'a Value {
    let closes = all(events, CLOSE);
    net(closes.iter().find(|close| net(close)["direction"] == direction).expect("a close"))
}

/// Forbids this thread to connect.
fn forbid_connecting() {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessNet::ConnectTcp)
        .and_then(Ruleset::create)
        .and_then(RulesetCreated::restrict_self);
    ruleset.expect("Landlock rules");
}

fn a_refusal_by_a_security_module_is_a_failure() -> Completion {
    if sys::landlock_abi() < 4 {
        return skipped("Landlock before version 4 does not restrict TCP");
    }
    let targets: [SocketAddr; 2] =
        ["127.0.0.1:4444", "[::1]:4445"].map(|text| text.parse().expect("an address"));
    let events = events_of(&[], 3, || {
        thread::scope(|scope| {
            scope.spawn(|| {
                forbid_connecting();
                for target in targets {
                    scenarios::refused(target, libc::EACCES);
                }
                // a socket that has been refused before, by its peer
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                socket.connect(&targets[0].into()).expect_err("forbidden");
            });
        });
    });
    for (event, target) in events.iter().zip([targets[0], targets[1], targets[0]]) {
        let fail = net(event);
        assert_eq!([&fail["type"], &fail["error"]], [FAIL, "EACCES"], "{fail:#}");
        assert_eq!(fail["daddr"], target.ip().to_string());
        assert_eq!(fail["dport"], target.port());
        assert_eq!(fail.get("latency_us"), None, "nothing was waited for");
    }
    Completion::Completed
}

fn mptcp_failures_have_their_errors() {
    let refused: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let unreachable: SocketAddr = scenarios::NOWHERE[0].parse().expect("an address");
    let cases = [
        (refused, "ECONNREFUSED", false),
        (refused, "ECONNREFUSED", true),
        (unreachable, "ENETUNREACH", false),
        (unreachable, "ENETUNREACH", true),
    ];
    let events = events_of(&[], cases.len() + 1, || {
        for (target, _, nonblocking) in cases {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("a socket");
            socket.set_nonblocking(nonblocking).expect("O_NONBLOCK");
            socket.connect(&target.into()).expect_err("it fails or waits");
            while nonblocking && target == refused && socket.take_error().expect("SO_ERROR").is_none() {
                thread::yield_now();
            }
        }
        network::dig_black_hole();
        let given_up = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("a socket");
        given_up.set_nonblocking(true).expect("O_NONBLOCK");
        given_up.connect(&unreachable.into()).expect_err("no answer");
    });
    let cases = cases.map(|(target, error, _)| (target, error)).into_iter().chain([(unreachable, "ABORTED")]);
    for (event, (target, error)) in events.iter().zip(cases) {
        let fail = net(event);
        assert_eq!([&fail["type"], &fail["error"]], [FAIL, error], "{fail:#}");
        assert_eq!(fail["daddr"], target.ip().to_string(), "{fail:#}");
        assert_eq!(fail["dport"], target.port(), "{fail:#}");
        assert_eq!(fail["mptcp"], true);
    }
}

fn invalid_addresses_are_not_attempts() {
    let cases: [(Domain, i32, i32, usize); 6] = [
        (Domain::IPV6, libc::AF_INET, libc::EAFNOSUPPORT, 128),
        (Domain::IPV6, libc::AF_INET, libc::EINVAL, 16),
        (Domain::IPV4, libc::AF_INET6, libc::EAFNOSUPPORT, 28),
        (Domain::IPV4, libc::AF_UNIX, libc::EAFNOSUPPORT, 110),
        (Domain::IPV4, libc::AF_INET, libc::EINVAL, 8),
        (Domain::IPV6, libc::AF_INET6, libc::EINVAL, 16),
    ];
    // the last event is a failure, as something to wait for
    let events = events_of(&[], 1, || {
        for (domain, family, error, length) in cases {
            let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
            let mut address = vec![0xaa; length];
            address[..2].copy_from_slice(&(family as u16).to_ne_bytes());
            assert_eq!(sys::connect_to(socket.as_raw_fd(), &address), error, "{domain:?} {family} {length}");
        }
        scenarios::refused(SocketAddr::from((Ipv4Addr::LOCALHOST, scenarios::DISCARD)), libc::ECONNREFUSED);
    });
    assert_eq!(net(&events[0])["error"], "ECONNREFUSED", "{events:#?}");
}

/// Accepted from a listener with a backlog of 0, like a socket that never listened.
fn existing_directions_do_not_depend_on_the_backlog() {
    network::own();
    let pairs: Vec<[Socket; 3]> = [(V4, Protocol::TCP), (V6, Protocol::TCP), (V4, Protocol::MPTCP)]
        .map(|(address, protocol)| {
            let new = || Socket::new(Domain::for_address((address, 0).into()), Type::STREAM, Some(protocol));
            let (listener, client) = (new().expect("a socket"), new().expect("a socket"));
            listener.bind(&SocketAddr::from((address, 0)).into()).expect("bind");
            listener.listen(0).expect("listen");
            client.connect(&listener.local_addr().expect("an address")).expect("connect");
            let (server, _) = listener.accept().expect("accept");
            [listener, client, server]
        })
        .into();
    let mut trace = Trace::start(&["--existing"]);
    for [_, client, server] in &pairs {
        let (mut client, mut server) = (client, server);
        client.write_all(b"12345").expect("send");
        server.read_exact(&mut [0; 5]).expect("receive");
        server.write_all(b"123").expect("send");
        client.read_exact(&mut [0; 3]).expect("receive");
    }
    for [_, client, mut server] in pairs {
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("the end"), 0);
    }
    trace.wait("the closes", |events| all(&network::mine(events), CLOSE).len() >= 6);
    let events = network::mine(&trace.stop().events);
    let existing = all(&events, "TcpConnectionExisting");
    let ports: Vec<&Value> = existing
        .iter()
        .filter(|event| net(event)["state"] == "LISTEN")
        .map(|event| &net(event)["sport"])
        .collect();
    assert_eq!(ports.len(), 3, "{existing:#?}");
    for event in all(&events, CLOSE).into_iter().chain(existing) {
        let net = net(event);
        if net["state"] == "LISTEN" {
            continue;
        }
        let accepted = ports.contains(&&net["sport"]);
        assert_eq!(net["direction"], if accepted { "ingress" } else { "egress" }, "{net:#}");
        if let Some(sent) = net.get("bytes_sent") {
            let bytes = if accepted { [3, 5] } else { [5, 3] };
            assert_eq!([sent, &net["bytes_received"]], bytes, "{net:#}");
        }
    }
}

/// With a cookie, connect() returns immediately, and the first write sends the SYN.
fn latency_begins_with_the_syn() {
    const PAUSE_US: u64 = 300_000;
    let events = events_of(&[], 4, || {
        scenarios::allow_fast_open();
        let pair = net::listen(V4);
        let mut client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        setsockopt(&client, sockopt::TcpFastOpenConnect, &true).expect("TCP_FASTOPEN_CONNECT");
        client.connect(&pair.local_addr().expect("an address").into()).expect("connect");
        thread::sleep(std::time::Duration::from_micros(PAUSE_US)); // the pause to be measured
        client.write_all(b"x").expect("write");
        let (mut server, _) = pair.accept().expect("accept");
        drop(client);
        net::wait_for_end(&mut server);
    });
    let latency = net(the(&events, CONNECT))["latency_us"].as_u64();
    assert!(latency.is_some_and(|latency| latency < PAUSE_US), "{events:#?}");
}

/// A soft error stays in the socket until it is read; the connection ended for another reason.
fn soft_errors_are_not_the_close_reason() {
    let events = events_of(&[], 8, || {
        for end in [drop::<TcpStream> as fn(TcpStream), net::reset] {
            let mut pair = Pair::new(V4);
            setsockopt(&pair.client, sockopt::Ipv4RecvErr, &true).expect("IP_RECVERR");
            sys::send_unreachable(&pair.client, &pair.server);
            while pair.client.peer_addr().is_ok() && !sys::has_error(&pair.client) {
                thread::yield_now();
            }
            end(pair.client);
            net::wait_for_end(&mut pair.server);
        }
    });
    // The close of one connection may come after that of the next: packets wait on a busy processor.
    let reasons = all(&events, CONNECT).into_iter().map(|connect| {
        let port = net(connect)["sport"].as_u64().expect("a port") as u16;
        let its = common::of_port(&events, port);
        ["egress", "ingress"].map(|direction| close_of(&its, direction)["reason"].clone())
    });
    let reasons: Vec<_> = reasons.collect();
    assert_eq!(reasons, [["local_close", "remote_close"], ["local_reset", "remote_reset"]]);
}

/// A connection that is moved to another socket with TCP_REPAIR.
fn a_moved_connection_is_not_reset() {
    let events = events_of(&[], 6, || {
        let mut pair = Pair::new(V4);
        net::transfer(&mut pair.client, &mut pair.server, 5);
        let from = pair.client.local_addr().expect("an address");
        let restored =
            sys::move_connection(pair.client, from, pair.listener.local_addr().expect("an address"));
        let mut client = TcpStream::from(restored);
        net::transfer(&mut client, &mut pair.server, 3);
        drop(client);
        net::wait_for_end(&mut pair.server);
    });
    // The last two are the ends of one connection, which close in any order.
    let ends = |direction: &str| -> Vec<(Value, Value)> {
        let closes = all(&events, CLOSE).into_iter().map(net).filter(|close| close["direction"] == direction);
        closes.map(|close| (close["reason"].clone(), close["bytes_sent"].clone())).collect()
    };
    assert_eq!(ends("egress"), [("local_close".into(), 5.into()), ("local_close".into(), 3.into())]);
    assert_eq!(ends("ingress"), [("remote_close".into(), 0.into())]);
}

fn the_process_that_destroys_a_connection_is_its_closer() -> Completion {
    let mut refused = false;
    let events = events_of(&[], 4, || {
        let mut pair = Pair::new(V4);
        let port = pair.client_port();
        let ss = Command::new("ss").args(["-H", "-K", "sport", "=", &port.to_string()]).output();
        ss.expect("start ss");
        // If the kernel does not support it, ss only lists it.
        pair.client.set_nonblocking(true).expect("O_NONBLOCK");
        refused =
            pair.client.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        if refused {
            drop(pair.client);
        }
        net::wait_for_end(&mut pair.server);
    });
    if refused {
        return skipped("this kernel has no CONFIG_INET_DIAG_DESTROY");
    }
    let close = close_of(&events, "egress");
    assert_eq!(close["reason"], "ECONNABORTED");
    assert_eq!(close["closer"]["filename"], "ss", "{close:#}");
    Completion::Completed
}

/// The part of another process: a server whose child closes the connection by exiting, before or after it.
pub fn fork_and_exit() {
    let order = actor::listen();
    let mut client = TcpStream::connect(actor::listen()).expect("connect");
    if let Some(child) = sys::fork_child() {
        if order == "child first" {
            nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).expect("the child");
        }
        sys::leave();
    }
    if order == "parent first" {
        // until the other end is closed
        let _ = client.read(&mut [0]);
    }
    sys::leave();
}

fn exiting_processes_keep_their_name() {
    for order in ["child first", "parent first"] {
        network::in_own(|_| {
            let mut trace = Trace::start(&[]);
            let listener = net::listen(V4);
            let mut actor = Actor::start("fork and exit");
            actor.tell(order);
            actor.tell(listener.local_addr().expect("an address"));
            let (server, _) = listener.accept().expect("accept");
            let pid = actor.pid();
            actor.leave();
            drop(server);
            trace.wait("four events", |events| network::mine(events).len() >= 4);
            let events = network::mine(&trace.stop().events);
            let opened = &the(&events, CONNECT)["process"];
            let close = all(&events, CLOSE)
                .into_iter()
                .find(|close| close["process"]["pid"] == pid)
                .expect("a close");
            for field in ["filename", "binary_path", "args"] {
                assert_eq!(close["process"][field], opened[field], "{order}: {close:#}");
            }
            assert_ne!(opened["binary_path"], "");
            if let Some(closer) = net(close).get("closer") {
                assert_eq!(closer["filename"], opened["filename"], "{order}: {close:#}");
            }
        });
    }
}

fn mptcp_listeners_and_their_connections() {
    network::own();
    let mut trace = Trace::start(&["-e", "connect,accept,close,listen"]);
    let new = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("a socket");
    let listener = new();
    listener.bind(&SocketAddr::from((V4, 0)).into()).expect("bind");
    listener.listen(7).expect("listen");
    listener.listen(9).expect("listen again");
    let address: SockAddr = listener.local_addr().expect("an address");
    let pairs: Vec<[Socket; 2]> = (0..3)
        .map(|_| {
            let client = new();
            client.connect(&address).expect("connect");
            [client, listener.accept().expect("accept").0]
        })
        .collect();
    let cookies: Vec<u64> =
        pairs.iter().flatten().map(|socket| socket.cookie().expect("SO_COOKIE")).collect();
    for [client, mut server] in pairs {
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("the end"), 0);
    }
    drop(listener);
    trace.wait("it all", |events| network::mine(events).len() >= 14);
    let ended = trace.stop();
    assert_eq!(ended.lost(), Vec::<&str>::new());
    let events = network::mine(&ended.events);
    let start = net(the(&events, "TcpListenStart"));
    assert_eq!([&start["backlog"]["len"], &start["backlog"]["max"]], [0, 7]);
    assert_eq!(net(the(&events, "TcpListenStop"))["backlog"]["max"], 9);
    for (index, cookie) in cookies.iter().enumerate() {
        let opened = if index % 2 == 0 { CONNECT } else { ACCEPT };
        assert_eq!(sequence(&events, &(*cookie).into()), [opened, CLOSE], "{events:#?}");
    }
}

/// One socket, three connections: refused, disconnected, closed.
fn connections_of_one_socket_are_distinguished() {
    let events = events_of(&[], 9, || {
        let listener = net::listen(V4);
        let address = listener.local_addr().expect("an address");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.connect(&SocketAddr::from((V4, scenarios::DISCARD)).into()).expect_err("nothing listens");
        for disconnect in [true, false] {
            socket.connect(&address.into()).expect("connect");
            let (mut server, _) = listener.accept().expect("accept");
            if disconnect {
                assert_eq!(sys::connect_to(socket.as_raw_fd(), &[0; 16]), 0);
            } else {
                socket.shutdown(std::net::Shutdown::Write).expect("shutdown");
            }
            net::wait_for_end(&mut server);
        }
    });
    let egress: Vec<&Value> =
        events.iter().map(net).filter(|net| net["direction"] != "ingress" && net["type"] != ACCEPT).collect();
    assert!(egress.iter().all(|net| net["cookie"] == egress[0]["cookie"]), "{events:#?}");
    let mut sequences: Vec<(&str, Vec<&str>)> = Vec::new();
    for net in &egress {
        let (id, kind) =
            (net["connection"].as_str().expect("a string"), net["type"].as_str().expect("a type"));
        match sequences.iter_mut().find(|(known, _)| *known == id) {
            Some((_, kinds)) => kinds.push(kind),
            None => sequences.push((id, vec![kind])),
        }
    }
    let kinds: Vec<_> = sequences.into_iter().map(|(_, kinds)| kinds).collect();
    assert_eq!(kinds, [vec![FAIL], vec![CONNECT, CLOSE], vec![CONNECT, CLOSE]]);
}

/// As behind TPROXY. The child does not refer to its listener.
fn the_backlog_is_that_of_a_listener_on_another_port() {
    network::own();
    let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    listener.bind(&SocketAddr::from((V4, 0)).into()).expect("bind");
    listener.listen(7).expect("listen");
    let _link = others::accept_port_1(&listener).expect("attach");
    let mut trace = Trace::start(&[]);
    let client = TcpStream::connect((V4, 1)).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    assert_eq!(server.local_addr().expect("an address").as_socket(), Some((V4, 1).into()));
    trace.wait("the accept", |events| !all(&network::mine(events), ACCEPT).is_empty());
    let events = network::mine(&trace.stop().events);
    assert_eq!(net(the(&events, ACCEPT))["backlog"], json!({"len": 0, "max": 7}));
    drop((client, server));
}

/// A cgroup below the cgroup2 root, with one program of test_programs.h and one process.
struct Cgroup {
    path: PathBuf,
    program: Option<Link>,
}

impl Cgroup {
    fn with(program: &str, process: u32) -> Cgroup {
        let path = host::cgroup2_root().expect("cgroup2").join(format!("tcptrace-test-{process}"));
        fs::create_dir(&path).expect("a cgroup");
        let program = Some(others::attach(program, &path).expect("attach"));
        fs::write(path.join("cgroup.procs"), process.to_string()).expect("move the process");
        Cgroup { path, program }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.program = None;
        // A process that has just ended may still be in it.
        while let Err(error) = fs::remove_dir(&self.path) {
            assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
            thread::yield_now();
        }
    }
}

/// The part of another process: connects to each address it receives, and receives from the last.
pub fn connect_to_given_addresses() {
    let mut stream = None;
    loop {
        match actor::listen().as_str() {
            "" => return,
            "receive" => {
                let mut stream: TcpStream = stream.take().expect("a connection");
                stream.read_exact(&mut [0; 20_000]).expect("receive");
                actor::say("received");
            }
            address => {
                let address: SocketAddr = address.parse().expect("an address");
                let connected = TcpStream::connect(address);
                actor::say(
                    connected.as_ref().err().and_then(std::io::Error::raw_os_error).unwrap_or_default(),
                );
                stream = connected.ok();
            }
        }
    }
}

/// A process that is killed or stopped while connect() waits for an answer.
fn interrupted_connects_fail_once() {
    network::own();
    network::dig_black_hole();
    network::sysctl("net.ipv4.tcp_syn_retries", "1");
    let mut trace = Trace::start(&["-e", "state,connect,fail"]);
    let mut connecting = |count: usize| {
        let mut actor = Actor::start("connect to given addresses");
        actor.tell(network::BLACK_HOLE);
        trace.wait("a SYN", |events| {
            let events = network::mine(events);
            all(&events, STATE).iter().filter(|change| net(change)["new_state"] == "SYN_SENT").count()
                == count
        });
        actor
    };
    let mut killed = connecting(1);
    killed.kill();
    let mut stopped = connecting(2);
    let pid = Pid::from_raw(stopped.pid() as i32);
    kill(pid, Signal::SIGSTOP).expect("stop it");
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("wait until it has stopped");
    kill(pid, Signal::SIGCONT).expect("continue it");
    assert_eq!(stopped.hear(), libc::ETIMEDOUT.to_string());
    trace.wait("both failures", |events| all(&network::mine(events), FAIL).len() >= 2);
    let events = network::mine(&trace.stop().events);
    let failures: Vec<_> =
        all(&events, FAIL).iter().map(|fail| (&net(fail)["error"], &fail["process"]["pid"])).collect();
    assert_eq!(
        failures,
        [(&json!("ABORTED"), &json!(killed.pid())), (&json!("ETIMEDOUT"), &json!(stopped.pid()))]
    );
    assert_eq!(all(&events, CONNECT), Vec::<&Value>::new());
    stopped.leave();
}

fn addresses_changed_by_cgroup_programs() {
    network::own();
    let listener = net::listen(V4);
    let port = listener.local_addr().expect("an address").port();
    let mut actor = Actor::start("connect to given addresses");
    let cgroup = Cgroup::with("on_test_connect", actor.pid());
    let mut trace = Trace::start(&[]);
    let mut told = |address: String| -> String {
        actor.tell(address);
        actor.hear()
    };
    assert_eq!(told(format!("198.51.100.1:{port}")), "0");
    assert_eq!(told(format!("198.51.100.2:{port}")), libc::EPERM.to_string());
    assert_eq!(told(format!("127.0.0.1:{port}")), "0");
    for _ in 0..2 {
        drop(listener.accept().expect("accept"));
    }
    actor.leave();
    trace.wait("the events", |events| network::mine(events).len() >= 9);
    let events = network::mine(&trace.stop().events);
    drop(cgroup);
    let asked = serde_json::json!({ "daddr": "198.51.100.1", "dport": port });
    for kind in [CONNECT, CLOSE] {
        let ours = all(&events, kind).into_iter().map(net).filter(|net| net["dport"] == port);
        let seen: Vec<_> = ours.map(|net| (net["daddr"].clone(), net.get("asked").cloned())).collect();
        let (first, second) = (("127.0.0.1".into(), Some(asked.clone())), ("127.0.0.1".into(), None));
        assert!(seen == [first.clone(), second.clone()] || seen == [second, first], "{events:#?}");
    }
    let fail = net(the(&events, FAIL));
    assert_eq!([&fail["error"], &fail["daddr"]], ["EPERM", "198.51.100.2"], "{fail:#}");
}

fn lost_segments_are_retransmitted() {
    network::own();
    network::dig_black_hole();
    let mut trace = Trace::start(&["-e", "connect,accept,close,fail,retransmit"]);
    let listener = net::listen(V4);
    let mut actor = Actor::start("connect to given addresses");
    let cgroup = Cgroup::with("on_test_loss", actor.pid());
    actor.tell(listener.local_addr().expect("an address"));
    assert_eq!(actor.hear(), "0");
    let (mut server, _) = listener.accept().expect("accept");
    server.write_all(&[0; 20_000]).expect("send");
    actor.tell("receive");
    assert_eq!(actor.hear(), "received");
    drop(server);
    actor.leave();
    drop(cgroup);
    let blocked = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    blocked.set_nonblocking(true).expect("O_NONBLOCK");
    blocked
        .connect(&network::BLACK_HOLE.parse::<SocketAddr>().expect("an address").into())
        .expect_err("no answer");
    let segments = |events: &[Value], segment: &[&str]| -> Vec<Value> {
        let again = all(events, "TcpRetransmit").into_iter();
        again.filter(|event| segment.iter().any(|name| net(event)["segment"] == *name)).cloned().collect()
    };
    trace.wait("both", |events| {
        let mine = network::mine(events);
        !segments(&mine, &["SYN"]).is_empty() && !all(&mine, CLOSE).is_empty()
    });
    drop(blocked);
    let events = network::mine(&trace.stop().events);
    events.iter().for_each(common::schema::check);
    let again = segments(&events, &["data", "probe"]);
    assert!(!again.is_empty(), "{events:#?}");
    for event in &again {
        assert_eq!(event["process"]["pid"], std::process::id(), "{event:#}");
        assert_eq!([&net(event)["direction"], &net(event)["state"]], ["ingress", "ESTABLISHED"]);
    }
    let close = close_of(&events, "ingress");
    assert_eq!(net(&again[0])["connection"], net(the(&events, ACCEPT))["connection"]);
    assert_eq!(net(again.last().expect("one"))["retransmits"], close["retransmits"], "{events:#?}");
    let syn = segments(&events, &["SYN"]);
    assert_eq!([&net(&syn[0])["state"], &net(&syn[0])["daddr"]], ["SYN_SENT", "192.0.2.1"]);
    assert_eq!([&net(&syn[0])["retransmits"], &net(&syn[0])["seq_len"]], [1, 1]);
}

/// Handshakes that are complete for the peer, but not here (the listener waits for data), find the queue full when data
/// arrives.
fn a_full_queue_drops_connections() -> Completion {
    network::own();
    let mut trace = Trace::start(&["-e", "drop,accept"]);
    if trace.banner().contains("drop events are not seen") {
        return skipped("this kernel does not report why it drops a segment");
    }
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    sys::set_tcp(&listener, libc::TCP_DEFER_ACCEPT, 30);
    listener.bind(&SocketAddr::from((V4, 0)).into()).expect("bind");
    listener.listen(0).expect("listen");
    let address = listener.local_addr().expect("an address");
    let clients: Vec<Socket> = (0..2)
        .map(|_| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            client.connect(&address).expect("connect");
            client
        })
        .collect();
    for mut client in &clients {
        client.write_all(b"x").expect("send");
    }
    let port = address.as_socket().expect("an address").port();
    trace.wait("the drop", |events| !all(&network::mine(events), "TcpListenDrop").is_empty());
    drop(listener.accept().expect("accept"));
    drop(listener.accept().expect("accept: the other end tries again"));
    trace.wait("both accepts", |events| all(&network::mine(events), ACCEPT).len() >= 2);
    let events = network::mine(&trace.stop().events);
    events.iter().for_each(common::schema::check);
    let dropped = all(&events, "TcpListenDrop")[0];
    let ports = clients.iter().map(|client| client.local_addr().expect("an address"));
    let ports: Vec<_> = ports.filter_map(|address| Some(address.as_socket()?.port())).collect();
    assert_eq!(net(dropped)["sport"], port);
    assert!(ports.iter().any(|port| net(dropped)["dport"] == *port), "{dropped:#} {ports:?}");
    assert_eq!([&net(dropped)["backlog"]["len"], &net(dropped)["backlog"]["max"]], [1, 0]);
    assert_eq!(dropped["process"]["pid"], std::process::id());
    let accepts = all(&events, ACCEPT);
    assert!(net(accepts[1])["backlog"]["drops"].as_u64() >= Some(1), "{accepts:#?}");
    Completion::Completed
}

/// Two links with the same address on each: only the interface distinguishes their connections.
fn link_local_connections_have_an_interface() {
    network::own();
    for (one, other) in [("v0", "w0"), ("v1", "w1")] {
        network::ip(&format!("link add {one} type veth peer name {other}"));
        for name in [one, other] {
            network::sysctl(&format!("net.ipv6.conf.{name}.accept_dad"), "0");
        }
        network::ip(&format!("link set {one} up"));
        network::ip(&format!("-6 address add fe80::1/64 dev {one} nodad"));
    }
    let indices = ["v0", "v1"].map(|name| nix::net::if_::if_nametoindex(name).expect("an index"));
    let events = {
        let mut trace = Trace::start(&["-e", "connect,fail"]);
        for index in indices {
            let target = std::net::SocketAddrV6::new("fe80::1".parse().expect("an address"), 9, 0, index);
            TcpStream::connect(target).expect_err("nothing listens");
        }
        trace.wait("both", |events| network::mine(events).len() >= 2);
        network::mine(&trace.stop().events)
    };
    let seen: Vec<_> = events.iter().map(|event| &net(event)["ifindex"]).collect();
    assert_eq!(seen, indices);
}

crate::tests![
    a_refusal_by_a_security_module_is_a_failure,
    mptcp_failures_have_their_errors,
    invalid_addresses_are_not_attempts,
    existing_directions_do_not_depend_on_the_backlog,
    the_backlog_is_that_of_a_listener_on_another_port,
    latency_begins_with_the_syn,
    soft_errors_are_not_the_close_reason,
    a_moved_connection_is_not_reset,
    the_process_that_destroys_a_connection_is_its_closer,
    exiting_processes_keep_their_name,
    mptcp_listeners_and_their_connections,
    connections_of_one_socket_are_distinguished,
    interrupted_connects_fail_once,
    addresses_changed_by_cgroup_programs,
    lost_segments_are_retransmitted,
    a_full_queue_drops_connections,
    link_local_connections_have_an_interface,
];
