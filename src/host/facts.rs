//! What could keep this machine from being traced, or changes how.

use std::{fs, path::Path};

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

/// See capabilities(7).
pub const CAP_NET_ADMIN: u64 = 1 << 12;
/// See capabilities(7).
pub const CAP_SYS_ADMIN: u64 = 1 << 21;
/// See capabilities(7).
pub const CAP_PERFMON: u64 = 1 << 38;
/// See capabilities(7).
pub const CAP_BPF: u64 = 1 << 39;

impl Facts {
    /// Whether the programs that need CAP_NET_ADMIN may be loaded.
    pub fn net_admin(&self) -> bool {
        self.has(CAP_NET_ADMIN)
    }

    /// CAP_SYS_ADMIN still stands for all that BPF was divided into.
    pub fn has(&self, capability: u64) -> bool {
        self.capabilities & (capability | CAP_SYS_ADMIN) != 0
    }
}

/// The kernel's release.
fn release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// What could keep this machine from being traced.
pub fn facts() -> Facts {
    Facts {
        capabilities: effective_capabilities(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        release: release(),
        lockdown: lockdown_mode(),
    }
}

/// Nanoseconds that CLOCK_BOOTTIME is ahead of the kernel's, in this time namespace.
pub fn boot_offset() -> i128 {
    // Not there before Linux 5.6, which had no such namespaces.
    let text = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    boot_offset_in(&text).unwrap_or_default()
}

fn boot_offset_in(text: &str) -> Option<i128> {
    let mut numbers = text.lines().find_map(|line| line.strip_prefix("boottime"))?.split_whitespace();
    let mut number = || numbers.next()?.parse::<i128>().ok();
    Some(number()? * 1_000_000_000 + number()?)
}

fn effective_capabilities() -> u64 {
    mask("CapEff:")
}

/// Whether a signal is ignored, as nohup(1) and shells without job control have it.
pub fn ignores(signal: i32) -> bool {
    (1..=64).contains(&signal) && mask("SigIgn:") >> (signal - 1) & 1 == 1
}

/// A line of /proc/self/status.
fn mask(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix(name));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

/// The word in brackets of `none [integrity] confidentiality`.
fn lockdown_mode() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = modes.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_a_time_namespace() {
        let text = "monotonic           5         0\nboottime      -86400       500\n";
        assert_eq!(boot_offset_in(text), Some(-86_399_999_999_500));
        assert_eq!(boot_offset_in(""), None);
    }
}
