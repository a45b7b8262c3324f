//! The cost of filters: nanoseconds in all our programs per loopback connection, with both ends traced.
//!
//! Run as root: `cargo bench --bench filters`. The kernel measures (`kernel.bpf_stats_enabled`) while tcptrace runs
//! normally.

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/live/common/launch.rs"]
mod launch;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/live/common/net.rs"]
mod net;

mod bpf_stats;

use launch::Launch;
use std::fs;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use tcptrace::filter::netmon_yaml::NetMonConfig;
use tcptrace::filter::{BinaryPattern, Direction, Filter, FilterOptions, ProcessFilter, Subject, Verdict};
use tcptrace::tracer::filter_test_run::FilterTestRun;

const CONNECTIONS: u64 = 2_000;
/// Other programs connect and run too; the quietest round of each case is used.
const ROUNDS: usize = 3;

fn main() {
    let folder = std::env::temp_dir().join(format!("tcptrace-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let _stats = bpf_stats::BpfStats::enable();
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let name = std::env::current_exe().expect("this program");
    let name = name.file_name().expect("a name").to_string_lossy().into_owned();

    let rules = folder.join("rules.yaml").to_string_lossy().into_owned();
    fs::write(&rules, sixty_four_rules(&name)).expect("write the rules");
    let lists = folder.join("lists.yaml").to_string_lossy().into_owned();
    fs::write(&lists, long_lists(port)).expect("write the lists");
    let cases: [(&str, Vec<&str>); 6] = [
        ("no filter", vec![]),
        ("one binary", vec!["-b", &name]),
        ("64 rules of mixed attributes, the last one matches", vec!["-c", &rules]),
        ("100,000 addresses and 65,535 ports", vec!["-c", &lists]),
        ("another binary: all rejected", vec!["-b", "nosuch"]),
        ("another port: all rejected", vec!["--port", "1"]),
    ];
    let mut best = [u64::MAX; 6];
    for _ in 0..ROUNDS {
        for (best, (_, arguments)) in best.iter_mut().zip(&cases) {
            *best = measure(arguments, &listener).min(*best);
        }
    }
    for (best, (label, _)) in best.iter().zip(&cases) {
        println!("{best:>6} ns per connection: {label}");
    }
    for (label, filter) in [
        ("one binary", one_binary(&name)),
        ("64 rules of mixed attributes, the last one matches", of_yaml(&sixty_four_rules(&name))),
        ("100,000 addresses and 65,535 ports", of_yaml(&long_lists(port))),
    ] {
        println!(
            "{:>6} ns for evaluating the filter alone, including the process: {label}",
            judgement(&filter, &name)
        );
    }
    fs::remove_dir_all(&folder).expect("remove the folder");
}

/// All kinds of attributes, no two rules alike; only the last one matches.
fn sixty_four_rules(name: &str) -> String {
    let rule = |n: usize| {
        let event = match n % 4 {
            0 => format!("port_dst in [{n}, \"{}-{}\"] AND uid == {n}", 100 + n, 200 + n),
            1 => format!("daddr in [\"10.{n}.0.0/16\", \"2001:db8:{n}::/48\"]"),
            2 => format!("saddr == \"10.0.0.{n}\" OR gid == {}", n + 1),
            _ => format!("binary_prefix == \"/opt/{n}/\" AND NOT port_src == {n}"),
        };
        format!("  - rule: r{n}\n    scope: binary_name != \"b{n}\"\n    event: {event}\n")
    };
    let last = |side: &str| {
        let many = if side == "egress" {
            (0..31).map(rule).collect::<String>()
        } else {
            (31..62).map(rule).collect()
        };
        format!(
            "{side}:\n  rules:\n{many}  - rule: last-{side}\n    scope: binary_name == \"{name}\"\n    event: addr == \"127.0.0.0/8\"\n"
        )
    };
    last("egress") + &last("ingress")
}

fn long_lists(port: u16) -> String {
    let ports: Vec<String> = (1..=65_535).map(|p| p.to_string()).collect();
    let addresses: Vec<String> =
        (0..99_999).map(|n| format!("\"10.{}.{}.{}\"", n / 65_536, n / 256 % 256, n % 256)).collect();
    let event =
        format!("daddr in [{}, \"127.0.0.1\"] AND port in [{}]", addresses.join(","), ports.join(","));
    let rule = format!("  rules:\n  - rule: long-{port}\n    event: '{event}'\n");
    format!("egress:\n{rule}ingress:\n{rule}")
}

fn one_binary(name: &str) -> Filter {
    let process =
        ProcessFilter { binary: vec![BinaryPattern::Name(name.into())], ..ProcessFilter::default() };
    Filter::new(&FilterOptions { process, ..FilterOptions::default() }, None, None, Vec::new())
}

fn of_yaml(text: &str) -> Filter {
    let config = NetMonConfig::parse("bench.yaml", text).unwrap_or_else(|e| panic!("{e:?}"));
    Filter::new(&FilterOptions::default(), None, config.process.clone(), config.rules())
}

/// The run time reported by the kernel; the quietest of many batches.
fn judgement(filter: &Filter, name: &str) -> u64 {
    let local = IpAddr::from([127, 0, 0, 1]);
    let subject = Subject {
        binary_name: name.into(),
        binary_path: format!("/usr/bin/{name}").into_bytes(),
        parent_binary_name: b"cargo".to_vec(),
        parent_binary_path: b"/usr/bin/cargo".to_vec(),
        uid: 0,
        euid: 0,
        gid: 0,
        egid: 0,
        auid: u32::MAX,
        pid: 1000,
        ppid: 999,
        container_id: Vec::new(),
        container_name: Vec::new(),
        pod: Vec::new(),
        namespace: Vec::new(),
        in_cgroup: false,
        netns: 4_026_531_840,
        saddr: local,
        daddr: local,
        sport: 40_000,
        dport: 443,
        direction: Direction::Egress,
        dns: Vec::new(),
    };
    let program = filter.compile().expect("a program");
    let mut storage = MaybeUninit::uninit();
    let mut classifier = FilterTestRun::load(&program, &mut storage).expect("load the classifier");
    classifier.prepare(&subject).expect("store the case");
    let batches = (0..50).map(|_| classifier.run(20_000).expect("run the classifier"));
    let (verdict, best) = batches.min_by_key(|(_, ns)| *ns).expect("batches");
    assert!(matches!(verdict, Verdict::Admitted(_)));
    best
}

fn measure(arguments: &[&str], listener: &TcpListener) -> u64 {
    let launch = Launch::with(launch::tcptrace()).args(["-j"]).args(arguments);
    let tracing = launch.stdout(Stdio::null()).start();
    connect(listener, 100);
    let before = run_time(tracing.pid());
    connect(listener, CONNECTIONS);
    let after = run_time(tracing.pid());
    (after - before) / CONNECTIONS
}

fn connect(listener: &TcpListener, count: u64) {
    let address = listener.local_addr().expect("an address");
    for _ in 0..count {
        let client = TcpStream::connect(address).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        // Avoid TIME_WAIT, or ports would run out.
        net::linger_zero(&client);
        drop(client);
        drop(server);
    }
}

/// The total run time of a process's programs in nanoseconds, from its descriptors' information.
fn run_time(pid: u32) -> u64 {
    let folder = format!("/proc/{pid}/fdinfo");
    let read = |path: &Path| {
        let text = fs::read_to_string(path).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("run_time_ns:\t"))
            .and_then(|ns| ns.parse::<u64>().ok())
    };
    let entries = fs::read_dir(folder).expect("fdinfo");
    entries.filter_map(|entry| read(&entry.ok()?.path())).sum()
}
