//! Explains why the kernel refused to load the programs, in one line with the remedy: a policy, a missing feature, or
//! its verifier.

use std::fmt;

use anyhow::{Error, Result, anyhow, ensure};
use libbpf_rs::ErrorKind;

use crate::{
    cli::Probes,
    host::{CAP_BPF, CAP_PERFMON, Facts},
};

/// The verifier has rejected one of the programs, which is a bug.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejection {
    program: String,
}

impl Rejection {
    /// The program with this name was rejected.
    pub fn of(program: &str) -> Self {
        Rejection { program: program.to_owned() }
    }

    /// Finds a rejection in libbpf's log. The verifier returns the same errno as a policy, but only it writes a log of
    /// the program.
    pub fn find(log: &str) -> Option<Self> {
        let (before, after) = log.split_once("': BPF program load failed")?;
        let (_, program) = before.rsplit_once("prog '")?;
        let reasons = format!("prog '{program}': -- BEGIN PROG LOAD LOG --");
        after.contains(&reasons).then(|| Rejection::of(program))
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        write!(
            f,
            "the BPF verifier rejected program {program}; this is a bug, please report the output of --verbose"
        )
    }
}

impl std::error::Error for Rejection {}

/// ENOTSUPP: no trampolines on this architecture or configuration. ESRCH, ENOENT: the function to hook does not exist.
/// EBUSY: something else has patched it.
pub fn refuses_trampolines(error: &anyhow::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    is_denied(error)
        || error.is::<Rejection>()
        || kind_of(error) == Some(ErrorKind::NotFound)
        || errno_of(error)
            .is_some_and(|raw| [libc::ESRCH, libc::ENOENT, libc::EBUSY, ENOTSUPP].contains(&raw))
}

/// Whether a capability is missing, or a policy forbids it.
pub fn is_denied(error: &anyhow::Error) -> bool {
    kind_of(error) == Some(ErrorKind::PermissionDenied)
        || errno_of(error).is_some_and(|raw| [libc::EPERM, libc::EACCES].contains(&raw))
}

fn kind_of(error: &anyhow::Error) -> Option<ErrorKind> {
    error.downcast_ref::<libbpf_rs::Error>().map(libbpf_rs::Error::kind)
}

/// The errno at the root of an error, if there is one.
fn errno_of(error: &anyhow::Error) -> Option<i32> {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error))
}

/// Megabytes needed besides the ring: for the maps, for loading two programs at a time, and in user space. Measured: 36,
/// or 44 with `-e all`.
const NEEDED_MB: u64 = 48;

/// Checks the memory limit of our cgroup: later, the kernel could kill us without a message.
///
/// # Errors
/// When the limit is too low.
pub fn check_memory(facts: &Facts, ring_size: u32) -> Result<()> {
    let needed = (NEEDED_MB << 20) + u64::from(ring_size);
    if let Some(limit) = facts.memory_limit {
        ensure!(
            limit >= needed,
            "this cgroup is limited to {} MB of memory; {}",
            limit >> 20,
            more(ring_size)
        );
    }
    Ok(())
}

fn more(ring_size: u32) -> String {
    let ring_mb = u64::from(ring_size).div_ceil(1 << 20);
    format!(
        "tcptrace needs {} MB, of which --ring-size is {ring_mb}: reduce --ring-size, raise the limit, or run it outside \
         the cgroup",
        NEEDED_MB + ring_mb
    )
}

/// Replaces a load error by an explanation of what is missing, if that is known.
pub fn explain(error: Error, facts: &Facts, probes: Probes, ring_size: u32) -> Error {
    if let Some(reason) = reason(facts) {
        return anyhow!(reason);
    }
    let what = match probes {
        Probes::Trampoline if refuses_trampolines(&error) => {
            "this kernel does not allow BPF trampolines (fentry/fexit); use --probes tracepoint or auto"
        }
        _ if errno_of(&error) == Some(libc::ENOMEM) => {
            let more = more(ring_size);
            return error.context(format!("the kernel or this cgroup has no memory left; {more}"));
        }
        _ if is_denied(&error) => {
            "the kernel rejected the BPF programs although CAP_BPF and CAP_PERFMON are present; rerun with \
             --verbose and check the kernel log for denials by a security module"
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
        return Some(format!("Linux 5.15 or newer is required; this is {}", facts.release));
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

    #[test]
    fn verifier_rejections_are_distinguished_from_policies() {
        let loaded = "libbpf: prog 'on_exec': -- BEGIN PROG LOAD LOG --\nprocessed 9 insns\n";
        let failed = "libbpf: prog 'on_state': BPF program load failed: -EACCES\n";
        let reasons = "libbpf: prog 'on_state': -- BEGIN PROG LOAD LOG --\n\
                       combined stack size of 5 calls is 544. Too large\n";
        let of = |parts: &[&str]| Rejection::find(&parts.concat());
        assert_eq!(of(&[loaded, failed, reasons]), Some(Rejection { program: "on_state".to_owned() }));
        assert_eq!(of(&[loaded, failed]), None);
        assert_eq!(of(&[loaded]), None);
        assert_eq!(of(&[]), None);
    }

    fn facts() -> Facts {
        Facts {
            capabilities: CAP_BPF | CAP_PERFMON,
            btf: true,
            release: "6.1.0-50-cloud-amd64".to_owned(),
            lockdown: Some("none".to_owned()),
            memory_limit: None,
        }
    }

    #[test]
    fn explains_a_memory_limit() {
        let check = |limit, ring| check_memory(&Facts { memory_limit: limit, ..facts() }, ring);
        assert!(check(None, 1 << 30).is_ok() && check(Some(80 << 20), 32 << 20).is_ok());
        assert_eq!(
            check(Some(48 << 20), 32 << 20).expect_err("too little").to_string(),
            "this cgroup is limited to 48 MB of memory; tcptrace needs 80 MB, of which --ring-size is 32: reduce \
             --ring-size, raise the limit, or run it outside the cgroup"
        );
        let error = std::io::Error::from_raw_os_error(libc::ENOMEM);
        let said = explain(error.into(), &facts(), Probes::Auto, 64 << 10).to_string();
        assert!(
            said.starts_with("the kernel or this cgroup has no memory left; ") && said.contains(" 49 MB")
        );
    }

    #[test]
    fn reports_what_is_missing() {
        let reason = |facts: Facts| reason(&facts).unwrap_or_default();
        assert_eq!(reason(Facts { capabilities: 0, ..facts() }), "needs CAP_BPF and CAP_PERFMON: try sudo");
        assert_eq!(reason(Facts { capabilities: CAP_BPF, ..facts() }), "needs CAP_PERFMON: try sudo");
        assert!(reason(Facts { btf: false, ..facts() }).contains("CONFIG_DEBUG_INFO_BTF"));
        let locked = Some("confidentiality".to_owned());
        assert!(reason(Facts { lockdown: locked, ..facts() }).contains("lockdown=integrity"));
        let old = "5.10.0-9-amd64".to_owned();
        assert_eq!(
            reason(Facts { release: old, ..facts() }),
            "Linux 5.15 or newer is required; this is 5.10.0-9-amd64"
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
