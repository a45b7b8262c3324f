//! Filters on names, with real answers and real connections.

use crate::common::{
    self, Trace,
    dns_lab::{DnsLab, Listener, Server},
    folder::Folder,
    net,
};
use serde_json::Value;

/// A lab with names, and a listener to connect to.
struct Fixture {
    lab: DnsLab,
    _server: Server,
    listener: Listener,
}

/// Each name resolves to another address; the last host has no name.
const HOSTS: [&str; 4] = ["one.example", "www.one.example", "two.example", "192.0.2.9"];

impl Fixture {
    fn new() -> Fixture {
        let lab = DnsLab::new();
        let server = lab.serve(
            "host-record=one.example,192.0.2.1\nhost-record=www.one.example,192.0.2.2\n\
             host-record=two.example,192.0.2.3",
        );
        let listener = lab.listen();
        Fixture { lab, _server: server, listener }
    }

    /// Starts tcptrace for this lab only; `{port}` becomes the listener's port.
    fn trace(&self, arguments: &[&str], filter: &str) -> Trace {
        let port = self.listener.port.to_string();
        let filter = format!("netns == {} AND ({})", self.listener.netns, filter.replace("{port}", &port));
        Trace::start(&[arguments, &[&filter]].concat())
    }

    /// Connects to every host, and waits until all connections are closed.
    fn connect(&self) {
        self.lab.connect(&HOSTS, self.listener.port);
        self.settle();
    }

    /// Waits until there are only listeners and TIME_WAITs: by then everything has been reported.
    fn settle(&self) {
        let is_open = r#"FNR > 1 && $4 != "0A" && $4 != "06" { open = 1 } END { exit !open }"#;
        let wait = format!("while awk '{is_open}' /proc/net/tcp /proc/net/tcp6; do :; done");
        self.lab.run("sh", &["-c", &wait]);
    }

    /// The events in short form, with the host: `connect 1`; with `<` for the listener's side.
    fn summarized(&self, events: &[Value]) -> Vec<String> {
        let short = |event: &Value| {
            let event = net(event);
            let kind = event["type"].as_str().expect("a type").trim_start_matches("TcpConnection");
            let kind = match kind {
                "Establish" => "connect".to_owned(),
                "NetTCPConnect" => "request".to_owned(),
                "TcpStateChange" => event["new_state"].as_str().expect("a state").to_owned(),
                kind => kind.to_lowercase(),
            };
            let host = event["daddr"].as_str().or(event["dstIP"].as_str()).expect("an address");
            let port = if event["dstPort"].is_null() { &event["dport"] } else { &event["dstPort"] };
            let side = if *port == self.listener.port { "" } else { "<" };
            format!("{kind}{side} {}", host.trim_start_matches("192.0.2."))
        };
        events.iter().map(short).collect()
    }

    /// Connects to all hosts and checks that exactly these events are reported.
    fn check(&self, arguments: &[&str], filter: &str, expected: &[&str]) {
        let trace = self.trace(arguments, filter);
        self.connect();
        let ended = trace.stop();
        assert!(ended.status.success(), "{}", ended.stderr);
        let mut reported = self.summarized(&ended.events);
        // The order of the two ends of a connection is not fixed.
        reported.sort();
        let mut expected: Vec<String> = expected.iter().map(|&line| line.to_owned()).collect();
        expected.sort();
        assert_eq!(reported, expected, "{filter}");
    }
}

const ACCEPTED: [&str; 8] =
    ["accept< 1", "accept< 2", "accept< 3", "accept< 9", "close< 1", "close< 2", "close< 3", "close< 9"];

fn and_accepted(opened: &[&'static str]) -> Vec<&'static str> {
    [opened, &ACCEPTED].concat()
}

fn names_and_wildcards_select_connections_to_their_end() {
    let fixture = Fixture::new();
    for (filter, expected) in [
        (r#"dns == "one.example""#, &["connect 1", "close 1"][..]),
        (r#"dns == "ONE.example.""#, &["connect 1", "close 1"]),
        (r#"dns in ["*.one.example"]"#, &["connect 2", "close 2"]),
        (
            r#"dns in ["*.example"] AND port_dst == {port}"#,
            &["connect 1", "connect 2", "connect 3", "close 1", "close 2", "close 3"],
        ),
        (
            r#"dns in ["two.example", "*.one.example", "three.example"]"#,
            &["connect 2", "connect 3", "close 2", "close 3"],
        ),
        (r#"dns == "one.example" AND port_dst == 1"#, &[]),
        (r#"dns == "example""#, &[]),
    ] {
        fixture.check(&[], filter, expected);
    }
}

fn connections_without_a_name_match_negated_conditions() {
    let fixture = Fixture::new();
    let others = ["connect 2", "connect 3", "connect 9", "close 2", "close 3", "close 9"];
    fixture.check(&[], r#"dns != "one.example""#, &and_accepted(&others));
    fixture.check(&[], r#"direction == "egress" AND NOT dns == "one.example""#, &others);
    let unnamed = ["connect 9", "close 9"];
    fixture.check(&[], r#"NOT dns in ["*.example"] AND port_src != {port}"#, &unnamed);
    fixture.check(&[], r#"NOT (dns in ["*.example"] OR direction == "ingress")"#, &unnamed);
}

fn names_combined_with_other_attributes() {
    let fixture = Fixture::new();
    fixture.check(
        &[],
        r#"dns == "one.example" OR port_src == {port}"#,
        &and_accepted(&["connect 1", "close 1"]),
    );
    let two = ["connect 1", "connect 9", "close 1", "close 9"];
    fixture.check(&[], r#"dns == "one.example" OR daddr == "192.0.2.9" AND port_dst == {port}"#, &two);
    fixture.check(
        &[],
        r#"binary_prefix == "/" AND dns == "one.example" AND uid == 0"#,
        &["connect 1", "close 1"],
    );
    fixture.check(&[], r#"uid == 4242 OR dns == "one.example""#, &["connect 1", "close 1"]);
    fixture.check(&[], r#"dns == "one.example" AND NOT uid == 0"#, &[]);
    fixture.check(&["-4", "--daddr", "192.0.2.2"], r#"dns in ["*.example"]"#, &["connect 2", "close 2"]);
}

fn each_kind_of_event() {
    let fixture = Fixture::new();
    let one = r#"dns == "one.example""#;
    fixture.check(&["-e", "request"], one, &["request 1"]);
    fixture.check(&["-e", "connect"], one, &["connect 1"]);
    fixture.check(&["-e", "close"], one, &["close 1"]);
    fixture.check(&["-e", "accept"], one, &[]);
    let steps = ["SYN_SENT 1", "ESTABLISHED 1", "CLOSE_WAIT 1", "LAST_ACK 1", "CLOSED 1"];
    fixture.check(&["-e", "state"], one, &steps);
    fixture.check(&["-e", "all"], one, &[&steps[..], &["request 1", "connect 1", "close 1"]].concat());
}

fn a_failure_is_filtered_by_its_name() {
    let mut fixture = Fixture::new();
    fixture.listener.close();
    fixture.check(&[], r#"dns in ["one.example", "two.example"]"#, &["fail 1", "fail 3"]);
    fixture.check(&["--failed"], r#"dns != "one.example""#, &["fail 2", "fail 3", "fail 9"]);
}

fn existing_sockets_have_no_name() {
    let fixture = Fixture::new();
    let kinds = |arguments: &[&str], filter: &str| {
        let filter = format!("netns == {} AND {filter}", fixture.listener.netns);
        let output = common::tcptrace().args(["-j", &filter]).args(arguments).output().expect("run tcptrace");
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).expect("UTF-8");
        lines
            .lines()
            .map(|line| net(&serde_json::from_str(line).expect("JSON"))["state"].clone())
            .collect::<Vec<_>>()
    };
    for arguments in [&["--snapshot"][..], &["--existing", "--timeout", "10ms"]] {
        assert_eq!(kinds(arguments, r#"dns == "one.example""#), [""; 0]);
        // The listener of the test, and two of dnsmasq.
        assert_eq!(kinds(arguments, r#"dns != "one.example""#), ["LISTEN"; 3]);
    }
}

fn the_first_matching_rule_is_reported() {
    let fixture = Fixture::new();
    let folder = Folder::new();
    let name = folder.write(
        "rules.yaml",
        "egress:\n  rules:\n  - rule: one\n    event: dns == \"one.example\"\n  - rule: below\n    \
         scope: uid == 0\n    event: dns in [\"*.one.example\"]\n  - rule: named\n    event: dns in [\"*.example\"]\n\
         ingress:\n  enabled: true\n",
    );
    let trace = fixture.trace(&["-c", &name], "family == 4");
    fixture.connect();
    let ended = trace.stop();
    let reported = fixture.summarized(&ended.events);
    for (label, event) in reported.iter().zip(&ended.events) {
        let expected = match label.as_str() {
            "connect 1" | "close 1" => Some("one"),
            "connect 2" | "close 2" => Some("below"),
            "connect 3" | "close 3" => Some("named"),
            _ => None,
        };
        assert_eq!(event["rule"].as_str(), expected, "{label}");
    }
    let mut reported = reported;
    reported.sort();
    let mut expected =
        and_accepted(&["connect 1", "close 1", "connect 2", "close 2", "connect 3", "close 3"]);
    expected.sort_unstable();
    assert_eq!(reported, expected);
}

crate::tests![
    names_and_wildcards_select_connections_to_their_end,
    connections_without_a_name_match_negated_conditions,
    names_combined_with_other_attributes,
    each_kind_of_event,
    a_failure_is_filtered_by_its_name,
    existing_sockets_have_no_name,
    the_first_matching_rule_is_reported,
];
