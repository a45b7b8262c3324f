//! Connections rejected in the kernel cause no work in user space.

use std::process::Command;

use crate::common::{self, Trace, net::V4};

/// The number of process records that reached user space while a new program connected to a listener and was closed.
fn process_records(arguments: &[&str]) -> (u64, Vec<serde_json::Value>) {
    let listener = std::net::TcpListener::bind((V4, 0)).expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let trace = Trace::start(&[&["-v"], arguments].concat());
    let code = format!("import socket; socket.create_connection(('{V4}', {port})).recv(1)");
    let mut client = Command::new("python3").args(["-c", &code]).spawn().expect("python3");
    drop(listener.accept().expect("accept"));
    assert!(client.wait().expect("wait").success());
    let ended = trace.stop();
    let line = ended.stderr.lines().find_map(|line| {
        line.strip_prefix("tcptrace: ")?.strip_suffix(" process records read")?.parse().ok()
    });
    let events = common::of_port(&ended.events, port);
    (line.unwrap_or_else(|| panic!("no count: {}", ended.stderr)), events)
}

fn a_rejected_connection_sends_no_process_record() {
    let (records, events) = process_records(&[]);
    assert!(records >= 2 && events.len() >= 3, "{records} of {events:#?}");
    // Rejected for the process, for the connection, for both; other connections on this host are rejected too. (Only
    // where local ports are listed that the kernel may choose, the owner is recorded before the port is known.)
    for arguments in [
        &["-b", "tcptrace-no-such-program"][..],
        &["--daddr", "203.0.113.77"],
        &["--port", "1"],
        &["binary_prefix == \"/\" AND uid == 4242424242 OR port_dst == 1 AND family == 6"],
        &["--cgroup", "/", "--netns", "/proc/self/ns/net", "--dport", "1"],
        &["-e", "all", "-b", "tcptrace-no-such-program"],
    ] {
        let (records, events) = process_records(arguments);
        assert!(events.is_empty(), "{arguments:?}: {events:#?}");
        assert_eq!(records, 0, "{arguments:?}");
    }
}

crate::tests![a_rejected_connection_sends_no_process_record,];
