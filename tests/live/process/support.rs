//! Common helpers: installing programs, a listener, and events by process.

use std::{
    cell::Cell,
    ffi::OsStr,
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    thread,
};

use serde_json::Value;

pub use crate::common::folder::Folder;
use crate::common::{
    Trace,
    actor::{Actor, install},
    net::{V4, listen},
    of_port,
};

/// A copy of this program in a directory, with this owner and mode.
pub fn install_program(folder: &Folder, name: &str, owner: (u32, u32), mode: u32) -> PathBuf {
    let path = folder.path(name);
    if !path.exists() {
        install(this_program(), &path);
    }
    chown(&path, Some(owner.0), Some(owner.1)).expect("chown");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    path
}

/// Whether this is a virtual machine of tests/kernels.
pub fn in_guest() -> bool {
    std::env::var_os("TCPTRACE_TEST_KERNEL").is_some()
}

pub fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program")
}

/// A listener that accepts all connections and closes them.
pub fn open_door() -> u16 {
    let listener: TcpListener = listen(V4);
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || listener.incoming().for_each(drop));
    port
}

/// Traces only successful connects.
pub fn watch_connects() -> Trace {
    Trace::start(&["-e", "connect"])
}

/// Runs `program` with a script to its end; returns its process id.
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], script: &str) -> u32 {
    let mut command = Actor::program(program, script);
    let actor = Actor::spawn(command.args(arguments));
    let pid = actor.pid();
    actor.leave();
    pid
}

/// Waits for `count` events of one process.
pub fn events_of(trace: &mut Trace, pid: u32, count: usize) -> Vec<Value> {
    let of = |events: &[Value]| -> Vec<Value> {
        events.iter().filter(|event| event["process"]["pid"] == pid).cloned().collect()
    };
    trace.wait(&format!("{count} events of process {pid}"), |events| of(events).len() >= count);
    of(&trace.events)
}

/// Waits for the only event of a process.
pub fn event_of(trace: &mut Trace, pid: u32) -> Value {
    let event = events_of(trace, pid, 1).remove(0);
    check(&event);
    event
}

/// Waits for `count` events with a port; there may be other events.
pub fn events_at(trace: &mut Trace, port: u16, count: usize) -> Vec<Value> {
    let (seen, found) = (Cell::new(0), Cell::new(0));
    trace.wait(&format!("{count} events of port {port}"), |events| {
        found.set(found.get() + of_port(&events[seen.replace(events.len())..], port).len());
        found.get() >= count
    });
    of_port(&trace.events, port)
}

/// Checks what holds for every event.
pub fn check(event: &Value) {
    let (process, parent) = (&event["process"], &event["parent"]);
    assert_eq!(process["exec_id"].as_str().map(str::is_empty), Some(false), "{event:#}");
    assert_eq!(process["parent_exec_id"], parent["exec_id"], "{event:#}");
    assert_eq!(process["ppid"], parent["pid"], "{event:#}");
    assert!(process["start_time"].as_str() <= event["timestamp"].as_str(), "{event:#}");
    assert!(parent["start_time"].as_str() <= event["timestamp"].as_str(), "{event:#}");
}
