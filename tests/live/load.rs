//! Many connections at once: nothing is lost, or every loss is counted.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    thread,
};

use nix::sys::signal::Signal;

use crate::common::{
    Launch,
    folder::Folder,
    launch::Running,
    net::{reset, wait_for_end},
};

/// tcptrace, ready, printing JSON to a file.
struct ToFile {
    running: Running,
    folder: Folder,
}

impl ToFile {
    fn start(arguments: &[&str]) -> ToFile {
        let folder = Folder::new();
        let file = File::create(folder.path("events")).expect("create the output");
        let running = Launch::new().args(["-j"]).args(arguments).stdout(file).start();
        ToFile { running, folder }
    }

    /// Stop it: how often each type was printed of the events of `port`, and stderr.
    fn stop(mut self, port: u16) -> (HashMap<String, u64>, String) {
        self.running.signal(Signal::SIGINT);
        let (status, stderr) = self.running.wait();
        assert!(status.success(), "{stderr}");
        let mut counts = HashMap::new();
        for line in BufReader::new(File::open(self.folder.path("events")).expect("the output")).lines() {
            let event: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
            let net = &event["network_event"];
            if net["sport"] == port || net["dport"] == port {
                *counts.entry(net["type"].as_str().expect("a type").to_owned()).or_default() += 1;
            }
        }
        (counts, stderr)
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

/// The number before a phrase on stderr, or 0.
fn number_before(stderr: &str, phrase: &str) -> u64 {
    let line = stderr.lines().find(|line| line.contains(phrase));
    line.and_then(|line| line.strip_prefix("tcptrace: ")?.split(' ').next()?.parse().ok()).unwrap_or(0)
}

fn every_connection_of_a_busy_host_is_printed_or_counted() {
    let count = std::env::var("TCPTRACE_TEST_CONNECTIONS").map_or(20_000, |n| n.parse().expect("a number"));
    let trace = ToFile::start(&[]);
    let port = connect_and_close(count, 1);
    let (counts, stderr) = trace.stop(port);
    let printed: u64 = counts.values().sum();
    let owed = 4 * count as u64;
    // This build is not the fast one; what it cannot keep up with it must count.
    let lost = number_before(&stderr, "the ring was full (") + number_before(&stderr, "events lost at most");
    assert!(printed + lost >= owed, "{printed} printed and {lost} lost of {owed}: {stderr}");
    if lost == 0 {
        assert_eq!(counts["TcpConnectionEstablish"], count as u64);
        assert_eq!(counts["TcpConnectionAccept"], count as u64);
        assert_eq!(counts["TcpConnectionClose"], 2 * count as u64);
    }
}

fn events_lost_to_a_full_ring_are_counted() {
    let count = 4000;
    let trace = ToFile::start(&["--ring-size", "64K"]);
    trace.running.signal(Signal::SIGSTOP);
    let port = connect_and_close(count, 4);
    trace.running.signal(Signal::SIGCONT);
    let (counts, stderr) = trace.stop(port);
    let printed: u64 = counts.values().sum();
    let lost = number_before(&stderr, "the ring was full (") + number_before(&stderr, "events lost at most");
    assert!(lost > 0, "{stderr}");
    // Other tests' connections may be among the lost; ours can not be missing from the sum.
    assert!(printed + lost >= 4 * count as u64, "{printed} printed and {lost} lost of {}", 4 * count);
    assert!(printed < 4 * count as u64);
}

crate::tests![every_connection_of_a_busy_host_is_printed_or_counted, events_lost_to_a_full_ring_are_counted,];
