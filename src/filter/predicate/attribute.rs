//! The attributes a predicate can name.

use super::error::nearest;

/// What a comparison looks at. The order is that of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is explained by its name in NAMES")]
pub enum Attribute {
    BinaryName,
    BinaryPath,
    BinaryPrefix,
    ParentBinaryName,
    ParentBinaryPath,
    ParentBinaryPrefix,
    Uid,
    Euid,
    Gid,
    Egid,
    Auid,
    Pid,
    Ppid,
    ContainerId,
    Netns,
    Ipv4Src,
    Ipv4Dst,
    Ipv6Src,
    Ipv6Dst,
    Saddr,
    Daddr,
    Addr,
    PortSrc,
    PortDst,
    Port,
    Family,
    Direction,
    /// The names that resolved to the remote address: known to user space alone.
    Dns,
    /// Whether the process is in one of the cgroups of `--cgroup`: has no name in the language.
    Cgroup,
}

/// What the values of an attribute are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole string, or the beginning of one.
    Text,
    /// A 32-bit number.
    Number,
    /// An address or a CIDR of either family.
    Net,
    /// An IPv4 address or CIDR.
    Net4,
    /// An IPv6 address or CIDR.
    Net6,
    /// A port or a range of ports.
    Port,
    /// 4 or 6.
    Family,
    /// `"egress"` or `"ingress"`.
    Direction,
    /// A domain name; `"*.example.com"` is any name below example.com.
    Domain,
}

use Attribute as A;

const NAMES: [(&str, Attribute, Kind); 28] = [
    ("binary_name", A::BinaryName, Kind::Text),
    ("binary_path", A::BinaryPath, Kind::Text),
    ("binary_prefix", A::BinaryPrefix, Kind::Text),
    ("parent_binary_name", A::ParentBinaryName, Kind::Text),
    ("parent_binary_path", A::ParentBinaryPath, Kind::Text),
    ("parent_binary_prefix", A::ParentBinaryPrefix, Kind::Text),
    ("uid", A::Uid, Kind::Number),
    ("euid", A::Euid, Kind::Number),
    ("gid", A::Gid, Kind::Number),
    ("egid", A::Egid, Kind::Number),
    ("auid", A::Auid, Kind::Number),
    ("pid", A::Pid, Kind::Number),
    ("ppid", A::Ppid, Kind::Number),
    ("container_id", A::ContainerId, Kind::Text),
    ("netns", A::Netns, Kind::Number),
    ("ipv4_src", A::Ipv4Src, Kind::Net4),
    ("ipv4_dst", A::Ipv4Dst, Kind::Net4),
    ("ipv6_src", A::Ipv6Src, Kind::Net6),
    ("ipv6_dst", A::Ipv6Dst, Kind::Net6),
    ("saddr", A::Saddr, Kind::Net),
    ("daddr", A::Daddr, Kind::Net),
    ("addr", A::Addr, Kind::Net),
    ("port_src", A::PortSrc, Kind::Port),
    ("port_dst", A::PortDst, Kind::Port),
    ("port", A::Port, Kind::Port),
    ("family", A::Family, Kind::Family),
    ("direction", A::Direction, Kind::Direction),
    ("dns", A::Dns, Kind::Domain),
];

/// Spellings of other tools, and the one that is meant.
const OTHER_NAMES: [(&str, &str); 12] = [
    ("sport", "port_src"),
    ("dport", "port_dst"),
    ("src_port", "port_src"),
    ("dst_port", "port_dst"),
    ("src", "saddr"),
    ("dst", "daddr"),
    ("comm", "binary_name"),
    ("name", "binary_name"),
    ("path", "binary_path"),
    ("exe", "binary_path"),
    ("container", "container_id"),
    ("host", "dns"),
];

impl Attribute {
    /// The attribute spelled `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(n, ..)| *n == name).map(|(_, a, _)| *a)
    }

    /// How predicates spell it.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, a, _)| *a == self).map_or("cgroup", |(n, ..)| n)
    }

    /// What its values are.
    pub fn kind(self) -> Kind {
        NAMES.iter().find(|(_, a, _)| *a == self).map_or(Kind::Number, |(.., k)| *k)
    }

    /// Is it one of the process, not of the connection?
    pub fn is_of_process(self) -> bool {
        self <= A::ContainerId || self == A::Cgroup
    }

    /// Does user space alone know it?
    pub fn is_name(self) -> bool {
        self == A::Dns
    }

    /// The attribute that the author of `wrong` most likely had in mind.
    pub fn nearest(wrong: &str) -> Option<&'static str> {
        let wrong = wrong.to_ascii_lowercase();
        let known = OTHER_NAMES.iter().find(|(other, _)| *other == wrong).map(|(_, ours)| *ours);
        known.or_else(|| nearest(&wrong, NAMES.iter().map(|(n, ..)| *n)))
    }
}
