//! Runs tcptrace beside a test and collects what it says.
#![allow(dead_code)] // each test program uses its part

pub mod actor;
pub mod lab;
pub mod net;
pub mod network;
pub mod ready;
pub mod schema;
pub mod script;
pub mod sys;
pub mod terminal;
pub mod ways;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// A failure, not a measure: nothing waits this long unless it is broken (or emulated).
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The probe set to test with (`TCPTRACE_TEST_PROBES`), by default whatever the kernel allows.
pub fn probes() -> String {
    std::env::var("TCPTRACE_TEST_PROBES").unwrap_or_else(|_| "auto".to_owned())
}

/// The binary under test.
pub fn tcptrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tcptrace"))
}

/// A running tcptrace that prints JSON.
pub struct Trace {
    child: Child,
    lines: Receiver<Value>,
    /// Until it is asked for.
    stderr: Option<JoinHandle<String>>,
    /// Events received so far, in order.
    pub events: Vec<Value>,
    /// What the ready line and those before it said.
    pub banner: String,
}

/// What is known after the end.
pub struct Ended {
    /// Every event, in order.
    pub events: Vec<Value>,
    /// Everything on stderr.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Ended {
    /// What it says was lost, without what may have been: where the kernel skips a probe that is there twice, the
    /// other one may have told it.
    pub fn lost(&self) -> Vec<&str> {
        let lost = |line: &&str| line.contains(" lost") && !line.contains(" lost at most");
        self.stderr.lines().filter(lost).collect()
    }
}

impl Trace {
    /// Start `tcptrace -j` with more arguments, and wait until it says that probes are attached.
    pub fn start(arguments: &[&str]) -> Trace {
        Trace::spawn(tcptrace().args(["-j", "--probes", &probes()]).args(arguments))
    }

    /// The same with a command that comes to run `tcptrace -j`.
    pub fn spawn(command: &mut Command) -> Trace {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start tcptrace");
        let (send_line, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        thread::spawn(move || {
            for line in stdout.lines() {
                let line = line.expect("stdout is UTF-8");
                let value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if send_line.send(value).is_err() {
                    return;
                }
            }
        });
        let mut reader = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (send_ready, ready) = channel();
        let stderr = thread::spawn(move || {
            let mut said = String::new();
            while reader.read_line(&mut said).expect("stderr is UTF-8") > 0 {
                if said.lines().last().is_some_and(|line| line.starts_with("tcptrace: ready")) {
                    break;
                }
            }
            let _ = send_ready.send(said.clone());
            let _ = reader.read_to_string(&mut said);
            said
        });
        let banner = ready.recv_timeout(PATIENCE).expect("a ready line");
        assert!(banner.contains("tcptrace: ready"), "tcptrace did not start: {banner}");
        Trace { child, lines, stderr: Some(stderr), events: Vec::new(), banner }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Collect events until `enough` holds for those collected.
    pub fn wait(&mut self, what: &str, enough: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !enough(&self.events) {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    self.events.push(event);
                    // Other programs of this host may be busy: look at what came, not at each.
                    self.events.extend(self.lines.try_iter());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.signal(Signal::SIGINT);
                    let said = self.said();
                    panic!("no {what} in {:#?}\n{said}", self.events);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let said = self.said();
                    panic!("tcptrace ended before {what}: {:#?}\n{said}", self.events)
                }
            }
        }
    }

    /// Collect until `count` events are about `port`, and return those, checked against the schema.
    pub fn wait_port(&mut self, port: u16, count: usize) -> Vec<Value> {
        self.wait(&format!("{count} events of port {port}"), |events| of_port(events, port).len() >= count);
        let events = of_port(&self.events, port);
        events.iter().for_each(schema::check);
        events
    }

    /// The same of one connection, by both its ports: another one may have used one of them before.
    pub fn wait_ports(&mut self, ports: [u16; 2], count: usize) -> Vec<Value> {
        let of = |events: &[Value]| of_port(&of_port(events, ports[0]), ports[1]);
        self.wait(&format!("{count} events of ports {ports:?}"), |events| of(events).len() >= count);
        let events = of(&self.events);
        events.iter().for_each(schema::check);
        events
    }

    /// Everything on stderr, once it is about to end.
    fn said(&mut self) -> String {
        self.stderr.take().expect("asked for once").join().expect("the stderr reader")
    }

    /// Send a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("tcptrace is running");
    }

    /// Stop it as Ctrl-C does, and collect the rest.
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGINT);
        self.ended()
    }

    /// Wait until it ends by itself.
    pub fn ended(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => self.events.push(event),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("tcptrace does not end"),
            }
        }
        let status = self.child.wait().expect("wait for tcptrace");
        let stderr = self.said();
        Ended { events: std::mem::take(&mut self.events), stderr, status }
    }
}

/// The events in which `port` is either end's.
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

/// The one event of a type among some.
pub fn the<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    let found = all(events, kind);
    assert_eq!(found.len(), 1, "one {kind} in {events:#?}");
    found[0]
}

/// All events of a type.
pub fn all<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["network_event"]["type"] == kind).collect()
}

/// The event's own part.
pub fn net(event: &Value) -> &Value {
    &event["network_event"]
}

/// Event types in order, for one cookie.
pub fn story(events: &[Value], cookie: &Value) -> Vec<String> {
    events
        .iter()
        .filter(|event| event["network_event"]["cookie"] == *cookie)
        .map(|event| event["network_event"]["type"].as_str().expect("a type").to_owned())
        .collect()
}
