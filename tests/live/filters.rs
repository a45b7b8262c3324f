//! Filter options, alone and combined, on real connections.

use crate::common;
use crate::common::Trace;
use crate::common::actor::{self, Actor, install};
use crate::common::folder::Folder;
use crate::common::{net, network, scenarios, sys};
use serde_json::Value;
use socket2::Protocol;
use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

/// The user id of the second client.
const USER: u32 = 4242;
const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The part of another process: connects to each address it receives, and closes.
pub fn client(kind: &str) {
    if kind == "apart" {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    }
    if let Some(auid) = kind.strip_prefix("auid ") {
        // Some kernels do not allow setting it.
        let _ = fs::write("/proc/self/loginuid", auid);
    }
    actor::say(fs::read_to_string("/proc/self/loginuid").unwrap_or_default().trim());
    actor::say(nix::unistd::gettid());
    loop {
        let word = actor::listen();
        if word.is_empty() {
            return;
        }
        let address: SocketAddr = word.parse().expect("an address");
        let outcome = TcpStream::connect(address);
        actor::say(if outcome.is_ok() { "connected" } else { "failed" });
    }
}

/// Four clients, their servers (in this process), and their environment.
struct Fixture {
    folder: Folder,
    cgroup: Option<PathBuf>,
    /// `alpha` in the directory; `beta` in `sub`, as another user, in a container's cgroup; `gamma` in a separate
    /// network namespace, where its connects fail.
    alpha: Actor,
    beta: Actor,
    gamma: Actor,
    beta_auid: String,
    /// The thread of gamma that moved to the other namespace.
    gamma_tid: String,
}

impl Fixture {
    fn new(name: &str) -> Fixture {
        let folder = Folder::new();
        fs::create_dir(folder.path("sub")).expect("a folder");
        std::os::unix::fs::symlink("alpha", folder.path("alias")).expect("a link");
        let this = std::env::current_exe().expect("this program");
        let copy = |name: &str| {
            let path = folder.path(name);
            install(&this, &path);
            path
        };
        let mut alpha = Actor::spawn(&mut Actor::program(copy("alpha"), "client plain"));
        let mut beta = Actor::spawn(Actor::program(copy("sub/beta"), "client auid 777").uid(USER));
        let mut gamma = Actor::spawn(&mut Actor::program(copy("gamma"), "client apart"));
        let [(_, _), (beta_auid, _), (_, gamma_tid)] =
            [&mut alpha, &mut beta, &mut gamma].map(|client| (client.hear(), client.hear()));
        let cgroup = tcptrace::host::cgroup2_root()
            .map(|root| root.join(format!("tcptrace-{name}-{}", std::process::id())));
        if let Some(cgroup) = &cgroup {
            let inner = cgroup.join(format!("docker-{CONTAINER}.scope"));
            fs::create_dir_all(&inner).expect("a cgroup");
            fs::write(inner.join("cgroup.procs"), beta.pid().to_string()).expect("move beta");
        }
        Fixture { folder, cgroup, alpha, beta, gamma, beta_auid, gamma_tid }
    }

    /// Runs tcptrace with `arguments`, lets every client connect, and returns the ends seen: `1e` is the client's end
    /// of the first connection, `1i` the server's, `4f` a failure.
    ///
    /// 1: alpha over IPv4. 2: beta over IPv4. 3: alpha over IPv6. 4: alpha, refused. 5: gamma, no route. Placeholders:
    /// `{1}` to `{4}` are the servers' ports, `{alpha}`, `{beta}`, `{gamma}` pids, `{folder}`, `{cgroup}`.
    fn seen(&mut self, arguments: &[&str]) -> (BTreeSet<String>, Vec<Value>) {
        let listen = |address: &str| TcpListener::bind((address, 0)).expect("listen");
        let mut servers = [listen("127.0.0.1"), listen("127.0.0.1"), listen("::1"), listen("127.0.0.1")];
        let addresses = servers.each_ref().map(|s| s.local_addr().expect("an address"));
        let arguments: Vec<String> = arguments.iter().map(|a| self.fill_in(a, &addresses)).collect();
        let trace = Trace::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let [_, _, _, refusing] = &mut servers;
        common::net::stop_listening(std::mem::replace(refusing, listen("127.0.0.1")));
        let Fixture { alpha, beta, gamma, .. } = self;
        let connect = |client: &mut Actor, number: usize, answer: &str| {
            client.tell(addresses[number]);
            if answer == "connected" {
                // Closed by the client first.
                let (mut stream, _) = servers[number].accept().expect("accept");
                common::net::wait_for_end(&mut stream);
            }
            assert_eq!(client.hear(), answer);
        };
        connect(alpha, 0, "connected");
        connect(beta, 1, "connected");
        connect(alpha, 2, "connected");
        connect(alpha, 3, "failed");
        connect(gamma, 0, "failed");
        network::wait_until_closed(|port| addresses.iter().any(|address| address.port() == port));
        let ended = trace.stop();
        assert!(ended.status.success(), "{}", ended.stderr);
        let (alpha, beta, gamma) = (self.alpha.pid(), self.beta.pid(), self.gamma.pid());
        let own = [alpha, beta, gamma, std::process::id()];
        let events: Vec<Value> =
            ended.events.into_iter().filter(|e| own.iter().any(|pid| e["process"]["pid"] == *pid)).collect();
        let mut seen = BTreeSet::new();
        for (index, address) in addresses.iter().enumerate() {
            let side = |end: &str, gamma_too: bool| -> Vec<&str> {
                let ours = |e: &&Value| {
                    e["network_event"][end] == address.port() && (e["process"]["pid"] == gamma) == gamma_too
                };
                events.iter().filter(ours).filter_map(|e| e["network_event"]["type"].as_str()).collect()
            };
            for (letter, types) in [("e", side("dport", false)), ("i", side("sport", false))] {
                let number = index + 1;
                match &types[..] {
                    [] => {}
                    ["TcpConnectionFail"] => {
                        seen.insert(format!("{number}f"));
                    }
                    ["TcpConnectionEstablish" | "TcpConnectionAccept", "TcpConnectionClose"] => {
                        seen.insert(format!("{number}{letter}"));
                    }
                    other => panic!("{arguments:?}: connection {number}{letter} was reported as {other:?}"),
                }
            }
            if side("dport", true) == ["TcpConnectionFail"] {
                seen.insert("5f".to_owned());
            }
        }
        (seen, events)
    }

    fn fill_in(&self, argument: &str, addresses: &[SocketAddr]) -> String {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut filled = argument
            .replace("{folder}", &path(self.folder.root()))
            .replace("{cgroup}", &self.cgroup.as_deref().map(path).unwrap_or_default())
            .replace("{alpha}", &self.alpha.pid().to_string())
            .replace("{beta}", &self.beta.pid().to_string())
            .replace("{gamma}", &self.gamma.pid().to_string())
            .replace("{gamma_tid}", &self.gamma_tid)
            .replace("{own}", &std::env::current_exe().map(|own| path(&own)).expect("this program"))
            .replace("{self}", &std::process::id().to_string());
        for (index, address) in addresses.iter().enumerate() {
            filled = filled.replace(&format!("{{{}}}", index + 1), &address.port().to_string());
        }
        filled
    }

    fn check(&mut self, arguments: &[&str], expected: &str) {
        let (seen, _) = self.seen(arguments);
        let expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
        assert_eq!(seen, expected, "{arguments:?}");
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for actor in [&mut self.alpha, &mut self.beta, &mut self.gamma] {
            actor.kill();
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = fs::remove_dir(cgroup.join(format!("docker-{CONTAINER}.scope")));
            let _ = fs::remove_dir(cgroup);
        }
    }
}

const ALL: &str = "1e 1i 2e 2i 3e 3i 4f 5f";

fn options_about_the_process() {
    let mut fixture = Fixture::new("process");
    for (arguments, expected) in [
        (&[][..], ALL),
        (&["-b", "alpha"], "1e 3e 4f"),
        (&["-b", "alph"], ""),
        (&["-b", "{folder}/alpha"], "1e 3e 4f"),
        (&["--binary", "{folder}/alpha", "-b", "gamma"], "1e 3e 4f 5f"),
        (&["-b", "{folder}/sub/"], "2e"),
        (&["-b", "{folder}/"], "1e 2e 3e 4f 5f"),
        // a symbolic link to alpha
        (&["-b", "{folder}/alias"], "1e 3e 4f"),
        (&["binary_path != \"{folder}/alias\""], "1i 2e 2i 3i 5f"),
        (&["--deny", "-b", "alpha"], "1i 2e 2i 3i 5f"),
        (&["--deny", "-b", "alpha", "-b", "{folder}/sub/"], "1i 2i 3i 5f"),
        // The servers are in this process, so denying this binary also denies its accepted connections.
        (&["--deny", "-b", "{own}"], "1e 2e 3e 4f 5f"),
        // --deny inverts what a NetMon process_filter can express, which does not include pids.
        (&["-p", "{alpha},{beta}", "--deny", "-u", "0"], "2e"),
        (&["-u", "4242"], "2e"),
        (&["--uid", "0,4242", "-b", "beta"], "2e"),
        (&["--euid", "4242"], "2e"),
        (&["--deny", "-u", "0"], "2e"),
        (&["-p", "{alpha}"], "1e 3e 4f"),
        (&["-p", "{alpha},{beta}"], "1e 2e 3e 4f"),
        (&["-u", "4242", "-b", "alpha"], ""),
    ] {
        fixture.check(arguments, expected);
    }
    let auid = fixture.beta_auid.clone();
    let same = fs::read_to_string("/proc/self/loginuid").is_ok_and(|ours| ours.trim() == auid);
    let expected = if same { ALL } else { "2e" };
    fixture.check(&["--auid", &auid], expected);
}

fn options_about_the_connection() {
    let mut fixture = Fixture::new("connection");
    for (arguments, expected) in [
        (&["--addr", "127.0.0.0/8"][..], "1e 1i 2e 2i 4f 5f"),
        (&["--saddr", "::1"], "3e 3i"),
        (&["--daddr", "127.0.0.1"], "1e 1i 2e 2i 4f 5f"),
        (&["--daddr", "10.0.0.0/8", "--daddr", "::/0"], "3e 3i"),
        (&["--port", "{1}"], "1e 1i 5f"),
        (&["--sport", "{1}"], "1i"),
        (&["--sport", "{1},{2}"], "1i 2i"),
        (&["--sport", "1-65535"], "1e 1i 2e 2i 3e 3i 4f"),
        (&["--dport", "{1}"], "1e 5f"),
        (&["--dport", "{3}", "--dport", "{4}-{4}"], "3e 4f"),
        (&["-4"], "1e 1i 2e 2i 4f 5f"),
        (&["-6"], "3e 3i"),
        (&["-4", "-6"], ALL),
        (&["--failed"], "4f 5f"),
        (&["--failed", "-e", "all"], "4f 5f"),
        (&["--failed", "-b", "alpha"], "4f"),
        (&["--netns", "/proc/{self}/ns/net"], "1e 1i 2e 2i 3e 3i 4f"),
        (&["--netns", "/proc/{gamma}/task/{gamma_tid}/ns/net"], "5f"),
        (&["-4", "--port", "{1}", "-b", "alpha"], "1e"),
        (&["-4", "--port", "{1}", "--deny", "-b", "alpha"], "1i 5f"),
    ] {
        fixture.check(arguments, expected);
    }
}

fn cgroups_and_containers() {
    let mut fixture = Fixture::new("cgroup");
    assert!(fixture.cgroup.is_some(), "no cgroup2 tree here");
    for (arguments, expected) in [
        (&["--cgroup", "{cgroup}"][..], "2e"),
        (
            &[
                "--cgroup",
                "{cgroup}/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope",
            ],
            "2e",
        ),
        (&["--cgroup", "{cgroup}", "-b", "alpha"], ""),
        (&["--container", "0123456789ab"], "2e"),
        (&["--container", CONTAINER], "2e"),
        (&["--container", "1123456789ab"], ""),
        (&["container_id == \"0123\" OR binary_name == \"gamma\""], "2e 5f"),
    ] {
        fixture.check(arguments, expected);
    }
}

fn predicates() {
    let mut fixture = Fixture::new("predicate");
    for (predicate, expected) in [
        ("port_dst == {1} OR uid == 4242", "1e 2e 5f"),
        ("NOT binary_name == \"alpha\" AND direction == \"egress\"", "2e 5f"),
        ("direction == \"ingress\" and family == 6", "3i"),
        ("ppid == {self}", "1e 2e 3e 4f 5f"),
        ("parent_binary_name in [\"no\", \"such\"]", ""),
        ("parent_binary_prefix == \"/\" AND binary_path == \"{folder}/gamma\"", "5f"),
        ("uid != 0 OR port_src == {3}", "2e 3i"),
        ("port_src == {1} AND NOT uid == 4242", "1i"),
        ("NOT (port in [{1}, {2}] OR ipv6_dst == \"::1\")", "4f"),
        ("NOT addr == \"::1\" AND gid == 0 AND egid == 0 AND euid == 0", "1e 1i 2i 4f 5f"),
        ("pid == {beta} AND saddr == \"127.0.0.0/8\" AND ipv4_dst in [\"127.0.0.1\"]", "2e"),
    ] {
        fixture.check(&[predicate], expected);
    }
}

/// The rule of each event of a connection, or "-" for events without one.
fn rules(events: &[Value], end: &str, port: u16) -> Vec<String> {
    let ours = events.iter().filter(|e| e["network_event"][end] == port);
    ours.map(|e| e["rule"].as_str().unwrap_or("-").to_owned()).collect()
}

fn rules_are_reported_in_every_event_including_close() {
    let mut fixture = Fixture::new("rules");
    let name = fixture.folder.name("netmon.yaml");
    fs::write(
        &name,
        "egress:\n  enabled: true\n  rules:\n    - rule: loopback-from-alpha\n      scope: binary_name == \"alpha\"\n      event: ipv4_dst in [\"127.0.0.0/8\"]\n    - rule: beta\n      scope: uid == 4242\ningress:\n  enabled: true\n  rules:\n    - rule: six\n      event: family == 6\n",
    )
    .expect("write the configuration");
    let (seen, events) = fixture.seen(&["-c", &name]);
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["1e", "2e", "3i", "4f"]);
    assert!(!events.is_empty());
    for event in &events {
        let rule = match event["process"]["filename"].as_str() {
            Some("alpha") => "loopback-from-alpha",
            Some("beta") => "beta",
            _ => "six",
        };
        assert_eq!(event["rule"], rule, "{event}");
    }
    // The rule depends only on the local port, which is known only after SYN_SENT.
    fs::write(&name, "egress:\n  rules:\n  - rule: low\n    event: port_src in [\"1-1023\"]\n  - rule: high\n    event: port_src != 0\n")
        .expect("write the configuration");
    let (seen, events) = fixture.seen(&["-c", &name]);
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["1e", "2e", "3e", "4f"]);
    for event in &events {
        assert_eq!(event["rule"], "high", "{event}");
        let port = event["network_event"]["sport"].as_u64().expect("a port");
        assert_eq!(
            rules(&events, "sport", port as u16).len(),
            if event["network_event"]["type"] == "TcpConnectionFail" { 1 } else { 2 }
        );
    }
}

fn process_filters_in_yaml_combined_with_options() {
    let mut fixture = Fixture::new("yaml");
    let name = fixture.folder.name("netmon.yaml");
    for (text, arguments, expected) in [
        ("process_filter:\n  binary:\n    name:\n      - alpha\n", &[][..], "1e 3e 4f"),
        ("process_filter:\n  deny_list: true\n  binary:\n    name:\n      - alpha\n", &[], "1i 2e 2i 3i 5f"),
        ("process_filter:\n  uid: [4242]\n  euid: [4242]\n", &[], "2e"),
        ("process_filter:\n  uid: [4242]\n  euid: [0]\n", &[], ""),
        ("ingress:\n  enabled: true\n", &[], "1i 2i 3i"),
        ("ingress:\n  enabled: false\negress:\n  enabled: true\n", &[], "1e 2e 3e 4f 5f"),
        (
            "egress:\n  rules:\n  - rule: r\n    event: NOT ipv4_dst in [\"10.0.0.0/8\", \"127.0.0.1\"] OR ipv6_dst == \"::1\"\n",
            &[],
            "3e",
        ),
        ("egress:\n  rules:\n  - rule: r\n", &["-b", "alpha", "-4", "family == 4"], "1e 4f"),
    ] {
        fs::write(&name, text).expect("write the configuration");
        fixture.check(&[&["-c", &name], arguments].concat(), expected);
    }
}

fn long_lists_and_both_kinds_of_address() {
    let mut fixture = Fixture::new("long");
    let ports: Vec<String> = (1..=65_535).map(|p| p.to_string()).collect();
    let hosts: Vec<String> = (0..60_000).map(|n| format!("\"10.{}.{}.1\"", n / 256, n % 256)).collect();
    let nets: Vec<String> = (0..60_000).map(|n| format!("\"11.{}.{}.0/24\"", n / 256, n % 256)).collect();
    let name = fixture.folder.name("long.yaml");
    for (event, expected) in [
        (format!("port_dst in [{}]", ports.join(",")), "1e 2e 3e 4f 5f"),
        (format!("daddr in [{}, \"127.0.0.1\"]", hosts.join(",")), "1e 2e 4f 5f"),
        (format!("daddr in [{}, \"::/64\"]", nets.join(",")), "3e"),
        (format!("NOT daddr in [{}, \"127.0.0.0/9\"]", nets.join(",")), "3e"),
    ] {
        fs::write(&name, format!("egress:\n  rules:\n  - rule: long\n    event: '{event}'\n"))
            .expect("write");
        fixture.check(&["-c", &name], expected);
    }
}

/// Connects from ports that the kernel chooses and from others, and returns the local ports that tcptrace reports, and
/// all.
fn local_ports(arguments: &[&str], server: u16) -> [Vec<u16>; 2] {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, server)).expect("listen");
    let trace = Trace::start(&[&["-e", "connect"], arguments].concat());
    // The last three may use any port of the namespace: one because its range is outside.
    let ranges = [(32770, 32771), (32766, 32767), (32773, 32774), (0, 0), (0, 0)];
    let mut clients = Vec::from(ranges.map(|(first, last)| {
        let socket = scenarios::client(Protocol::TCP);
        sys::narrow_ports(&socket, first, last);
        socket
    }));
    clients.extend([443, 32772].map(scenarios::bound_to));
    for client in &clients {
        client.connect(&listener.local_addr().expect("an address").into()).expect("connect");
        net::linger_zero(client);
    }
    let events = network::mine(&trace.stop().events);
    let reported =
        events.iter().map(|event| event["network_event"]["sport"].as_u64().expect("a port") as u16);
    let all = clients.iter().map(|client| client.local_addr().expect("an address"));
    [reported.collect(), all.map(|address| address.as_socket().expect("IP").port()).collect()]
}

fn local_ports_that_the_kernel_chooses() {
    let cases = [
        (&["--sport", "32766"][..], &[32766..=32766][..]),
        (&["--sport", "32768-32769"], &[32768..=32769]),
        (&["--sport", "32764-32771"], &[32764..=32771]),
        (&["--port", "443"], &[443..=443]),
        (&["--sport", "32772-65535", "--sport", "32767"], &[32767..=32767, 32772..=65535]),
        (&["port_src != 443"], &[1..=442, 444..=65535]),
        (&["NOT port_src in [\"1-32764\", \"32770-65535\"]"], &[32765..=32769]),
    ];
    network::in_own(|_| {
        // In the middle, so that most other ports are above or below those that are listed.
        network::sysctl("net.ipv4.ip_local_port_range", "32764 32771");
        for (server, (arguments, expected)) in (30000..).zip(cases) {
            let [reported, mut all] = local_ports(arguments, server);
            all.retain(|port| expected.iter().any(|range| range.contains(port)));
            assert_eq!(reported, all, "{arguments:?}");
        }
    });
}

crate::tests![
    local_ports_that_the_kernel_chooses,
    options_about_the_process,
    options_about_the_connection,
    cgroups_and_containers,
    predicates,
    rules_are_reported_in_every_event_including_close,
    process_filters_in_yaml_combined_with_options,
    long_lists_and_both_kinds_of_address,
];
