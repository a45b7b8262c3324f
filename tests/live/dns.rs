//! Names of remote ends: dnsmasq answers, real clients resolve and connect.
//!
//! Tests run in parallel and see each other's events: these are distinguished by namespace, and guesses across
//! namespaces by addresses that no other test uses.

use std::{
    cell::{Cell, RefCell},
    io::{BufRead, BufReader},
};

use crate::common::{
    self, Launch, Trace,
    dns_lab::{DnsLab, Listener},
};
use serde_json::Value;

/// Waits for this many events of a type on connections to the listener; the client's side.
fn about(trace: &mut Trace, listener: &Listener, kind: &str, count: usize) -> Vec<Value> {
    let (looked_at, found) = (Cell::new(0), RefCell::new(Vec::new()));
    let is_it =
        |net: &&Value| net["type"] == kind && net["dport"] == listener.port && net["netns"] == listener.netns;
    trace.wait(&format!("{count} {kind} of port {}", listener.port), |events| {
        // Other tests may make many events: look at each only once.
        let new = events[looked_at.replace(events.len())..].iter().map(common::net);
        found.borrow_mut().extend(new.filter(is_it).cloned());
        found.borrow().len() >= count
    });
    found.into_inner()
}

fn connects(trace: &mut Trace, listener: &Listener, count: usize) -> Vec<Value> {
    about(trace, listener, "TcpConnectionEstablish", count)
}

/// For dnsmasq: one name with many addresses.
fn records(name: &str, addresses: &[String]) -> String {
    let records: Vec<_> = addresses.iter().map(|address| format!("host-record={name},{address}")).collect();
    records.join("\n")
}

fn strs(strings: &[String]) -> Vec<&str> {
    strings.iter().map(String::as_str).collect()
}

fn names(event: &Value) -> Vec<&str> {
    event["dns"]
        .as_array()
        .map_or(Vec::new(), |names| names.iter().map(|name| name.as_str().expect("a name")).collect())
}

fn the_first_connection_already_has_its_name_and_keeps_it() {
    let lab = DnsLab::new();
    let _server = lab.serve("host-record=one.example,192.0.2.1");
    let listener = lab.listen();
    let mut trace = Trace::start(&[]);
    lab.connect(&["one.example"], listener.port);
    let mut events = connects(&mut trace, &listener, 1);
    events.extend(about(&mut trace, &listener, "TcpConnectionClose", 1));
    for event in events {
        assert_eq!(event["daddr"], "192.0.2.1");
        assert_eq!(names(&event), ["one.example"]);
        assert!(event.get("dns_guess").is_none(), "{event}");
    }
}

fn the_head_of_a_cname_chain_is_shown() {
    let lab = DnsLab::new();
    let _server = lab.serve(
        "cname=www.example,edge.example\ncname=edge.example,real.example\n\
         host-record=real.example,192.0.2.10",
    );
    let listener = lab.listen();
    let mut trace = Trace::start(&[]);
    lab.connect(&["www.example"], listener.port);
    assert_eq!(names(&connects(&mut trace, &listener, 1)[0]), ["www.example"]);
}

fn two_names_of_one_address_come_most_recent_first() {
    let lab = DnsLab::new();
    let _server = lab.serve("address=/one.example/two.example/192.0.2.1");
    let listener = lab.listen();
    let mut trace = Trace::start(&[]);
    lab.connect(&["one.example"], listener.port);
    lab.connect(&["two.example"], listener.port);
    let events = connects(&mut trace, &listener, 2);
    assert_eq!(names(&events[0]), ["one.example"]);
    assert_eq!(names(&events[1]), ["two.example", "one.example"]);
}

fn every_address_of_a_round_robin_has_the_name() {
    let lab = DnsLab::new();
    let addresses: Vec<_> = (1..=8).map(|n| format!("192.0.2.{n}")).collect();
    let _server = lab.serve(&records("rr.example", &addresses));
    let listener = lab.listen();
    let mut trace = Trace::start(&[]);
    lab.run("dig", &["+short", "@127.0.0.53", "rr.example"]);
    lab.connect(&strs(&addresses), listener.port);
    for event in connects(&mut trace, &listener, 8) {
        assert_eq!(names(&event), ["rr.example"], "{event}");
    }
}

fn ipv6_addresses_and_ipv6_servers() {
    let lab = DnsLab::new();
    let _server = lab.serve("host-record=six.example,2001:db8::6");
    let listener = lab.listen();
    let mut trace = Trace::start(&[]);
    lab.connect(&["six.example"], listener.port);
    let event = &connects(&mut trace, &listener, 1)[0];
    assert_eq!((event["daddr"].as_str(), names(event)), (Some("2001:db8::6"), vec!["six.example"]));
}

fn answers_over_udp_and_tcp_and_both_families() {
    let lab = DnsLab::new();
    let queries = [("127.0.0.53", "+notcp"), ("127.0.0.53", "+tcp"), ("::1", "+notcp"), ("::1", "+tcp")];
    let records: Vec<_> = (1..=4).map(|n| format!("host-record=n{n}.example,192.0.2.{n}")).collect();
    let _server = lab.serve(&records.join("\n"));
    let listener = lab.listen();
    let mut trace = Trace::start(&[]);
    for (n, (server, flag)) in (1..).zip(queries) {
        lab.run("dig", &["+short", flag, &format!("@{server}"), &format!("n{n}.example")]);
        lab.connect(&[&format!("192.0.2.{n}")], listener.port);
    }
    for (n, event) in (1..).zip(connects(&mut trace, &listener, 4)) {
        assert_eq!(names(&event), [format!("n{n}.example")]);
    }
}

fn a_truncated_answer_is_completed_over_tcp() {
    let lab = DnsLab::new();
    let addresses: Vec<_> = (1..=60).map(|n| format!("192.0.2.{n}")).collect();
    let _server = lab.serve(&records("many.example", &addresses));
    let listener = lab.listen();
    let mut trace = Trace::start(&[]);
    // Without EDNS the answer does not fit; all 60 addresses come over TCP.
    let truncated = lab.run("dig", &["+noedns", "+ignore", "@127.0.0.53", "many.example"]);
    assert!(String::from_utf8_lossy(&truncated.stdout).contains("flags: qr aa tc"), "{truncated:?}");
    lab.run("dig", &["+short", "+noedns", "@127.0.0.53", "many.example"]);
    lab.connect(&strs(&addresses), listener.port);
    for event in connects(&mut trace, &listener, 60) {
        assert_eq!(names(&event), ["many.example"], "{event}");
    }
}

fn nonexistent_names_are_not_shown() {
    let lab = DnsLab::new();
    let _server = lab.serve("host-record=one.example,198.51.100.1");
    let listener = lab.listen();
    let mut trace = Trace::start(&[]);
    let answer = lab.run("dig", &["@127.0.0.53", "nothing.example"]);
    assert!(String::from_utf8_lossy(&answer.stdout).contains("NXDOMAIN"));
    lab.connect(&["198.51.100.1"], listener.port);
    let event = &connects(&mut trace, &listener, 1)[0];
    assert!(event.get("dns").is_none() && event.get("dns_guess").is_none(), "{event}");
}

fn answers_from_other_resolvers_are_seen() {
    let lab = DnsLab::new();
    let _server = lab.serve("host-record=bb.example,192.0.2.1\nhost-record=curl.example,192.0.2.2");
    let listener = lab.listen();
    let mut trace = Trace::start(&[]);
    lab.run("busybox", &["nslookup", "-type=a", "bb.example", "127.0.0.53"]);
    lab.connect(&["192.0.2.1"], listener.port);
    // The listener does not speak HTTP, so curl fails, but that does not matter.
    let url = format!("http://curl.example:{}/", listener.port);
    lab.command("curl").args(["-s", "--http0.9", "-o", "/dev/null", &url]).status().expect("run curl");
    let events = connects(&mut trace, &listener, 2);
    assert_eq!(names(&events[0]), ["bb.example"]);
    assert_eq!(names(&events[1]), ["curl.example"]);
}

fn names_are_per_namespace_and_guessed_elsewhere() {
    let (left, right, third) = (DnsLab::new(), DnsLab::new(), DnsLab::new());
    let _left = left.serve("host-record=left.example,198.51.100.2");
    let _right = right.serve("host-record=right.example,198.51.100.2");
    let mut trace = Trace::start(&[]);
    for (lab, host, expected, guess) in [
        (&left, "left.example", vec!["left.example"], false),
        (&right, "right.example", vec!["right.example"], false),
        (&left, "198.51.100.2", vec!["left.example"], false),
        (&third, "198.51.100.2", vec!["right.example", "left.example"], true),
    ] {
        let listener = lab.listen();
        lab.connect(&[host], listener.port);
        let event = &connects(&mut trace, &listener, 1)[0];
        assert_eq!(names(event), expected);
        assert_eq!(event.get("dns_guess"), guess.then_some(&Value::Bool(true)));
    }
}

fn the_table_shows_names_and_marks_guesses() {
    let (lab, other) = (DnsLab::new(), DnsLab::new());
    let _server = lab.serve("host-record=table.example,198.51.100.3");
    let mut table = Launch::new().args(["-e", "connect"]).start();
    let mut lines = BufReader::new(table.stdout.take().expect("stdout is piped")).lines();
    assert!(lines.next().expect("a header").expect("text").starts_with("TIME"));
    for (lab, host, expected) in
        [(&lab, "table.example", " table.example:"), (&other, "198.51.100.3", "~table.example:")]
    {
        let listener = lab.listen();
        lab.connect(&[host], listener.port);
        let shown = format!("{expected}{}", listener.port);
        assert!(lines.any(|line| line.expect("text").contains(&shown)), "{shown}");
    }
}

fn a_failed_connection_has_its_name() {
    let lab = DnsLab::new();
    let _server = lab.serve("host-record=one.example,192.0.2.1");
    let mut listener = lab.listen();
    let mut trace = Trace::start(&[]);
    listener.close();
    lab.connect(&["one.example"], listener.port);
    let event = &about(&mut trace, &listener, "TcpConnectionFail", 1)[0];
    assert_eq!(names(event), ["one.example"]);
}

fn no_dns_disables_names() {
    let lab = DnsLab::new();
    let _server = lab.serve("host-record=one.example,192.0.2.1");
    let listener = lab.listen();
    let mut trace = Trace::start(&["--no-dns"]);
    lab.connect(&["one.example"], listener.port);
    let event = &connects(&mut trace, &listener, 1)[0];
    assert!(event.get("dns").is_none(), "{event}");
}

fn tracing_works_without_cgroup2() {
    let lab = DnsLab::with(
        "for at in $(awk '/ - cgroup2 / {print $5}' /proc/self/mountinfo); do umount -l $at; done",
    );
    let listener = lab.listen();
    let launch = Launch::with(lab.command(env!("CARGO_BIN_EXE_tcptrace")));
    let mut trace = Trace::of(launch.args(["-j", "--probes", &common::probes()]));
    let reason = "remote ends have no DNS names: cgroup2 is not mounted";
    assert_eq!(trace.banner().matches(reason).count(), 1, "{}", trace.banner());
    lab.connect(&["192.0.2.1"], listener.port);
    assert!(connects(&mut trace, &listener, 1)[0].get("dns").is_none());
}

/// Answers in forms that few servers send, each with another address.
fn unusual_answers_are_understood() {
    let lab = DnsLab::new();
    let listener = lab.listen();
    let mut trace = Trace::start(&["-e", "connect"]);
    let code = r"
import socket, struct
def answer(name, last):
    name = b'\x05' + name + b'\x07example\0'
    data = bytes([198, 51, 100, last])
    return b'\0\0\x81\x80\0\1\0\1\0\0\0\0' + name + b'\0\1\0\1\xc0\x0c\0\1\0\1\0\0\1\0\0\4' + data
def udp(family, address, port):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((address, port))
    return s
v6, to6 = udp(socket.AF_INET6, '::1', 53), udp(socket.AF_INET6, '::1', 0)
v4, to4 = udp(socket.AF_INET, '127.0.0.1', 5353), udp(socket.AF_INET, '127.0.0.1', 0)
padding = bytes([0, 0, 1, 4, 0, 0, 0, 0])
v6.setsockopt(socket.IPPROTO_IPV6, 59, padding)  # destination options
v6.sendto(answer(b'names', 11), to6.getsockname())
v6.setsockopt(socket.IPPROTO_IPV6, 54, padding)  # hop-by-hop options before them
v6.sendto(answer(b'named', 12), to6.getsockname())
v4.sendto(answer(b'large', 13) + bytes(60000), to4.getsockname())
v4.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([7, 7, 4, 0, 0, 0, 0, 0]))
v4.sendto(answer(b'route', 14), to4.getsockname())
server = socket.create_server(('127.0.0.1', 53))
client = socket.create_connection(('127.0.0.1', 53))
stream, _ = server.accept()
def framed(message): return struct.pack('>H', len(message)) + message
stream.send(framed(answer(b'first', 15)) + framed(answer(b'again', 16)))
client.recv(1000)
stream.send(struct.pack('>H', 47))
client.recv(2)
stream.send(answer(b'apart', 17))
client.recv(1000)";
    lab.run("python3", &["-c", code]);
    let names_of = ["names", "named", "large", "route", "first", "again", "apart"];
    let addresses: Vec<_> = (11..18).map(|last| format!("198.51.100.{last}")).collect();
    lab.connect(&strs(&addresses), listener.port);
    for (name, event) in names_of.iter().zip(connects(&mut trace, &listener, names_of.len())) {
        assert_eq!(names(&event), [format!("{name}.example")], "{event}");
    }
}

crate::tests![
    the_first_connection_already_has_its_name_and_keeps_it,
    the_head_of_a_cname_chain_is_shown,
    two_names_of_one_address_come_most_recent_first,
    every_address_of_a_round_robin_has_the_name,
    ipv6_addresses_and_ipv6_servers,
    answers_over_udp_and_tcp_and_both_families,
    a_truncated_answer_is_completed_over_tcp,
    nonexistent_names_are_not_shown,
    answers_from_other_resolvers_are_seen,
    names_are_per_namespace_and_guessed_elsewhere,
    the_table_shows_names_and_marks_guesses,
    a_failed_connection_has_its_name,
    no_dns_disables_names,
    tracing_works_without_cgroup2,
    unusual_answers_are_understood,
];
