//! Random predicates and subjects from small sets of values, so that they often match.

use proptest::prelude::*;
use proptest::sample::select;
use std::net::IpAddr;
use tcptrace::filter::predicate::{Attribute as A, Net, PortRange, Predicate, Set, unmap};
use tcptrace::filter::{Clause, Direction, Filter, Rule, Subject};

const PATHS: [&str; 9] = [
    "/usr/bin/curl",
    "/usr/bin/curlie",
    "/usr/bin/nc",
    "/usr/local/bin/curl",
    "/bin/nc",
    "/usr/lib/x/nc",
    "/opt/a b/\u{fc}ber",
    "/",
    "/usr/local/bin/a/b/c/d/e/f/g/h",
];
const PREFIXES: [&str; 8] =
    ["/", "/usr/", "/usr/bin/", "/usr/bin/c", "/usr/local/", "/usr/bin/curl", "/opt/", "/nowhere/"];
const NAMES: [&str; 6] = ["curl", "curlie", "nc", "\u{fc}ber", "h", "wget"];
const CONTAINERS: [&str; 6] =
    ["", "a", "abc123", "abc124", "abd", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"];
const NUMBERS: [u32; 6] = [0, 1, 33, 1000, 65_536, u32::MAX];
const ADDRESSES: [&str; 12] = [
    "127.0.0.1",
    "10.0.0.1",
    "10.0.0.2",
    "10.255.0.1",
    "192.168.1.1",
    "0.0.0.0",
    "255.255.255.255",
    "::1",
    "2001:db8::1",
    "2001:db8:1::1",
    "fe80::1",
    "::ffff:10.0.0.1",
];
const NETS: [&str; 18] = [
    "127.0.0.1",
    "10.0.0.1",
    "10.0.0.0/8",
    "10.0.0.0/31",
    "10.0.0.0/9",
    "10.128.0.0/9",
    "0.0.0.0/0",
    "0.0.0.0/1",
    "192.168.0.0/16",
    "::1",
    "::/0",
    "::/1",
    "8000::/1",
    "2001:db8::/32",
    "2001:db8::1",
    "2001:db8::/47",
    "fe80::/10",
    "255.255.255.255",
];
const PORTS: [u16; 8] = [0, 1, 22, 80, 443, 8080, 40_000, 65_535];

fn subset<T: Clone + std::fmt::Debug + 'static>(from: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(select(from), 1..4)
}

fn texts(from: &'static [&'static str]) -> impl Strategy<Value = Set> {
    subset(from.to_vec())
        .prop_map(|list| Set::Texts(list.into_iter().map(|t| t.as_bytes().to_vec()).collect()))
}

fn net(text: &str) -> Net {
    Net::parse(text).expect(text)
}

fn comparison() -> impl Strategy<Value = Predicate> {
    let names = (select(vec![A::BinaryName, A::ParentBinaryName]), texts(&NAMES));
    let paths = (select(vec![A::BinaryPath, A::ParentBinaryPath]), texts(&PATHS));
    let prefixes = (select(vec![A::BinaryPrefix, A::ParentBinaryPrefix]), texts(&PREFIXES));
    let containers = (Just(A::ContainerId), texts(&CONTAINERS[1..]));
    let ids = vec![A::Uid, A::Euid, A::Gid, A::Egid, A::Auid, A::Pid, A::Ppid, A::Netns];
    let numbers = (select(ids), subset(NUMBERS.to_vec()).prop_map(Set::Numbers));
    let of_kind =
        |ipv4: bool| NETS.iter().map(|t| net(t)).filter(|n| n.is_ipv4() == ipv4).collect::<Vec<_>>();
    let net4 = (select(vec![A::Ipv4Src, A::Ipv4Dst]), subset(of_kind(true)).prop_map(Set::Nets));
    let net6 = (select(vec![A::Ipv6Src, A::Ipv6Dst]), subset(of_kind(false)).prop_map(Set::Nets));
    let nets = (
        select(vec![A::Saddr, A::Daddr, A::Addr]),
        subset(NETS.iter().map(|t| net(t)).collect()).prop_map(Set::Nets),
    );
    let range = (select(PORTS.to_vec()), select(PORTS.to_vec()), any::<bool>());
    let range = range
        .prop_map(|(a, b, one)| PortRange { low: a.min(b), high: if one { a.min(b) } else { a.max(b) } });
    let ports = (
        select(vec![A::PortSrc, A::PortDst, A::Port]),
        prop::collection::vec(range, 1..4).prop_map(Set::Ports),
    );
    let families = (Just(A::Family), subset(vec![4, 6]).prop_map(Set::Numbers));
    let directions = (Just(A::Direction), subset(vec![0, 1]).prop_map(Set::Numbers));
    prop_oneof![
        3 => names, 3 => paths, 3 => prefixes, 1 => containers, 4 => numbers, 1 => net4, 1 => net6, 3 => nets, 3 => ports,
        1 => families, 1 => directions
    ]
    .prop_map(|(attribute, set)| Predicate::Test(attribute, set))
}

/// Predicates with a few levels.
pub fn predicate() -> impl Strategy<Value = Predicate> {
    comparison().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(Predicate::negate),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Predicate::All),
            prop::collection::vec(inner, 2..4).prop_map(Predicate::Any),
        ]
    })
}

/// Filters with some clauses and some rules.
pub fn filter() -> impl Strategy<Value = Filter> {
    let clause = || predicate().prop_map(|predicate| Clause { predicate, origin: "FILTER".to_owned() });
    let cgroup = any::<bool>().prop_map(|inside| Clause {
        predicate: Predicate::Test(A::Cgroup, Set::Numbers(vec![inside.into()])),
        origin: "--cgroup".to_owned(),
    });
    let rule = predicate().prop_map(|predicate| Rule {
        name: Some("rule".to_owned()),
        predicate,
        place: "r.yaml:1:1".to_owned(),
    });
    let all =
        prop_oneof![prop::collection::vec(clause(), 0..3), (clause(), cgroup).prop_map(|(a, b)| vec![a, b])];
    (all, prop::collection::vec(rule, 0..5)).prop_map(|(all, rules)| Filter {
        all,
        rules,
        cgroups: Vec::new(),
    })
}

/// Connections with their owners.
pub fn subject() -> impl Strategy<Value = Subject> {
    let path = || select(PATHS.to_vec());
    let number = || select(NUMBERS.to_vec());
    // Both ends of a connection have the same family.
    let of_family = |ipv4: bool| {
        let all = ADDRESSES.iter().map(|t| t.parse::<IpAddr>().expect(t));
        all.filter(|a| Net::IPV4.contains(unmap(*a)) == ipv4).collect::<Vec<_>>()
    };
    let pair = |ipv4| (select(of_family(ipv4)), select(of_family(ipv4)));
    let addresses = prop_oneof![pair(true), pair(false)];
    let port = || prop_oneof![4 => select(PORTS.to_vec()), 1 => any::<u16>()];
    let process =
        (path(), path(), prop::array::uniform8(number()), select(CONTAINERS.to_vec()), any::<bool>());
    let socket = (addresses, port(), port(), any::<bool>());
    (process, socket).prop_map(
        |((path, parent, ids, container, in_cgroup), ((saddr, daddr), sport, dport, egress))| {
            let base = |path: &str| path.rsplit('/').next().unwrap_or_default().as_bytes().to_vec();
            let [uid, euid, gid, egid, auid, pid, ppid, netns] = ids;
            Subject {
                binary_name: base(path),
                binary_path: path.as_bytes().to_vec(),
                parent_binary_name: base(parent),
                parent_binary_path: parent.as_bytes().to_vec(),
                uid,
                euid,
                gid,
                egid,
                auid,
                pid,
                ppid,
                netns,
                container_id: container.as_bytes().to_vec(),
                container_name: Vec::new(),
                pod: Vec::new(),
                namespace: Vec::new(),
                in_cgroup,
                saddr,
                daddr,
                sport,
                dport,
                direction: if egress { Direction::Egress } else { Direction::Ingress },
                dns: Vec::new(),
            }
        },
    )
}

/// `predicate` as text.
#[allow(dead_code, reason = "not every test that shares this file writes predicates")]
pub fn written(predicate: &Predicate) -> String {
    let join = |list: &[Predicate], word: &str| {
        format!("({})", list.iter().map(written).collect::<Vec<_>>().join(word))
    };
    match predicate {
        Predicate::Not(inner) => format!("not {}", written(inner)),
        Predicate::All(list) => join(list, " And "),
        Predicate::Any(list) => join(list, " OR "),
        Predicate::Test(attribute, set) => {
            format!("{} in [{}]", attribute.name(), members(*attribute, set).join(", "))
        }
    }
}

fn members(attribute: A, set: &Set) -> Vec<String> {
    match set {
        Set::Numbers(list) if attribute == A::Direction => {
            list.iter().map(|n| ["\"egress\"", "\"ingress\""][*n as usize].to_owned()).collect()
        }
        Set::Numbers(list) if attribute != A::Family => list.iter().map(|n| format!("{n:#x}")).collect(),
        Set::Numbers(list) => list.iter().map(u32::to_string).collect(),
        Set::Texts(list) => list.iter().map(|t| format!("\"{}\"", String::from_utf8_lossy(t))).collect(),
        Set::Nets(list) => list.iter().map(|n| format!("\"{n}\"")).collect(),
        Set::Ports(list) => list.iter().map(|p| format!("\"{}-{}\"", p.low, p.high)).collect(),
    }
}
