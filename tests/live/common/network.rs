//! A separate network namespace, which exists as long as the thread that made it.

use std::{fs, os::unix::fs::MetadataExt, process::Command, thread};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// An unassigned address: packets to it are routed to the loopback device, which drops them.
pub const BLACK_HOLE: &str = "192.0.2.1:9";

/// Moves this thread, and those it starts, to a namespace with only the loopback device.
pub fn own() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip("link set lo up");
}

/// Runs `act` in a new namespace, in a separate thread.
pub fn in_own(act: impl FnOnce(u64) + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            own();
            act(number());
        });
    });
}

/// Drops packets to [`BLACK_HOLE`]; without this there is no route to it.
pub fn dig_black_hole() {
    ip("route add 192.0.2.0/24 dev lo");
}

/// Runs ip(8).
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("start ip");
    assert!(status.success(), "ip {arguments}");
}

/// Changes a setting of the namespace, named as in sysctl(8).
pub fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Waits until no connection in this thread's namespace uses such a port, except in TIME_WAIT: by then all events have
/// been reported.
pub fn wait_until_closed(is_ours: impl Fn(u16) -> bool) {
    let open = |table: &str| {
        let text = fs::read_to_string(table).unwrap_or_default();
        text.lines().skip(1).any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let port = |end: &str| end.rsplit(':').next().and_then(|p| u16::from_str_radix(p, 16).ok());
            let ours = [1, 2].iter().any(|at| words.get(*at).and_then(|e| port(e)).is_some_and(&is_ours));
            ours && !matches!(words.get(3), Some(&("0A" | "06")))
        })
    };
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    super::wait_until("a connection stays open", || !tables.iter().any(|table| open(table)));
}

/// The id of this thread's namespace, as in events.
pub fn number() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").expect("a network namespace").ino()
}

/// The events in this thread's namespace.
pub fn mine(events: &[Value]) -> Vec<Value> {
    let number = number();
    events.iter().filter(|event| event["network_event"]["netns"] == number).cloned().collect()
}
