//! Processes that blocked in accept() before tcptrace started, and after.

use std::{fs, net::TcpStream, thread};

use crate::common::{
    Trace,
    actor::{self, Actor},
    all,
    net::{V4, listen},
    of_port,
};

/// So many that a kretprobe would lose most of them.
const ACCEPTORS: usize = 64;

/// The part of another process: listens, and closes all accepted connections.
pub fn accept_forever() {
    let listener = listen(V4);
    actor::say(listener.local_addr().expect("an address").port());
    for connection in listener.incoming() {
        drop(connection.expect("accept"));
    }
}

/// Waits until the only working thread of a process sleeps in accept().
fn wait_until_blocked(pid: u32) {
    let accepts = [libc::SYS_accept, libc::SYS_accept4].map(|number| format!("{number} "));
    let is_blocked = || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
        threads.flatten().any(|thread| {
            let call = fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
            accepts.iter().any(|accept| call.starts_with(accept))
        })
    };
    while !is_blocked() {
        thread::yield_now();
    }
}

fn every_accept_has_the_right_process() {
    let mut acceptors: Vec<(Actor, u16)> = (0..ACCEPTORS)
        .map(|_| {
            let mut acceptor = Actor::start("accept forever");
            let port = acceptor.hear().parse().expect("a port");
            (acceptor, port)
        })
        .collect();
    for (acceptor, _) in &acceptors {
        wait_until_blocked(acceptor.pid());
    }
    let mut trace = Trace::start(&["-e", "accept"]);
    // in the first round they have been blocked since before the attach
    for round in 1..=2 {
        for (acceptor, port) in &acceptors {
            wait_until_blocked(acceptor.pid());
            TcpStream::connect((V4, *port)).expect("connect");
        }
        trace.wait("every accept", |events| {
            acceptors.iter().all(|(_, port)| of_port(events, *port).len() == round)
        });
    }
    let events = trace.stop().events;
    for (acceptor, port) in &mut acceptors {
        let accepts = of_port(&events, *port);
        assert_eq!(all(&accepts, "TcpConnectionAccept").len(), 2, "{accepts:#?}");
        for accept in &accepts {
            assert_eq!(accept["process"]["pid"], acceptor.pid());
            assert_eq!(accept["network_event"]["sport"], *port);
            assert_ne!(accept["process"]["tid"], 0);
        }
        acceptor.kill();
    }
}

crate::tests![every_accept_has_the_right_process,];
