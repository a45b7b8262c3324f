//! The attributes a predicate can name.

use super::error::nearest;

/// What a comparison looks at; the order means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is explained in ATTRIBUTES")]
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
    ContainerName,
    Pod,
    Namespace,
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
    Dns,
    Cgroup,
}

/// What the values of an attribute are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
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

/// What an attribute is a property of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Process,
    Connection,
    /// The names that resolved to the remote address: only user space knows them.
    Names,
    /// The process, but only user space knows it.
    Container,
}

/// All there is to know of an attribute, but for its value.
#[derive(Debug)]
struct Spec {
    attribute: Attribute,
    /// How predicates spell it; empty for one that only an option can ask for.
    name: &'static str,
    kind: ValueKind,
    of: Of,
    /// The attributes whose tables a comparison is compiled into: itself, either of two ends, or
    /// none where user space evaluates it.
    tested_as: &'static [Attribute],
}

const fn spec(
    attribute: Attribute,
    name: &'static str,
    kind: ValueKind,
    of: Of,
    tested_as: &'static [Attribute],
) -> Spec {
    Spec { attribute, name, kind, of, tested_as }
}

use Attribute as A;

/// Every attribute, in the order of the documentation. Names, parsing, what is compiled and what
/// belongs to the process follow from here.
#[rustfmt::skip]
static ATTRIBUTES: [Spec; 32] = [
    spec(A::BinaryName, "binary_name", ValueKind::Text, Of::Process, &[A::BinaryName]),
    spec(A::BinaryPath, "binary_path", ValueKind::Text, Of::Process, &[A::BinaryPath]),
    spec(A::BinaryPrefix, "binary_prefix", ValueKind::Text, Of::Process, &[A::BinaryPrefix]),
    spec(A::ParentBinaryName, "parent_binary_name", ValueKind::Text, Of::Process, &[A::ParentBinaryName]),
    spec(A::ParentBinaryPath, "parent_binary_path", ValueKind::Text, Of::Process, &[A::ParentBinaryPath]),
    spec(A::ParentBinaryPrefix, "parent_binary_prefix", ValueKind::Text, Of::Process, &[A::ParentBinaryPrefix]),
    spec(A::Uid, "uid", ValueKind::Number, Of::Process, &[A::Uid]),
    spec(A::Euid, "euid", ValueKind::Number, Of::Process, &[A::Euid]),
    spec(A::Gid, "gid", ValueKind::Number, Of::Process, &[A::Gid]),
    spec(A::Egid, "egid", ValueKind::Number, Of::Process, &[A::Egid]),
    spec(A::Auid, "auid", ValueKind::Number, Of::Process, &[A::Auid]),
    spec(A::Pid, "pid", ValueKind::Number, Of::Process, &[A::Pid]),
    spec(A::Ppid, "ppid", ValueKind::Number, Of::Process, &[A::Ppid]),
    spec(A::ContainerId, "container_id", ValueKind::Text, Of::Process, &[A::ContainerId]),
    spec(A::ContainerName, "container_name", ValueKind::Text, Of::Container, &[]),
    spec(A::Pod, "pod", ValueKind::Text, Of::Container, &[]),
    spec(A::Namespace, "namespace", ValueKind::Text, Of::Container, &[]),
    spec(A::Netns, "netns", ValueKind::Number, Of::Connection, &[A::Netns]),
    spec(A::Ipv4Src, "ipv4_src", ValueKind::Net4, Of::Connection, &[A::Saddr]),
    spec(A::Ipv4Dst, "ipv4_dst", ValueKind::Net4, Of::Connection, &[A::Daddr]),
    spec(A::Ipv6Src, "ipv6_src", ValueKind::Net6, Of::Connection, &[A::Saddr]),
    spec(A::Ipv6Dst, "ipv6_dst", ValueKind::Net6, Of::Connection, &[A::Daddr]),
    spec(A::Saddr, "saddr", ValueKind::Net, Of::Connection, &[A::Saddr]),
    spec(A::Daddr, "daddr", ValueKind::Net, Of::Connection, &[A::Daddr]),
    spec(A::Addr, "addr", ValueKind::Net, Of::Connection, &[A::Saddr, A::Daddr]),
    spec(A::PortSrc, "port_src", ValueKind::Port, Of::Connection, &[A::PortSrc]),
    spec(A::PortDst, "port_dst", ValueKind::Port, Of::Connection, &[A::PortDst]),
    spec(A::Port, "port", ValueKind::Port, Of::Connection, &[A::PortSrc, A::PortDst]),
    spec(A::Family, "family", ValueKind::Family, Of::Connection, &[A::Family]),
    spec(A::Direction, "direction", ValueKind::Direction, Of::Connection, &[A::Direction]),
    spec(A::Dns, "dns", ValueKind::Domain, Of::Names, &[]),
    // Whether the process is in one of the cgroups of `--cgroup`.
    spec(A::Cgroup, "", ValueKind::Number, Of::Process, &[A::Cgroup]),
];

/// Spellings of other tools, and the one that is meant.
const OTHER_NAMES: [(&str, &str); 13] = [
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
    ("container", "container_name"),
    ("pod_name", "pod"),
    ("host", "dns"),
];

impl Attribute {
    fn spec(self) -> &'static Spec {
        ATTRIBUTES.iter().find(|spec| spec.attribute == self).expect("every attribute has a row")
    }

    fn names() -> impl Iterator<Item = &'static str> {
        ATTRIBUTES.iter().map(|spec| spec.name).filter(|name| !name.is_empty())
    }

    /// The attribute spelled `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        ATTRIBUTES.iter().find(|spec| spec.name == name && !name.is_empty()).map(|spec| spec.attribute)
    }

    /// How predicates spell it.
    pub fn name(self) -> &'static str {
        match self.spec().name {
            "" => "cgroup",
            name => name,
        }
    }

    /// What its values are.
    pub fn kind(self) -> ValueKind {
        self.spec().kind
    }

    /// Is it the number of a process, which depends on who counts?
    pub fn is_process_number(self) -> bool {
        matches!(self, Attribute::Pid | Attribute::Ppid)
    }

    /// Is it one of the process, not of the connection?
    pub fn is_of_process(self) -> bool {
        matches!(self.spec().of, Of::Process | Of::Container)
    }

    /// Is it known to user space only?
    pub fn is_name(self) -> bool {
        matches!(self.spec().of, Of::Names | Of::Container)
    }

    /// The attributes whose tables a comparison is compiled into.
    pub fn tested_as(self) -> &'static [Attribute] {
        self.spec().tested_as
    }

    /// Every attribute that has a table of its own.
    pub fn with_table() -> impl Iterator<Item = Attribute> {
        ATTRIBUTES.iter().map(|spec| spec.attribute).filter(|&attribute| attribute.tested_as() == [attribute])
    }

    /// The attribute that the author of `wrong` most likely had in mind.
    pub fn nearest(wrong: &str) -> Option<&'static str> {
        let wrong = wrong.to_ascii_lowercase();
        let known = OTHER_NAMES.iter().find(|(other, _)| *other == wrong).map(|(_, ours)| *ours);
        known.or_else(|| nearest(&wrong, Self::names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_has_one_row() {
        for (index, spec) in ATTRIBUTES.iter().enumerate() {
            let again = ATTRIBUTES[index + 1..]
                .iter()
                .any(|other| other.attribute == spec.attribute || other.name == spec.name);
            assert!(!again, "{spec:?}");
            assert!(spec.tested_as.iter().all(|tested| tested.tested_as() == [*tested]), "{spec:?}");
        }
        assert!(OTHER_NAMES.iter().all(|(_, ours)| Attribute::from_name(ours).is_some()));
    }
}
