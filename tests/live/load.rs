//! Many connections in parallel: nothing is lost, or every loss is counted.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::sys::signal::Signal;
use tcptrace::tracer::layout;

use crate::common::{
    Launch, count_of,
    folder::Folder,
    launch::Running,
    net::{V4, half_close, listen, reset, wait_for_end},
    probes,
    procfs::{objects_of, runs},
    sys::run_when_idle,
    wait_until,
};

/// A tcptrace that is ready and prints JSON to a file.
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

    /// The number of bytes that it has printed.
    fn length(&self) -> u64 {
        fs::metadata(self.folder.path("events")).expect("the output").len()
    }

    /// Stops it; returns the number of events of each type for `port`, and stderr.
    fn stop(self, port: u16) -> (HashMap<String, u64>, String) {
        let mut counts = HashMap::new();
        let stderr = self.stop_and_read(|net| {
            if net["sport"] == port || net["dport"] == port {
                *counts.entry(net["type"].as_str().expect("a type").to_owned()).or_default() += 1;
            }
        });
        (counts, stderr)
    }

    /// Stops it and shows every `network_event` in the file; returns stderr.
    fn stop_and_read(mut self, mut show: impl FnMut(&serde_json::Value)) -> String {
        self.running.signal(Signal::SIGINT);
        let (status, stderr) = self.running.wait();
        assert!(status.success(), "{stderr}");
        for line in BufReader::new(File::open(self.folder.path("events")).expect("the output")).lines() {
            let event: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
            show(&event["network_event"]);
        }
        stderr
    }
}

/// The number of connections that a test is to make.
fn connections(default: usize) -> usize {
    count_of("TCPTRACE_TEST_CONNECTIONS", default)
}

/// None if the connection was established, accepted and reset before connect() returned.
fn connect(address: impl ToSocketAddrs) -> Option<TcpStream> {
    TcpStream::connect(address).map_err(|error| assert_eq!(error.kind(), ErrorKind::ConnectionReset)).ok()
}

/// Makes connections from some threads to a listener, with as many threads that accept.
fn connect_and_close(count: usize, threads: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..count / threads {
                    // RST avoids TIME_WAIT; otherwise ports would run out.
                    reset(listener.accept().expect("accept").0);
                }
            });
            scope.spawn(|| {
                for _ in 0..count / threads {
                    if let Some(mut stream) = connect(address) {
                        wait_for_end(&mut stream);
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

/// The number of events counted as lost.
fn lost_events(stderr: &str) -> u64 {
    number_before(stderr, "the ring was full (") + number_before(stderr, "events lost: the kernel skipped")
}

fn every_connection_of_a_busy_host_is_printed_or_counted() {
    let count = connections(20_000);
    let trace = ToFile::start(&[]);
    let port = connect_and_close(count, 1);
    let (counts, stderr) = trace.stop(port);
    let printed: u64 = counts.values().sum();
    let owed = 4 * count as u64;
    // A debug build may be too slow, but it must count its losses.
    let lost = lost_events(&stderr);
    assert!(printed + lost >= owed, "{printed} printed and {lost} lost of {owed}: {stderr}");
    if lost == 0 {
        assert_eq!(counts["TcpConnectionEstablish"], count as u64);
        assert_eq!(counts["TcpConnectionAccept"], count as u64);
        assert_eq!(counts["TcpConnectionClose"], 2 * count as u64);
    }
}

/// Runs `meanwhile` while connections are made to the listener, one after the other; it can read their number. Returns
/// their total number.
fn storm(listener: &TcpListener, meanwhile: impl FnOnce(&AtomicU64)) -> u64 {
    let (made, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let address = listener.local_addr().expect("an address");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let mut client = TcpStream::connect(address).expect("connect");
                reset(listener.accept().expect("accept").0);
                wait_for_end(&mut client);
                made.fetch_add(1, Relaxed);
            }
        });
        // Even after a failure: the thread would never end.
        let outcome = catch_unwind(AssertUnwindSafe(|| meanwhile(&made)));
        over.store(true, Relaxed);
        outcome.unwrap_or_else(|failure| resume_unwind(failure));
    });
    made.into_inner()
}

/// The ring fills up while it is stopped. Only these connections pass the filter, so the sum is exact.
fn losses_while_stopped_during_a_storm_are_counted() {
    let listener = listen(V4);
    let port = listener.local_addr().expect("an address").port();
    let trace = ToFile::start(&["--ring-size", "64K", &format!("port == {port}")]);
    let made = storm(&listener, |made| {
        wait_until("no line is printed", || trace.length() > 0);
        trace.running.signal(Signal::SIGSTOP);
        let before = made.load(Relaxed);
        wait_until("1000 connections are not made", || made.load(Relaxed) > before + 1000);
        let printed = trace.length();
        trace.running.signal(Signal::SIGCONT);
        wait_until("no other line is printed", || trace.length() > printed);
    });
    let (counts, stderr) = trace.stop(port);
    let (printed, lost) = (counts.values().sum::<u64>(), lost_events(&stderr));
    assert!(lost > 0, "{stderr}");
    assert_eq!(printed + lost, 4 * made, "{printed} printed and {lost} lost: {stderr}");
}

/// Creates the directory of a container runtime, for which tcptrace starts a second process.
const BESIDE_A_RUNTIME: &str =
    "mount -t tmpfs none /var/lib && mkdir -p /var/lib/docker/containers && exec \"$0\" \"$@\"";

fn it_ends_when_the_reader_leaves_during_a_storm() {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", BESIDE_A_RUNTIME, env!("CARGO_BIN_EXE_tcptrace")]);
    let mut running = Launch::with(command).args(["-j", "--probes", &probes()]).start();
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let children = fs::read_to_string(children).expect("its children");
    let reader = children.trim().parse().expect("the reader of containers' names");
    let mut stdout = BufReader::new(running.stdout.take().expect("stdout is piped"));
    storm(&listen(V4), |_| {
        stdout.read_line(&mut String::new()).expect("a line");
        drop(stdout);
        let (status, stderr) = running.wait();
        assert!(status.success() && !stderr.contains("panicked"), "{status}: {stderr}");
        assert!(stderr.contains(" events in "), "{stderr}");
        wait_until("the reader does not end", || !runs(reader));
    });
}

/// `>&-` is like /dev/null: output must not end up in a file that is opened later.
fn a_closed_stdout_is_dev_null() {
    let listener = listen(V4);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" >&-", env!("CARGO_BIN_EXE_tcptrace")]);
    let mut running = Launch::with(command).args(["-j", "--count", "100", "--probes", &probes()]).start();
    let stdout = fs::read_link(format!("/proc/{}/fd/1", running.pid())).expect("its stdout");
    assert_eq!(stdout, Path::new("/dev/null"));
    storm(&listener, |_| {
        let (status, stderr) = running.wait();
        assert!(status.success() && stderr.contains("100 events in "), "{status}: {stderr}");
    });
}

/// What the two ends of a connection do until it ends.
struct Shape {
    server: fn(TcpStream),
    client: fn(TcpStream),
}

const SHAPES: [Shape; 3] = [
    // The reset arrives before, during and after the accept.
    Shape {
        server: |mut end| _ = end.read(&mut [0; 8]),
        client: |mut end| {
            end.write_all(b"x").expect("write");
            reset(end);
        },
    },
    Shape { server: reset, client: |mut end| wait_for_end(&mut end) },
    Shape {
        server: |mut end| wait_for_end(&mut end),
        client: |mut end| {
            end.write_all(b"x").expect("write");
            half_close(&end);
            wait_for_end(&mut end);
        },
    },
];

/// Makes `count` connections of each shape with a server that runs like its clients, and as many with one that runs
/// only when nothing else does, all at once. Returns the servers' ports.
fn storm_of_all_shapes(count: usize) -> Vec<u16> {
    let serve = |listener: &TcpListener, shape: &Shape, idle: bool| {
        if idle {
            run_when_idle();
        }
        for _ in 0..count {
            (shape.server)(listener.accept().expect("accept").0);
        }
    };
    let connect_all = |port: u16, shape: &Shape| {
        for number in 0..count {
            // Ports of connections in TIME_WAIT can be used again for another address.
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + number as u32 % 200);
            if let Some(end) = connect((address, port)) {
                (shape.client)(end);
            }
        }
    };
    let servers: Vec<_> = SHAPES
        .iter()
        .flat_map(|shape| [(shape, false), (shape, true)])
        .map(|(shape, idle)| (listen(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), shape, idle))
        .collect();
    let ports: Vec<_> =
        servers.iter().map(|(listener, ..)| listener.local_addr().expect("an address").port()).collect();
    thread::scope(|scope| {
        for ((listener, shape, idle), &port) in servers.iter().zip(&ports) {
            scope.spawn(move || serve(listener, shape, *idle));
            scope.spawn(move || connect_all(port, shape));
        }
    });
    ports
}

/// Describes the events of one cookie, each with type and direction, if they are not those of one connection.
fn wrong_sequence(events: &[(String, String)]) -> Option<String> {
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    let direction = events.last().map(|(_, direction)| direction.as_str()).unwrap_or_default();
    let right = matches!(
        (kinds.as_slice(), direction),
        (["TcpConnectionEstablish", "TcpConnectionClose"], "egress")
            | (["TcpConnectionAccept", "TcpConnectionClose"], "ingress")
    );
    (!right).then(|| format!("{kinds:?} {direction}"))
}

fn connections_of_all_shapes_are_reported_once() {
    let count = connections(5_000) / 2;
    let trace = ToFile::start(&["--ring-size", "64M"]);
    let ports = storm_of_all_shapes(count);
    let mut connections: HashMap<u64, Vec<(String, String)>> = HashMap::new();
    let stderr = trace.stop_and_read(|net| {
        if ports.iter().any(|&port| net["sport"] == port || net["dport"] == port) {
            let text = |key: &str| net[key].as_str().unwrap_or_default().to_owned();
            let cookie = net["cookie"].as_u64().expect("a cookie");
            connections.entry(cookie).or_default().push((text("type"), text("direction")));
        }
    });
    let printed: usize = connections.values().map(Vec::len).sum();
    let lost = lost_events(&stderr);
    let wrong: Vec<String> = connections.values().filter_map(|events| wrong_sequence(events)).collect();
    assert_eq!(printed as u64 + lost, 4 * (ports.len() * count) as u64, "{stderr} {wrong:?}");
    // A connection with a lost event has one event less.
    assert!(wrong.len() as u64 <= lost, "{wrong:?} {stderr}");
}

/// The map with this name of a running tcptrace.
fn map_of(pid: u32, name: &str) -> MapHandle {
    let [_, maps, _] = objects_of(pid);
    let mut maps = maps.into_iter().filter_map(|id| MapHandle::from_map_id(id).ok());
    maps.find(|map| map.name() == name).expect("it has this map")
}

/// An entry of each kind remains when the kernel skips the program that would have seen the end of its connection. That
/// cannot be caused at will, so these two are made up: their socket is at address 0.
fn entries_without_a_socket_are_counted() {
    let (cookie, entry) = (offset_of!(layout::slot, cookie), offset_of!(layout::slot, conn));
    let cookie_of_entry = offset_of!(layout::conn, cookie);
    let trace = ToFile::start(&[]);
    let slots = map_of(trace.running.pid(), "slots");
    let is_free = |index: &u32| {
        let slot = slots.lookup(&index.to_ne_bytes(), MapFlags::ANY).expect("read a slot").expect("an array");
        slot.iter().all(|&byte| byte == 0)
    };
    let index = (1..slots.max_entries()).rev().find(is_free).expect("a free slot");
    let mut slot = vec![0; slots.value_size() as usize];
    for at in [cookie, entry + cookie_of_entry] {
        slot[at..at + 8].copy_from_slice(&u64::from(index).to_ne_bytes());
    }
    slots.update(&index.to_ne_bytes(), &slot, MapFlags::ANY).expect("write a slot");
    let conns = map_of(trace.running.pid(), "conns");
    conns.update(&0u64.to_ne_bytes(), &slot[entry..], MapFlags::ANY).expect("write an entry");
    let (counts, stderr) = trace.stop(0);
    assert_eq!((counts.len(), lost_events(&stderr)), (0, 2), "{stderr}");
}

crate::tests![
    every_connection_of_a_busy_host_is_printed_or_counted,
    losses_while_stopped_during_a_storm_are_counted,
    it_ends_when_the_reader_leaves_during_a_storm,
    a_closed_stdout_is_dev_null,
    connections_of_all_shapes_are_reported_once,
    entries_without_a_socket_are_counted,
];
