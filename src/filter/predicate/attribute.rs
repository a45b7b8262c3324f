//! The attributes a predicate can name.

use super::error::nearest;

/// An attribute that a comparison tests; the order has no meaning.
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

/// The type of an attribute's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A string, or a prefix of one.
    Text,
    /// A 32-bit unsigned number.
    Number,
    /// An IP address or CIDR of either family.
    Net,
    /// An IPv4 address or CIDR.
    Net4,
    /// An IPv6 address or CIDR.
    Net6,
    /// A port or a range of ports.
    Port,
    /// The address family: 4 or 6.
    Family,
    /// The direction: `"egress"` or `"ingress"`.
    Direction,
    /// A domain name; `"*.example.com"` is any name below example.com.
    Domain,
}

/// The object that an attribute belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Process,
    Connection,
    /// The names that resolved to the remote address; known only to user space.
    Names,
    /// The container of the process; known only to user space.
    Container,
}

/// The definition of an attribute.
#[derive(Debug)]
struct Spec {
    attribute: Attribute,
    /// Its name in predicates; empty if only an option can use it.
    name: &'static str,
    kind: ValueKind,
    of: Of,
    /// The attributes whose tables a comparison is compiled into: itself, one for either end, or none if user space
    /// evaluates it.
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

/// All attributes, in the order of the documentation. Names, parsing, compilation and the object follow from this
/// table.
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

/// Names used by other tools, and the name used here.
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

    /// The attribute with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        ATTRIBUTES.iter().find(|spec| spec.name == name && !name.is_empty()).map(|spec| spec.attribute)
    }

    /// Its name in predicates.
    pub fn name(self) -> &'static str {
        match self.spec().name {
            "" => "cgroup",
            name => name,
        }
    }

    /// The type of its values.
    pub fn kind(self) -> ValueKind {
        self.spec().kind
    }

    /// Whether it is a process number, which depends on the PID namespace.
    pub fn is_process_number(self) -> bool {
        matches!(self, Attribute::Pid | Attribute::Ppid)
    }

    /// Whether it belongs to the process rather than to the connection.
    pub fn is_of_process(self) -> bool {
        matches!(self.spec().of, Of::Process | Of::Container)
    }

    /// Whether it is known only to user space.
    pub fn is_name(self) -> bool {
        matches!(self.spec().of, Of::Names | Of::Container)
    }

    /// The attributes whose tables a comparison is compiled into.
    pub fn tested_as(self) -> &'static [Attribute] {
        self.spec().tested_as
    }

    /// All attributes that have a table.
    pub fn with_table() -> impl Iterator<Item = Attribute> {
        ATTRIBUTES.iter().map(|spec| spec.attribute).filter(|&attribute| attribute.tested_as() == [attribute])
    }

    /// The attribute most likely meant by the misspelling `wrong`.
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
    fn every_attribute_has_exactly_one_row() {
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
