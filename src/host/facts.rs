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
    /// The memory limit of our cgroup or its ancestors, in bytes.
    pub memory_limit: Option<u64>,
}

/// Bit of CAP_NET_ADMIN, see capabilities(7).
pub const CAP_NET_ADMIN: u64 = 1 << 12;
/// Bit of CAP_SYS_PTRACE, see capabilities(7).
pub const CAP_SYS_PTRACE: u64 = 1 << 19;
/// Bit of CAP_SYS_ADMIN, see capabilities(7).
pub const CAP_SYS_ADMIN: u64 = 1 << 21;
/// Bit of CAP_PERFMON, see capabilities(7).
pub const CAP_PERFMON: u64 = 1 << 38;
/// Bit of CAP_BPF, see capabilities(7).
pub const CAP_BPF: u64 = 1 << 39;

impl Facts {
    /// Whether a BPF capability is held; CAP_SYS_ADMIN includes them all.
    pub fn has(&self, capability: u64) -> bool {
        has_bpf_capability(self.capabilities, capability)
    }
}

/// Whether a BPF capability is in a set; CAP_SYS_ADMIN includes them all.
pub fn has_bpf_capability(set: u64, capability: u64) -> bool {
    set & (capability | CAP_SYS_ADMIN) != 0
}

/// The kernel release, as in `uname -r`.
fn release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The first two numbers of the kernel release; zeros if it has none.
pub fn kernel_version() -> (u32, u32) {
    version_of(&release())
}

fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Collects the facts about this machine.
pub fn facts() -> Facts {
    Facts {
        capabilities: effective_capabilities(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        release: release(),
        lockdown: lockdown_mode(),
        memory_limit: memory_limit(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup")),
    }
}

/// How many nanoseconds CLOCK_BOOTTIME is ahead of the kernel's clock in this time namespace.
pub fn boot_offset() -> i128 {
    // Does not exist before Linux 5.6, which had no time namespaces.
    boot_offset_in(&read("/proc/self/timens_offsets")).unwrap_or_default()
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

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A hexadecimal mask in /proc/self/status.
fn mask(name: &str) -> u64 {
    let status = read("/proc/self/status");
    let hex = status.lines().find_map(|line| line.strip_prefix(name));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

/// The lowest limit, in bytes, from our cgroup up to the root of its hierarchy, of either version.
fn memory_limit(root: &Path, groups: &str) -> Option<u64> {
    let limit = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (hierarchy, file) = match fields.next()? {
            "" => (root.to_owned(), "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let groups = Path::new(fields.next()?.strip_prefix('/')?).ancestors();
        let limits = groups.map(|group| fs::read_to_string(hierarchy.join(group).join(file)));
        limits.filter_map(|text| text.ok()?.trim().parse().ok()).min()
    };
    groups.lines().filter_map(limit).min()
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
    fn versions_have_two_numbers() {
        for (release, version) in [
            ("6.18.5-amd64", (6, 18)),
            ("7.0-rc1", (7, 0)),
            ("5.15.0", (5, 15)),
            ("6", (6, 0)),
            ("", (0, 0)),
            ("x.y", (0, 0)),
        ] {
            assert_eq!(version_of(release), version, "{release}");
        }
    }

    #[test]
    fn the_lowest_memory_limit_applies() {
        let root = tempfile::tempdir().expect("a folder");
        for (group, limit) in [
            ("memory/docker/web/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/docker/memory.limit_in_bytes", "50331648"),
            ("a.slice/b/memory.max", "max"),
            ("a.slice/memory.max", "67108864"),
        ] {
            let path = root.path().join(group);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            fs::write(path, format!("{limit}\n")).expect("write");
        }
        let limit = |groups| memory_limit(root.path(), groups);
        assert_eq!(limit("4:cpu,memory:/docker/web\n0::/\n"), Some(48 << 20));
        assert_eq!(limit("0::/a.slice/b\n"), Some(64 << 20));
        // of the host, whose cgroups are not visible here
        assert_eq!(limit("0::/../c\n9:name=systemd:/x\n"), None);
    }

    #[test]
    fn offsets_of_a_time_namespace() {
        let text = "monotonic           5         0\nboottime      -86400       500\n";
        assert_eq!(boot_offset_in(text), Some(-86_399_999_999_500));
        assert_eq!(boot_offset_in(""), None);
    }
}
