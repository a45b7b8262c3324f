//! The filter options: how they combine, and their error messages.

#[path = "common/subject.rs"]
mod subject;

use clap::Parser;
use std::net::IpAddr;
use tcptrace::cli::filter_args::FilterArgs;
use tcptrace::filter::{Subject, Verdict};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    filter: FilterArgs,
}

/// Whether `subject` is reported with these arguments.
fn admits(arguments: &[&str], subject: &Subject) -> bool {
    let args = Args::try_parse_from([&["tcptrace"], arguments].concat()).unwrap_or_else(|e| panic!("{e}"));
    let filter = args.filter.filter().unwrap_or_else(|e| panic!("{arguments:?}: {e:#}"));
    let verdict = filter.evaluate(subject);
    let program = filter.compile().unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
    assert_eq!(program.evaluate(subject), verdict, "{arguments:?}");
    verdict == Verdict::Admitted(None)
}

fn error(arguments: &[&str]) -> String {
    match Args::try_parse_from([&["tcptrace"], arguments].concat()) {
        Err(e) => e.to_string(),
        Ok(args) => match args.filter.filter() {
            Err(e) => format!("{e:#}"),
            Ok(filter) => filter.compile().expect_err("an error").to_string(),
        },
    }
}

fn curl() -> Subject {
    Subject {
        gid: 5,
        egid: 6,
        container_id: b"0123abcd4567ef89".to_vec(),
        dns: Vec::new(),
        ..subject::curl()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect(text)
}

#[test]
fn each_option_alone() {
    let v6 = Subject { saddr: address("2001:db8::1"), daddr: address("2001:db8::2"), ..curl() };
    for (options, curls, v6s) in [
        ("", true, true),
        ("-b curl", true, true),
        ("-b cur", false, false),
        ("--binary /usr/bin/curl", true, true),
        ("-b /usr/bin/", true, true),
        ("-b /usr/local/", false, false),
        ("-u 1000", true, true),
        ("--uid 0", false, false),
        ("--euid 0", true, true),
        ("--auid 4294967295", true, true),
        ("--auid 1000", false, false),
        ("-p 77", true, true),
        ("--pid 7", false, false),
        ("--addr 10.1.0.0/16", true, false),
        ("--addr 10.2.0.2", true, false),
        ("--saddr 10.1.0.1", true, false),
        ("--saddr 10.2.0.2", false, false),
        ("--daddr 10.2.0.2", true, false),
        ("--daddr 2001:db8::/32", false, true),
        ("--port 443", true, true),
        ("--port 40000", true, true),
        ("--sport 40000", true, true),
        ("--sport 443", false, false),
        ("--dport 400-500", true, true),
        ("--dport 40000", false, false),
        ("-4", true, false),
        ("-6", false, true),
        ("-4 -6", true, true),
        ("--container 0123abcd4567", true, true),
        ("--container 123abcd4567e", false, false),
    ] {
        let options: Vec<&str> = options.split_whitespace().collect();
        assert_eq!(admits(&options, &curl()), curls, "{options:?}");
        assert_eq!(admits(&options, &v6), v6s, "{options:?} over IPv6");
    }
}

/// A value that may be a name is left to user space.
#[test]
fn a_container_has_a_name_and_an_id() {
    let subject = Subject {
        container_name: b"cafe".to_vec(),
        pod: b"web-0".to_vec(),
        namespace: b"shop".to_vec(),
        ..curl()
    };
    for (arguments, by_name, expected) in [
        (&["--container", "cafe"][..], true, true),
        (&["--container", "caf"], true, false),
        (&["--container", "ca*"], true, true),
        (&["--container", "0123"], true, true),
        (&["--container", "123"], true, false),
        (&["--container", "0123abcd4567"], false, true),
        (&["--container", "0123abcd456"], true, true),
        (&["--container", "0123ABCD4567"], true, false),
        (&["--container", "ffffffffffff", "--container", "cafe"], true, true),
        (&["--container", "cafe", "--dport", "1"], true, false),
        (&[r#"container_name == "cafe""#], true, true),
        (&[r#"container_name != "cafe""#], true, false),
        (&[r#"pod == "web-*" AND namespace == "shop""#], true, true),
        (&[r#"pod in ["web", "db-*"]"#], true, false),
        (&[r#"NOT namespace == "*""#], true, false),
        (&[r#"pod == "web-1" OR port_dst == 443"#], true, true),
    ] {
        let args =
            Args::try_parse_from([&["tcptrace"], arguments].concat()).unwrap_or_else(|e| panic!("{e}"));
        let filter = args.filter.filter().unwrap_or_else(|e| panic!("{arguments:?}: {e:#}"));
        assert_eq!(filter.needs_names(), by_name, "{arguments:?}");
        assert_eq!(filter.evaluate(&subject) == Verdict::Admitted(None), expected, "{arguments:?}");
        let kernels = filter.compile().expect("a program").evaluate(&subject);
        assert!(kernels != Verdict::Rejected || !expected, "{arguments:?}");
        // no names outside containers
        let host = Subject { container_id: Vec::new(), ..subject::curl() };
        let negated =
            arguments.iter().any(|text| text.contains("!=") || text.contains("NOT") || text.contains("OR"));
        assert_eq!(filter.evaluate(&host) == Verdict::Admitted(None), negated, "{arguments:?}");
    }
    for arguments in
        [&["--container", "a*b"][..], &[r#"pod == "*a""#], &[r#"namespace == """#], &["pod == 1"]]
    {
        assert!(!error(arguments).is_empty(), "{arguments:?}");
    }
}

#[test]
fn repeated_options_are_ored_and_different_ones_anded() {
    for (options, expected) in [
        ("-b wget -b curl", true),
        ("-b wget -b /usr/bin/", true),
        ("-u 1,2,1000", true),
        ("-u 1 -u 1000", true),
        ("-u 1000 --euid 1", false),
        ("-u 1000 --euid 0 -b curl --dport 443 -4", true),
        ("-u 1000 --euid 0 -b curl --dport 80 -4", false),
        ("--daddr 1.1.1.1 --daddr 10.0.0.0/8", true),
        ("--dport 80,443", true),
        ("--addr 10.1.0.1 --addr 10.3.0.0/16 --port 443 --port 1", true),
        ("--addr 10.1.0.1 --port 1", false),
        ("--deny -b curl", false),
        ("--deny -b wget", true),
        ("--deny -b curl -u 0", true),
        ("--deny -b wget --dport 80", false),
        ("--deny -b curl --dport 443", false),
        ("--deny -b wget -p 77", true),
        ("--deny -b wget -p 78", false),
        ("--deny -b curl -p 78", false),
    ] {
        let options: Vec<&str> = options.split_whitespace().collect();
        assert_eq!(admits(&options, &curl()), expected, "{options:?}");
    }
    assert!(admits(&["-u", "1000", "port_dst == 443 AND NOT uid == 0"], &curl()));
    assert!(!admits(&["-u", "1000", "port_dst == 80"], &curl()));
}

#[test]
fn namespaces_and_cgroups_are_resolved_to_ids() {
    use std::os::unix::fs::MetadataExt;
    let inode = std::fs::metadata("/proc/self/ns/net").expect("a namespace").ino();
    let ours = Subject { netns: inode.try_into().expect("32 bits"), ..curl() };
    assert!(admits(&["--netns", "/proc/self/ns/net"], &ours));
    assert!(!admits(&["--netns", "/proc/self/ns/net"], &curl()));
    assert!(error(&["--netns", "/proc/self/exe"]).contains("not a namespace file"));
    assert!(error(&["--netns", "no-such-name"]).contains("/run/netns/no-such-name"));
    assert!(error(&["--cgroup", "/no/such/cgroup"]).contains("no such cgroup"));
    assert!(error(&["--cgroup", "/proc"]).contains("cgroup"));
}

#[test]
fn errors_name_the_option_and_the_remedy() {
    let long = "x".repeat(255);
    for (arguments, parts) in [
        (&["--daddr", "10.0.0.1/8"][..], &["--daddr", "did you mean \"10.0.0.0/8\"?"][..]),
        (&["--addr", "localhost"], &["--addr", "write an address or a CIDR"]),
        (&["--dport", "65536"], &["--dport", "out of range"]),
        (&["--port", "9-8"], &["did you mean \"8-9\"?"]),
        (&["--uid", "root"], &["--uid", "\"root\" is not a number"]),
        (&["-b", "bin/curl"], &["--binary", "begins with a slash"]),
        (&["-b", &long], &["--binary", "255 bytes", "the limit is 254"]),
        (&["-b", ""], &["--binary", "must not be empty"]),
        (&["--deny"], &["nothing to deny"]),
        (&["--deny", "--dport", "80"], &["nothing to deny"]),
        (&["--deny", "-p", "1"], &["nothing to deny", "'pid != 123'"]),
        (&["dns == \"münchen.example\""], &["FILTER, column 8", "punycode (xn--...)"]),
        (&["prot == 1"], &["FILTER, column 1", "did you mean `port`?", "\n  ^^^^"]),
        (&["--dport", "80", "port_dst == 443"], &["--dport and FILTER", "no connection can ever match"]),
        (&["-c", "/no/such/file"], &["/no/such/file", "No such file"]),
    ] {
        let message = error(arguments);
        for part in parts {
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
    }
}
