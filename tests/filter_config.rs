//! NetMon YAML: its meaning, and the positions of errors.

#[path = "common/subject.rs"]
mod subject;

use subject::curl;
use tcptrace::filter::netmon_yaml::NetMonConfig;
use tcptrace::filter::{Direction, Filter, Subject, Verdict};

fn filter(text: &str) -> Filter {
    let config = NetMonConfig::parse("netmon.yaml", text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    Filter::new(&Default::default(), None, config.process.clone(), config.rules())
}

/// The verdict of the reference, after checking that the program agrees, with the name of the rule.
fn verdict(filter: &Filter, subject: &Subject) -> Option<Option<String>> {
    let verdict = filter.evaluate(subject);
    assert_eq!(filter.compile().expect("a filter that can match").evaluate(subject), verdict);
    match verdict {
        Verdict::Rejected => None,
        Verdict::Admitted(rule) => Some(rule.and_then(|index| filter.rules[index].name.clone())),
    }
}

const REJECTED: Option<Option<String>> = None;
const UNNAMED: Option<Option<String>> = Some(None);

fn named(rule: &str) -> Option<Option<String>> {
    Some(Some(rule.to_owned()))
}

#[test]
fn netmon_process_filter_allows_or_denies() {
    let allow = filter("process_filter:\n  binary:\n    name:\n      - curl\n");
    assert_eq!(verdict(&allow, &curl()), UNNAMED);
    assert_eq!(verdict(&allow, &Subject { binary_name: b"wget".to_vec(), ..curl() }), REJECTED);
    let deny = filter("process_filter:\n  deny_list: true\n  binary:\n    name:\n      - curl\n");
    assert_eq!(verdict(&deny, &curl()), REJECTED);
    assert_eq!(verdict(&deny, &Subject { binary_name: b"wget".to_vec(), ..curl() }), UNNAMED);
}

#[test]
fn uid_and_euid_and_auid_and_any_binary() {
    let text = "process_filter:\n  uid: [1000, 0x3e9]\n  euid: [0]\n  auid: [4294967295]\n  binary:\n    name: [tail, wget]\n    prefix: [/usr/local/bin/]\n    path: [/usr/bin/curl]\n";
    for (deny, inside, outside) in [(false, UNNAMED, REJECTED), (true, REJECTED, UNNAMED)] {
        let filter = filter(&format!("{text}  deny_list: {deny}\n"));
        assert_eq!(verdict(&filter, &curl()), inside);
        assert_eq!(verdict(&filter, &Subject { uid: 1001, ..curl() }), inside);
        let local =
            Subject { binary_path: b"/usr/local/bin/x/y".to_vec(), binary_name: b"y".to_vec(), ..curl() };
        assert_eq!(verdict(&filter, &local), inside);
        let other = Subject { binary_path: b"/bin/curl".to_vec(), ..curl() };
        assert_eq!(verdict(&filter, &other), outside);
        for other in
            [Subject { uid: 1, ..curl() }, Subject { euid: 1, ..curl() }, Subject { auid: 0, ..curl() }]
        {
            assert_eq!(verdict(&filter, &other), outside);
        }
    }
}

#[test]
fn rules_name_matches_and_reject_the_rest() {
    let filter = filter(
        "egress:\n  enabled: true\n  rules:\n    - rule: web-from-curl\n      scope: binary_name == \"curl\"\n      event: ipv4_dst in [\"10.0.0.0/8\"] AND port_dst == 443\n    - rule: rest\n      event: port_dst != 22\n",
    );
    assert_eq!(verdict(&filter, &curl()), named("web-from-curl"));
    assert_eq!(verdict(&filter, &Subject { dport: 80, ..curl() }), named("rest"));
    assert_eq!(verdict(&filter, &Subject { dport: 22, ..curl() }), REJECTED);
    // The other direction is not mentioned, so it is disabled.
    assert_eq!(verdict(&filter, &Subject { direction: Direction::Ingress, ..curl() }), REJECTED);
}

#[test]
fn directions_can_be_disabled() {
    let ingress = Subject { direction: Direction::Ingress, ..curl() };
    for (text, out, accepted) in [
        ("ingress:\n  enabled: true\negress:\n  enabled: true\n", UNNAMED, UNNAMED),
        ("ingress:\n  enabled: false\negress:\n  enabled: true\n", UNNAMED, REJECTED),
        ("ingress:\n", REJECTED, UNNAMED),
        ("process_filter:\n  uid: 1000\n", UNNAMED, UNNAMED),
        ("", UNNAMED, UNNAMED),
        ("egress: {}\ningress:\n  rules:\n  - rule: in\n", UNNAMED, named("in")),
    ] {
        let filter = filter(text);
        assert_eq!(verdict(&filter, &curl()), out, "{text}");
        assert_eq!(verdict(&filter, &ingress), accepted, "{text}");
    }
}

#[test]
fn folded_blocks_are_read_and_negation_holds_for_the_other_family() {
    let filter = filter(
        "egress:\n  enabled: true\n  rules:\n  - rule: out-of-cluster\n    event: >\n      NOT ipv4_dst in [\n        \"10.0.0.0/8\",\n        \"127.0.0.1\"\n      ] OR ipv6_dst == \"2000::/3\"\n",
    );
    assert_eq!(verdict(&filter, &curl()), REJECTED);
    let to = |address: &str| Subject {
        saddr: address.parse().expect(address),
        daddr: address.parse().expect(address),
        ..curl()
    };
    assert_eq!(verdict(&filter, &to("192.168.0.1")), named("out-of-cluster"));
    assert_eq!(verdict(&filter, &to("::ffff:10.0.0.1")), REJECTED);
    assert_eq!(verdict(&filter, &to("2001:db8::1")), named("out-of-cluster"));
    assert_eq!(verdict(&filter, &to("fe80::1")), named("out-of-cluster"));
}

#[test]
fn names_are_left_to_user_space() {
    let filter = filter(
        "egress:\n  rules:\n  - rule: example\n    event: dns == \"*.example.com\" AND port_dst == 443\n",
    );
    assert!(filter.needs_names());
    let other = Subject { dns: vec!["example.org".to_owned()], ..curl() };
    assert_eq!(filter.evaluate(&curl()), Verdict::Admitted(Some(0)));
    assert_eq!(filter.evaluate(&other), Verdict::Rejected);
    // The kernel knows no names: it admits exactly what some name could still admit.
    let program = filter.compile().expect("a filter");
    assert_eq!(program.evaluate(&other), Verdict::Admitted(Some(0)));
    assert_eq!(program.evaluate(&Subject { dport: 80, ..other }), Verdict::Rejected);
}

#[test]
fn errors_have_positions_in_the_file() {
    for (text, line, column, part) in [
        ("egres:\n", 1, 1, "did you mean `egress`?"),
        ("process_filter:\n  uid: [0]\n  denylist: true\n", 3, 3, "did you mean `deny_list`?"),
        ("process_filter:\n  binary:\n    nmae: [curl]\n", 3, 5, "did you mean `name`?"),
        ("process_filter:\n  binary:\n    path:\n    - curl\n", 4, 7, "binary_name"),
        ("process_filter:\n  uid:\n    - root\n", 3, 7, "\"root\" is not a number"),
        ("process_filter:\n  uid: [4294967296]\n", 2, 9, "out of range"),
        ("process_filter:\n  deny_list: yes\n", 2, 14, "expected true or false"),
        ("process_filter:\n  deny_list: true\n", 2, 3, "process_filter is empty"),
        ("process_filter: [curl]\n", 1, 17, "expected a map"),
        ("egress:\n  rules:\n  - event: port_dst == 1\n", 3, 5, "needs a name"),
        ("egress:\n  rules:\n  - rule: r\n    event: prot_dst == 1\n", 4, 12, "did you mean `port_dst`?"),
        (
            "egress:\n  rules:\n  - rule: r\n    event: uid == 0 AND ipv4_dst == \"10.0.0.1/8\"\n",
            4,
            37,
            "did you mean \"10.0.0.0/8\"?",
        ),
        ("egress:\n  rules:\n  - rule: r\n    event: 'uid == 0 AND port == 65536'\n", 4, 34, "out of range"),
        (
            "egress:\n  rules:\n  - rule: r\n    event: \"binary_name == \\\"curl\\\" AND prot == 1\"\n",
            4,
            41,
            "did you mean `port`?",
        ),
        (
            "egress:\n  rules:\n  - rule: r\n    event: >\n      uid == 0\n      AND (port == 1\n\n      OR port in [2\n",
            8,
            18,
            "unmatched `[`",
        ),
        (
            "egress:\n  rules:\n  - rule: r\n    event: |-\n      uid == 0\n      AND prot == 1\n",
            6,
            11,
            "did you mean `port`?",
        ),
        ("egress:\n  rules:\n  - rule: r\n    rule: s\n", 4, 5, "duplicate key"),
        ("ingress:\n  enabled: false\negress:\n  enabled: false\n", 1, 1, "no direction is enabled"),
        ("egress: &a\n  enabled: true\ningress: *a\n", 1, 9, "anchors"),
        ("egress:\n  enabled: !!bool true\n", 2, 12, "tags"),
        ("egress:\n---\ningress:\n", 2, 1, "multiple YAML documents"),
        ("egress:\n  enabled: [true\n", 3, 1, "not YAML"),
    ] {
        let error = NetMonConfig::parse("r.yaml", text).expect_err(text);
        assert!(error.message.contains(part), "{text}: {}", error.message);
        assert_eq!((error.place.line, error.place.column), (line, column), "{text}: {}", error.message);
    }
}

#[test]
fn a_rule_that_can_never_match_is_reported_with_its_place() {
    let error = |text: &str| filter(text).compile().expect_err(text).to_string();
    let text = "egress:\n  rules:\n    - rule: fine\n    - rule: never\n      scope: binary_name == \"curl\"\n      event: direction == \"ingress\"\n";
    assert_eq!(
        error(text),
        "netmon.yaml:4:7: rule \"never\" can never match: its conditions exclude each other"
    );
    let text = "ingress:\n  rules:\n  - rule: v4\n    event: ipv4_dst == \"10.0.0.1\" AND family == 6\n";
    assert!(error(text).starts_with("netmon.yaml:3:5: rule \"v4\" can never match"));
}

/// This takes half a second even in a debug build; a quadratic algorithm would take minutes.
#[test]
fn a_hundred_thousand_values_are_read() {
    let list: String = (0..100_000).map(|n| format!("    - {n}\n")).collect();
    let filter = filter(&format!("process_filter:\n  uid:\n{list}"));
    assert_eq!(verdict(&filter, &Subject { uid: 99_999, ..curl() }), UNNAMED);
    assert_eq!(verdict(&filter, &Subject { uid: 100_000, ..curl() }), REJECTED);
}
