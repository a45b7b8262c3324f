//! How connections end, and who closes them.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::common::{
    self, Trace,
    actor::{self, Actor},
    all, net as part,
    net::{self, Pair, V4, V6},
    the,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
};
use serde_json::Value;

/// The part of another process: holds a connection until it is killed.
pub fn connect_and_hold() {
    let address: SocketAddr = actor::listen().parse().expect("an address");
    let _stream = TcpStream::connect(address).expect("connect");
    actor::say("connected");
    actor::listen();
}

/// The part of another process: closes the descriptor that it inherited.
pub fn close_inherited() {
    actor::listen();
    // SAFETY: the test passes this descriptor, and nothing else in this process owns it.
    #[allow(unsafe_code)]
    drop(unsafe { OwnedFd::from_raw_fd(HANDED_OVER) });
    actor::say("closed");
    actor::listen();
}

/// The part of another process: connects, and passes the connection on to a child. In the process of the tests, children
/// that other tests start at the same time would have the descriptor, too, and one of them might be the last to close it.
pub fn connect_and_pass_on() {
    let address: SocketAddr = actor::listen().parse().expect("an address");
    let stream = TcpStream::connect(address).expect("connect");
    // SAFETY: dup2 to a number that nothing else uses.
    #[allow(unsafe_code)]
    let passed_on = unsafe {
        assert_eq!(libc::dup2(stream.as_raw_fd(), HANDED_OVER), HANDED_OVER);
        OwnedFd::from_raw_fd(HANDED_OVER)
    };
    let mut child = Actor::start("close what was inherited");
    drop((stream, passed_on));
    actor::say(child.pid());
    actor::listen();
    child.tell("go on");
    actor::say(child.hear());
    child.leave();
}

/// The number of the descriptor that an actor inherits.
const HANDED_OVER: i32 = 93;

/// The close events of a pair: the client's, the server's.
fn closes(trace: &mut Trace, port: u16) -> (Value, Value) {
    let events = trace.wait_port(port, 4);
    let close = |direction: &str| {
        let closes = all(&events, "TcpConnectionClose");
        let close = closes.into_iter().find(|close| part(close)["direction"] == direction);
        close.unwrap_or_else(|| panic!("no {direction} close in {events:#?}")).clone()
    };
    (close("egress"), close("ingress"))
}

fn reasons(trace: &mut Trace, end: impl FnOnce(Pair)) -> (String, String) {
    let pair = Pair::new(V4);
    let port = pair.port();
    end(pair);
    let (client, server) = closes(trace, port);
    let reason = |close: &Value| part(close)["reason"].as_str().expect("a reason").to_owned();
    (reason(&client), reason(&server))
}

fn close_reasons() {
    let mut trace = Trace::start(&[]);
    let mut expect = |client: &str, server: &str, end: fn(Pair)| {
        assert_eq!(reasons(&mut trace, end), (client.to_owned(), server.to_owned()));
    };
    // the client closes first, then the server
    expect("local_close", "remote_close", |mut pair| {
        drop(pair.client);
        net::wait_for_end(&mut pair.server);
    });
    // the server closes first
    expect("remote_close", "local_close", |mut pair| {
        drop(pair.server);
        net::wait_for_end(&mut pair.client);
    });
    // half-closed first
    expect("local_close", "remote_close", |mut pair| {
        net::half_close(&pair.client);
        net::wait_for_end(&mut pair.server);
        pair.server.write_all(b"late").expect("send");
        drop(pair.server);
        net::wait_for_end(&mut pair.client);
    });
    // SO_LINGER 0, on either side
    expect("local_reset", "remote_reset", |mut pair| {
        net::reset(pair.client);
        net::wait_for_end(&mut pair.server);
    });
    expect("remote_reset", "local_reset", |mut pair| {
        net::reset(pair.server);
        net::wait_for_end(&mut pair.client);
    });
    // closed with unread data
    expect("local_reset", "remote_reset", |mut pair| {
        pair.server.write_all(b"unread").expect("send");
        wait_readable(&pair.client);
        drop(pair.client);
        net::wait_for_end(&mut pair.server);
    });
    // data for a socket that no longer exists (it was an orphan in FIN_WAIT2)
    expect("local_close", "remote_reset", |mut pair| {
        drop(pair.client);
        net::wait_for_end(&mut pair.server);
        pair.server.write_all(b"too late").expect("the first send is taken");
        wait_until(&pair.server, PollFlags::POLLERR | PollFlags::POLLHUP);
    });
}

fn wait_readable(stream: &TcpStream) {
    wait_until(stream, PollFlags::POLLIN);
}

fn wait_until(stream: &TcpStream, state: PollFlags) {
    use std::os::fd::AsFd;
    loop {
        let mut fds = [PollFd::new(stream.as_fd(), state)];
        poll(&mut fds, PollTimeout::NONE).expect("poll");
        if fds[0].revents().is_some_and(|now| now.intersects(state)) {
            return;
        }
    }
}

fn refused_immediately_or_later() {
    let mut trace = Trace::start(&[]);
    for address in [V4, V6] {
        for blocking in [true, false] {
            let to = refusing(address);
            if blocking {
                TcpStream::connect(to).expect_err("nothing listens");
            } else {
                refused_later(to);
            }
            let events = trace.wait_port(to.port(), 1);
            let fail = the(&events, "TcpConnectionFail");
            assert_eq!(part(fail)["error"], "ECONNREFUSED");
            assert_eq!(part(fail)["daddr"], address.to_string());
            assert_ne!(part(fail)["sport"], 0);
            assert_eq!(fail["process"]["pid"], std::process::id());
            assert_eq!(events.len(), 1, "{events:#?}");
        }
    }
}

/// An address on which nothing listens.
fn refusing(address: IpAddr) -> SocketAddr {
    let listener = net::listen(address);
    let was_at = listener.local_addr().expect("an address");
    net::stop_listening(listener);
    was_at
}

fn refused_later(to: SocketAddr) {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).expect("a socket");
    let outcome = connect(fd.as_raw_fd(), &SockaddrStorage::from(to));
    assert_eq!(outcome, Err(Errno::EINPROGRESS));
    let stream = TcpStream::from(fd);
    wait_until(&stream, PollFlags::POLLOUT | PollFlags::POLLERR);
    // The second error must not be reported again.
    assert!(connect(stream.as_raw_fd(), &SockaddrStorage::from(to)).is_err());
}

fn a_child_closes_an_inherited_socket() {
    let mut trace = Trace::start(&[]);
    let listener = net::listen(V4);
    let address = listener.local_addr().expect("an address");
    let mut owner = Actor::start("connect and pass on");
    owner.tell(address);
    let (mut server, _) = listener.accept().expect("accept");
    let child: u32 = owner.hear().parse().expect("the process id of the child");
    owner.tell("go on");
    assert_eq!(owner.hear(), "closed");
    net::wait_for_end(&mut server);
    drop(server);

    let (client, _) = closes(&mut trace, address.port());
    assert_eq!(client["process"]["pid"], owner.pid());
    assert_eq!(part(&client)["closer"]["pid"], child);
    assert_eq!(part(&client)["closer"]["filename"], common::own_filename());
    assert_eq!(part(&client)["reason"], "local_close");
    owner.leave();
}

fn a_killed_owner_is_reported_in_full() {
    let mut trace = Trace::start(&[]);
    let listener = net::listen(V4);
    let port = listener.local_addr().expect("an address").port();
    let mut owner = Actor::start("connect and hold");
    owner.tell(listener.local_addr().expect("an address"));
    assert_eq!(owner.hear(), "connected");
    let (mut server, _) = listener.accept().expect("accept");
    let pid = owner.pid();
    owner.kill();
    net::wait_for_end(&mut server);
    drop(server);

    let events = trace.wait_port(port, 4);
    let connect = the(&events, "TcpConnectionEstablish").clone();
    let (client, _) = closes(&mut trace, port);
    assert_eq!(client["process"], connect["process"]);
    assert_eq!(client["parent"], connect["parent"]);
    assert_eq!(client["process"]["pid"], pid);
    assert_eq!(
        client["process"]["binary_path"],
        std::env::current_exe().expect("a path").to_string_lossy().as_ref()
    );
    assert_eq!(part(&client)["reason"], "local_close");
}

fn a_connection_reset_in_the_queue_is_still_accepted_and_closed() {
    let mut trace = Trace::start(&[]);
    let listener = net::listen(V4);
    let port = listener.local_addr().expect("an address").port();
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    client.write_all(b"hello").expect("send");
    wait_acceptable(&listener);
    net::reset(client);
    trace.wait("the client's close", |events| {
        all(&common::of_port(events, port), "TcpConnectionClose").len() == 1
    });
    let (mut server, _) = listener.accept().expect("a reset connection is still accepted");
    let _ = server.read(&mut [0; 8]);
    drop(server);

    let (client, server) = closes(&mut trace, port);
    assert_eq!(part(&client)["reason"], "local_reset");
    assert_eq!(part(&client)["bytes_sent"], 5);
    assert_eq!(part(&server)["reason"], "remote_reset");
    assert_eq!(part(&server)["bytes_received"], 5);
    let events = common::of_port(&trace.events, port);
    let accept = the(&events, "TcpConnectionAccept");
    assert_eq!(
        common::sequence(&events, &part(accept)["cookie"]),
        ["TcpConnectionAccept", "TcpConnectionClose"]
    );
}

fn wait_acceptable(listener: &TcpListener) {
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE).expect("poll");
}

fn mapped_connects_leave_nothing_behind() {
    let mapped_connects = common::count_of("TCPTRACE_TEST_MAPPED", 40_000);
    const PLAIN: usize = 500;
    let mut trace = Trace::start(&["-e", "connect,fail"]);
    // Refused immediately, so no port stays in TIME_WAIT.
    let to = refusing(V4);
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", to.port()).parse().expect("an address");
    for _ in 0..mapped_connects {
        TcpStream::connect(mapped).expect_err("nothing listens");
    }
    for _ in 0..PLAIN {
        TcpStream::connect(to).expect_err("nothing listens");
    }
    let events = trace.wait_port(to.port(), mapped_connects + PLAIN);
    assert_eq!(events.len(), mapped_connects + PLAIN);
    assert!(events.iter().all(|event| part(event)["daddr"] == "127.0.0.1"));
    let ended = trace.stop();
    assert_eq!(ended.lost(), [""; 0]);
}

crate::tests![
    close_reasons,
    refused_immediately_or_later,
    a_child_closes_an_inherited_socket,
    a_killed_owner_is_reported_in_full,
    a_connection_reset_in_the_queue_is_still_accepted_and_closed,
    mapped_connects_leave_nothing_behind,
];
