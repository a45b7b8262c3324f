//! What only this machine knows: clocks, capabilities, mounts, /proc.

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

pub use facts::{CAP_BPF, CAP_PERFMON, Facts, facts, ignores};
pub use netns::{Netns, network_namespaces};

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// What the core asks of the machine; a test answers in its place.
pub trait Host {
    /// Add this to a boot time for nanoseconds since 1970. Changes when the clock is set.
    fn wall_offset(&self) -> i128;
    /// The kernel's time in records.
    fn boot_time(&self) -> BootTime;
    /// The arguments of a process, if it is still the one that is meant.
    fn args(&self, process: &Process) -> Option<String>;
    /// What the container with this id is called.
    fn container(&self, id: &str) -> Option<Rc<Container>>;
}

/// The machine tcptrace runs on.
pub struct Machine<F> {
    is_current: F,
    containers: Reader,
    boot_offset: i128,
}

impl<F> Machine<F> {
    /// `is_current`: whether a process has exec'd nothing since its record was made; `containers`: who knows their names.
    pub fn new(is_current: F, containers: Reader) -> Machine<F> {
        Machine { is_current, containers, boot_offset: facts::boot_offset() }
    }
}

/// The kernel's time in records.
pub fn boot_time() -> BootTime {
    BootTime(u64::try_from(since_boot(facts::boot_offset())).unwrap_or_default())
}

/// Nanoseconds since boot, of the kernel and not of our time namespace.
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

/// Who called sudo, if someone did and that gave us root.
pub fn invoker() -> Option<SudoUser> {
    let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (passwd, group) = (text("/etc/passwd").unwrap_or_default(), text("/etc/group").unwrap_or_default());
    let invoker = SudoUser::new(|name| std::env::var_os(name), &passwd, &group)?;
    nix::unistd::geteuid().is_root().then_some(invoker)
}

/// Whether processes have other numbers here than on the host (pid_namespaces(7)).
pub fn in_pid_namespace() -> bool {
    /// include/linux/proc_ns.h
    const PROC_PID_INIT_INO: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|own| own.ino() != PROC_PID_INIT_INO)
}

/// Where cgroup2 is mounted, or none.
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

/// Whether text is UTF-8 here, by the variables of locale(7).
pub fn shows_utf8() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The host's name.
pub fn name() -> String {
    nix::sys::utsname::uname().map(|name| name.nodename().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The id of this installation (machine-id(5)), or none.
pub fn machine_id() -> Option<String> {
    let text = fs::read_to_string("/etc/machine-id").ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// All capabilities this kernel knows, one bit each.
pub fn all_capabilities() -> u64 {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    let last: u32 = last.and_then(|text| text.trim().parse().ok()).unwrap_or(40);
    u64::MAX >> (63 - last.min(63))
}
