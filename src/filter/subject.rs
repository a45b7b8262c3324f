//! The input of a filter, and the reference evaluator, which applies predicates to it directly.
//!
//! The compiled program and the kernel must agree with this file; property tests compare them. It also evaluates the
//! attributes that only user space knows: `dns`, and the names of containers.

use super::{
    domain_pattern,
    predicate::{Attribute as A, Net, Predicate, Set, unmap},
    rule::{Filter, Verdict},
};
pub use crate::event::Direction;
use std::net::IpAddr;

/// All attributes of a connection and its owner that a filter can test.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the attributes of the predicate language, by their names")]
pub struct Subject {
    pub binary_name: Vec<u8>,
    pub binary_path: Vec<u8>,
    pub parent_binary_name: Vec<u8>,
    pub parent_binary_path: Vec<u8>,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    pub auid: u32,
    pub pid: u32,
    pub ppid: u32,
    /// Empty for processes outside containers.
    pub container_id: Vec<u8>,
    /// Empty if not known, as are `pod` and `namespace`.
    pub container_name: Vec<u8>,
    pub pod: Vec<u8>,
    pub namespace: Vec<u8>,
    /// Whether the process is in one of the cgroups of `--cgroup`, or below it.
    pub in_cgroup: bool,
    pub netns: u32,
    pub saddr: IpAddr,
    pub daddr: IpAddr,
    pub sport: u16,
    pub dport: u16,
    pub direction: Direction,
    /// The names that resolved to `daddr`.
    pub dns: Vec<String>,
}

impl Filter {
    /// The reference evaluation, which the compiled program must agree with.
    pub fn evaluate(&self, subject: &Subject) -> Verdict {
        self.evaluate_if(|predicate| subject.satisfies(predicate))
    }

    /// Evaluates a socket that no process owns: it matches no condition on a process.
    pub fn evaluate_unowned(&self, subject: &Subject) -> Verdict {
        self.evaluate_if(|predicate| !predicate.mentions(A::is_of_process) && subject.satisfies(predicate))
    }

    fn evaluate_if(&self, holds: impl Fn(&Predicate) -> bool) -> Verdict {
        if !self.all.iter().all(|clause| holds(&clause.predicate)) {
            return Verdict::Rejected;
        }
        if self.rules.is_empty() {
            return Verdict::Admitted(None);
        }
        let rule = self.rules.iter().position(|rule| holds(&rule.predicate));
        rule.map_or(Verdict::Rejected, |rule| Verdict::Admitted(Some(rule)))
    }
}

impl Subject {
    /// Whether `predicate` holds for this subject.
    pub fn satisfies(&self, predicate: &Predicate) -> bool {
        match predicate {
            Predicate::Test(attribute, set) => self.is_member(*attribute, set),
            Predicate::Not(inner) => !self.satisfies(inner),
            Predicate::All(list) => list.iter().all(|p| self.satisfies(p)),
            Predicate::Any(list) => list.iter().any(|p| self.satisfies(p)),
        }
    }

    fn is_member(&self, attribute: A, set: &Set) -> bool {
        match set {
            Set::Numbers(list) => self.number(attribute).is_some_and(|n| list.contains(&n)),
            Set::Texts(list) => list.iter().any(|text| self.has_text(attribute, text)),
            Set::Nets(list) => list.iter().any(|net| self.is_inside(attribute, net)),
            Set::Ports(list) => list.iter().any(|range| {
                let inside = |port| range.low <= port && port <= range.high;
                match attribute {
                    A::PortSrc => inside(self.sport),
                    A::PortDst => inside(self.dport),
                    _ => inside(self.sport) || inside(self.dport),
                }
            }),
        }
    }

    pub(super) fn number(&self, attribute: A) -> Option<u32> {
        Some(match attribute {
            A::Uid => self.uid,
            A::Euid => self.euid,
            A::Gid => self.gid,
            A::Egid => self.egid,
            A::Auid => self.auid,
            A::Pid => self.pid,
            A::Ppid => self.ppid,
            A::Netns => self.netns,
            A::Cgroup => u32::from(self.in_cgroup),
            A::Family => {
                if Net::IPV4.contains(unmap(self.daddr)) {
                    4
                } else {
                    6
                }
            }
            A::Direction => u32::from(self.direction == Direction::Ingress),
            _ => return None,
        })
    }

    fn has_text(&self, attribute: A, text: &[u8]) -> bool {
        match attribute {
            A::Dns => {
                let matches =
                    |pattern: &str| self.dns.iter().any(|name| domain_pattern::matches(pattern, name));
                std::str::from_utf8(text).is_ok_and(matches)
            }
            // As in all comparisons with containers, a prefix of an id matches.
            A::BinaryPrefix | A::ParentBinaryPrefix | A::ContainerId => {
                self.text(attribute).starts_with(text)
            }
            A::ContainerName | A::Pod | A::Namespace => match text.strip_suffix(b"*") {
                Some(beginning) => {
                    let name = self.text(attribute);
                    !name.is_empty() && name.starts_with(beginning)
                }
                None => self.text(attribute) == text,
            },
            _ => self.text(attribute) == text,
        }
    }

    pub(super) fn text(&self, attribute: A) -> &[u8] {
        match attribute {
            A::BinaryName => &self.binary_name,
            A::BinaryPath | A::BinaryPrefix => &self.binary_path,
            A::ParentBinaryName => &self.parent_binary_name,
            A::ParentBinaryPath | A::ParentBinaryPrefix => &self.parent_binary_path,
            A::ContainerId => &self.container_id,
            A::ContainerName => &self.container_name,
            A::Pod => &self.pod,
            A::Namespace => &self.namespace,
            _ => &[],
        }
    }

    fn is_inside(&self, attribute: A, net: &Net) -> bool {
        let source = || net.contains(unmap(self.saddr));
        let destination = || net.contains(unmap(self.daddr));
        match attribute {
            A::Ipv4Src | A::Ipv6Src | A::Saddr => source(),
            A::Ipv4Dst | A::Ipv6Dst | A::Daddr => destination(),
            _ => source() || destination(),
        }
    }
}
