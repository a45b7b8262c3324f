//! Many connections at once: nothing is lost, or every loss is counted. Needs root.

mod common;

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
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
    let lost = told(&said, "the ring was full (") + told(&said, "events lost: the kernel skipped");
    assert!(printed + lost >= owed, "{printed} printed and {lost} lost of {owed}: {said}");
    if lost == 0 {
        assert_eq!(counts["TcpConnectionEstablish"], count as u64);
        assert_eq!(counts["TcpConnectionAccept"], count as u64);
        assert_eq!(counts["TcpConnectionClose"], 2 * count as u64);
    }
}

/// A client that connects, writes a byte and resets, against a server that accepts, reads and
/// closes: the reset comes before, during and after the accept. Both ports.
fn resets_that_race_with_accept(count: usize) -> Vec<u16> {
    let server = |listener: &TcpListener| {
        for _ in 0..count {
            // ECONNABORTED is no option on Linux: what was reset in the queue is accepted
            let (mut stream, _) = listener.accept().expect("accept");
            let _ = stream.read(&mut [0; 8]);
        }
    };
    let client = |port: u16| {
        for _ in 0..count {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
            stream.write_all(b"x").expect("write");
            reset(stream);
        }
    };
    let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("listen")).collect();
    let ports: Vec<_> = listeners.iter().map(|l| l.local_addr().expect("an address").port()).collect();
    thread::scope(|scope| {
        for (listener, &port) in listeners.iter().zip(&ports) {
            scope.spawn(move || server(listener));
            scope.spawn(move || client(port));
        }
    });
    ports
}

/// What each cookie's events should be, and their directions; otherwise what they are.
fn wrong_story(events: &[(String, String)]) -> Option<String> {
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    let direction = events.last().map(|(_, direction)| direction.as_str()).unwrap_or_default();
    let right = matches!(
        (kinds.as_slice(), direction),
        (["TcpConnectionEstablish", "TcpConnectionClose"], "egress")
            | (["TcpConnectionAccept", "TcpConnectionClose"], "ingress")
    );
    (!right).then(|| format!("{kinds:?} {direction}"))
}

#[test]
fn resets_that_race_with_accept_are_reported_once() {
    let _alone = ALONE.lock();
    let count = std::env::var("TCPTRACE_TEST_CONNECTIONS").map_or(5_000, |n| n.parse().expect("a number"));
    let trace = ToFile::start("resets", &["--ring-size", "64M"]);
    let ports = resets_that_race_with_accept(count);
    let path = trace.path.clone();
    let kept = path.with_extension("kept");
    std::fs::hard_link(&path, &kept).expect("keep the output");
    let (_, said) = trace.stop(0);
    let mut stories: HashMap<u64, Vec<(String, String)>> = HashMap::new();
    for line in BufReader::new(File::open(&kept).expect("the output")).lines() {
        let event: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let net = &event["network_event"];
        if ports.iter().any(|&port| net["sport"] == port || net["dport"] == port) {
            let text = |key: &str| net[key].as_str().unwrap_or_default().to_owned();
            let cookie = net["cookie"].as_u64().expect("a cookie");
            stories.entry(cookie).or_default().push((text("type"), text("direction")));
        }
    }
    std::fs::remove_file(&kept).expect("remove the output");
    let printed: usize = stories.values().map(Vec::len).sum();
    let lost = told(&said, "the ring was full (") + told(&said, "events lost: the kernel skipped");
    let wrong: Vec<String> = stories.values().filter_map(|events| wrong_story(events)).collect();
    println!("{} sockets, {printed} events printed, {lost} lost, {} wrong", stories.len(), wrong.len());
    assert_eq!(printed as u64 + lost, 8 * count as u64, "{said} {wrong:?}");
    // Whose event was lost has one less.
    assert!(wrong.len() as u64 <= lost, "{wrong:?} {said}");
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
    let lost = told(&said, "the ring was full (") + told(&said, "events lost: the kernel skipped");
    assert!(lost > 0, "{said}");
    // Other tests' connections may be among the lost; ours can not be missing from the sum.
    assert!(printed + lost >= 4 * count as u64, "{printed} printed and {lost} lost of {}", 4 * count);
    assert!(printed < 4 * count as u64);
}
