//! Compares the compiled program with the reference evaluator, and the parser with the printed predicates.

#[path = "common/filter_cases.rs"]
mod filter_cases;

use filter_cases::{filter, predicate, subject, written};
use proptest::prelude::*;
use tcptrace::filter::netmon_yaml::NetMonConfig;
use tcptrace::filter::predicate;
use tcptrace::filter::{Filter, FilterError};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Twelve subjects per filter, because compiling is the expensive part.
    #[test]
    fn the_program_agrees_with_the_reference(filter in filter(), subjects in prop::collection::vec(subject(), 12)) {
        match filter.compile() {
            Ok(program) => for subject in &subjects {
                prop_assert_eq!(program.evaluate(subject), filter.evaluate(subject), "{:?}", subject);
            },
            Err(FilterError::NeverMatches(_)) => for subject in &subjects {
                prop_assert_eq!(filter.evaluate(subject), tcptrace::filter::Verdict::Rejected);
            },
            Err(FilterError::RuleNeverMatches(..)) => {
                let dead = |rule: &tcptrace::filter::Rule| Filter { all: Vec::new(), rules: vec![rule.clone()], cgroups: Vec::new() }.compile().is_err();
                let dead: Vec<_> = filter.rules.iter().filter(|rule| dead(rule)).collect();
                prop_assert!(!dead.is_empty());
                for (rule, subject) in dead.iter().flat_map(|r| subjects.iter().map(move |s| (r, s))) {
                    prop_assert!(!subject.satisfies(&rule.predicate));
                }
            }
            Err(FilterError::TooManyTerms) => {}
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn predicates_round_trip(predicate in predicate()) {
        let text = written(&predicate);
        let read = predicate::parse(&text).map_err(|e| TestCaseError::fail(e.report(&text)))?;
        prop_assert_eq!(read, predicate);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,200}") {
        if let Err(e) = predicate::parse(&text) {
            prop_assert!(e.span.start <= e.span.end && e.span.end <= text.len());
            e.report(&text);
        }
        let _ = NetMonConfig::parse("fuzz.yaml", &text);
    }

    /// Random words of the language reach deeper code than random characters.
    #[test]
    fn no_words_make_the_parsers_panic(words in prop::collection::vec(prop::sample::select(vec![
        "port_dst", "==", "!=", "in", "[", "]", "(", ")", "NOT", "and", "OR", "443", "\"", "\\", "0x", ",", "\"10.0.0.0/8\"", "daddr", "\n", "  ", ":", "-", "egress", "rules", ">", "|", "&a", "*a", "!!str", "{", "}", "#", "'", "---", "\u{fc}", "?"
    ]), 0..60), glue in prop::sample::select(vec!["", " "])) {
        let text = words.join(glue);
        if let Err(e) = predicate::parse(&text) {
            prop_assert!(text.is_char_boundary(e.span.start) && text.is_char_boundary(e.span.end));
            e.report(&text);
        }
        let _ = NetMonConfig::parse("fuzz.yaml", &text);
        let _ = NetMonConfig::parse("fuzz.yaml", &format!("egress:\n  rules:\n  - rule: r\n    event: {text}"));
    }
}

/// The column and the message of the error in `text`.
fn error(text: &str) -> (usize, String) {
    let error = predicate::parse(text).expect_err(text);
    (error.column(text), error.message)
}

#[test]
fn errors_show_the_position_and_a_suggestion() {
    for (text, column, part) in [
        ("prot_dst == 443", 1, "did you mean `port_dst`?"),
        ("uid == 0 AND dport == 443", 14, "did you mean `port_dst`?"),
        ("UID == 0", 1, "did you mean `uid`?"),
        ("comm == \"curl\"", 1, "did you mean `binary_name`?"),
        ("frobnicate == 1", 1, "see FILTERS"),
        ("daddr == \"10.0.0/8\"", 10, "did you mean \"10.0.0.0/24\"?"),
        ("daddr == \"10.0.0.1/8\"", 10, "did you mean \"10.0.0.0/8\"?"),
        ("daddr == \"10.0.0.256\"", 10, "0 to 255"),
        ("daddr == \"10.0.0.0/33\"", 10, "0 to 32"),
        ("daddr == 10.0.0.1", 10, "in double quotes"),
        ("ipv4_dst == \"::1\"", 13, "is not IPv4"),
        ("ipv6_dst == \"::ffff:10.0.0.1\"", 13, "is an IPv4 address"),
        ("port == 65536", 9, "out of range"),
        ("port == \"9000-8000\"", 9, "did you mean \"8000-9000\"?"),
        ("port in [80, 443", 9, "unmatched `[`"),
        ("port in [80 443]", 13, "expected `,` or `]`"),
        ("port in []", 9, "empty list"),
        ("port in 80", 9, "expected `[`"),
        ("port == [80]", 9, "must follow `in`"),
        ("(port == 80", 1, "unmatched `(`"),
        ("port == 80)", 11, "unmatched `)`"),
        ("port == 80 ADN uid == 0", 12, "did you mean AND?"),
        ("port =~ 80", 6, "patterns are not supported"),
        ("port = \"x\"", 8, "not a port"),
        ("port == 80 && uid == 0", 12, "write AND"),
        ("port > 1024", 6, "ordering operators"),
        ("port 80", 6, "expected ==, != or in"),
        ("binary_name == curl", 16, "\"curl\""),
        ("binary_name == \"curl", 16, "no closing quote"),
        ("binary_name == \"/usr/bin/curl\"", 16, "did you mean binary_path"),
        ("binary_path == \"curl\"", 16, "did you mean binary_name"),
        ("uid == \"0\"", 8, "without quotes"),
        ("uid == 4294967296", 8, "out of range"),
        ("uid == 0xfg", 8, "not a number"),
        ("family == 5", 11, "4 or 6"),
        ("direction == \"in\"", 14, "\"egress\" or \"ingress\""),
        ("NOT", 4, "expected a comparison"),
        ("", 1, "empty predicate"),
        ("uid == 0 AND", 13, "expected a comparison"),
        ("\u{fc}ber == 1", 1, "unexpected character"),
    ] {
        let (at, message) = error(text);
        assert!(message.contains(part), "{text}: {message}");
        assert_eq!(at, column, "{text}: {message}");
    }
}

#[test]
fn nesting_is_limited_but_length_is_not() {
    let deep = |n: usize| format!("{}uid == 0{}", "(".repeat(n), ")".repeat(n));
    assert!(predicate::parse(&deep(64)).is_ok());
    assert_eq!(error(&deep(65)).0, 65);
    assert!(predicate::parse(&deep(1_000_000)).is_err());
    assert!(predicate::parse(&format!("{}uid == 0", "NOT ".repeat(1_000_001))).is_ok());
    let long = vec!["port_dst == 80"; 100_000].join(" OR ");
    let read = predicate::parse(&long).expect("a long predicate");
    let filter = Filter {
        all: vec![tcptrace::filter::Clause { predicate: read, origin: String::new() }],
        ..Filter::default()
    };
    assert!(filter.compile().is_ok());
}

fn compile(text: &str) -> Result<(), FilterError> {
    let predicate = predicate::parse(text).unwrap_or_else(|e| panic!("{}", e.report(text)));
    let clause = tcptrace::filter::Clause { predicate, origin: "FILTER".to_owned() };
    Filter { all: vec![clause], ..Filter::default() }.compile().map(|_| ())
}

#[test]
fn filters_that_never_match_are_rejected() {
    for text in [
        "port_dst == 80 AND port_dst == 443",
        "port_dst in [80, 443] AND NOT port_dst in [\"80-443\"]",
        "family == 4 AND ipv6_dst == \"::/0\"",
        "ipv4_src == \"10.0.0.1\" AND ipv6_dst == \"::1\"",
        "daddr == \"10.0.0.0/8\" AND NOT daddr in [\"10.0.0.0/9\", \"10.128.0.0/9\"]",
        "NOT daddr in [\"0.0.0.0/0\", \"::/0\"]",
        "binary_name == \"curl\" AND binary_path == \"/usr/bin/wget\"",
        "binary_path == \"/usr/bin/wget\" AND binary_prefix == \"/opt/\"",
        "binary_prefix == \"/usr/\" AND NOT binary_prefix == \"/\"",
        "uid == 0 AND uid == 1",
        "direction == \"egress\" AND direction == \"ingress\"",
        "container_id == \"abc\" AND NOT container_id == \"ab\"",
    ] {
        assert_eq!(compile(text), Err(FilterError::NeverMatches("FILTER".to_owned())), "{text}");
    }
    for text in [
        "port == 80 AND port == 443",
        "addr == \"10.0.0.1\" AND addr == \"10.0.0.2\"",
        "binary_name == \"wget\" AND binary_path == \"/usr/bin/wget\"",
        "daddr == \"10.0.0.0/8\" AND NOT daddr in [\"10.0.0.0/9\", \"10.128.0.0/10\"]",
        "NOT daddr in [\"0.0.0.0/0\"]",
        "binary_prefix == \"/usr/\" AND NOT binary_prefix == \"/usr/bin/\"",
    ] {
        assert_eq!(compile(text), Ok(()), "{text}");
    }
}

#[test]
fn exceeded_limits_are_reported() {
    let many = |n: usize, part: fn(usize) -> String| (0..n).map(part).collect::<Vec<_>>();
    // An OR over different attributes cannot become one list: each pair doubles the terms.
    let pairs = |n| many(n, |i| format!("(uid == {i} OR gid == {i})")).join(" AND ");
    assert_eq!(compile(&pairs(9)), Err(FilterError::TooManyTerms));
    let alternatives = |n| many(n, |i| format!("(uid == {i} AND gid == {i})")).join(" OR ");
    assert_eq!(compile(&alternatives(256)), Ok(()));
    assert_eq!(compile(&alternatives(257)), Err(FilterError::TooManyTerms));
    let cidrs = |n| {
        format!(
            "daddr in [{}]",
            many(n, |i| format!("\"{}.{}.{}.0/24\"", 10 + i / 65_536, i / 256 % 256, i % 256)).join(",")
        )
    };
    assert_eq!(compile(&cidrs(65_536)), Ok(()));
    assert_eq!(compile(&cidrs(65_537)), Err(FilterError::TooManyCidrs(65_537)));
    let numbers = |n| format!("uid in [{}]", many(n, |i| i.to_string()).join(","));
    assert_eq!(compile(&numbers(100_000)), Ok(()));
    assert!(error(&numbers(100_001)).1.contains("more than 100000 values"));
    // Sixty-four rules with two distinct comparisons each have at least 128 distinct atoms.
    let rules = many(64, |i| {
        format!(
            "  - rule: r{i}\n    scope: binary_name == \"b{i}\"\n    event: port_dst == {i} AND saddr == \"10.0.0.{i}\"\n"
        )
    });
    let config =
        NetMonConfig::parse("r.yaml", &format!("egress:\n  rules:\n{}", rules.concat())).expect("64 rules");
    let filter = Filter::new(&Default::default(), None, config.process.clone(), config.rules());
    assert_eq!(filter.rule_names().len(), 64);
    assert!(filter.compile().is_ok());
}
