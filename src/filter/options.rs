//! The filter options, and how they combine with predicate and configuration.

use super::predicate::{Attribute as A, Net, PortRange, Predicate, Set};
use super::rule::{Clause, Filter, Rule};

/// The executables that one `--binary` matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BinaryPattern {
    /// Executables with this base name.
    Name(Vec<u8>),
    /// The executable with this path.
    Path(Vec<u8>),
    /// Executables whose path starts with this.
    Prefix(Vec<u8>),
}

/// Selects processes: `--binary`, `--uid` and similar options, or `process_filter` of the configuration. `--deny`
/// inverts this filter; `--pid` is not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the attributes, by their names")]
pub struct ProcessFilter {
    pub uid: Vec<u32>,
    pub euid: Vec<u32>,
    pub auid: Vec<u32>,
    pub binary: Vec<BinaryPattern>,
    /// Whether to report all other processes instead.
    pub deny: bool,
}

impl ProcessFilter {
    /// Whether it selects on nothing.
    pub fn is_empty(&self) -> bool {
        let numbers = [&self.uid, &self.euid, &self.auid];
        numbers.iter().all(|list| list.is_empty()) && self.binary.is_empty()
    }

    /// `uid AND euid AND auid AND (name OR path OR prefix)`, negated with `deny`.
    pub fn predicate(&self) -> Option<Predicate> {
        if self.is_empty() {
            return None;
        }
        let numbers = [(A::Uid, &self.uid), (A::Euid, &self.euid), (A::Auid, &self.auid)];
        let mut all: Vec<Predicate> = numbers
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(attribute, list)| Predicate::Test(attribute, Set::Numbers(list.clone())))
            .collect();
        let binary = |pattern: &BinaryPattern| {
            let (attribute, text) = match pattern {
                BinaryPattern::Name(text) => (A::BinaryName, text),
                BinaryPattern::Path(text) => (A::BinaryPath, text),
                BinaryPattern::Prefix(text) => (A::BinaryPrefix, text),
            };
            Predicate::Test(attribute, Set::Texts(vec![text.clone()]))
        };
        if !self.binary.is_empty() {
            all.push(Predicate::Any(self.binary.iter().map(binary).collect()));
        }
        let all = Predicate::All(all);
        Some(if self.deny { all.negate() } else { all })
    }
}

/// The filter options, checked and resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the options, by their names")]
pub struct FilterOptions {
    pub process: ProcessFilter,
    pub pid: Vec<u32>,
    pub addr: Vec<Net>,
    pub saddr: Vec<Net>,
    pub daddr: Vec<Net>,
    pub port: Vec<PortRange>,
    pub sport: Vec<PortRange>,
    pub dport: Vec<PortRange>,
    /// 4, 6 or both.
    pub family: Vec<u32>,
    /// Ids, prefixes of ids, or names: see `container`.
    pub container: Vec<Vec<u8>>,
    /// Ids of cgroups in the cgroup2 tree.
    pub cgroup: Vec<u64>,
    /// Inode numbers of network namespaces.
    pub netns: Vec<u32>,
}

/// At least this many hexadecimal digits are a prefix of an id, as runtimes print it, and not a name.
const ID_SHOWN: usize = 12;

impl FilterOptions {
    /// The predicate of `--container`. Values that cannot be names are compared only with ids, which the kernel knows.
    fn containers(&self) -> Option<Predicate> {
        let is_id = |text: &[u8]| {
            text.len() >= ID_SHOWN && text.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        };
        let names: Vec<_> = self.container.iter().filter(|text| !is_id(text)).cloned().collect();
        let id = Predicate::Test(A::ContainerId, Set::Texts(self.container.clone()));
        match (self.container.is_empty(), names.is_empty()) {
            (true, _) => None,
            (false, true) => Some(id),
            (false, false) => {
                Some(Predicate::Any(vec![id, Predicate::Test(A::ContainerName, Set::Texts(names))]))
            }
        }
    }

    /// One clause for each option in use.
    fn clauses(&self) -> Vec<Clause> {
        let test = |origin: &str, attribute, set: Set| {
            let predicate = Predicate::Test(attribute, set);
            (origin.to_owned(), predicate)
        };
        let cgroup = self.cgroup.iter().map(|_| 1).take(1).collect();
        let process = self.process.predicate().map(|predicate| ("the process options".to_owned(), predicate));
        let tests = [
            test("--pid", A::Pid, Set::Numbers(self.pid.clone())),
            test("--addr", A::Addr, Set::Nets(self.addr.clone())),
            test("--saddr", A::Saddr, Set::Nets(self.saddr.clone())),
            test("--daddr", A::Daddr, Set::Nets(self.daddr.clone())),
            test("--port", A::Port, Set::Ports(self.port.clone())),
            test("--sport", A::PortSrc, Set::Ports(self.sport.clone())),
            test("--dport", A::PortDst, Set::Ports(self.dport.clone())),
            test("-4 or -6", A::Family, Set::Numbers(self.family.clone())),
            test("--cgroup", A::Cgroup, Set::Numbers(cgroup)),
            test("--netns", A::Netns, Set::Numbers(self.netns.clone())),
        ];
        let used =
            tests.into_iter().filter(|(_, test)| !matches!(test, Predicate::Test(_, set) if set.is_empty()));
        let container = self.containers().map(|predicate| ("--container".to_owned(), predicate));
        process
            .into_iter()
            .chain(used)
            .chain(container)
            .map(|(origin, predicate)| Clause { predicate, origin })
            .collect()
    }
}

impl Filter {
    /// Combines options, positional predicate, and the configuration's process filter and rules, all of which must
    /// hold.
    pub fn new(
        options: &FilterOptions,
        predicate: Option<Predicate>,
        process_filter: Option<ProcessFilter>,
        rules: Vec<Rule>,
    ) -> Self {
        let mut all = options.clauses();
        all.extend(predicate.map(|predicate| Clause { predicate, origin: "FILTER".to_owned() }));
        let process_filter = process_filter.as_ref().and_then(ProcessFilter::predicate);
        all.extend(process_filter.map(|predicate| Clause { predicate, origin: "process_filter".to_owned() }));
        Filter { all, rules, cgroups: options.cgroup.clone() }
    }
}
