//! Runs tcptrace during a test and collects its events.
#![allow(dead_code)] // each test program uses its part

pub mod actor;
pub mod dns_lab;
pub mod folder;
pub mod harness;
pub mod launch;
pub mod net;
pub mod network;
pub mod procfs;
pub mod scenarios;
pub mod schema;
pub mod script;
pub mod socket_states;
pub mod sys;
pub mod terminal;

use std::{
    io::{BufRead, BufReader},
    process::ExitStatus,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

use launch::Running;
#[allow(unused_imports)]
pub use launch::{Launch, PATIENCE, probes, tcptrace};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A running tcptrace that prints JSON.
pub struct Trace {
    running: Running,
    lines: Receiver<Value>,
    /// Events received so far, in order.
    pub events: Vec<Value>,
}

/// A tcptrace that has ended.
pub struct Ended {
    /// All events, in order.
    pub events: Vec<Value>,
    /// Everything on stderr.
    pub stderr: String,
    /// The exit status.
    pub status: ExitStatus,
}

impl Ended {
    /// The lines that report losses: "tcptrace: 5 events lost: ...".
    pub fn lost(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.contains(" lost")).collect()
    }
}

impl Trace {
    /// Starts `tcptrace -j` with these arguments, and waits until its probes are attached.
    pub fn start(arguments: &[&str]) -> Trace {
        Trace::of(Launch::new().args(["-j"]).args(arguments))
    }

    /// The same with another way to run `tcptrace -j`.
    pub fn of(launch: Launch) -> Trace {
        let mut running = launch.start();
        let (send_line, lines) = channel();
        let stdout = BufReader::new(running.stdout.take().expect("stdout is piped"));
        thread::spawn(move || {
            for line in stdout.lines() {
                let line = line.expect("stdout is UTF-8");
                let value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if send_line.send(value).is_err() {
                    return;
                }
            }
        });
        Trace { running, lines, events: Vec::new() }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The ready line and the lines before it.
    pub fn banner(&self) -> &str {
        &self.running.banner
    }

    /// Collects events until `enough` holds for those collected.
    pub fn wait(&mut self, what: &str, enough: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !enough(&self.events) {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    self.events.push(event);
                    // This host may be busy: check after each group of events, not after each event.
                    self.events.extend(self.lines.try_iter());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.signal(Signal::SIGINT);
                    let stderr = self.running.stderr();
                    panic!("no {what} in {:#?}\n{stderr}", self.events);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let stderr = self.running.stderr();
                    panic!("tcptrace ended before {what}: {:#?}\n{stderr}", self.events)
                }
            }
        }
    }

    /// Collects events until `count` are about `port`, and returns those, validated against the schema.
    pub fn wait_port(&mut self, port: u16, count: usize) -> Vec<Value> {
        self.wait(&format!("{count} events of port {port}"), |events| of_port(events, port).len() >= count);
        let events = of_port(&self.events, port);
        events.iter().for_each(schema::check);
        events
    }

    /// The same for one connection, by both its ports, because another one may have used one of them before.
    pub fn wait_ports(&mut self, ports: [u16; 2], count: usize) -> Vec<Value> {
        let of = |events: &[Value]| of_port(&of_port(events, ports[0]), ports[1]);
        self.wait(&format!("{count} events of ports {ports:?}"), |events| of(events).len() >= count);
        let events = of(&self.events);
        events.iter().for_each(schema::check);
        events
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Stops it like Ctrl-C, and collects the rest.
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGINT);
        self.ended()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => self.events.push(event),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("tcptrace does not end"),
            }
        }
        let (status, stderr) = self.running.wait();
        Ended { events: std::mem::take(&mut self.events), stderr, status }
    }
}

/// How often a test repeats something: the number in this environment variable, or the default.
pub fn count_of(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |n| n.parse().expect("a number"))
}

/// Waits until something holds; fails with `otherwise` if it does not.
pub fn wait_until(otherwise: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::yield_now();
    }
}

/// The events with `port` at either end.
pub fn of_port(events: &[Value], port: u16) -> Vec<Value> {
    events
        .iter()
        .filter(|event| {
            let event = &event["network_event"];
            event["sport"] == port || event["dport"] == port
        })
        .cloned()
        .collect()
}

/// The only event of a type.
pub fn the<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    let found = all(events, kind);
    assert_eq!(found.len(), 1, "one {kind} in {events:#?}");
    found[0]
}

/// All events of a type.
pub fn all<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["network_event"]["type"] == kind).collect()
}

/// The `network_event` object.
pub fn net(event: &Value) -> &Value {
    &event["network_event"]
}

/// The file name of this program.
pub fn own_filename() -> String {
    let path = std::env::current_exe().expect("this program");
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

/// The process that closed a connection instead of its owner. A child that another test has just forked does not count: until
/// it executes its program it has every descriptor, and may be the last to close one.
pub fn closer(net: &Value) -> &Value {
    if net["closer"]["filename"] == own_filename() { &Value::Null } else { &net["closer"] }
}

/// The types of the events with this cookie, in order.
pub fn sequence(events: &[Value], cookie: &Value) -> Vec<String> {
    events
        .iter()
        .filter(|event| event["network_event"]["cookie"] == *cookie)
        .map(|event| event["network_event"]["type"].as_str().expect("a type").to_owned())
        .collect()
}
