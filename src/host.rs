//! Facts about this machine: clocks, capabilities, mounts, /proc.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use terminal_size::{Height, Width};

use crate::{
    event::{BootTime, Container, Process},
    process::procfs,
};

use containers::reader::Reader;
use sudo_user::SudoUser;

pub mod command;
pub mod containers;
mod facts;
mod netns;
pub mod ready;
pub mod sandbox;
pub mod sudo_user;

pub use facts::{
    CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE, Facts, facts, has_bpf_capability,
    ignores, kernel_version,
};
pub use netns::{Netns, network_namespaces};

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// The number of characters per line.
    pub columns: usize,
    /// The number of lines.
    pub rows: usize,
}

/// What a session needs to know about the machine; tests provide their own implementation.
pub trait Host {
    /// Add this to a boot time to get nanoseconds since 1970. It changes when the clock is set.
    fn wall_offset(&self) -> i128;
    /// The current time on the clock of kernel records.
    fn boot_time(&self) -> BootTime;
    /// The arguments of a process, if it is still the same process.
    fn args(&self, process: &Process) -> Option<String>;
    /// The names of the container with this id.
    fn container(&self, id: &str) -> Option<Rc<Container>>;
}

/// The machine tcptrace runs on.
pub struct Machine<F> {
    is_current: F,
    containers: Reader,
    boot_offset: i128,
}

impl<F> Machine<F> {
    /// `is_current`: whether a process has not called exec since its record was made; `containers`: looks up container
    /// names.
    pub fn new(is_current: F, containers: Reader) -> Machine<F> {
        Machine { is_current, containers, boot_offset: facts::boot_offset() }
    }
}

/// The current time on the clock of kernel records.
pub fn boot_time() -> BootTime {
    BootTime(u64::try_from(since_boot(facts::boot_offset())).unwrap_or_default())
}

/// Nanoseconds since boot on the kernel's clock, not in our time namespace.
fn since_boot(boot_offset: i128) -> i128 {
    i128::from(nanoseconds(ClockId::CLOCK_BOOTTIME)) - boot_offset
}

impl<F: Fn(&Process) -> bool> Host for Machine<F> {
    fn wall_offset(&self) -> i128 {
        i128::from(nanoseconds(ClockId::CLOCK_REALTIME)) - since_boot(self.boot_offset)
    }

    fn boot_time(&self) -> BootTime {
        BootTime(u64::try_from(since_boot(self.boot_offset)).unwrap_or_default())
    }

    fn args(&self, process: &Process) -> Option<String> {
        procfs::args(process, self.boot_offset, &self.is_current)
    }

    fn container(&self, id: &str) -> Option<Rc<Container>> {
        self.containers.container(id)
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from).as_nanos() as u64
}

/// The user who called sudo, if we run as root through sudo.
pub fn invoker() -> Option<SudoUser> {
    let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (passwd, group) = (text("/etc/passwd").unwrap_or_default(), text("/etc/group").unwrap_or_default());
    let invoker = SudoUser::new(|name| std::env::var_os(name), &passwd, &group)?;
    nix::unistd::geteuid().is_root().then_some(invoker)
}

/// Whether we are in a PID namespace, where process numbers differ from the host's (pid_namespaces(7)).
pub fn in_pid_namespace() -> bool {
    /// From include/linux/proc_ns.h.
    const PROC_PID_INIT_INO: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|own| own.ino() != PROC_PID_INIT_INO)
}

/// The mount point of cgroup2, if it is mounted.
pub fn cgroup2_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let whole = mount.split(' ').nth(3)? == "/";
        (whole && kind.starts_with("cgroup2 ")).then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The size of a terminal.
pub fn terminal_size(of: impl AsFd) -> Option<TerminalSize> {
    let (Width(columns), Height(rows)) = terminal_size::terminal_size_of(of)?;
    Some(TerminalSize { columns: columns.into(), rows: rows.into() })
}

/// Whether the locale uses UTF-8, from the environment variables in locale(7).
pub fn shows_utf8() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The hostname from uname(2), or an empty string.
pub fn name() -> String {
    nix::sys::utsname::uname().map(|name| name.nodename().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The machine id of this installation (machine-id(5)), if there is one.
pub fn machine_id() -> Option<String> {
    let text = fs::read_to_string("/etc/machine-id").ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// All capabilities known to this kernel, one bit each.
pub fn all_capabilities() -> u64 {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    let last: u32 = last.and_then(|text| text.trim().parse().ok()).unwrap_or(40);
    u64::MAX >> (63 - last.min(63))
}
