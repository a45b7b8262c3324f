//! Sockets that exist at the start: every state, two namespaces, without gaps or duplicates.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::Instant,
};

use crate::common::{
    self, PATIENCE, Trace,
    actor::{self, Actor},
    all,
    net::{self, Pair, V4, V6},
    network, sequence,
    socket_states::{Seen, SocketStates},
    the,
};
use crate::odr_server;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};

/// The events of a snapshot.
fn snapshot() -> Vec<Value> {
    parse(&printed(&["-j"]))
}

fn parse(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn printed(arguments: &[&str]) -> String {
    let output = common::tcptrace()
        .arg("--snapshot")
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("tcptrace");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The events of a namespace in a snapshot, once they are as expected: some states take time to be reached.
fn settled(netns: u64, expected: &BTreeSet<Seen>) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let events: Vec<Value> =
            snapshot().into_iter().filter(|event| common::net(event)["netns"] == netns).collect();
        let seen: BTreeSet<Seen> = events.iter().map(Seen::from).collect();
        if expected.is_subset(&seen) {
            return events;
        }
        let missing: Vec<&Seen> = expected.difference(&seen).collect();
        let instead: Vec<&Seen> = seen
            .iter()
            .filter(|seen| {
                missing.iter().any(|missing| (&missing.local, &missing.remote) == (&seen.local, &seen.remote))
            })
            .collect();
        assert!(Instant::now() < deadline, "missing {missing:#?}, instead {instead:#?}");
    }
}

fn every_state_in_two_namespaces() {
    let outside = network::number();
    let here = SocketStates::new(V4);
    settled(outside, &here.expected);
    network::in_own(|netns| {
        assert_ne!(netns, outside);
        for address in [V4, V6] {
            let sockets = SocketStates::new(address);
            let events = settled(netns, &sockets.expected);
            let states: BTreeSet<&str> = sockets.expected.iter().map(|seen| seen.state.as_str()).collect();
            assert_eq!(states.len(), 10, "all but CLOSED: {states:?}");
            cookies_and_queues(&events, &sockets);
            as_ss_says(&events);
        }
    });
}

/// Checks what is known only for sockets with a descriptor.
fn cookies_and_queues(events: &[Value], sockets: &SocketStates) {
    for (cookie, seen) in &sockets.cookies {
        let of: Vec<&Value> = events.iter().filter(|event| common::net(event)["cookie"] == *cookie).collect();
        assert_eq!(of.len(), 1, "{of:#?}");
        assert_eq!(Seen::from(of[0]), *seen);
        assert_eq!(
            of[0]["process"]["binary_path"],
            std::env::current_exe().expect("this program").display().to_string()
        );
        assert!(of[0]["process"]["args"].is_string() && of[0]["parent"]["pid"].is_u64());
    }
    let listeners: Vec<&Value> =
        events.iter().map(|event| &event["network_event"]).filter(|net| net["state"] == "LISTEN").collect();
    let queue = |port: u16| {
        listeners
            .iter()
            .find(|net| net["sport"] == port)
            .map(|net| net["backlog"].clone())
            .expect("a listener")
    };
    assert_eq!(queue(sockets.waited_for.0), json!({"len": 1, "max": sockets.waited_for.1}));
}

/// Compares with ss from iproute2: the same sockets of this namespace, with the same owners.
fn as_ss_says(events: &[Value]) {
    let output = Command::new("ss").args(["-tanpH"]).output().expect("ss, from iproute2: make test-deps");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let theirs: BTreeSet<Seen> = text.lines().map(Seen::from_ss).collect();
    let ours: BTreeSet<Seen> =
        events.iter().map(|event| Seen { direction: None, ..Seen::from(event) }).collect();
    assert!(ours.len() > 10);
    assert_eq!(ours, theirs);
}

fn a_shared_socket_names_all_its_processes() {
    let listener = net::listen(V4);
    let port = listener.local_addr().expect("an address").port();
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).expect("let it be inherited");
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("no more");
    // once it answers, the exec is done
    let stdin = child.stdin.as_mut().expect("piped");
    stdin.write_all(b"x").and_then(|()| stdin.flush()).expect("cat listens");
    child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("cat answers");

    let program = std::fs::read_link(format!("/proc/{}/exe", child.id())).expect("its program");
    let name = program.file_name().and_then(|name| name.to_str()).expect("UTF-8");
    // A snapshot shows all namespaces, and sockets of other tests may have the same local or remote port: select this
    // listener only.
    let this_listener = format!("netns == {} AND port_src == {port} AND port_dst == 0", network::number());
    let events = parse(&printed(&["-j", &this_listener]));
    let table = printed(&[&this_listener]);
    child.kill().and_then(|()| child.wait()).expect("end cat");
    let event = the(&events, "TcpConnectionExisting");
    // Children that other tests have just forked may be owners too.
    let owners = common::net(event)["owners"].as_array().expect("owners");
    assert!(owners.iter().any(|owner| owner["pid"] == std::process::id()), "{event:#}");
    let is_child = |owner: &Value| owner["pid"] == child.id() && owner["filename"] == name;
    assert!(owners.iter().any(is_child), "{event:#}");
    let line = table.lines().find(|line| line.contains(&format!(":{port} "))).expect("its line");
    assert!(line.contains(" +") && line.contains("LISTEN, backlog 0/128"), "{line}");
}

fn snapshots_in_all_formats() {
    let server = odr_server::Server::new();
    let pair = Pair::new(V6);
    let port = pair.port();

    let document = server.take(&printed(&["-f", "odr"])).expect("one document");
    let data = document["data"].as_array().expect("records");
    let of = |end: &str, value: String| {
        data.iter().find(|record| record[end] == value).unwrap_or_else(|| panic!("{value} in {document:#}"))
    };
    let client = of("local_address", format!("[::1]:{}", pair.client_port()));
    assert_eq!(client["remote_address"], format!("[::1]:{port}"));
    assert_eq!(client["state"], "ESTABLISHED");
    assert_eq!(client["protocol"], "tcp,ipv6");
    assert_eq!(client["process_id"], std::process::id());
    let listener = of("remote_address", "[::]:0".to_owned());
    assert_eq!(listener["state"], "LISTEN");
    assert!(
        data.iter().all(|record| odr_server::STATES.contains(&record["state"].as_str().unwrap_or_default()))
    );

    let text = printed(&["-f", "csv"]);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().expect("a header").clone();
    let column =
        |name: &str| header.iter().position(|column| column == name).unwrap_or_else(|| panic!("{name}"));
    let rows: Vec<_> = reader.records().map(|row| row.expect("as many fields as columns")).collect();
    // Other tests leave sockets in TIME_WAIT, so the port alone does not identify a socket.
    let ends = |row: &csv::StringRecord| {
        row[column("dport")] == port.to_string() && row[column("sport")] == pair.client_port().to_string()
    };
    let row = rows.iter().find(|row| ends(row)).expect("the client");
    assert_eq!(&row[column("event")], "existing");
    assert_eq!(&row[column("state")], "ESTABLISHED");
    assert_eq!(&row[column("direction")], "egress");
    assert_eq!(row[column("pid")], std::process::id().to_string());
}

fn existing_then_tracing() {
    let mut pair = Pair::new(V4);
    let port = pair.port();
    let waiting = TcpStream::connect(pair.listener.local_addr().expect("an address")).expect("connect");
    net::transfer(&mut pair.client, &mut pair.server, 1000);

    let mut trace = Trace::start(&["--existing"]);
    net::transfer(&mut pair.client, &mut pair.server, 234);
    net::transfer(&mut pair.server, &mut pair.client, 77);
    let [client_port, waiting_port] =
        [&pair.client, &waiting].map(|socket| socket.local_addr().expect("an address").port());
    drop(pair.client);
    net::wait_for_end(&mut pair.server);
    drop(pair.server);
    let (mut accepted, _) = pair.listener.accept().expect("accept");
    drop(waiting);
    net::wait_for_end(&mut accepted);
    drop(accepted);

    // the listener, two clients, two servers; an accept; four closes
    let events = trace.wait_port(port, 10);
    let found = |sport: u16, dport: u16| {
        let of =
            |event: &&Value| common::net(event)["sport"] == sport && common::net(event)["dport"] == dport;
        let event = events.iter().find(of).unwrap_or_else(|| panic!("{sport} -> {dport} in {events:#?}"));
        common::net(event)["cookie"].clone()
    };
    for (cookie, direction, sent, received) in
        [(found(client_port, port), "egress", 1234, 77), (found(port, client_port), "ingress", 77, 1234)]
    {
        assert_eq!(sequence(&events, &cookie), ["TcpConnectionExisting", "TcpConnectionClose"]);
        let of: Vec<&Value> = events.iter().filter(|event| common::net(event)["cookie"] == cookie).collect();
        assert_eq!(common::net(of[0])["state"], "ESTABLISHED");
        assert_eq!(common::net(of[0])["direction"], direction);
        let close = common::net(of[1]);
        assert_eq!(close["direction"], direction);
        assert_eq!(close["bytes_sent"], sent);
        assert_eq!(close["bytes_received"], received);
        assert_eq!(close.get("duration_us"), None, "nobody knows when it began");
        assert!(of.iter().all(|event| event["process"]["pid"] == std::process::id()));
    }
    let child = found(port, waiting_port);
    assert_eq!(
        sequence(&events, &child),
        ["TcpConnectionExisting", "TcpConnectionAccept", "TcpConnectionClose"],
        "{events:#?}"
    );
    let waited = events.iter().find(|event| common::net(event)["cookie"] == child).expect("it");
    assert_eq!(waited["process"], Value::Null, "nobody has it yet");
    assert_eq!(
        sequence(&events, &found(waiting_port, port)),
        ["TcpConnectionExisting", "TcpConnectionClose"]
    );
}

fn open_connections_close_with_their_owner() {
    let mut pair = Pair::new(V4);
    let port = pair.port();
    net::transfer(&mut pair.server, &mut pair.client, 4321);
    let mut trace = Trace::start(&[]);
    drop(pair.server);
    net::wait_for_end(&mut pair.client);
    drop(pair.client);
    let events = trace.wait_port(port, 2);
    let closes = all(&events, "TcpConnectionClose");
    assert_eq!(closes.len(), 2, "{events:#?}");
    for close in closes {
        let net = common::net(close);
        let server = net["sport"] == port;
        assert_eq!(net["direction"], if server { "ingress" } else { "egress" });
        assert_eq!(net["reason"], if server { "local_close" } else { "remote_close" });
        assert_eq!(net["bytes_sent"], if server { 4321 } else { 0 });
        assert_eq!(net["bytes_received"], if server { 0 } else { 4321 });
        assert_eq!(close["process"]["pid"], std::process::id());
        assert_eq!(common::closer(net), &Value::Null);
        assert!(net["cookie"].as_u64().is_some_and(|cookie| cookie > 0));
    }
}

/// Connections open and close as fast as possible while tcptrace is started repeatedly, TCPTRACE_TEST_STARTS times.
fn each_connection_exists_or_is_opened_once() {
    let starts = common::count_of("TCPTRACE_TEST_STARTS", 5);
    let mut churn = Actor::start("connect and close, many times");
    let port: u16 = churn.hear().parse().expect("a port");
    let mut both = 0;
    for _ in 0..starts {
        let mut trace = Trace::start(&["--existing"]);
        trace.wait("enough events", |events| events.len() > 500);
        churn.tell("pause");
        // its last connection, on a different port
        let last: u16 = churn.hear().parse().expect("a port");
        trace.wait("the last close", |events| {
            common::of_port(&events[events.len().saturating_sub(500)..], last).len() >= 4
        });
        // An earlier close may come after it: where the kernel is busy, packets wait, on each processor for itself.
        trace.wait("the other closes", |events| {
            sequences(events, port).values().all(|events| is_complete(events))
        });
        let ended = trace.stop();
        // If the kernel skips the accept of a connection, the whole connection is lost, and counted (LIMITS in the
        // manual).
        let skipped = |line: &&str| line.contains("the kernel skipped a probe");
        assert!(ended.lost().iter().all(skipped), "{:?}", ended.lost());
        let sequences = sequences(&ended.events, port);
        assert!(sequences.values().all(|events| is_complete(events)), "{sequences:#?}");
        both += sequences.values().filter(|events| was_found_and_closed(events)).count();
        churn.tell("go on");
    }
    churn.leave();
    assert!(both > 0, "no connection was found and closed in {starts} starts");
}

/// The events of each socket with this port that is not a listener, by cookie.
fn sequences(events: &[Value], port: u16) -> BTreeMap<u64, Vec<&Value>> {
    let mut sequences: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for net in events.iter().map(common::net) {
        if (net["sport"] == port || net["dport"] == port) && net["state"] != "LISTEN" {
            sequences.entry(net["cookie"].as_u64().expect("a cookie")).or_default().push(net);
        }
    }
    sequences
}

/// Are these all events of a socket that is closed? Fails if they are not those of one socket.
fn is_complete(sequence: &[&Value]) -> bool {
    let types: Vec<&str> = sequence.iter().map(|net| net["type"].as_str().expect("a type")).collect();
    let (first, rest) = types.split_first().expect("an event");
    match (*first, rest) {
        ("TcpConnectionExisting", []) => {
            let state = sequence[0]["state"].as_str().expect("a state");
            ["TIME_WAIT", "FIN_WAIT2", "SYN_RECV"].contains(&state)
        }
        ("TcpConnectionExisting", ["TcpConnectionClose"]) => true,
        // found before it was accepted
        ("TcpConnectionExisting", ["TcpConnectionAccept" | "TcpConnectionEstablish", rest @ ..])
        | ("TcpConnectionEstablish" | "TcpConnectionAccept", rest) => match rest {
            [] => false,
            ["TcpConnectionClose"] => true,
            _ => panic!("{sequence:#?}"),
        },
        _ => panic!("{sequence:#?}"),
    }
}

/// Did a socket with these events, which are complete, exist at the start, and was then closed?
fn was_found_and_closed(sequence: &[&Value]) -> bool {
    sequence[0]["type"] == "TcpConnectionExisting" && sequence.len() > 1
}

fn listeners_and_states() {
    let mut trace = Trace::start(&["-e", "listen,state"]);
    let mut pair = Pair::new(V4);
    let (port, client_port) = (pair.port(), pair.client_port());
    drop(pair.client);
    net::wait_for_end(&mut pair.server);
    drop(pair.server);
    drop(pair.listener);
    let events = trace.wait_port(port, 4 + 5 + 4);
    let start = the(&events, "TcpListenStart");
    let stop = the(&events, "TcpListenStop");
    for event in [start, stop] {
        let net = common::net(event);
        assert_eq!(net["sport"], port);
        assert_eq!(net["backlog"], json!({"len": 0, "max": 128}));
        assert_eq!(event["process"]["pid"], std::process::id());
    }
    let steps = |sport: u16, dport: u16| -> Vec<[String; 2]> {
        all(&events, "TcpStateChange")
            .into_iter()
            .map(common::net)
            .filter(|net| net["sport"] == sport && net["dport"] == dport)
            .map(|net| ["old_state", "new_state"].map(|key| net[key].as_str().expect("a state").to_owned()))
            .collect()
    };
    let walk = |states: &[&str]| -> Vec<[String; 2]> {
        states.windows(2).map(|pair| [pair[0].to_owned(), pair[1].to_owned()]).collect()
    };
    assert_eq!(steps(port, 0), walk(&["CLOSED", "LISTEN", "CLOSED"]));
    let server = walk(&["SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED"]);
    assert_eq!(steps(port, client_port), server);
    // the local port is not chosen yet at the first step
    let client = walk(&["SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSED"]);
    assert!(steps(client_port, port).ends_with(&client), "{events:#?}");
    for event in all(&events, "TcpStateChange") {
        let net = common::net(event);
        let first = ["CLOSED", "SYN_RECV"].contains(&net["old_state"].as_str().unwrap_or_default());
        assert_eq!(net.get("duration_us").is_none(), first, "{net}");
        let unaccepted = net["old_state"] == "SYN_RECV";
        assert_eq!(event["process"].is_null(), unaccepted, "{event}");
    }
}

/// The part of another process: connects, accepts and closes with pauses, until the test ends it.
pub fn connect_and_close_many_times() {
    let listener = TcpListener::bind((V4, 0)).expect("listen");
    let address = listener.local_addr().expect("an address");
    let paused = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = std::sync::Arc::clone(&paused);
    let (send_word, words) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        loop {
            let word = actor::listen();
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
            if send_word.send(word.clone()).is_err() || word.is_empty() {
                return;
            }
        }
    });
    actor::say(address.port());
    loop {
        let mut open = std::collections::VecDeque::new();
        while !paused.load(std::sync::atomic::Ordering::SeqCst) {
            let client = TcpStream::connect(address).expect("connect");
            let (server, _) = listener.accept().expect("accept");
            open.push_back((client, server));
            if open.len() > 20 {
                open.pop_front();
            }
            // a rate that a debug build can keep up with
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        open.clear();
        if words.recv().is_ok_and(|word| word.is_empty()) {
            return;
        }
        let mut last = Pair::new(V4);
        let port = last.port();
        drop(last.client);
        net::wait_for_end(&mut last.server);
        drop(last.server);
        actor::say(port);
        let word = words.recv().unwrap_or_default();
        if word.is_empty() {
            return;
        }
        paused.store(false, std::sync::atomic::Ordering::SeqCst);
    }
}

crate::tests![
    every_state_in_two_namespaces,
    a_shared_socket_names_all_its_processes,
    snapshots_in_all_formats,
    existing_then_tracing,
    open_connections_close_with_their_owner,
    each_connection_exists_or_is_opened_once,
    listeners_and_states,
];
