//! Names and attempts, caused for real: dnsmasq answers, real clients ask and connect.
//!
//! Each test has a network namespace of its own (a `Lab`) in which the networks for
//! documentation are local, so that every name leads to a listener of the test. Tests run side
//! by side and hear each other: events are told apart by namespace, and what is guessed across
//! namespaces by addresses that no other test uses.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// A network namespace with a mount namespace, for as long as it lives.
struct Lab {
    holder: Child,
    files: PathBuf,
    _stdin: ChildStdin,
}

impl Lab {
    fn new() -> Self {
        Self::with("")
    }

    /// `setup` runs in the namespaces, as shell.
    fn with(setup: &str) -> Self {
        let files = std::env::temp_dir().join(format!("tcptrace-lab-{:?}", Instant::now()));
        let files = PathBuf::from(files.to_string_lossy().replace([' ', '{', '}', ':', ','], ""));
        fs::create_dir_all(&files).unwrap();
        let resolv = files.join("resolv.conf");
        fs::write(&resolv, "nameserver 127.0.0.53\noptions timeout:2 attempts:2\n").unwrap();
        let script = format!(
            "set -e
            mount --bind {resolv} $(readlink -f /etc/resolv.conf)
            ip link set lo up
            for net in 192.0.2 198.51.100 203.0.113; do ip route add local $net.0/24 dev lo; done
            ip -6 route add local 2001:db8::/32 dev lo
            {setup}
            echo ready
            read -r end",
            resolv = resolv.display()
        );
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare, from util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the lab could not be set up");
        let stdin = holder.stdin.take().unwrap();
        Self { holder, files, _stdin: stdin }
    }

    /// A command that will run in the lab.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.holder.id().to_string(), program]);
        command
    }

    /// Its inode number.
    fn netns(&self) -> u64 {
        let link = fs::read_link(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        let digits: String = link.to_string_lossy().chars().filter(|c| c.is_ascii_digit()).collect();
        digits.parse().unwrap()
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let output = self.command(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
        output
    }

    /// A DNS server on 127.0.0.53 and ::1 that knows these records.
    fn serve(&self, records: &str) -> Server {
        let config = self.files.join("dnsmasq.conf");
        let fixed = "no-resolv\nno-hosts\nport=53\nbind-interfaces\nlisten-address=127.0.0.53\n\
             listen-address=::1\nno-daemon\npid-file=\nuser=root\nlocal=/example/\n";
        fs::write(&config, format!("{fixed}{records}\n")).unwrap();
        let mut child = self
            .command("dnsmasq")
            .arg(format!("--conf-file={}", config.display()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let started = said.any(|line| line.unwrap().contains("started, version"));
        assert!(started, "dnsmasq, from dnsmasq-base, did not start");
        Server { child, _said: said }
    }

    /// A listener on all addresses of the lab, IPv4 and IPv6; answers with one byte.
    fn listen(&self) -> Listener {
        let code = "
import socket
server = socket.create_server(('::', 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
print(server.getsockname()[1], flush=True)
while True:
    client, _ = server.accept()
    client.send(b'x')
    client.close()";
        let mut child = self.command("python3").args(["-c", code]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Listener { child, port: line.trim().parse().unwrap(), netns: self.netns() }
    }

    /// getaddrinfo() and connect() to its first address, as any program does.
    fn connect(&self, host: &str, port: u16) {
        let code = "
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 10).recv(1)";
        self.run("python3", &["-c", code, host, &port.to_string()]);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        end(&mut self.holder);
        // A lab that cannot be cleaned up must not hide why the test failed.
        drop(fs::remove_dir_all(&self.files));
    }
}

struct Server {
    child: Child,
    /// Open as long as it runs, or its next message would end it.
    _said: Lines<BufReader<ChildStderr>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

struct Listener {
    child: Child,
    port: u16,
    netns: u64,
}

impl Drop for Listener {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

/// tcptrace, attached.
struct Trace {
    child: Child,
    lines: Receiver<String>,
    told: Receiver<String>,
}

impl Trace {
    fn start(args: &[&str]) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_tcptrace")), args)
    }

    fn of(mut command: Command, args: &[&str]) -> Self {
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = follow(child.stdout.take().unwrap());
        let told = follow(child.stderr.take().unwrap());
        let trace = Self { child, lines, told };
        trace.hear("ready");
        trace
    }

    /// Waits until stderr says it, and returns that line.
    fn hear(&self, what: &str) -> String {
        let mut said = Vec::new();
        loop {
            match self.told.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(what) => return line,
                Ok(line) => said.push(line),
                Err(error) => panic!("tcptrace never said {what:?} ({error}) but {said:#?}"),
            }
        }
    }

    /// Events until `enough` of those that matter have come.
    fn events(&self, enough: usize, matters: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < enough {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let event: Value = serde_json::from_str(&line).expect(&line);
                    let event = event["network_event"].clone();
                    if matters(&event) {
                        events.push(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("only {} came: {events:#?}", events.len()),
                Err(RecvTimeoutError::Disconnected) => panic!("tcptrace ended: {events:#?}"),
            }
        }
        events
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn follow(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}

/// Events of the given type about connections to the listener, seen from the client.
fn about(listener: &Listener, kind: &'static str) -> impl Fn(&Value) -> bool {
    let (port, netns) = (listener.port, listener.netns);
    move |event| event["type"] == kind && event["dport"] == port && event["netns"] == netns
}

fn outgoing(listener: &Listener) -> impl Fn(&Value) -> bool {
    about(listener, "TcpConnectionEstablish")
}

fn names(event: &Value) -> Vec<&str> {
    event["dns"]
        .as_array()
        .map_or(Vec::new(), |names| names.iter().map(|name| name.as_str().unwrap()).collect())
}

#[test]
fn the_first_connection_already_has_its_name_and_keeps_it() {
    let lab = Lab::new();
    let _server = lab.serve("host-record=one.example,192.0.2.1");
    let listener = lab.listen();
    let trace = Trace::start(&["-j"]);
    lab.connect("one.example", listener.port);
    let mut events = trace.events(1, outgoing(&listener));
    events.extend(trace.events(1, about(&listener, "TcpConnectionClose")));
    for event in events {
        assert_eq!(event["daddr"], "192.0.2.1");
        assert_eq!(names(&event), ["one.example"]);
        assert!(event.get("dns_guess").is_none(), "{event}");
    }
}

#[test]
fn the_head_of_a_cname_chain_is_shown() {
    let lab = Lab::new();
    let _server = lab.serve(
        "cname=www.example,edge.example\ncname=edge.example,real.example\n\
         host-record=real.example,192.0.2.10",
    );
    let listener = lab.listen();
    let trace = Trace::start(&["-j"]);
    lab.connect("www.example", listener.port);
    assert_eq!(names(&trace.events(1, outgoing(&listener))[0]), ["www.example"]);
}

#[test]
fn two_names_of_one_address_come_most_recent_first() {
    let lab = Lab::new();
    let _server = lab.serve("address=/one.example/two.example/192.0.2.1");
    let listener = lab.listen();
    let trace = Trace::start(&["-j"]);
    lab.connect("one.example", listener.port);
    lab.connect("two.example", listener.port);
    let events = trace.events(2, outgoing(&listener));
    assert_eq!(names(&events[0]), ["one.example"]);
    assert_eq!(names(&events[1]), ["two.example", "one.example"]);
}

#[test]
fn every_address_of_a_round_robin_has_the_name() {
    let lab = Lab::new();
    let records: Vec<_> = (1..=8).map(|n| format!("host-record=rr.example,192.0.2.{n}")).collect();
    let _server = lab.serve(&records.join("\n"));
    let listener = lab.listen();
    let trace = Trace::start(&["-j"]);
    lab.run("dig", &["+short", "@127.0.0.53", "rr.example"]);
    for n in 1..=8 {
        lab.connect(&format!("192.0.2.{n}"), listener.port);
    }
    for event in trace.events(8, outgoing(&listener)) {
        assert_eq!(names(&event), ["rr.example"], "{event}");
    }
}

#[test]
fn ipv6_addresses_and_ipv6_servers() {
    let lab = Lab::new();
    let _server = lab.serve("host-record=six.example,2001:db8::6");
    let listener = lab.listen();
    let trace = Trace::start(&["-j"]);
    lab.connect("six.example", listener.port);
    let event = &trace.events(1, outgoing(&listener))[0];
    assert_eq!((event["daddr"].as_str(), names(event)), (Some("2001:db8::6"), vec!["six.example"]));
}

#[test]
fn answers_over_udp_and_tcp_and_both_families() {
    let lab = Lab::new();
    let ways = [("127.0.0.53", "+notcp"), ("127.0.0.53", "+tcp"), ("::1", "+notcp"), ("::1", "+tcp")];
    let records: Vec<_> = (1..=4).map(|n| format!("host-record=n{n}.example,192.0.2.{n}")).collect();
    let _server = lab.serve(&records.join("\n"));
    let listener = lab.listen();
    let trace = Trace::start(&["-j"]);
    for (n, (server, flag)) in (1..).zip(ways) {
        lab.run("dig", &["+short", flag, &format!("@{server}"), &format!("n{n}.example")]);
        lab.connect(&format!("192.0.2.{n}"), listener.port);
    }
    for (n, event) in (1..).zip(trace.events(4, outgoing(&listener))) {
        assert_eq!(names(&event), [format!("n{n}.example")]);
    }
}

#[test]
fn a_truncated_answer_is_completed_over_tcp() {
    let lab = Lab::new();
    let records: Vec<_> = (1..=60).map(|n| format!("host-record=many.example,192.0.2.{n}")).collect();
    let server = lab.serve(&records.join("\n"));
    let listener = lab.listen();
    let trace = Trace::start(&["-j"]);
    // Without EDNS the answer does not fit; all 60 addresses come over TCP.
    lab.run("dig", &["+short", "+noedns", "@127.0.0.53", "many.example"]);
    for n in 1..=60 {
        lab.connect(&format!("192.0.2.{n}"), listener.port);
    }
    for event in trace.events(60, outgoing(&listener)) {
        assert_eq!(names(&event), ["many.example"], "{event}");
    }
    drop(server);
}

#[test]
fn a_name_that_does_not_exist_names_nothing() {
    let lab = Lab::new();
    let _server = lab.serve("host-record=one.example,198.51.100.1");
    let listener = lab.listen();
    let trace = Trace::start(&["-j"]);
    let answer = lab.run("dig", &["@127.0.0.53", "nothing.example"]);
    assert!(String::from_utf8_lossy(&answer.stdout).contains("NXDOMAIN"));
    lab.connect("198.51.100.1", listener.port);
    let event = &trace.events(1, outgoing(&listener))[0];
    assert!(event.get("dns").is_none() && event.get("dns_guess").is_none(), "{event}");
}

#[test]
fn other_resolvers_are_heard_too() {
    let lab = Lab::new();
    let _server = lab.serve("host-record=bb.example,192.0.2.1\nhost-record=curl.example,192.0.2.2");
    let listener = lab.listen();
    let trace = Trace::start(&["-j"]);
    lab.run("busybox", &["nslookup", "-type=a", "bb.example", "127.0.0.53"]);
    lab.connect("192.0.2.1", listener.port);
    // The listener speaks no HTTP: that curl fails is no matter.
    let url = format!("http://curl.example:{}/", listener.port);
    lab.command("curl").args(["-s", "--http0.9", "-o", "/dev/null", &url]).status().unwrap();
    let events = trace.events(2, outgoing(&listener));
    assert_eq!(names(&events[0]), ["bb.example"]);
    assert_eq!(names(&events[1]), ["curl.example"]);
}

#[test]
fn namespaces_name_one_address_differently_and_others_guess() {
    let (left, right, third) = (Lab::new(), Lab::new(), Lab::new());
    let _left = left.serve("host-record=left.example,198.51.100.2");
    let _right = right.serve("host-record=right.example,198.51.100.2");
    let trace = Trace::start(&["-j"]);
    for (lab, host, expected, guess) in [
        (&left, "left.example", vec!["left.example"], false),
        (&right, "right.example", vec!["right.example"], false),
        (&left, "198.51.100.2", vec!["left.example"], false),
        (&third, "198.51.100.2", vec!["right.example", "left.example"], true),
    ] {
        let listener = lab.listen();
        lab.connect(host, listener.port);
        let event = &trace.events(1, outgoing(&listener))[0];
        assert_eq!(names(event), expected);
        assert_eq!(event.get("dns_guess"), guess.then_some(&Value::Bool(true)));
    }
}

#[test]
fn the_table_shows_names_and_marks_guesses() {
    let (lab, other) = (Lab::new(), Lab::new());
    let _server = lab.serve("host-record=table.example,198.51.100.3");
    let trace = Trace::start(&["-e", "connect"]);
    for (lab, host, expected) in
        [(&lab, "table.example", " table.example:"), (&other, "198.51.100.3", "~table.example:")]
    {
        let listener = lab.listen();
        lab.connect(host, listener.port);
        let shown = format!("{expected}{}", listener.port);
        while !trace.lines.recv_timeout(PATIENCE).expect(&shown).contains(&shown) {}
    }
}

#[test]
fn a_failed_connection_has_its_name() {
    let lab = Lab::new();
    let _server = lab.serve("host-record=one.example,192.0.2.1");
    let mut listener = lab.listen();
    let trace = Trace::start(&["-j"]);
    let code = "
import socket, sys
try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
except ConnectionRefusedError: pass";
    end(&mut listener.child);
    lab.run("python3", &["-c", code, "one.example", &listener.port.to_string()]);
    let event = &trace.events(1, about(&listener, "TcpConnectionFail"))[0];
    assert_eq!(names(event), ["one.example"]);
}

#[test]
fn no_dns_watches_nothing() {
    let lab = Lab::new();
    let _server = lab.serve("host-record=one.example,192.0.2.1");
    let listener = lab.listen();
    let trace = Trace::start(&["-j", "--no-dns"]);
    lab.connect("one.example", listener.port);
    let event = &trace.events(1, outgoing(&listener))[0];
    assert!(event.get("dns").is_none(), "{event}");
}

#[test]
fn without_cgroup2_tracing_goes_on() {
    let lab =
        Lab::with("for at in $(awk '/ - cgroup2 / {print $5}' /proc/self/mountinfo); do umount -l $at; done");
    let listener = lab.listen();
    let trace = Trace::of(lab.command(env!("CARGO_BIN_EXE_tcptrace")), &["-j"]);
    lab.connect("192.0.2.1", listener.port);
    assert!(trace.events(1, outgoing(&listener))[0].get("dns").is_none());
}

#[test]
fn every_attempt_is_a_request() {
    let lab = Lab::new();
    let _server = lab.serve("host-record=one.example,203.0.113.1");
    let listener = lab.listen();
    let trace = Trace::start(&["-j", "-e", "request"]);
    let code = "
import socket, sys
port = int(sys.argv[1])
socket.create_connection(('one.example', port)).close()
s = socket.socket(socket.AF_INET6); s.connect(('::ffff:203.0.113.2', port)); s.close()
s = socket.socket(socket.AF_INET6); s.connect(('2001:db8:1::3', port)); s.close()
s = socket.socket(); s.sendto(b'x', 0x20000000, ('203.0.113.4', port)); s.close()
s = socket.socket(); s.setblocking(False); s.connect_ex(('203.0.113.5', port)); s.close()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('203.0.113.6', port)); s.close()
s = socket.socket(); s.connect_ex(('203.0.113.7', 1)); s.close()";
    lab.run("python3", &["-c", code, &listener.port.to_string()]);
    let events = trace.events(6, |event| {
        event["dstIP"]
            .as_str()
            .is_some_and(|ip| ip.starts_with("203.0.113.") || ip.starts_with("2001:db8:1:"))
    });
    let port = u64::from(listener.port);
    for (event, (ip, port, results)) in events.iter().zip([
        ("203.0.113.1", port, vec!["one.example"]),
        ("203.0.113.2", port, vec![]),
        ("2001:db8:1::3", port, vec![]),
        ("203.0.113.4", port, vec![]),
        ("203.0.113.5", port, vec![]),
        ("203.0.113.7", 1, vec![]),
    ]) {
        let expected = serde_json::json!({
            "type": "NetTCPConnect", "dstIP": ip, "dstPort": port, "results": results,
        });
        assert_eq!(event, &expected);
    }
}
