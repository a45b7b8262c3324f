//! Properties of this machine that prevent or limit tracing.

use std::{fs, path::Path};

/// Properties of this machine that prevent or limit tracing.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The effective capabilities, one bit each.
    pub capabilities: u64,
    /// Whether the kernel has BTF (/sys/kernel/btf/vmlinux exists).
    pub btf: bool,
    /// The kernel release, as in `uname -r`.
    pub release: String,
    /// The active mode in /sys/kernel/security/lockdown.
    pub lockdown: Option<String>,
}

/// Bit of CAP_NET_ADMIN, see capabilities(7).
pub const CAP_NET_ADMIN: u64 = 1 << 12;
/// Bit of CAP_SYS_ADMIN, see capabilities(7).
pub const CAP_SYS_ADMIN: u64 = 1 << 21;
/// Bit of CAP_PERFMON, see capabilities(7).
pub const CAP_PERFMON: u64 = 1 << 38;
/// Bit of CAP_BPF, see capabilities(7).
pub const CAP_BPF: u64 = 1 << 39;

impl Facts {
    /// Whether programs that need CAP_NET_ADMIN may be loaded.
    pub fn net_admin(&self) -> bool {
        self.has(CAP_NET_ADMIN)
    }

    /// Whether a BPF capability is held; CAP_SYS_ADMIN includes them all.
    pub fn has(&self, capability: u64) -> bool {
        self.capabilities & (capability | CAP_SYS_ADMIN) != 0
    }
}

/// The kernel release, as in `uname -r`.
fn release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Collects the facts about this machine.
pub fn facts() -> Facts {
    Facts {
        capabilities: effective_capabilities(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        release: release(),
        lockdown: lockdown_mode(),
    }
}

/// How many nanoseconds CLOCK_BOOTTIME is ahead of the kernel's clock in this time namespace.
pub fn boot_offset() -> i128 {
    // Does not exist before Linux 5.6, which had no time namespaces.
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

/// Whether a signal is ignored, as with nohup(1) and in background jobs of shells without job control.
pub fn ignores(signal: i32) -> bool {
    (1..=64).contains(&signal) && mask("SigIgn:") >> (signal - 1) & 1 == 1
}

/// A hexadecimal mask in /proc/self/status.
fn mask(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix(name));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

/// The word in brackets in `none [integrity] confidentiality`.
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
