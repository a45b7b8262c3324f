//! Many connections at once: nothing is lost, or every loss is counted. Needs root.

mod common;

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Stdio},
    thread,
};

use common::{
    net::{reset, wait_for_end},
    probes, ready, tcptrace,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Each test sees the connections of the others: one at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// tcptrace, ready, printing JSON to a file.
struct ToFile {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    path: PathBuf,
}

impl ToFile {
    fn start(name: &str, arguments: &[&str]) -> ToFile {
        let path = std::env::temp_dir().join(format!("tcptrace-{name}-{}", std::process::id()));
        let file = File::create(&path).expect("create the output");
        let mut child = tcptrace()
            .args(["-j", "--probes", &probes()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(file))
            .stderr(Stdio::piped())
            .spawn()
            .expect("start tcptrace");
        let stderr = ready::wait(&mut child);
        ToFile { child, stderr, path }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("tcptrace is running");
    }

    /// Stop it: how often each type was printed of the events of `port`, and what was said.
    fn stop(mut self, port: u16) -> (HashMap<String, u64>, String) {
        self.signal(Signal::SIGINT);
        let said = std::io::read_to_string(&mut self.stderr).expect("stderr");
        assert!(self.child.wait().expect("wait").success(), "{said}");
        let mut counts = HashMap::new();
        for line in BufReader::new(File::open(&self.path).expect("the output")).lines() {
            let event: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
            let net = &event["network_event"];
            if net["sport"] == port || net["dport"] == port {
                *counts.entry(net["type"].as_str().expect("a type").to_owned()).or_default() += 1;
            }
        }
        std::fs::remove_file(&self.path).expect("remove the output");
        (counts, said)
    }
}

/// Make connections from some threads, to a listener with as many that accept.
fn connect_and_close(count: usize, threads: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..count / threads {
                    // With RST there is no TIME_WAIT, or ports would run out.
                    reset(listener.accept().expect("accept").0);
                }
            });
            scope.spawn(|| {
                for _ in 0..count / threads {
                    match TcpStream::connect(address) {
                        Ok(mut stream) => wait_for_end(&mut stream),
                        // Established, accepted and reset before connect() could say so.
                        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
                    }
                }
            });
        }
    });
    address.port()
}

/// The number before a phrase in what tcptrace said, or 0.
fn told(said: &str, phrase: &str) -> u64 {
    let line = said.lines().find(|line| line.contains(phrase));
    line.and_then(|line| line.strip_prefix("tcptrace: ")?.split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn every_connection_of_a_busy_host_is_printed_or_counted() {
    let _alone = ALONE.lock();
    let count = std::env::var("TCPTRACE_TEST_CONNECTIONS").map_or(20_000, |n| n.parse().expect("a number"));
    let trace = ToFile::start("busy", &[]);
    let port = connect_and_close(count, 1);
    let (counts, said) = trace.stop(port);
    let printed: u64 = counts.values().sum();
    let owed = 4 * count as u64;
    // This build is not the fast one; what it cannot keep up with it must count.
    let lost = told(&said, "the ring was full (") + told(&said, "events lost at most");
    assert!(printed + lost >= owed, "{printed} printed and {lost} lost of {owed}: {said}");
    if lost == 0 {
        assert_eq!(counts["TcpConnectionEstablish"], count as u64);
        assert_eq!(counts["TcpConnectionAccept"], count as u64);
        assert_eq!(counts["TcpConnectionClose"], 2 * count as u64);
    }
}

#[test]
fn what_a_full_ring_loses_is_counted() {
    let _alone = ALONE.lock();
    let count = 4000;
    let trace = ToFile::start("full", &["--ring-size", "64K"]);
    trace.signal(Signal::SIGSTOP);
    let port = connect_and_close(count, 4);
    trace.signal(Signal::SIGCONT);
    let (counts, said) = trace.stop(port);
    let printed: u64 = counts.values().sum();
    let lost = told(&said, "the ring was full (") + told(&said, "events lost at most");
    assert!(lost > 0, "{said}");
    // Other tests' connections may be among the lost; ours can not be missing from the sum.
    assert!(printed + lost >= 4 * count as u64, "{printed} printed and {lost} lost of {}", 4 * count);
    assert!(printed < 4 * count as u64);
}
