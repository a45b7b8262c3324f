//! Why the probes could not be attached, in one line with the remedy.

use anyhow::{Error, anyhow};

use crate::{
    bpf::{is_denied, refuses_trampolines},
    cli::Probes,
};

/// What the machine is like, as far as it can keep us from tracing.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The effective capabilities.
    pub capabilities: u64,
    /// /sys/kernel/btf/vmlinux is there.
    pub btf: bool,
    /// The kernel's release.
    pub release: String,
    /// The mode in /sys/kernel/security/lockdown.
    pub lockdown: Option<String>,
}

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

impl Facts {
    /// Whether the programs that need CAP_NET_ADMIN may be loaded.
    pub fn net_admin(&self) -> bool {
        self.has(CAP_NET_ADMIN)
    }

    /// CAP_SYS_ADMIN still stands for all that BPF was divided into.
    fn has(&self, capability: u64) -> bool {
        self.capabilities & (capability | CAP_SYS_ADMIN) != 0
    }
}

/// Name what is missing. An error of another kind stays what it is.
pub fn explain(error: Error, facts: &Facts, probes: Probes) -> Error {
    if let Some(reason) = reason(facts) {
        return anyhow!(reason);
    }
    let what = match probes {
        Probes::Trampoline if refuses_trampolines(&error) => {
            "the kernel takes no BPF trampolines: use --probes tracepoint, or auto"
        }
        _ if is_denied(&error) => {
            "the kernel refuses the BPF programs although the capabilities are there: see --verbose, and \
             look for a security module's denial in the kernel log"
        }
        _ => "cannot attach the probes",
    };
    error.context(what)
}

fn reason(facts: &Facts) -> Option<String> {
    let missing: Vec<&str> = [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .iter()
        .filter(|(capability, _)| !facts.has(*capability))
        .map(|(_, name)| *name)
        .collect();
    if !missing.is_empty() {
        return Some(format!("needs {}: try sudo", missing.join(" and ")));
    }
    if !facts.btf {
        return Some(
            "the kernel has no type information (/sys/kernel/btf/vmlinux is missing): \
             it must be built with CONFIG_DEBUG_INFO_BTF=y"
                .to_owned(),
        );
    }
    if facts.lockdown.as_deref() == Some("confidentiality") {
        return Some(
            "kernel lockdown is in confidentiality mode, where BPF may not read kernel memory: \
             boot with lockdown=integrity or none"
                .to_owned(),
        );
    }
    if older_than_5_15(&facts.release) {
        return Some(format!("Linux 5.15 or newer is needed, this is {}", facts.release));
    }
    None
}

fn older_than_5_15(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < (5, 15),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            capabilities: CAP_BPF | CAP_PERFMON,
            btf: true,
            release: "6.1.0-50-cloud-amd64".to_owned(),
            lockdown: Some("none".to_owned()),
        }
    }

    #[test]
    fn names_what_is_missing() {
        let reason = |facts: Facts| reason(&facts).unwrap_or_default();
        assert_eq!(reason(Facts { capabilities: 0, ..facts() }), "needs CAP_BPF and CAP_PERFMON: try sudo");
        assert_eq!(reason(Facts { capabilities: CAP_BPF, ..facts() }), "needs CAP_PERFMON: try sudo");
        assert!(reason(Facts { btf: false, ..facts() }).contains("CONFIG_DEBUG_INFO_BTF"));
        let locked = Some("confidentiality".to_owned());
        assert!(reason(Facts { lockdown: locked, ..facts() }).contains("lockdown=integrity"));
        let old = "5.10.0-9-amd64".to_owned();
        assert_eq!(
            reason(Facts { release: old, ..facts() }),
            "Linux 5.15 or newer is needed, this is 5.10.0-9-amd64"
        );
        assert_eq!(reason(facts()), "");
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert!(older_than_5_15("5.10.0"));
        assert!(older_than_5_15("4.19"));
        assert!(!older_than_5_15("5.15.135"));
        assert!(!older_than_5_15("6.1.0-50-cloud-amd64"));
        assert!(!older_than_5_15("10.0"));
        assert!(!older_than_5_15("garbage"));
    }
}
